"""The transformers integration: `import requant_kernels`, then `AutoModelForCausalLM.from_pretrained(directory)`.

Only hooks that have been stable throughout transformers 5 are used, with open-ended arguments: validate_environment,
the two `_process_model_*_weight_loading`, is_serializable, is_trainable, is_compileable.

    config.json -> RequantConfig (strict) -> before: headers checked, each nn.Linear becomes an empty DenseSparseLinear,
                   an nn.Embedding a QuantizedEmbedding, which a tied output head uses as well
                -> transformers reads the tensors into its buffers -> after: nothing missing, content checked, prepared
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from transformers.quantizers.auto import (
    AUTO_QUANTIZATION_CONFIG_MAPPING,
    register_quantization_config,
    register_quantizer,
)
from transformers.quantizers.base import HfQuantizer
from transformers.utils.quantization_config import QuantizationConfigMixin

from requant_kernels.checkpoint import (
    QUANT_METHOD,
    CheckpointConfig,
    CheckpointError,
    check_layer_content,
    check_layer_headers,
)
from requant_kernels.embedding import QuantizedEmbedding, TiedHead
from requant_kernels.linear import DenseSparseLinear
from requant_kernels.safetensors_header import StoredTensor, read_header

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class RequantConfig(QuantizationConfigMixin):
    """transformers' view of a `CheckpointConfig`."""

    def __init__(self, checkpoint: CheckpointConfig) -> None:
        self.quant_method = QUANT_METHOD  # transformers' enum holds its own methods only
        self.checkpoint = checkpoint

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], return_unused_kwargs: bool = False, **kwargs: Any) -> Any:
        """Raises CheckpointError on an unknown version and on unknown or missing fields."""
        config = cls(CheckpointConfig.from_dict(config_dict))
        return (config, kwargs) if return_unused_kwargs else config

    def to_dict(self) -> dict[str, Any]:
        """What config.json holds."""
        return self.checkpoint.to_dict()

    def to_diff_dict(self) -> dict[str, Any]:
        """Everything: there are no defaults to leave out."""
        return self.to_dict()


class RequantQuantizer(HfQuantizer):
    """Loads checkpoints; quantizing is the offline package's work."""

    requires_calibration = True

    def __init__(self, quantization_config: RequantConfig, **kwargs: Any) -> None:
        super().__init__(quantization_config, **kwargs)
        self.stored: dict[str, StoredTensor] = {}

    def _process_model_before_weight_loading(self, model: PreTrainedModel, *args: Any, **kwargs: Any) -> None:
        """Refuses wrong headers, then replaces each quantized nn.Linear and nn.Embedding, on the meta device."""
        config: CheckpointConfig = self.quantization_config.checkpoint
        for file in kwargs.get("checkpoint_files") or ():
            self.stored |= read_header(Path(file))
        if self.stored:
            check_layer_headers(config, self.stored, "config.json")
        for stored_name, spec in config.modules.items():
            if _belongs_to_the_head(model, stored_name, config):
                continue
            name, module = _find_module(model, stored_name)
            bias = getattr(module, "bias", None)
            found = (tuple(module.weight.shape), bias is not None)
            if found != (spec.shape, spec.bias):
                raise CheckpointError(
                    f"config.json: quantization_config: module {stored_name} is said to be {list(spec.shape)}, bias "
                    f"{spec.bias}, but in {type(model).__name__} it is {list(found[0])}, bias {found[1]}"
                )
            kind = DenseSparseLinear if isinstance(module, nn.Linear) else QuantizedEmbedding
            dtype = module.weight.dtype if bias is None else bias.dtype
            try:
                model.set_submodule(name, kind.from_spec(spec, device="meta", dtype=dtype))
            except ValueError as error:
                raise CheckpointError(f"config.json: quantization_config: module {stored_name}: {error}") from None
        tie_quantized_head(model)

    def _process_model_after_weight_loading(self, model: PreTrainedModel, *args: Any, **kwargs: Any) -> PreTrainedModel:
        """Refuses a model with tensors that no file held, and layers with impossible content."""
        _refuse_missing_tensors(model, self.stored)
        for name, module in model.named_modules():
            if isinstance(module, DenseSparseLinear):
                stored = self.stored.get(f"{name}.codes")
                where = f"{stored.file}: {name}" if stored is not None else name
                check_layer_content(where, module.spec, module.state_dict())
                module.prepare()
        return model

    def is_serializable(self, *args: Any, **kwargs: Any) -> bool:
        """`save_pretrained` writes what `from_pretrained` reads."""
        return True

    @property
    def is_trainable(self) -> bool:
        """Adapters on top can be trained; the codes themselves have no gradient."""
        return True

    @property
    def is_compileable(self) -> bool:
        """The operators have fake functions."""
        return True


def attach_quantization_config(
    model: PreTrainedModel, recipe: dict[str, Any] | None = None, provenance: dict[str, Any] | None = None
) -> None:
    """Describes a model's DenseSparseLinear layers in its config, so that `save_pretrained` writes a whole checkpoint.

    `recipe` and `provenance` (package versions, calibration fingerprint) are plain JSON data and stored as given.
    Raises CheckpointError if the model has no quantized layer.
    """
    modules = {name: layer.spec for name, layer in model.named_modules() if isinstance(layer, DenseSparseLinear)}
    if not modules:
        raise CheckpointError(f"{type(model).__name__} has no DenseSparseLinear layer to describe")
    config = RequantConfig(CheckpointConfig(modules, dict(recipe or {}), dict(provenance or {})))
    model.config.quantization_config = config
    model.hf_quantizer = RequantQuantizer(config)
    model.is_quantized = True
    model.quantization_method = QUANT_METHOD


def tie_quantized_head(model: PreTrainedModel) -> None:
    """If the model's config ties the output head to the input embedding, and that is quantized, makes the head use the
    embedding's one weight. transformers' own tying, which exchanges parameters, must know nothing of it.
    """
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    if not isinstance(embedding, QuantizedEmbedding):
        return
    names = {module: name for name, module in model.named_modules()}
    ours = tuple(f"{names[module]}." for module in (embedding, head) if module is not None)
    for attribute in ("_tied_weights_keys", "all_tied_weights_keys"):
        tied = getattr(model, attribute, None) or {}
        kept = {
            target: source
            for target, source in tied.items()
            if not (target.startswith(ours) or source.startswith(ours))
        }
        setattr(model, attribute, kept)
    if head is not None and not isinstance(head, TiedHead) and model.config.get_text_config().tie_word_embeddings:
        model.set_submodule(names[head], TiedHead(embedding))


def _belongs_to_the_head(model: PreTrainedModel, stored_name: str, config: CheckpointConfig) -> bool:
    """Whether the checkpoint has the module, but this bare base model (`AutoModel`) has no place for it."""
    prefix = f"{model.base_model_prefix}."
    stored_with_prefix = any(name.startswith(prefix) for name in config.modules)
    return model.base_model is model and stored_with_prefix and not stored_name.startswith(prefix)


def _find_module(model: PreTrainedModel, stored_name: str) -> tuple[str, nn.Linear | nn.Embedding]:
    """The module of that name; the base model's prefix comes or goes with the head, as transformers does it."""
    prefix = f"{model.base_model_prefix}."
    for name in (stored_name, stored_name.removeprefix(prefix), prefix + stored_name):
        try:
            module = model.get_submodule(name)
        except AttributeError:
            continue
        if isinstance(module, (nn.Linear, nn.Embedding)):
            return name, module
        raise CheckpointError(
            f"config.json: quantization_config: module {stored_name} is a {type(module).__name__} in "
            f"{type(model).__name__}, expected a linear layer or an embedding"
        )
    raise CheckpointError(
        f"config.json: quantization_config: {type(model).__name__} has no module {stored_name}; found in the "
        "checkpoint, not in the model"
    )


def _refuse_missing_tensors(model: PreTrainedModel, stored: dict[str, StoredTensor]) -> None:
    """transformers fills a missing tensor with random numbers and a warning; here it is an error.

    Its loader flags every tensor it has read. The names in the files are a second opinion, so that neither a renaming
    of keys between file and model nor the absence of the flag in another version raises a false alarm.
    """
    tied = getattr(model, "all_tied_weights_keys", None) or {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        if name not in stored and name not in tied and not getattr(tensor, "_is_hf_initialized", False):
            raise CheckpointError(f"{model.config.name_or_path}: tensor {name} is missing from the safetensors files")


def is_quantized(model: torch.nn.Module) -> bool:
    """Whether any layer is a DenseSparseLinear."""
    return any(isinstance(module, DenseSparseLinear) for module in model.modules())


# Registering is what importing this module is for. transformers refuses to register a name twice.
if QUANT_METHOD not in AUTO_QUANTIZATION_CONFIG_MAPPING:
    register_quantization_config(QUANT_METHOD)(RequantConfig)
    register_quantizer(QUANT_METHOD)(RequantQuantizer)
