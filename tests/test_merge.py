"""Merged layers give the bits of the layers they are made of, and keep nothing."""

import copy
import gc
import io
import threading
import weakref

import pytest
import torch
from tiny_model import logits, make_model, quantize_quickly
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from requant_kernels import DenseSparseLinear, merge_linears, set_activations, use_backend
from requant_kernels.checkpoint import save_checkpoint

OPTIONS = {
    "uniform": {"bits": 4},
    "symmetric": {"bits": 3, "symmetric": True, "group_size": 32},
    "rows": {"format": "lut", "bits": 3},
    "shared": {"format": "lut", "bits": 4, "table": "nf4", "group_size": 64},
    "int8": {"bits": 4, "activations": "int8"},
    "int8 rows": {"format": "lut", "bits": 2, "activations": "int8"},
}
NAMES = ("q_proj", "k_proj", "v_proj")


class Attention(nn.Module):
    """Three projections of one input; `other` takes the place of the input of k and v."""

    def __init__(self, sizes: tuple[int, int, int], biases: tuple[bool, bool, bool], **options: object) -> None:
        super().__init__()
        for name, size, bias in zip(NAMES, sizes, biases, strict=True):
            setattr(self, name, DenseSparseLinear.from_linear(nn.Linear(100, size, bias=bias), **options))

    def forward(self, x: Tensor, other: Tensor | None = None) -> list[Tensor]:
        given = x if other is None else other
        return [self.q_proj(x), self.k_proj(given), self.v_proj(given)]


def both(sizes=(48, 32, 16), biases=(False, False, False), **options) -> tuple[Attention, Attention]:
    plain = Attention(sizes, biases, **({"bits": 4, "sparse_percent": 2} | options)).eval()
    merged = copy.deepcopy(plain)
    assert merge_linears(merged) == [NAMES]
    return plain, merged


def same(first: list[Tensor], second: list[Tensor]) -> bool:
    return all(a.shape == b.shape and torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.fixture(autouse=True)
def no_gradients():
    """As in generating text: with gradients enabled layers are not merged."""
    with torch.no_grad():
        yield


def held(module: Attention) -> dict:
    return module.q_proj.merged._group._unfetched


@pytest.fixture
def calls(monkeypatch) -> list[int]:
    """Rows of every kernel call from here on."""
    from requant_kernels import ops

    seen: list[int] = []
    run = ops.linear_unchecked

    def counted(x, weight, *rest):
        seen.append(weight.out_features)
        return run(x, weight, *rest)

    monkeypatch.setattr(ops, "linear_unchecked", counted)
    return seen


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS.keys())
@pytest.mark.parametrize("sizes", [(48, 32, 16), (50, 17, 2)])
@pytest.mark.parametrize("biases", [(False, False, False), (True, True, True), (False, True, False)])
def test_bits_are_the_same(options, sizes, biases):
    plain, merged = both(sizes, biases, **options)
    for shape in [(100,), (1, 100), (1, 1, 100), (2, 3, 100), (31, 100), (33, 100), (150, 100), (0, 100)]:
        for dtype in (torch.float32, torch.bfloat16):
            x = torch.randn(shape).to(dtype)
            assert same(merged(x), plain(x))


def test_one_call_computes_all(calls):
    _, merged = both((50, 17, 2))
    merged(torch.randn(1, 100))
    assert calls == [64 + 32 + 16]
    calls.clear()
    merged(torch.randn(33, 100))
    assert calls == [50, 17, 2], "many tokens do not gain by it"
    calls.clear()
    with use_backend("reference"):
        merged(torch.randn(1, 100))
    assert calls == [50, 17, 2]


def test_layers_with_and_without_a_sparse_part():
    plain = Attention((16, 32, 16), (False, True, False), bits=3, sparse_percent=2)
    plain.k_proj = DenseSparseLinear(plain.k_proj.dense, None, plain.k_proj.bias)
    merged = copy.deepcopy(plain)
    assert merge_linears(merged) == [NAMES]
    x = torch.randn(3, 100)
    assert same(merged(x), plain(x))


@pytest.mark.parametrize(
    "other",
    [
        {"bits": 3},
        {"group_size": 64},
        {"symmetric": True},
        {"format": "lut"},
        {"format": "lut", "table": "nf4"},
        {"activations": "int8"},
    ],
)
def test_layers_that_differ_are_left_alone(other):
    model = Attention((32, 32, 32), (False, False, False), bits=4)
    model.k_proj = DenseSparseLinear.from_linear(nn.Linear(100, 32, bias=False), **({"bits": 4} | other))
    assert merge_linears(model) == [("q_proj", "v_proj")]
    assert model.k_proj.merged is None
    model.v_proj = nn.Linear(100, 32)
    assert merge_linears(nn.ModuleList([model])) == []


def test_dtypes_and_tables_must_agree():
    model = Attention((32, 32, 32), (True, True, True), bits=4)
    model.k_proj.bias = model.k_proj.bias.bfloat16()
    model.v_proj.values = model.v_proj.values.bfloat16()
    assert merge_linears(model) == []
    model = Attention((32, 32, 32), (True, True, True), format="lut", bits=4, table="nf4")
    model.k_proj.table = model.k_proj.table * 2
    assert merge_linears(model) == [("q_proj", "v_proj")]


def test_merging_again_changes_nothing():
    _, merged = both()
    group = merged.q_proj.merged
    assert merge_linears(merged) == []
    assert merged.q_proj.merged is group


def test_outputs_do_not_outlive_the_call_or_the_input(calls):
    _, merged = both()
    x = torch.randn(1, 100)
    merged(x)
    assert not held(merged)
    y = merged.q_proj(x)
    storage = weakref.ref(y.untyped_storage())
    assert held(merged)
    del x, y
    gc.collect()
    assert not held(merged)
    assert storage() is None


@pytest.mark.parametrize("inference", [False, True])
def test_an_input_that_was_written_to_is_computed_anew(inference):
    plain, merged = both()
    with torch.inference_mode(inference):
        x = torch.randn(1, 100)
        merged.q_proj(x)
        x.add_(1)
        assert same(merged(x), plain(x))


def test_an_equal_input_of_another_identity_and_a_second_call_are_computed_anew():
    plain, merged = both()
    x = torch.randn(1, 100)
    merged.q_proj(x)
    assert torch.equal(merged.k_proj(x + 1), plain.k_proj(x + 1))
    first, second = merged.q_proj(x), merged.q_proj(x)
    assert torch.equal(first, second)
    first.zero_()
    assert torch.equal(second, plain.q_proj(x))


def test_cross_attention_soon_stops_computing_what_nobody_fetches(calls):
    plain, merged = both()
    for _ in range(4):
        x, other = torch.randn(1, 100), torch.randn(1, 100)
        calls.clear()
        outputs = merged(x, other)
        assert same(outputs, plain(x, other))
    assert calls[:3] == [48, 32, 16]


def test_autograd_compile_autocast_and_vmap_do_without(calls):
    plain, merged = both(biases=(True, True, True))
    x = torch.randn(2, 100, requires_grad=True)
    with torch.enable_grad():
        sum(y.sum() for y in merged(x)).backward()
        gradient, x.grad = x.grad, None
        sum(y.sum() for y in plain(x)).backward()
        assert torch.equal(gradient, x.grad)
        x = x.detach()
        calls.clear()
        outputs = merged(x)
        assert calls == [48, 32, 16]
        outputs[0].add_(nn.Parameter(torch.ones(48)))
    assert same(torch.compile(merged, fullgraph=True, backend="aot_eager")(x), plain(x))
    with torch.autocast("cpu", torch.bfloat16):
        assert same(merged(x), plain(x))
    assert same(torch.func.vmap(merged)(x.unsqueeze(1)), torch.func.vmap(plain)(x.unsqueeze(1)))
    graph = torch.fx.Tracer()
    graph.is_leaf_module = lambda module, name: isinstance(module, DenseSparseLinear)
    assert same(torch.fx.GraphModule(merged, graph.trace(merged))(x, x), plain(x))
    assert not held(merged)


def test_threads_do_not_get_each_other_s_outputs():
    plain, merged = both()
    inputs = [torch.randn(1, 100) for _ in range(4)]
    expected = [plain(x) for x in inputs]
    wrong = []

    @torch.no_grad()
    def work(index: int) -> None:
        for _ in range(200):
            if not same(merged(inputs[index]), expected[index]):
                wrong.append(index)

    threads = [threading.Thread(target=work, args=(index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert not held(merged)


def test_other_buffers_put_into_a_layer_are_used():
    plain, merged = both()
    other, _ = both()
    x = torch.randn(1, 100)
    swapped = {f"k_proj.{name}": buffer for name, buffer in other.k_proj.named_buffers()}
    outputs = torch.func.functional_call(merged, swapped, (x,))
    assert same(outputs, [plain.q_proj(x), other.k_proj(x), plain.v_proj(x)])
    assert same(merged(x), plain(x))


def test_loading_a_state_dict_ends_it_and_merging_again_is_possible(calls):
    _, merged = both()
    other, _ = both()
    merged.load_state_dict(other.state_dict())
    assert merged.q_proj.merged is None
    x = torch.randn(1, 100)
    assert same(merged(x), other(x))
    assert merge_linears(merged) == [NAMES]
    assert same(merged(x), other(x))
    assert merged.to(torch.bfloat16).q_proj.merged is not None, "nothing has moved"
    assert merged.to("meta").q_proj.merged is None


def test_setting_activations_ends_it_and_merging_again_is_possible(calls):
    plain, merged = both()
    set_activations(merged, "int8")
    assert merged.q_proj.merged is None
    x = torch.randn(1, 100)
    rounded = merged(x)
    assert not same(rounded, plain(x))
    assert merge_linears(merged) == [NAMES]
    calls.clear()
    assert same(merged(x), rounded)
    assert calls == [96]


def test_copies_are_merged_among_themselves(calls):
    plain, merged = both((50, 17, 2), (True, True, True))
    x = torch.randn(1, 100)
    merged.q_proj(x)
    file = io.BytesIO()
    torch.save(merged, file)
    file.seek(0)
    for twin in (copy.deepcopy(merged), torch.load(file, weights_only=False)):
        merged.v_proj.codes.zero_()
        calls.clear()
        assert same(twin(x), plain(x))
        assert calls[0] == 112
        assert twin.q_proj.merged._group is twin.v_proj.merged._group is not merged.q_proj.merged._group


def test_no_weight_is_stored_twice():
    _, merged = both((50, 17, 2), (True, True, True))
    whole = merged.q_proj.merged._group._layer
    for name in ("codes", "scale", "zero", "columns", "values", "bias"):
        storage = getattr(whole, name).untyped_storage().data_ptr()
        assert all(getattr(getattr(merged, each), name).untyped_storage().data_ptr() == storage for each in NAMES)


def test_a_model_computes_and_saves_the_same(tmp_path):
    plain, merged = quantize_quickly(make_model()), quantize_quickly(make_model())
    assert merge_linears(merged) == [
        *[("model.layers.0.self_attn.q_proj", "model.layers.0.self_attn.k_proj", "model.layers.0.self_attn.v_proj")],
        ("model.layers.0.mlp.gate_proj", "model.layers.0.mlp.up_proj"),
        *[("model.layers.1.self_attn.q_proj", "model.layers.1.self_attn.k_proj", "model.layers.1.self_attn.v_proj")],
        ("model.layers.1.mlp.gate_proj", "model.layers.1.mlp.up_proj"),
    ]
    assert torch.equal(logits(merged), logits(plain))
    settings = {"max_new_tokens": 8, "do_sample": False, "pad_token_id": 1}
    prompt = torch.arange(5)[None]
    assert torch.equal(merged.generate(prompt, **settings), plain.generate(prompt, **settings))
    for name, model in (("merged", merged), ("plain", plain)):
        save_checkpoint(model, None, tmp_path / name)
    for file in ("model.safetensors", "requant.checksums.json", "config.json"):
        assert (tmp_path / "merged" / file).read_bytes() == (tmp_path / "plain" / file).read_bytes()
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    merge_linears(loaded)
    assert torch.equal(logits(loaded), logits(plain))
