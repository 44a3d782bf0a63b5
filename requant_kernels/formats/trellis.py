"""Dense format `trellis`: 16-bit states that walk along a bitshift trellis, a value computed from each (QTIP,
arXiv 2406.11235), in a basis in which the weight looks Gaussian.

    W = diag(output_signs) H_out diag(scale) C H_in diag(input_signs)            cut to [out_features, in_features]

C [out_padded, in_padded] holds the values of the code; sizes are padded to multiples of 16, H is
`hadamard.hadamard_transform` of the padded sizes, signs are +1 or -1, and scale belongs to the rows of C.

C is cut into tiles of 16 x 16. A tile is one sequence of 256 values, row by row. A step emits V values, and its state
is the last 16 bits of a stream to which every step appends `bits` * V bits, first bits highest:

    state' = (state << bits * V | new bits) mod 2^16             V = 1 for codes 1mad and 3inst, 2 for hyb

The stream is a ring (tail-biting): before the first bits of row 0 stand the last bits of row 15, so that a tile is
exactly 256 * bits bits, and any state can be read without its predecessors.

Packed, the 16 * bits bits of every row of a tile stand as one number, first bits highest, in planes:

    bits   plane 0: 16 dwords           plane 1
    2      bits 31..0 of the number     -                                 64 bytes
    3      bits 47..16                  16 words: bits 15..0              96 bytes
    4      bits 63..32                  16 dwords: bits 31..0            128 bytes

                     row 0     row 1           row 15  | row 0  ...
        plane 0    | dword   | dword   |  ... | dword  | plane 1 ...       little-endian

so a register of 16 dwords holds one row per lane, the same register rotated by one lane the bits before them, and one
shift gives the states of one column for 16 rows at once, to be multiplied by one x. Tiles of 16 rows follow each other,
then come the next 16 rows:

    codes: int32 [out_padded / 16, in_padded / 16 * 8 * bits]
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from requant_kernels.formats import tile16
from requant_kernels.formats.hadamard import hadamard_transform
from requant_kernels.formats.storage import FLOAT_DTYPES, bits_per_weight, check, named_tensors, stored_bytes

TILE = 16
TILE_VALUES = TILE * TILE
STATE_BITS = 16
STATES = 2**STATE_BITS
CODEBOOK_SHAPE = (512, 2)
VALUES_PER_STEP = {"1mad": 1, "3inst": 1, "hyb": 2}
CODES = tuple(VALUES_PER_STEP)


def padded_shape(out_features: int, in_features: int) -> tuple[int, int]:
    """(out_padded, in_padded) of a weight of this logical shape."""
    return tile16.round_up(out_features, TILE), tile16.round_up(in_features, TILE)


def packed_shape(out_features: int, in_features: int, bits: int) -> tuple[int, int]:
    """Shape of the int32 tensor `codes`: one row per 16 rows of the weight."""
    out_padded, in_padded = padded_shape(out_features, in_features)
    return out_padded // TILE, in_padded // TILE * 8 * bits


def code_values(code: str, codebook: Tensor | None = None, device: torch.device | None = None) -> Tensor:
    """fp32 [65536, V]: the values that each state emits. `codebook` is given for `hyb` and for nothing else.

    1mad    x = 34038481 state + 76625530 mod 2^32; (sum of the four bytes of x - 510) / 147.800537109375
    3inst   x = 89226354 state + 64248484 mod 2^32; the sum of the two fp16 halves of (x & 0x8fff8fff) ^ 0x3b603b60
    hyb     x = (state + 1) state mod 2^32; codebook row (x >> 6) mod 512, its first value negated if x has bit 15
    """
    check("code", code, CODES)
    if (codebook is not None) != (code == "hyb"):
        raise ValueError(f"codebook must be given for code hyb and for no other, got code {code}")
    state = torch.arange(STATES, device=device)
    if codebook is not None:
        if tuple(codebook.shape) != CODEBOOK_SHAPE:
            raise ValueError(f"codebook must have shape {list(CODEBOOK_SHAPE)}, got {list(codebook.shape)}")
        x = (state + 1) * state
        pairs = codebook.to(state.device, torch.float32)[x >> 6 & 511]
        return torch.stack((torch.where(x >> 15 & 1 == 1, -pairs[:, 0], pairs[:, 0]), pairs[:, 1]), dim=1)
    if code == "1mad":
        x = 34038481 * state + 76625530 & 0xFFFFFFFF
        total = torch.stack([x >> shift & 255 for shift in (0, 8, 16, 24)]).sum(dim=0)
        return ((total - 510).float() / 147.800537109375).unsqueeze(1)
    x = (89226354 * state + 64248484 & 0x8FFF8FFF) ^ 0x3B603B60
    halves = torch.stack((x & 0xFFFF, x >> 16), dim=1)
    halves = torch.where(halves >= 2**15, halves - 2**16, halves).to(torch.int16).view(torch.float16)
    return halves.float().sum(dim=1, keepdim=True)


def pack_states(states: Tensor, bits: int) -> Tensor:
    """Packs states [row tiles, column tiles, 256 / V] (any integer dtype) into int32 `codes`.

    Raises ValueError if the states of a tile are not a closed walk along the trellis.
    """
    states = states.long()
    values_per_step = TILE_VALUES // states.shape[-1]
    step_bits = bits * values_per_step
    kept = 2 ** (STATE_BITS - step_bits) - 1
    if bool(((states >> step_bits) != (states.roll(1, dims=-1) & kept)).any()):
        raise ValueError(f"states must be closed walks along the trellis of {step_bits} bits per step")
    symbols = (states & (2**step_bits - 1)).unflatten(-1, (TILE, TILE // values_per_step))
    shifts = torch.arange(symbols.shape[-1] - 1, -1, -1, device=states.device) * step_bits
    numbers = (symbols << shifts).sum(dim=-1)  # of 64 bits at most: the sum may wrap into the sign
    if bits == 2:
        planes = [_bytes_of(numbers, 4)]
    else:
        low_bits = STATE_BITS * bits - 32
        planes = [_bytes_of(numbers >> low_bits, 4), _bytes_of(numbers, low_bits // 8)]
    return torch.cat(planes, dim=-1).flatten(1).view(torch.int32)


def unpack_states(codes: Tensor, bits: int, values_per_step: int) -> Tensor:
    """The inverse of `pack_states`: int32 [row tiles, column tiles, 256 / V]."""
    raw = codes.contiguous().view(torch.uint8).view(codes.shape[0], -1, 32 * bits).long()
    numbers = _number_of(raw[..., :64], 4)
    if bits > 2:
        low_bits = STATE_BITS * bits - 32
        numbers = numbers << low_bits | _number_of(raw[..., 64:], low_bits // 8)
    before = numbers.roll(1, dims=-1)
    step_bits, row_bits = bits * values_per_step, STATE_BITS * bits
    states = []
    for end in range(step_bits, row_bits + 1, step_bits):
        own = numbers >> (row_bits - end)
        states.append(own if end >= STATE_BITS else before << end | own & (2**end - 1))
    return (torch.stack(states, dim=-1) & (STATES - 1)).flatten(-2).to(torch.int32)


def _bytes_of(numbers: Tensor, count: int) -> Tensor:
    """The lowest `count` bytes of every number, lowest first: [..., 16] -> uint8 [..., 16 * count]."""
    shifts = torch.arange(count, device=numbers.device) * 8
    return (numbers.unsqueeze(-1) >> shifts & 255).to(torch.uint8).flatten(-2)


def _number_of(raw: Tensor, count: int) -> Tensor:
    """The inverse of `_bytes_of`, of int64 bytes."""
    shifts = torch.arange(count, device=raw.device) * 8
    return (raw.unflatten(-1, (TILE, count)) << shifts).sum(dim=-1)


def to_tiles(values: Tensor) -> Tensor:
    """[out_padded, in_padded] -> sequences [row tiles, column tiles, 256]."""
    rows, columns = values.shape
    return values.view(rows // TILE, TILE, columns // TILE, TILE).transpose(1, 2).flatten(2)


def from_tiles(sequences: Tensor) -> Tensor:
    """The inverse of `to_tiles`."""
    tiles = sequences.unflatten(2, (TILE, TILE)).transpose(1, 2)
    return tiles.reshape(tiles.shape[0] * TILE, -1)


def rotate(weight: Tensor, input_signs: Tensor, output_signs: Tensor) -> Tensor:
    """H_out diag(output_signs) W diag(input_signs) H_in of a weight [out, in] padded with zeros: what C must hold,
    times its scale.
    """
    out_features, in_features = weight.shape
    padded = weight.new_zeros(padded_shape(out_features, in_features))
    padded[:out_features, :in_features] = output_signs.to(weight).unsqueeze(1) * weight * input_signs.to(weight)
    return hadamard_transform(hadamard_transform(padded).T).T


def rotate_back(rotated: Tensor, input_signs: Tensor, output_signs: Tensor) -> Tensor:
    """The inverse of `rotate`, cut to the logical shape."""
    weight = hadamard_transform(hadamard_transform(rotated.T).T)[: output_signs.numel(), : input_signs.numel()]
    return output_signs.to(weight).unsqueeze(1) * weight * input_signs.to(weight)


@dataclass(frozen=True, eq=False)
class TrellisWeight:
    """A packed weight. `codes` int32 `packed_shape`; `scale` [out_padded / 16, 16] in bf16, fp16 or fp32;
    `input_signs` [in_features] and `output_signs` [out_features] int8; `codebook` [512, 2] for code `hyb`, else None.
    """

    codes: Tensor
    scale: Tensor
    input_signs: Tensor
    output_signs: Tensor
    codebook: Tensor | None
    out_features: int
    in_features: int
    bits: int
    code: str

    format: ClassVar[str] = "trellis"
    supported_bits: ClassVar[tuple[int, ...]] = (2, 3, 4)
    group_size: ClassVar[int] = -1

    @classmethod
    def pack(
        cls,
        states: Tensor,
        scale: Tensor,
        input_signs: Tensor,
        output_signs: Tensor,
        codebook: Tensor | None = None,
        *,
        bits: int,
        code: str,
    ) -> TrellisWeight:
        """Packs states [out_padded / 16, in_padded / 16, 256 / V] with scale [out_padded], a bf16, fp16 or fp32, signs
        [in] and [out] of +1 and -1 (any dtype), and a codebook for `hyb`.

        Raises ValueError on unsupported bits, code or dtypes, on shapes that do not belong together, and on states that
        are no closed walks.
        """
        check("bits", bits, cls.supported_bits)
        check("code", code, CODES)
        check("scale.dtype", scale.dtype, FLOAT_DTYPES)
        if (codebook is not None) != (code == "hyb"):
            raise ValueError(f"codebook must be given for code hyb and for no other, got code {code}")
        out_features, in_features = output_signs.numel(), input_signs.numel()
        out_padded, in_padded = padded_shape(out_features, in_features)
        expected = (out_padded // TILE, in_padded // TILE, TILE_VALUES // VALUES_PER_STEP[code])
        if tuple(states.shape) != expected:
            raise ValueError(f"states must have shape {list(expected)}, got {list(states.shape)}")
        if tuple(scale.shape) != (out_padded,):
            raise ValueError(f"scale must have shape [{out_padded}], got {list(scale.shape)}")
        for name, signs in (("input_signs", input_signs), ("output_signs", output_signs)):
            if not bool((signs.abs() == 1).all()):
                raise ValueError(f"{name} must be +1 or -1")
        return cls(
            codes=pack_states(states, bits),
            scale=scale.view(-1, TILE),
            input_signs=input_signs.to(torch.int8),
            output_signs=output_signs.to(torch.int8),
            codebook=codebook,
            out_features=out_features,
            in_features=in_features,
            bits=bits,
            code=code,
        )

    def unpack(self) -> Tensor:
        """The states, int32 [out_padded / 16, in_padded / 16, 256 / V]."""
        return unpack_states(self.codes, self.bits, VALUES_PER_STEP[self.code])

    def rotated(self) -> Tensor:
        """diag(scale) C, fp32 [out_padded, in_padded]."""
        values = code_values(self.code, self.codebook, self.codes.device)
        return from_tiles(values[self.unpack().long()].flatten(2)) * self.scale.float().view(-1, 1)

    def dequantize(self) -> Tensor:
        """fp32 [out_features, in_features]."""
        return rotate_back(self.rotated(), self.input_signs, self.output_signs)

    def tensors(self) -> dict[str, Tensor]:
        """The stored tensors by operator argument name, absent ones left out."""
        return named_tensors(
            codes=self.codes,
            scale=self.scale,
            input_signs=self.input_signs,
            output_signs=self.output_signs,
            codebook=self.codebook,
        )

    @property
    def stored_bytes(self) -> int:
        """Bytes of all stored tensors."""
        return stored_bytes(self.tensors())

    @property
    def true_bits(self) -> float:
        """Stored bits per logical weight: codes, scales, signs, codebook and padding."""
        return bits_per_weight(self.stored_bytes, self.out_features, self.in_features)

    @property
    def paper_bits(self) -> float:
        """bits: the scale and the signs are not counted (arXiv 2503.01901's accounting)."""
        return float(self.bits)
