"""llama.cpp, through llama-cpp-python, behind the few calls that requant.speed makes of a transformers model."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor


class LlamaCppModel:
    """A GGUF file on the CPU. Raises ImportError if llama-cpp-python is not installed."""

    def __init__(self, path: Path, threads: int, context: int) -> None:
        from llama_cpp import Llama

        self._llama = Llama(
            model_path=str(path), n_threads=threads, n_threads_batch=threads, n_ctx=context, verbose=False
        )
        self.device = torch.device("cpu")
        # Which token comes next does not matter to speed, so logits stay in llama.cpp: always token 0.
        self._logits = torch.zeros(1, 1, self._llama.n_vocab())

    def get_input_embeddings(self) -> SimpleNamespace:
        """Only its number of rows is asked for."""
        return SimpleNamespace(num_embeddings=self._logits.shape[-1])

    def __call__(self, tokens: Tensor, cache: object = None, **_options: Any) -> SimpleNamespace:
        """Evaluates tokens [1, count], after those before if `cache` is given."""
        if cache is None:
            self._llama.reset()
        self._llama.eval(tokens[0].tolist())
        return SimpleNamespace(logits=self._logits, cache=self)
