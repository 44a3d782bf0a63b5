"""The packed layout `tile16`, shared by the uniform and look-up formats and by every backend.

A weight [out_features, in_features] is padded to 16 rows and 64 inputs and cut into *tiles* of 16 rows and *blocks* of
64 inputs. Blocks of one tile follow each other, then comes the next tile, so a backend that owns some output rows reads
one contiguous stream:

    codes: int32 [out_padded / 16, in_padded / 64 * 32 * bits]

      tile 0 (rows 0..15)  | block 0 (inputs 0..63) | block 1 (inputs 64..127) | ...     each block: 128 * bits bytes
      tile 1 (rows 16..31) | block 0                | ...

A *unit* is 16 bytes of ONE row: four little-endian dwords that hold 128 / field consecutive inputs in `field`-bit
fields. Input i of the unit stands in dword w, half h, at shift field * j, where

    j = i // 8,  w = (i % 8) // 2,  h = i % 2

      dword w, 4-bit fields   bit 31                    16 15                      0
                                  j=3  j=2  j=1  j=0  |  j=3  j=2  j=1  j=0
                                     inputs 8j+2w+1   |     inputs 8j+2w

so the same shift of all eight 16-bit words yields eight adjacent inputs in their natural order. A *plane* is the units
of rows 0..15 of a tile, 256 bytes. The planes of a block are

    2 bits   one plane of 64 inputs
    3 bits   one plane of the low two bits, then 16 rows x 8 bytes: bit 2 of input i at bit i // 8 of byte i % 8
    4 bits   two planes of 32 inputs
    8 bits   four planes of 16 inputs

A vector register of 64 bytes is four rows; a GPU lane is a row and a warp reads 512 contiguous bytes; one unit of 4-bit
codes is one row's share of an mma.m16n8k16 fragment.

Values per group (scales, zeros) lie beside it in the order (tile, group, row): [out_padded / 16, groups * 16].
"""

from __future__ import annotations

import torch
from torch import Tensor

TILE_ROWS = 16
BLOCK_INPUTS = 64
UNIT_BITS = 128


def round_up(value: int, multiple: int) -> int:
    """The smallest multiple of `multiple` that is not below `value`."""
    return -(-value // multiple) * multiple


def padded_shape(out_features: int, in_features: int) -> tuple[int, int]:
    """(out_padded, in_padded) of a weight of this logical shape."""
    return round_up(out_features, TILE_ROWS), round_up(in_features, BLOCK_INPUTS)


def packed_shape(out_features: int, in_features: int, bits: int) -> tuple[int, int]:
    """Shape of the int32 tensor `codes`: one row per tile."""
    out_padded, in_padded = padded_shape(out_features, in_features)
    return out_padded // TILE_ROWS, in_padded // BLOCK_INPUTS * 32 * bits


def group_count(in_features: int, group_size: int) -> int:
    """Groups per row: the last one may be short; a group_size of -1 means one group for the whole row."""
    return 1 if group_size == -1 else -(-in_features // group_size)


def group_of_input(in_features: int, group_size: int, device: torch.device | None = None) -> Tensor:
    """int64 [in_features]: which group each input belongs to."""
    inputs = torch.arange(in_features, device=device)
    return torch.zeros_like(inputs) if group_size == -1 else inputs // group_size


def pack_codes(codes: Tensor, bits: int) -> Tensor:
    """Packs codes [out_features, in_features] (any integer dtype, 0 <= code < 2^bits) into int32 `packed_shape`.

    Padding rows and inputs hold code 0. Raises ValueError if a code does not fit.
    """
    out_features, in_features = codes.shape
    if codes.numel() and not (int(codes.min()) >= 0 and int(codes.max()) < 2**bits):
        raise ValueError(f"codes must lie in 0..{2**bits - 1}, found {int(codes.min())}..{int(codes.max())}")
    out_padded, in_padded = padded_shape(out_features, in_features)
    padded = codes.new_zeros((out_padded, in_padded), dtype=torch.uint8)
    padded[:out_features, :in_features] = codes
    # [tiles, rows, blocks, inputs] -> [tiles, blocks, rows, inputs]
    blocks = padded.view(out_padded // TILE_ROWS, TILE_ROWS, in_padded // BLOCK_INPUTS, BLOCK_INPUTS).transpose(1, 2)
    if bits == 3:
        parts = [_pack_plane(blocks & 3, 2), _pack_high_bits(blocks >> 2)]
    else:
        inputs = UNIT_BITS // bits
        parts = [_pack_plane(part, bits) for part in blocks.split(inputs, dim=-1)]
    packed = torch.cat(parts, dim=-1)
    return packed.view(packed.shape[0], -1).view(torch.int32)


def unpack_codes(packed: Tensor, bits: int, out_features: int, in_features: int) -> Tensor:
    """The inverse of `pack_codes`: uint8 [out_features, in_features]."""
    out_padded, in_padded = padded_shape(out_features, in_features)
    tiles, blocks = out_padded // TILE_ROWS, in_padded // BLOCK_INPUTS
    raw = packed.contiguous().view(torch.uint8).view(tiles, blocks, 128 * bits)
    if bits == 3:
        codes = _unpack_plane(raw[..., :256], 2) | (_unpack_high_bits(raw[..., 256:]) << 2)
    else:
        codes = torch.cat([_unpack_plane(plane, bits) for plane in raw.split(256, dim=-1)], dim=-1)
    rows = codes.transpose(1, 2).reshape(out_padded, in_padded)
    return rows[:out_features, :in_features].contiguous()


def pack_groups(values: Tensor) -> Tensor:
    """Reorders values per (row, group) [out_features, groups] to (tile, group, row): [out_padded / 16, groups * 16].

    Padding rows hold 0.
    """
    out_features, groups = values.shape
    padded = values.new_zeros((round_up(out_features, TILE_ROWS), groups))
    padded[:out_features] = values
    return padded.view(-1, TILE_ROWS, groups).transpose(1, 2).reshape(-1, groups * TILE_ROWS)


def unpack_groups(packed: Tensor, out_features: int) -> Tensor:
    """The inverse of `pack_groups`: [out_features, groups]."""
    tiles, columns = packed.shape
    rows = packed.view(tiles, columns // TILE_ROWS, TILE_ROWS).transpose(1, 2).reshape(-1, columns // TILE_ROWS)
    return rows[:out_features].contiguous()


# A unit as bytes: dword w, half h, and the two bytes of that half; within a half, `field`-bit fields by rising j.


def _pack_plane(codes: Tensor, field: int) -> Tensor:
    """uint8 codes [tiles, blocks, 16, 128 / field] -> bytes [tiles, blocks, 256]."""
    steps = 16 // field
    words = codes.unflatten(-1, (steps, 8)).to(torch.int32)  # [..., j, 2w + h]
    shifts = (torch.arange(steps, device=codes.device, dtype=torch.int32) * field).unsqueeze(-1)
    halves = (words << shifts).sum(dim=-2, dtype=torch.int32)
    return torch.stack([halves & 255, halves >> 8], dim=-1).to(torch.uint8).flatten(-3)


def _unpack_plane(plane: Tensor, field: int) -> Tensor:
    """bytes [tiles, blocks, 256] -> uint8 codes [tiles, blocks, 16, 128 / field]."""
    steps = 16 // field
    low_high = plane.unflatten(-1, (TILE_ROWS, 8, 2)).to(torch.int32)
    halves = (low_high[..., 0] | low_high[..., 1] << 8).unsqueeze(-2)  # [..., row, 1, 2w + h]
    shifts = (torch.arange(steps, device=plane.device, dtype=torch.int32) * field).unsqueeze(-1)
    return ((halves >> shifts) & (2**field - 1)).to(torch.uint8).flatten(-2)


def _pack_high_bits(bits: Tensor) -> Tensor:
    """uint8 bits [tiles, blocks, 16, 64] of 0 or 1 -> bytes [tiles, blocks, 128]."""
    words = bits.unflatten(-1, (8, 8)).to(torch.int32)  # [..., bit j, byte 2w + h]
    shifts = torch.arange(8, device=bits.device, dtype=torch.int32).unsqueeze(-1)
    return (words << shifts).sum(dim=-2, dtype=torch.int32).to(torch.uint8).flatten(-2)


def _unpack_high_bits(plane: Tensor) -> Tensor:
    """bytes [tiles, blocks, 128] -> uint8 bits [tiles, blocks, 16, 64]."""
    words = plane.unflatten(-1, (TILE_ROWS, 1, 8))
    shifts = torch.arange(8, device=plane.device, dtype=torch.uint8).unsqueeze(-1)
    return ((words >> shifts) & 1).flatten(-2)
