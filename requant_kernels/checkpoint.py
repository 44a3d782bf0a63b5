"""Checkpoints: a complete Hugging Face directory that is refused, loudly, if anything about it is wrong.

    config.json               quantization_config = {quant_method, format_version, modules, recipe, provenance}
    model*.safetensors        plain 1-D and 2-D tensors, named `<module>.<operator argument>`; sharded with an index
    requant.checksums.json    SHA-256 of the bytes of every tensor, the unquantized ones too
    tokenizer, chat template, generation_config.json, README.md

Three levels of checking, each including the one before:

    validate_structure   reads config and headers only: versions, fields, names, shapes, dtypes, sizes
    loading              + the content of every quantized layer: CSR order and ranges, finite values
    verify               + the checksum of every tensor
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from requant_kernels.atomic_directory import atomic_directory
from requant_kernels.errors import CheckpointError
from requant_kernels.formats import LayerSpec, SparseWeight
from requant_kernels.safetensors_header import StoredTensor, read_header

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = [
    "Checkpoint",
    "CheckpointConfig",
    "CheckpointError",
    "check_layer_content",
    "check_layer_headers",
    "read_quantization_config",
    "read_weight_headers",
    "save_checkpoint",
    "validate_structure",
    "verify",
]

QUANT_METHOD = "requant"
FORMAT_VERSION = 1
CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
CHECKSUMS_FILE = "requant.checksums.json"
CHECKSUM_ALGORITHM = "sha256"
READ_BYTES = 1 << 22
BIAS_DTYPES = (torch.bfloat16, torch.float16, torch.float32)
MODEL_CARD = """---
library_name: transformers
tags: [requant]
---

```python
import requant_kernels  # without this line transformers would ignore the quantization
model = transformers.AutoModelForCausalLM.from_pretrained("path/to/this/directory")
```

Weights quantized by requant-kernels: every quantized linear layer is W = D + S, {bits} dense codes plus a sparse part
of 16-bit values. {layers} layers, {true_bits:.2f} bits per quantized weight, everything counted.

The recipe that made it is in `config.json`; `requant verify DIRECTORY` checks every tensor's checksum.
"""


@dataclass(frozen=True)
class CheckpointConfig:
    """`quantization_config` of config.json: what is quantized and how, and the recipe that did it."""

    modules: dict[str, LayerSpec]
    recipe: dict[str, Any] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)
    """Package versions, calibration fingerprint."""

    @classmethod
    def from_dict(cls, config: Mapping[str, Any], where: str = CONFIG_FILE) -> CheckpointConfig:
        """Strict: an unknown version, an unknown or missing field raises CheckpointError beginning with `where`."""
        where = f"{where}: quantization_config"
        if not isinstance(config, Mapping) or config.get("quant_method") != QUANT_METHOD:
            raise CheckpointError(f"{where}: expected quant_method {QUANT_METHOD!r}, got {config!r:.100}")
        version = config.get("format_version")
        if version != FORMAT_VERSION or type(version) is not int:
            raise CheckpointError(
                f"{where}: format_version {version!r} is unknown to this release, which reads {FORMAT_VERSION}"
            )
        names = {"quant_method", "format_version", "modules", "recipe", "provenance"}
        for problem, found in (("unknown", config.keys() - names), ("missing", names - config.keys())):
            if found:
                raise CheckpointError(f"{where}: {problem} field {', '.join(sorted(found))}")
        for name in ("modules", "recipe", "provenance"):
            if not isinstance(config[name], Mapping):
                raise CheckpointError(f"{where}: {name} must be an object, got {config[name]!r:.100}")
        try:
            modules = {
                name: LayerSpec.from_dict(entry, f"{where}: module {name}") for name, entry in config["modules"].items()
            }
        except ValueError as error:
            raise CheckpointError(str(error)) from None
        return cls(modules, dict(config["recipe"]), dict(config["provenance"]))

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {
            "quant_method": QUANT_METHOD,
            "format_version": FORMAT_VERSION,
            "modules": {name: spec.to_dict() for name, spec in self.modules.items()},
            "recipe": dict(self.recipe),
            "provenance": dict(self.provenance),
        }


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint whose structure has been validated."""

    directory: Path
    config: CheckpointConfig
    tensors: dict[str, StoredTensor]

    @property
    def tensor_bytes(self) -> int:
        """Of all tensors in all files, without the headers."""
        return sum(tensor.end - tensor.begin for tensor in self.tensors.values())


def save_checkpoint(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase | None,
    directory: str | Path,
    *,
    overwrite: bool = False,
    max_shard_size: str = "5GB",
) -> None:
    """Writes a complete checkpoint, whole or not at all.

    `model` carries its quantization config (`integrations.transformers.attach_quantization_config`, or it was loaded
    from a checkpoint). Raises CheckpointError if it does not, FileExistsError or PermissionError if `directory` cannot
    be written. Two calls on equal models write equal bytes.
    """
    if getattr(getattr(model.config, "quantization_config", None), "quant_method", None) != QUANT_METHOD:
        raise CheckpointError(
            "model has no requant quantization_config: quantize it, or call attach_quantization_config first"
        )
    with atomic_directory(directory, overwrite=overwrite) as temporary:
        model.save_pretrained(temporary, max_shard_size=max_shard_size)
        if tokenizer is not None:
            tokenizer.save_pretrained(temporary)
        for file in temporary.glob("*.safetensors"):  # safetensors makes them private, whatever the umask says
            file.chmod((temporary / CONFIG_FILE).stat().st_mode)
        checkpoint = validate_structure(temporary)
        _write_json(temporary / CHECKSUMS_FILE, _checksums(checkpoint.tensors))
        (temporary / "README.md").write_text(_model_card(checkpoint), encoding="utf-8")


def validate_structure(directory: str | Path) -> Checkpoint:
    """Checks everything that config and file headers can tell, without reading a tensor.

    Raises CheckpointError with the file and the reason.
    """
    directory = Path(directory)
    config_file = directory / CONFIG_FILE
    quantization_config = read_quantization_config(directory)
    if quantization_config is None:
        raise CheckpointError(f"{config_file}: has no quantization_config, so this is not a requant checkpoint")
    config = CheckpointConfig.from_dict(quantization_config, str(config_file))
    tensors = read_weight_headers(directory)
    check_layer_headers(config, tensors, str(config_file))
    checksums_file = directory / CHECKSUMS_FILE
    if checksums_file.exists():
        listed = {name for names in _read_checksums(checksums_file).values() for name in names}
        if missing := sorted(listed - tensors.keys()):
            raise CheckpointError(f"{directory}: tensor {missing[0]} is missing ({CHECKSUMS_FILE} lists it)")
        if unexpected := sorted(tensors.keys() - listed):
            raise CheckpointError(
                f"{tensors[unexpected[0]].file}: tensor {unexpected[0]} is unexpected ({CHECKSUMS_FILE} lacks it)"
            )
    return Checkpoint(directory, config, tensors)


def verify(directory: str | Path) -> Checkpoint:
    """Structure, the checksum of every tensor, and the content of every quantized layer.

    Any flipped bit of any tensor is found. Raises CheckpointError naming the tensors and their files.
    """
    checkpoint = validate_structure(directory)
    checksums_file = checkpoint.directory / CHECKSUMS_FILE
    if not checksums_file.exists():
        raise CheckpointError(f"{checksums_file}: missing, so tensors cannot be verified; save_checkpoint writes it")
    expected = {name: digest for names in _read_checksums(checksums_file).values() for name, digest in names.items()}
    damaged = [name for name, tensor in checkpoint.tensors.items() if _digest(tensor) != expected[name]]
    if damaged:
        shown = "; ".join(f"{checkpoint.tensors[name].file}: tensor {name}" for name in damaged[:5])
        more = f" and {len(damaged) - 5} more" if len(damaged) > 5 else ""
        raise CheckpointError(f"{shown}{more}: {CHECKSUM_ALGORITHM} differs from {CHECKSUMS_FILE}, the data is damaged")
    for name, spec in checkpoint.config.modules.items():
        stored = {key: checkpoint.tensors.get(f"{name}.{key}") for key in (*spec.tensors(), "bias")}
        tensors = {key: _read_tensor(tensor) for key, tensor in stored.items() if tensor is not None}
        check_layer_content(f"{checkpoint.tensors[f'{name}.codes'].file}: {name}", spec, tensors)
    return checkpoint


def read_quantization_config(directory: Path) -> Any:
    """`quantization_config` of config.json, unchecked; None if there is none. Raises CheckpointError if unreadable."""
    config = _read_json(directory / CONFIG_FILE)
    return config.get("quantization_config")


def read_weight_headers(directory: Path) -> dict[str, StoredTensor]:
    """Every tensor of a Hugging Face directory's safetensors files, sharded or not.

    Raises CheckpointError on a missing, truncated or damaged file, and on an index that disagrees with the files.
    """
    index_file = directory / INDEX_FILE
    if not index_file.exists():
        if not (directory / WEIGHTS_FILE).exists():
            raise CheckpointError(f"{directory}: has neither {WEIGHTS_FILE} nor {INDEX_FILE}")
        return read_header(directory / WEIGHTS_FILE)
    weight_map = _read_json(index_file).get("weight_map")
    if not isinstance(weight_map, dict) or not all(isinstance(name, str) for name in weight_map.values()):
        raise CheckpointError(f"{index_file}: damaged: weight_map must map tensor names to file names")
    tensors: dict[str, StoredTensor] = {}
    for file_name in sorted(set(weight_map.values())):
        if Path(file_name).name != file_name:
            raise CheckpointError(f"{index_file}: {file_name!r} is not a plain file name")
        header = read_header(directory / file_name)
        for name in header:
            if weight_map.get(name) != file_name:
                raise CheckpointError(f"{index_file}: does not say that tensor {name} is in {file_name}")
        tensors |= header
    if missing := sorted(weight_map.keys() - tensors.keys()):
        raise CheckpointError(f"{directory / weight_map[missing[0]]}: tensor {missing[0]} of {INDEX_FILE} is missing")
    return tensors


def check_layer_headers(config: CheckpointConfig, tensors: Mapping[str, StoredTensor], where: str) -> None:
    """Every tensor of every quantized module is there with its shape and dtype, and no other module has such tensors.

    Raises CheckpointError.
    """
    expected = {}
    for module, spec in config.modules.items():
        expected.update({f"{module}.{key}": layout for key, layout in spec.tensors().items()})
        if spec.bias:
            stored = tensors.get(f"{module}.bias")
            dtype = stored.dtype if stored is not None and stored.dtype in BIAS_DTYPES else BIAS_DTYPES[0]
            expected[f"{module}.bias"] = ((spec.shape[0],), dtype)
    for name, (shape, dtype) in expected.items():
        tensor = tensors.get(name)
        if tensor is None:
            raise CheckpointError(f"{where}: tensor {name} is missing from the safetensors files")
        if (tensor.shape, tensor.dtype) != (shape, dtype):
            raise CheckpointError(
                f"{tensor.file}: tensor {name} is {list(tensor.shape)} {tensor.dtype}, "
                f"{CONFIG_FILE} expects {list(shape)} {dtype}"
            )
    for name, tensor in tensors.items():
        module, _, key = name.rpartition(".")
        # Every quantized layer has codes; its other tensors bear names that foreign modules may have, too.
        if (key == "codes" or module in config.modules) and name not in expected:
            reason = "lacks the module" if module not in config.modules else "has no place for it in the module"
            raise CheckpointError(f"{tensor.file}: tensor {name} is unexpected: {CONFIG_FILE} {reason}")


def check_layer_content(where: str, spec: LayerSpec, tensors: Mapping[str, Tensor]) -> None:
    """One quantized layer: CSR monotone, sorted, free of duplicates and in range, every float finite.

    Raises CheckpointError beginning with `where`.
    """
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            raise CheckpointError(f"{where}.{name}: holds a value that is not finite")
    if "row_offsets" in tensors:
        sparse = SparseWeight(tensors["row_offsets"], tensors["columns"], tensors["values"], spec.shape[1])
        try:
            sparse.validate()
        except ValueError as error:
            raise CheckpointError(f"{where}: {error}") from None


def _model_card(checkpoint: Checkpoint) -> str:
    """The same for equal checkpoints, wherever they are written."""
    modules = checkpoint.config.modules
    weights = sum(spec.shape[0] * spec.shape[1] for spec in modules.values())
    stored_bytes = sum(
        checkpoint.tensors[f"{name}.{key}"].end - checkpoint.tensors[f"{name}.{key}"].begin
        for name, spec in modules.items()
        for key in spec.tensors()
    )
    bits = "/".join(f"{bits}-bit" for bits in sorted({spec.bits for spec in modules.values()}))
    true_bits = 8 * stored_bytes / weights if weights else 0.0
    return MODEL_CARD.format(bits=bits, layers=len(modules), true_bits=true_bits)


def _checksums(tensors: Mapping[str, StoredTensor]) -> dict[str, Any]:
    files: dict[str, dict[str, str]] = {}
    for name, tensor in sorted(tensors.items()):
        files.setdefault(tensor.file.name, {})[name] = _digest(tensor)
    return {"format_version": FORMAT_VERSION, "algorithm": CHECKSUM_ALGORITHM, "files": files}


def _read_checksums(file: Path) -> dict[str, dict[str, str]]:
    checksums = _read_json(file)
    if checksums.keys() != {"format_version", "algorithm", "files"}:
        raise CheckpointError(f"{file}: expected format_version, algorithm and files, got {', '.join(checksums)}")
    if (checksums["format_version"], checksums["algorithm"]) != (FORMAT_VERSION, CHECKSUM_ALGORITHM):
        raise CheckpointError(f"{file}: format_version or algorithm is unknown to this release")
    files = checksums["files"]
    if not isinstance(files, dict) or not all(isinstance(names, dict) for names in files.values()):
        raise CheckpointError(f"{file}: files must map file names to the checksums of their tensors")
    return files


def _digest(tensor: StoredTensor) -> str:
    digest = hashlib.new(CHECKSUM_ALGORITHM)
    for chunk in _chunks(tensor):
        digest.update(chunk)
    return digest.hexdigest()


def _chunks(tensor: StoredTensor) -> Iterator[bytes]:
    with tensor.file.open("rb") as stream:
        stream.seek(tensor.begin)
        for position in range(tensor.begin, tensor.end, READ_BYTES):
            yield stream.read(min(READ_BYTES, tensor.end - position))


def _read_tensor(tensor: StoredTensor) -> Tensor:
    content = bytearray().join(_chunks(tensor))
    if not content:
        return torch.empty(tensor.shape, dtype=tensor.dtype)
    return torch.frombuffer(content, dtype=tensor.dtype).reshape(tensor.shape)


def _read_json(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise CheckpointError(f"{file}: cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise CheckpointError(f"{file}: is not valid JSON: {error}") from None
    if not isinstance(content, dict):
        raise CheckpointError(f"{file}: expected an object, got {content!r:.100}")
    return content


def _write_json(file: Path, content: dict[str, Any]) -> None:
    file.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
