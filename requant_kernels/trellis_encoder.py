"""Makes trellis weights: the closed walk of states closest to every 256 values, by the Viterbi search of the C++
extension, and plain rounding of a whole weight with it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from requant_kernels.backends import cpu
from requant_kernels.formats import trellis
from requant_kernels.formats.storage import check
from requant_kernels.formats.trellis import TILE_VALUES, VALUES_PER_STEP, TrellisWeight

CODE_SHARE = 0.9
"""Weights are scaled to this share of the code's root mean square (QTIP's default): outer states are rare."""

SEQUENCES_AT_ONCE = 1024
"""Of one call into the extension, which cannot be interrupted: about a second of two cores."""

SMALLEST_SCALE = 1e-8


def encode(sequences: Tensor, bits: int, code: str, codebook: Tensor | None = None) -> Tensor:
    """The states, int32 [count, 256 / V], whose values come closest to each of `sequences`, fp32 [count, 256].

    Raises RuntimeError without the C++ extension, and ValueError on unsupported arguments.
    """
    check("bits", bits, TrellisWeight.supported_bits)
    if sequences.ndim != 2 or sequences.shape[1] != TILE_VALUES or not bool(sequences.isfinite().all()):
        raise ValueError(f"sequences must be finite and of shape [count, {TILE_VALUES}], got {list(sequences.shape)}")
    if cpu.UNAVAILABLE_REASON is not None:
        raise RuntimeError(f"encoding to format trellis needs the C++ encoder: {cpu.UNAVAILABLE_REASON}")
    values = trellis.code_values(code, codebook).cpu().contiguous()
    targets = sequences.to("cpu", torch.float32).contiguous()
    values_per_step = VALUES_PER_STEP[code]
    states = torch.empty((targets.shape[0], TILE_VALUES // values_per_step), dtype=torch.uint16)
    for begin in range(0, targets.shape[0], SEQUENCES_AT_ONCE):
        part = targets[begin : begin + SEQUENCES_AT_ONCE]
        cpu._cpu.viterbi(
            cpu.selected_instruction_set(),
            part.data_ptr(),
            part.shape[0],
            values.data_ptr(),
            bits * values_per_step,
            values_per_step,
            states[begin:].data_ptr(),
            torch.get_num_threads(),
        )
    return states.to(torch.int32).to(sequences.device)


def round_to_trellis(
    weight: Tensor,
    *,
    bits: int,
    code: str = "1mad",
    keep_mask: Tensor | None = None,
    seed: int = 0,
    scale_dtype: torch.dtype = torch.bfloat16,
) -> TrellisWeight:
    """Rounds weight fp32 [out, in] with random signs and a scale per rotated row, and no calibration.

    Positions of `keep_mask` (bool [out, in]) will live in the sparse part: they count as zero here, since the rotation
    would spread a large one over its row and column.
    """
    generator = torch.Generator().manual_seed(seed)
    input_signs, output_signs = (
        (torch.randint(0, 2, (size,), generator=generator) * 2 - 1).to(weight.device) for size in reversed(weight.shape)
    )
    dense = weight if keep_mask is None else weight.masked_fill(keep_mask, 0)
    rotated = trellis.rotate(dense.float(), input_signs, output_signs)
    codebook = gaussian_codebook(seed).to(weight.device) if code == "hyb" else None
    code_size = trellis.code_values(code, codebook).square().mean().sqrt().to(weight.device)
    size = rotated.square().mean(dim=1).sqrt()
    scale = (size / (code_size * CODE_SHARE)).clamp_min(SMALLEST_SCALE).to(scale_dtype)
    tiles = trellis.to_tiles(rotated / scale.float().unsqueeze(1))
    states = encode(tiles.flatten(0, 1), bits, code, codebook).unflatten(0, tiles.shape[:2])
    return TrellisWeight.pack(states, scale, input_signs, output_signs, codebook, bits=bits, code=code)


def gaussian_codebook(seed: int = 0, *, samples: int = 2**15, rounds: int = 20) -> Tensor:
    """A codebook fp32 [512, 2] for `hyb`: centroids of two-dimensional Gaussian samples (Lloyd's algorithm). The code
    negates the first value of half of its states, so samples have a positive one.
    """
    generator = torch.Generator().manual_seed(seed)
    points = torch.randn(samples, 2, generator=generator)
    points[:, 0].abs_()
    centroids = points[: trellis.CODEBOOK_SHAPE[0]].clone()
    for _ in range(rounds):
        nearest = torch.cdist(points, centroids).argmin(dim=1)
        counts = torch.bincount(nearest, minlength=centroids.shape[0]).clamp_min(1).unsqueeze(1)
        centroids = torch.zeros_like(centroids).index_add_(0, nearest, points) / counts
    return centroids
