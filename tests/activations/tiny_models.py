"""Tiny random models, one an architecture, with a word tokenizer; no weights are read."""

from __future__ import annotations

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    Gemma3TextConfig,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    MistralConfig,
    OPTConfig,
    PreTrainedConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
)

VOCABULARY = 64
D_MODEL = 16
N_LAYERS = 3
GATED = {
    "vocab_size": VOCABULARY,
    "hidden_size": D_MODEL,
    "intermediate_size": 40,
    "num_hidden_layers": N_LAYERS,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 6,
    "max_position_embeddings": 64,
}
CONFIGS: dict[str, PreTrainedConfig] = {
    "gpt2": GPT2Config(
        vocab_size=VOCABULARY, n_embd=D_MODEL, n_layer=N_LAYERS, n_head=4, n_positions=64
    ),
    "llama": LlamaConfig(**GATED),
    "llama_biased": LlamaConfig(**GATED, mlp_bias=True, attention_bias=True),
    "qwen2": Qwen2Config(**GATED),
    "mistral": MistralConfig(**GATED, sliding_window=8),
    "gemma2": Gemma2Config(**GATED, sliding_window=8),
    "gemma3": Gemma3TextConfig(**GATED, sliding_window=8),
    "gpt_neox": GPTNeoXConfig(**{**GATED, "head_dim": None}),
    "gpt_neox_serial": GPTNeoXConfig(**GATED, use_parallel_residual=False),
    "opt": OPTConfig(
        vocab_size=VOCABULARY,
        hidden_size=D_MODEL,
        word_embed_proj_dim=D_MODEL,
        ffn_dim=40,
        num_hidden_layers=N_LAYERS,
        num_attention_heads=4,
        max_position_embeddings=64,
    ),
    "opt_projected": OPTConfig(
        vocab_size=VOCABULARY,
        hidden_size=D_MODEL,
        word_embed_proj_dim=8,
        ffn_dim=40,
        num_hidden_layers=N_LAYERS,
        num_attention_heads=4,
        max_position_embeddings=64,
    ),
}
ARCHITECTURES = tuple(CONFIGS)


def tiny_model(architecture: str, seed: int = 0) -> nn.Module:
    """The architecture with random weights, biases and norm scales all away from 0 and 1."""
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(CONFIGS[architecture])
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval().requires_grad_(False)


def word_tokenizer(*, adds_bos: bool) -> PreTrainedTokenizerFast:
    """Words w0 ... w59 between blanks; id 1 is the BOS, put in front when `adds_bos`."""
    vocabulary = {"<unk>": 0, "<s>": 1, "<pad>": 2, "</s>": 3}
    vocabulary |= {f"w{i}": i + 4 for i in range(VOCABULARY - 4)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    if adds_bos:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<s> $A", special_tokens=[("<s>", 1)]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", pad_token="<pad>", unk_token="<unk>"
    )
