"""The quantized embedding, its operator, and the head that shares its weight."""

import copy
import io

import pytest
import torch
from torch import nn

from requant_kernels import QuantizedEmbedding, use_backend
from requant_kernels.backends import cpu, reference
from requant_kernels.embedding import TiedHead
from requant_kernels.formats import LayerSpec, UniformWeight, tile16

INSTRUCTION_SETS = range(len(cpu._cpu.instruction_sets()))
DTYPES = (torch.float32, torch.float16, torch.bfloat16)


def make_weight(rows: int, columns: int, bits: int, group_size: int, dtype: torch.dtype, zero: bool) -> UniformWeight:
    shape = (rows, tile16.group_count(columns, group_size))
    codes = torch.randint(0, 2**bits, (rows, columns), dtype=torch.uint8)
    scale, zeros = torch.rand(shape).to(dtype), (torch.rand(shape) * 2**bits).to(dtype) if zero else None
    return UniformWeight.pack(codes, scale, zeros, bits=bits, group_size=group_size)


@pytest.fixture
def embedding() -> QuantizedEmbedding:
    return QuantizedEmbedding.from_embedding(nn.Embedding(50, 100).bfloat16(), bits=8, group_size=64)


@pytest.mark.parametrize("isa", INSTRUCTION_SETS, ids=cpu.INSTRUCTION_SETS[: len(INSTRUCTION_SETS)])
@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("group_size", [32, 96, 128, -1])
def test_rows_are_those_of_the_dequantized_weight(monkeypatch, isa, bits, group_size):
    monkeypatch.setattr(cpu, "selected_instruction_set", lambda: isa)
    for columns, dtype, zero in ((100, torch.float32, True), (64, torch.float16, False), (576, torch.bfloat16, True)):
        weight = make_weight(37, columns, bits, group_size, dtype, zero)
        rows = weight.dequantize()
        for tokens in (1, 5, 100):
            indices = torch.randint(37, (tokens,))
            for kind in DTYPES:
                operands = QuantizedEmbedding(weight, kind).operands
                expected = rows[indices].to(kind)
                for backend in (cpu, reference):
                    assert torch.equal(backend.embedding(indices, operands, kind), expected)


@pytest.mark.parametrize("shape", [(), (7,), (2, 3), (0,), (2, 0)])
@pytest.mark.parametrize("dtype", [torch.int64, torch.int32])
def test_indices_of_any_shape(embedding, shape, dtype):
    indices = torch.randint(50, shape).to(dtype)
    rows = embedding(indices)
    assert rows.dtype == torch.bfloat16
    assert torch.equal(rows, embedding.dequantize()[indices.long()].bfloat16())
    if indices.ndim == 2:
        assert torch.equal(embedding(indices.t()), rows.transpose(0, 1))
    with use_backend("reference"):
        assert torch.equal(embedding(indices), rows)


def test_a_bad_index_is_refused(embedding):
    for bad in (-1, 50, 2**40):
        with pytest.raises(IndexError, match=r"indices must lie in 0\.\.49, found"):
            embedding(torch.tensor([3, bad]))


def test_wrong_arguments_are_named(embedding):
    with pytest.raises(ValueError, match=r"indices\.dtype must be one of"):
        embedding(torch.ones(3))
    with pytest.raises(ValueError, match="dtype must be one of"):
        QuantizedEmbedding(embedding.dense, torch.float64)
    codes, scale, zero = embedding.codes, embedding.scale, embedding.zero
    arguments = (torch.zeros(3, dtype=torch.int64), codes, scale, zero, 50, 100, 8, 64)
    with pytest.raises(ValueError, match="dtype must be one of"):
        torch.ops.requant.uniform_embedding(*arguments, torch.float64)
    with pytest.raises(ValueError, match="codes must have shape"):
        torch.ops.requant.uniform_embedding(*arguments[:4], 70, *arguments[5:], torch.float32)
    spec = LayerSpec.from_dict({**embedding.spec.to_dict(), "bias": True}, "here")
    with pytest.raises(ValueError, match="an embedding must be uniform, without sparse part and bias"):
        QuantizedEmbedding.from_spec(spec)


def test_opcheck(embedding):
    arguments = (*embedding.operands.dense, 50, 100, 8, 64, torch.bfloat16)
    torch.library.opcheck(torch.ops.requant.uniform_embedding.default, (torch.randint(50, (2, 3)), *arguments))


def test_compiles_without_graph_breaks(embedding):
    compiled = torch.compile(embedding, fullgraph=True, backend="aot_eager")
    indices = torch.randint(50, (2, 3))
    assert torch.equal(compiled(indices), embedding(indices))


def test_rounding_is_close_and_done_in_parts(monkeypatch):
    embedding = nn.Embedding(100, 72).requires_grad_(False)
    whole = QuantizedEmbedding.from_embedding(embedding, bits=4)
    monkeypatch.setattr("requant_kernels.embedding.ROWS_AT_ONCE", 32)
    assert torch.equal(QuantizedEmbedding.from_embedding(embedding, bits=4).dequantize(), whole.dequantize())
    errors = []
    for bits in (4, 8):
        weight = QuantizedEmbedding.from_embedding(embedding, bits=bits).dequantize()
        errors.append(float((weight - embedding.weight).norm() / embedding.weight.norm()))
    assert errors[0] < 0.15
    assert errors[1] < 0.01


def test_casting_changes_the_dtype_of_the_rows_and_no_buffer(embedding):
    indices, scale = torch.arange(5), embedding.scale.clone()
    rows = embedding.dequantize()[:5]
    for dtype in DTYPES:
        assert torch.equal(embedding.to(dtype)(indices), rows.to(dtype))
        assert torch.equal(embedding.scale, scale)


def test_a_tied_head_multiplies_with_the_same_weight(embedding):
    model = nn.ModuleDict({"embed": embedding, "head": TiedHead(embedding)})
    x = torch.randn(3, 100)
    assert torch.equal(model["head"](x), embedding.project(x))
    assert torch.allclose(model["head"](x), x @ embedding.dequantize().T, atol=1e-4)
    assert set(model.state_dict()) == {"embed.codes", "embed.scale", "embed.zero"}
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    for twin in (copy.deepcopy(model), torch.load(file, weights_only=False)):
        assert twin["head"].embedding is twin["embed"] is not embedding
        twin["embed"].codes.zero_()
        assert not torch.equal(twin["head"](x), model["head"](x))
    assert model.to("meta")["head"].embedding.codes.is_meta
