"""Format `trellis`: the layout byte by byte and against golden bytes, the codes one state at a time, the rotation."""

import hashlib
import struct

import pytest
import torch
from torch import Tensor
from viterbi_reference import random_walks

from requant_kernels.formats import trellis
from requant_kernels.formats.hadamard import hadamard_transform
from requant_kernels.formats.trellis import TrellisWeight

BITS = (2, 3, 4)


def random_signs(size: int) -> Tensor:
    return torch.randint(0, 2, (size,)) * 2 - 1


def random_weight(out_features: int, in_features: int, bits: int, code: str) -> TrellisWeight:
    out_padded, in_padded = trellis.padded_shape(out_features, in_features)
    return TrellisWeight.pack(
        random_walks((out_padded // 16, in_padded // 16), bits, trellis.VALUES_PER_STEP[code]),
        torch.rand(out_padded) + 0.5,
        random_signs(in_features),
        random_signs(out_features),
        torch.randn(512, 2) if code == "hyb" else None,
        bits=bits,
        code=code,
    )


def tile_by_hand(states: Tensor, bits: int) -> bytes:
    """One tile, as the layout says: the new bits of every step in a row, then the rows' numbers in planes."""
    step_bits = 256 * bits // states.numel()
    ring = "".join(f"{int(state) & (2**step_bits - 1):0{step_bits}b}" for state in states)
    rows = [ring[row * 16 * bits : (row + 1) * 16 * bits] for row in range(16)]
    packed = b"".join(struct.pack("<I", int(row[:32], 2)) for row in rows)
    if bits == 3:
        packed += b"".join(struct.pack("<H", int(row[32:], 2)) for row in rows)
    if bits == 4:
        packed += b"".join(struct.pack("<I", int(row[32:], 2)) for row in rows)
    return packed


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("values_per_step", [1, 2])
def test_pack_follows_the_layout_and_unpack_inverts_it(bits, values_per_step):
    states = random_walks((3, 2), bits, values_per_step)
    codes = trellis.pack_states(states, bits)
    assert codes.shape == trellis.packed_shape(48, 32, bits)
    assert codes.numpy().tobytes() == b"".join(tile_by_hand(tile, bits) for tile in states.flatten(0, 1))
    assert torch.equal(trellis.unpack_states(codes, bits, values_per_step), states.int())


@pytest.mark.parametrize(
    ("bits", "digest"),
    [
        (2, "21f89811f722c6e5e25afdebf550ac78e0eb68d93b04c3d294921a006e21cdce"),
        (3, "1d0b48ad5d615a6b9f39334899ab05dcccaeca0e22e44c687cd9c82e544eb2d5"),
        (4, "09066dabeaddeaf14ea6e9ebe9c7e039a3104990472b97d4c734b8480dc5bcf2"),
    ],
)
def test_golden_bytes(bits, digest):
    """A change of the layout would make every saved checkpoint unreadable: these digests may never change."""
    symbols = (torch.arange(2 * 3 * 256).view(2, 3, 256) * 2654435761 >> 13) % 2**bits
    states = sum(symbols.roll(step, dims=-1) << bits * step for step in range(-(-16 // bits))) % 2**16
    assert hashlib.sha256(trellis.pack_states(states, bits).numpy().tobytes()).hexdigest() == digest


def test_states_that_do_not_close_are_refused():
    states = random_walks((1, 1), 3, 1)
    states[0, 0, 100] ^= 2**15
    with pytest.raises(ValueError, match="states must be closed walks along the trellis of 3 bits per step"):
        trellis.pack_states(states, 3)


def half(bits: int) -> float:
    return struct.unpack("<e", struct.pack("<H", bits))[0]


def test_codes_one_state_at_a_time():
    codebook = torch.randn(512, 2)
    tables = {code: trellis.code_values(code, codebook if code == "hyb" else None) for code in trellis.CODES}
    for state in [0, 1, 2**15, 2**16 - 1, *torch.randint(0, 2**16, (50,)).tolist()]:
        x = (34038481 * state + 76625530) % 2**32
        assert tables["1mad"][state] == pytest.approx((sum(x.to_bytes(4, "little")) - 510) / 147.800537109375)
        x = ((89226354 * state + 64248484) % 2**32 & 0x8FFF8FFF) ^ 996162400
        assert tables["3inst"][state] == half(x & 0xFFFF) + half(x >> 16)
        x = (state + 1) * state % 2**32
        pair = codebook[x >> 6 & 511]
        expected = [pair[0] * (1 - 2 * (x >> 15 & 1)), pair[1]]
        assert tables["hyb"][state].tolist() == expected


def test_codes_have_the_published_size():
    assert float(trellis.code_values("1mad").square().mean().sqrt()) == pytest.approx(1.0001, abs=1e-4)
    assert float(trellis.code_values("3inst").square().mean().sqrt()) == pytest.approx(1.2437, abs=1e-4)


@pytest.mark.parametrize("code", trellis.CODES)
@pytest.mark.parametrize("shape", [(16, 16), (48, 96), (17, 40), (5, 33)])
def test_dequantize_is_signs_and_transforms_around_the_values(code, shape):
    weight = random_weight(*shape, 2, code)
    out_padded, in_padded = trellis.padded_shape(*shape)
    values = trellis.code_values(code, weight.codebook)[weight.unpack().long()].flatten(2)
    rotated = torch.zeros(out_padded, in_padded, dtype=torch.float64)
    for row in range(out_padded):
        for column in range(in_padded):
            value = values[row // 16, column // 16, row % 16 * 16 + column % 16]
            rotated[row, column] = value * weight.scale[row // 16, row % 16]
    h_out, h_in = (hadamard_transform(torch.eye(size, dtype=torch.float64)) for size in (out_padded, in_padded))
    expected = (h_out @ rotated @ h_in)[: shape[0], : shape[1]]
    expected *= weight.output_signs.unsqueeze(1) * weight.input_signs
    assert torch.allclose(weight.dequantize().double(), expected, atol=1e-5)


@pytest.mark.parametrize("shape", [(16, 32), (20, 50)])
def test_rotate_back_inverts_rotate(shape):
    weight, signs = torch.randn(shape), (random_signs(shape[1]), random_signs(shape[0]))
    assert torch.allclose(trellis.rotate_back(trellis.rotate(weight, *signs), *signs), weight, atol=1e-5)


@pytest.mark.parametrize("bits", BITS)
def test_a_tile_has_exactly_its_bits(bits):
    weight = random_weight(64, 128, bits, "1mad")
    assert weight.codes.numel() * 32 == bits * 64 * 128
    assert weight.paper_bits == bits
    assert weight.true_bits == bits + (64 * 32 + (64 + 128) * 8) / (64 * 128)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"bits": 5}, "bits must be one of 2, 3, 4, got 5"),
        ({"code": "4mad"}, "code must be one of 1mad, 3inst, hyb, got 4mad"),
        ({"code": "hyb"}, "codebook must be given for code hyb"),
        ({"codebook": torch.zeros(512, 2)}, "codebook must be given for code hyb and for no other, got code 1mad"),
        ({"scale": torch.ones(20)}, r"scale must have shape \[32\], got \[20\]"),
        ({"scale": torch.ones(32).int()}, "scale.dtype must be one of"),
        ({"input_signs": torch.ones(50)}, r"states must have shape \[2, 4, 256\], got \[2, 3, 256\]"),
        ({"output_signs": torch.zeros(20)}, r"output_signs must be \+1 or -1"),
    ],
)
def test_what_does_not_belong_together_is_refused(changes, message):
    arguments = {
        "states": torch.zeros(2, 3, 256),
        "scale": torch.ones(32),
        "input_signs": torch.ones(40),
        "output_signs": torch.ones(20),
        "codebook": None,
        "bits": 2,
        "code": "1mad",
    } | changes
    with pytest.raises(ValueError, match=message):
        TrellisWeight.pack(**arguments)
