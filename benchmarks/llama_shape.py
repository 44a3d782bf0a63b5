"""A model of Llama-3.2-1B's shape with random weights: nothing to download, and speed does not depend on values."""

from __future__ import annotations

import torch
from transformers import LlamaConfig, LlamaForCausalLM

NOISE_ELEMENTS = 1 << 20

LLAMA_3_2_1B = LlamaConfig(
    vocab_size=128256,
    hidden_size=2048,
    intermediate_size=8192,
    num_hidden_layers=16,
    num_attention_heads=32,
    num_key_value_heads=8,
    head_dim=64,
    max_position_embeddings=131072,
    rms_norm_eps=1e-5,
    rope_parameters={
        "rope_type": "llama3",
        "rope_theta": 500000.0,
        "factor": 32.0,
        "high_freq_factor": 4.0,
        "low_freq_factor": 1.0,
        "original_max_position_embeddings": 8192,
    },
    tie_word_embeddings=True,
)


def random_model(config: LlamaConfig, dtype: torch.dtype = torch.bfloat16) -> LlamaForCausalLM:
    """Every parameter repeats one stretch of noise, which is much faster to make than a billion random numbers."""
    generator = torch.Generator().manual_seed(0)
    noise = (0.02 * torch.randn(NOISE_ELEMENTS, generator=generator)).to(dtype)
    # Constructed with initialization switched off: it would take minutes, and is overwritten anyway.
    with torch.device("meta"):
        model = LlamaForCausalLM(config)
    rotary = type(model.model.rotary_emb)(config)
    model = model.to(dtype).to_empty(device="cpu")
    model.tie_weights()
    model.model.rotary_emb = rotary  # the only buffers that the model computes; they were empty, too
    for parameter in model.parameters():
        if parameter.ndim == 1:  # scales of norms
            parameter.data.fill_(1)
        else:
            flat = parameter.data.view(-1)
            for start in range(0, flat.numel(), NOISE_ELEMENTS):
                piece = flat[start : start + NOISE_ELEMENTS]
                piece.copy_(noise[: piece.numel()])
    return model.eval()
