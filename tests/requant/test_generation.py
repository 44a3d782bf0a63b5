"""Streamed text is the generated text, whole; prompts are encoded as asked."""

from __future__ import annotations

import pytest
import torch
from requant.errors import InputError
from requant.generation import encode_prompt, stream_text
from tiny_model import make_model, make_tokenizer


def test_streamed_pieces_make_the_text() -> None:
    model, tokenizer, pieces = make_model(), make_tokenizer(), []
    prompt = encode_prompt(tokenizer, "The quick brown fox")
    generated = stream_text(model, tokenizer, prompt, 10, pieces.append)
    expected = model.generate(prompt, max_new_tokens=10, do_sample=False, pad_token_id=1)[0, prompt.shape[1] :]
    assert "".join(pieces) == generated.text == tokenizer.decode(expected, skip_special_tokens=True)
    assert generated.tokens == len(expected)
    assert generated.prefill_ms > 0
    assert generated.decode_tokens_per_second > 0


def test_sampling_follows_the_seed() -> None:
    model, tokenizer = make_model(), make_tokenizer()
    prompt = encode_prompt(tokenizer, "The quick brown fox")
    texts = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        texts.append(stream_text(model, tokenizer, prompt, 10, lambda text: None, temperature=1.0).text)
    assert texts[0] == texts[1] != texts[2]


def test_chat_puts_the_prompt_into_the_template() -> None:
    tokenizer = make_tokenizer()
    tokenizer.chat_template = "{% for m in messages %}the {{ m['content'] }} runs{% endfor %}"
    assert tokenizer.decode(encode_prompt(tokenizer, "fox", chat=True)[0]) == "the fox runs"
    tokenizer.chat_template = None
    with pytest.raises(InputError, match="no chat template"):
        encode_prompt(tokenizer, "fox", chat=True)


def test_an_empty_prompt_is_refused() -> None:
    with pytest.raises(InputError, match="prompt is empty"):
        encode_prompt(make_tokenizer(), "")
