"""The packed layout: against a scalar statement of it, byte by byte, and against committed golden bytes."""

import hashlib

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from requant_kernels.formats import tile16

BITS = (2, 3, 4, 8)


def place(row: int, column: int, in_features: int, bits: int) -> list[tuple[int, int]]:
    """(byte offset in the packed tensor, bit in that byte) of every bit of one code, lowest first: the layout again,
    written one code at a time.
    """
    blocks = tile16.round_up(in_features, 64) // 64
    block = (row // 16 * blocks + column // 64) * 128 * bits
    row, column = row % 16, column % 64

    def in_unit(start: int, field: int, column: int, count: int) -> list[tuple[int, int]]:
        bit = 32 * (column % 8 // 2) + 16 * (column % 2) + field * (column // 8)
        return [(start + (bit + i) // 8, (bit + i) % 8) for i in range(count)]

    if bits == 3:
        return [*in_unit(block + 16 * row, 2, column, 2), (block + 256 + 8 * row + column % 8, column // 8)]
    inputs = 128 // bits
    return in_unit(block + column // inputs * 256 + 16 * row, bits, column % inputs, bits)


def pack_by_hand(codes: Tensor, bits: int) -> bytes:
    out_features, in_features = codes.shape
    tiles, words = tile16.packed_shape(out_features, in_features, bits)
    packed = bytearray(tiles * words * 4)
    for row in range(out_features):
        for column in range(in_features):
            for i, (byte, bit) in enumerate(place(row, column, in_features, bits)):
                packed[byte] |= (int(codes[row, column]) >> i & 1) << bit
    return bytes(packed)


def raw(packed: Tensor) -> bytes:
    return packed.numpy().tobytes()


@pytest.mark.parametrize("bits", BITS)
@given(out_features=st.integers(1, 40), in_features=st.integers(1, 150), seed=st.integers(0, 2**31))
@settings(max_examples=25, deadline=None)
def test_pack_follows_the_layout_and_unpack_inverts_it(bits: int, out_features: int, in_features: int, seed: int):
    generator = torch.Generator().manual_seed(seed)
    codes = torch.randint(0, 2**bits, (out_features, in_features), generator=generator, dtype=torch.uint8)
    packed = tile16.pack_codes(codes, bits)
    assert packed.dtype == torch.int32
    assert raw(packed) == pack_by_hand(codes, bits)
    assert torch.equal(tile16.unpack_codes(packed, bits, out_features, in_features), codes)


@pytest.mark.parametrize(
    ("bits", "digest"),
    [
        (2, "6f1fd91aa5dc9e834ad35bcbdac5dd8bdcc5e266602de1523a5687c9f75adbd7"),
        (3, "b4f773e588368bd67a17d6c116e6456f75f7b232c66ec372b4689d33c3d31c7c"),
        (4, "1158171e643469842df291703f759f4525b4bca801cefdfe4dc2c3fda4409c37"),
        (8, "8ab5576763e3367899285ef4dc54d8f2adc2a91ecef4ced9247c217d35d57630"),
    ],
)
def test_golden_bytes(bits: int, digest: str):
    """A change of the layout would make every saved checkpoint unreadable: these digests may never change."""
    codes = (torch.arange(35 * 130).view(35, 130) * 2654435761 >> 13) % 2**bits
    assert hashlib.sha256(raw(tile16.pack_codes(codes, bits))).hexdigest() == digest


def test_golden_bytes_of_one_row_in_full():
    codes = torch.arange(64).view(1, 64) % 16
    packed = raw(tile16.pack_codes(codes, 4))
    # Inputs 0, 8, 16, 24 share the first half-word: codes 0, 8, 0, 8 by rising shift; then inputs 1, 9, 17, 25; ...
    assert packed[:16] == bytes.fromhex("8080 9191 a2a2 b3b3 c4c4 d5d5 e6e6 f7f7")
    assert packed[16:256] == bytes(240)
    assert packed[256:272] == packed[:16]


@pytest.mark.parametrize("bits", BITS)
def test_codes_that_do_not_fit_are_refused(bits: int):
    with pytest.raises(ValueError, match=rf"codes must lie in 0..{2**bits - 1}, found 0..{2**bits}"):
        tile16.pack_codes(torch.tensor([[0, 2**bits]]), bits)


@given(out_features=st.integers(1, 50), groups=st.integers(1, 9))
@settings(max_examples=30, deadline=None)
def test_group_values_are_in_tile_group_row_order(out_features: int, groups: int):
    values = torch.randn(out_features, groups)
    packed = tile16.pack_groups(values)
    assert packed.shape == (-(-out_features // 16), groups * 16)
    row, group = out_features - 1, groups - 1
    assert packed[row // 16, group * 16 + row % 16] == values[row, group]
    assert torch.equal(tile16.unpack_groups(packed, out_features), values)


@pytest.mark.parametrize(
    ("in_features", "group_size", "groups"), [(576, 128, 5), (64, -1, 1), (128, 128, 1), (1, 32, 1)]
)
def test_group_count(in_features: int, group_size: int, groups: int):
    assert tile16.group_count(in_features, group_size) == groups
    assert int(tile16.group_of_input(in_features, group_size).max()) == groups - 1
