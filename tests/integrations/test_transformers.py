"""`import requant_kernels`, then plain transformers: load, save, generate, and loud refusal of bad checkpoints."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from damage import LAYER, drop_tensor, edit_modules, edit_tensor
from tiny_model import SHARD_SIZE, logits, make_model, make_tokenizer, quantize_quickly
from transformers import AutoModel, AutoModelForCausalLM, AutoTokenizer

from requant_kernels import DenseSparseLinear, set_activations
from requant_kernels.checkpoint import CHECKSUMS_FILE, CheckpointError, save_checkpoint
from requant_kernels.integrations import register_with_transformers
from requant_kernels.integrations.transformers import attach_quantization_config


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("max_shard_size", ["5GB", SHARD_SIZE])
def test_logits_are_bit_identical_after_save_and_load(tmp_path: Path, tied: bool, max_shard_size: str) -> None:
    model = quantize_quickly(make_model(1, tied=tied))
    expected = logits(model)
    save_checkpoint(model, None, tmp_path / "out", max_shard_size=max_shard_size)
    assert torch.equal(logits(model), expected), "saving must not change the model"
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert torch.equal(logits(loaded), expected)
    loaded.save_pretrained(tmp_path / "again")
    assert torch.equal(logits(AutoModelForCausalLM.from_pretrained(tmp_path / "again")), expected)


@pytest.mark.parametrize(("bits", "code"), [(2, "1mad"), (3, "3inst"), (4, "hyb")])
def test_trellis_layers_survive_save_and_load(tmp_path: Path, bits: int, code: str) -> None:
    model = quantize_quickly(make_model(2), format="trellis", bits=bits, code=code)
    expected = logits(model)
    save_checkpoint(model, None, tmp_path / "out")
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    layer = loaded.get_submodule(LAYER)
    assert (layer.format, layer.bits, layer.spec.code) == ("trellis", bits, code)
    assert torch.equal(logits(loaded), expected)


def test_logits_are_bit_identical_in_a_new_process(tiny_checkpoint: Path, tmp_path: Path) -> None:
    program = (
        "import sys, torch, requant_kernels\n"
        "from transformers import AutoModelForCausalLM\n"
        "model = AutoModelForCausalLM.from_pretrained(sys.argv[1])\n"
        "tokens = torch.randint(300, (2, 9), generator=torch.Generator().manual_seed(0))\n"
        "torch.save(model(tokens).logits.detach(), sys.argv[2])\n"
    )
    subprocess.run([sys.executable, "-c", program, tiny_checkpoint, tmp_path / "logits"], check=True, timeout=120)
    assert torch.equal(torch.load(tmp_path / "logits"), logits(quantize_quickly(make_model())))


def test_import_alone_does_not_import_transformers() -> None:
    program = "import sys, requant_kernels; assert 'transformers' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)


def test_registering_again_is_harmless() -> None:
    register_with_transformers()
    register_with_transformers()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_another_dtype_leaves_quantized_buffers_alone(tiny_checkpoint: Path, dtype: torch.dtype) -> None:
    loaded = AutoModelForCausalLM.from_pretrained(tiny_checkpoint, dtype=dtype)
    stored = AutoModelForCausalLM.from_pretrained(tiny_checkpoint)
    assert loaded.dtype == dtype
    assert loaded.get_submodule("model.layers.0.self_attn.k_proj").bias.dtype == dtype
    for name in ("codes", "scale", "table", "row_offsets", "columns", "values"):
        for layer in ("model.layers.1.self_attn.q_proj", LAYER):
            ours, theirs = (getattr(model.get_submodule(layer), name) for model in (loaded, stored))
            assert (ours is None) == (theirs is None)
            if ours is not None:
                assert ours.dtype == theirs.dtype
                assert torch.equal(ours, theirs)
    assert torch.isfinite(logits(loaded)).all()


def test_generate_streams_the_same_tokens_as_before_saving(tiny_checkpoint: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_checkpoint)
    prompt = tokenizer("The quick brown fox", return_tensors="pt")
    outputs = [
        model.generate(**prompt, max_new_tokens=12, do_sample=False)
        for model in (quantize_quickly(make_model()), AutoModelForCausalLM.from_pretrained(tiny_checkpoint))
    ]
    assert torch.equal(*outputs)
    assert outputs[0].shape[1] > prompt.input_ids.shape[1]


def test_base_model_loads_without_the_head(tiny_checkpoint: Path) -> None:
    base = AutoModel.from_pretrained(tiny_checkpoint)
    assert isinstance(base.layers[0].mlp.up_proj, DenseSparseLinear)


def test_plain_save_pretrained_round_trips_config(tmp_path: Path) -> None:
    model = quantize_quickly(make_model(2))
    attach_quantization_config(model, {"method": "rtn", "bits": 3}, {"versions": {"torch": "2"}})
    model.save_pretrained(tmp_path / "out")
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    checkpoint = loaded.config.quantization_config.checkpoint
    assert checkpoint.recipe == {"method": "rtn", "bits": 3}
    assert checkpoint.provenance == {"versions": {"torch": "2"}}
    assert checkpoint.modules == {
        name: layer.spec for name, layer in model.named_modules() if isinstance(layer, DenseSparseLinear)
    }


def test_activations_are_kept(tiny_checkpoint: Path, tmp_path: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_checkpoint)
    exact = logits(model)
    set_activations(model, "int8")
    rounded = logits(model)
    assert not torch.equal(rounded, exact)
    model.save_pretrained(tmp_path / "out")
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert loaded.model.layers[1].mlp.up_proj.activations == "int8"
    assert torch.equal(logits(loaded), rounded)
    set_activations(loaded, "16bit")
    assert torch.equal(logits(loaded), exact)


def test_a_model_without_quantized_layers_cannot_be_described() -> None:
    with pytest.raises(CheckpointError, match="no DenseSparseLinear"):
        attach_quantization_config(make_model(), {})


def _set(position: int, value: float) -> Callable[[torch.Tensor], torch.Tensor]:
    def edit(tensor: torch.Tensor) -> torch.Tensor:
        edited = tensor.to(torch.int64) if tensor.dtype == torch.uint16 else tensor.clone()
        edited.view(-1)[position] = value
        return edited.to(tensor.dtype)

    return edit


def _equal_columns(columns: torch.Tensor) -> torch.Tensor:
    return torch.zeros_like(columns)


BAD_CONTENT: dict[str, tuple[str, Callable[[torch.Tensor], torch.Tensor], str]] = {
    "columns out of range": ("columns", _set(0, 5000), "columns must lie in 0..63"),
    "columns not sorted": ("columns", _equal_columns, "columns must rise strictly"),
    "offsets not monotone": ("row_offsets", _set(3, 50), "row_offsets must"),
    "offsets not from zero": ("row_offsets", _set(0, 1), "row_offsets must"),
    "offsets beyond the entries": ("row_offsets", _set(-1, 2**30), "row_offsets must end"),
    "value not finite": ("values", _set(5, float("inf")), "not finite"),
    "table not finite": ("table", _set(5, float("nan")), "not finite"),
}


@pytest.mark.parametrize("name", BAD_CONTENT)
def test_bad_content_is_refused(checkpoint: Path, name: str) -> None:
    tensor, edit, message = BAD_CONTENT[name]
    file = edit_tensor(checkpoint, f"{LAYER}.{tensor}", edit)
    with pytest.raises(CheckpointError, match=message) as caught:
        AutoModelForCausalLM.from_pretrained(checkpoint)
    assert LAYER in str(caught.value)
    assert str(file) in str(caught.value)


def test_a_missing_unquantized_tensor_is_an_error(checkpoint: Path) -> None:
    (checkpoint / CHECKSUMS_FILE).unlink()
    drop_tensor(checkpoint, "model.norm.weight")
    with pytest.raises(CheckpointError, match=r"tensor model\.norm\.weight is missing"):
        AutoModelForCausalLM.from_pretrained(checkpoint)


def test_a_missing_quantized_tensor_is_an_error(checkpoint: Path) -> None:
    drop_tensor(checkpoint, f"{LAYER}.columns")
    with pytest.raises(CheckpointError, match=f"{LAYER}.columns is missing"):
        AutoModelForCausalLM.from_pretrained(checkpoint)


def test_a_module_that_the_model_lacks_is_an_error(tmp_path: Path) -> None:
    model = quantize_quickly(make_model(num_hidden_layers=1))
    extra = quantize_quickly(make_model()).get_submodule("model.layers.1")
    model.model.layers.append(extra)
    attach_quantization_config(model, {})
    model.config.num_hidden_layers = 1
    model.save_pretrained(tmp_path / "out")
    with pytest.raises(CheckpointError, match=r"no module model\.layers\.1"):
        AutoModelForCausalLM.from_pretrained(tmp_path / "out")


def test_a_module_of_another_shape_is_an_error(checkpoint: Path) -> None:
    edit_modules(checkpoint, lambda modules: modules.update({"lm_head": modules.pop(LAYER)}))
    with pytest.raises(CheckpointError):
        AutoModelForCausalLM.from_pretrained(checkpoint)


def test_unknown_version_is_an_error(checkpoint: Path) -> None:
    config = checkpoint / "config.json"
    config.write_text(config.read_text().replace('"format_version": 1', '"format_version": 7'))
    with pytest.raises(CheckpointError, match="format_version 7 is unknown"):
        AutoModelForCausalLM.from_pretrained(checkpoint)


def test_a_tokenizer_is_optional(tmp_path: Path) -> None:
    save_checkpoint(quantize_quickly(make_model()), make_tokenizer(), tmp_path / "with")
    save_checkpoint(quantize_quickly(make_model()), None, tmp_path / "without")
    assert (tmp_path / "with" / "tokenizer.json").exists()
    assert not (tmp_path / "without" / "tokenizer.json").exists()
