"""A tiny random Llama with a tiny tokenizer, unquantized and quantized, for every test that needs a whole model."""

from __future__ import annotations

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from requant_kernels import DenseSparseLinear
from requant_kernels.integrations.transformers import attach_quantization_config

TEXT = "The quick brown fox jumps over the lazy dog, and the dog sleeps on while the fox runs away. "
SHARD_SIZE = "40KB"  # so that the tiny checkpoint has several files and an index


def make_tokenizer() -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([TEXT], trainer)
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="</s>")
    wrapped.chat_template = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    return wrapped


def make_model(seed: int = 0, *, tied: bool = True, bias: bool = True, **settings: object) -> LlamaForCausalLM:
    """bf16 parameters, fp32 rotary frequencies: what a checkpoint loads as."""
    torch.manual_seed(seed)
    sizes = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "vocab_size": 300}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 512}
    model = LlamaForCausalLM(
        LlamaConfig(**(sizes | heads | settings), tie_word_embeddings=tied, attention_bias=bias, pad_token_id=1)
    ).eval()
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            nn.init.normal_(parameter)
        parameter.data = parameter.data.to(torch.bfloat16)
    return model


def quantize_quickly(model: LlamaForCausalLM, **choices: object) -> LlamaForCausalLM:
    """Rounds to nearest: attention in `uniform` (one layer without a sparse part), the rest in `lut`."""
    for name, linear in list(model.named_modules()):
        if isinstance(linear, nn.Linear) and not name.endswith("lm_head"):
            form = "uniform" if "self_attn" in name else "lut"
            percent = 0.0 if name.endswith("0.self_attn.q_proj") else 1.0
            settings = {"format": form, "bits": 3, "sparse_percent": percent} | choices
            model.set_submodule(name, DenseSparseLinear.from_linear(linear, **settings))
    attach_quantization_config(model, {"method": "rtn"}, {"versions": {}})
    return model


def logits(model: nn.Module, seed: int = 0) -> torch.Tensor:
    tokens = torch.randint(300, (2, 9), generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        return model(tokens).logits
