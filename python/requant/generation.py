"""Text from a causal language model, streamed while it is timed."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers import TextStreamer

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True)
class Generated:
    """A continuation and what it took."""

    text: str
    tokens: int
    prefill_ms: float
    """Until the first new token."""
    decode_tokens_per_second: float
    """From the first new token to the last; 0 if there was only one."""

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return asdict(self)


def encode_prompt(tokenizer: PreTrainedTokenizerBase, prompt: str, *, chat: bool = False) -> Tensor:
    """int64 [1, tokens]; `chat` puts the prompt into the model's chat template as a user's message.

    Raises InputError if the prompt is empty, or if the tokenizer has no chat template.
    """
    from requant.errors import InputError

    if chat:
        if not getattr(tokenizer, "chat_template", None):
            raise InputError("--chat: this model has no chat template")
        message = [{"role": "user", "content": prompt}]
        prompt = tokenizer.apply_chat_template(message, tokenize=False, add_generation_prompt=True)
    tokens = tokenizer(prompt, return_tensors="pt", add_special_tokens=not chat).input_ids
    if tokens.numel() == 0:
        raise InputError("the prompt is empty, expected at least one token")
    return tokens


def stream_text(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompt_tokens: Tensor,
    tokens: int,
    on_text: Callable[[str], None],
    *,
    temperature: float = 0.0,
) -> Generated:
    """Continues `prompt_tokens` [1, length] by up to `tokens` tokens; `on_text` gets each finished piece of text."""
    streamer = _TimedStreamer(tokenizer, on_text)
    sampling = {"do_sample": True, "temperature": temperature} if temperature > 0 else {"do_sample": False}
    start = time.perf_counter()
    with torch.inference_mode():
        model.generate(
            prompt_tokens,
            attention_mask=torch.ones_like(prompt_tokens),
            max_new_tokens=tokens,
            streamer=streamer,
            pad_token_id=tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id,
            **sampling,
        )
    arrivals = streamer.arrivals
    decode_seconds = arrivals[-1] - arrivals[0]
    return Generated(
        text="".join(streamer.pieces),
        tokens=len(arrivals),
        prefill_ms=1000 * (arrivals[0] - start),
        decode_tokens_per_second=(len(arrivals) - 1) / decode_seconds if decode_seconds > 0 else 0.0,
    )


class _TimedStreamer(TextStreamer):
    """Passes finished text on and notes when each token came."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, on_text: Callable[[str], None]) -> None:
        super().__init__(tokenizer, skip_prompt=True, skip_special_tokens=True)
        self.on_text = on_text
        self.pieces: list[str] = []
        self.arrivals: list[float] = []
        self._prompt_passed = False

    def put(self, value: Tensor) -> None:
        if self._prompt_passed:
            self.arrivals.append(time.perf_counter())
        self._prompt_passed = True
        super().put(value)

    def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
        self.pieces.append(text)
        self.on_text(text)
