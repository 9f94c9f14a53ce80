"""The monolith's network: transformers' Qwen3 and a hashed bigram embedding, which costs memory and no products.

To the embedding of a token comes the row of (token before, token) in a table that starts at zero; several pairs share
a row. Importing this module registers the classes with transformers, so that `AutoModelForCausalLM.from_pretrained`
reads a saved folder. Text is generated without a cache of keys and values: a single new token does not say which one
stood before it.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, Qwen3Config, Qwen3ForCausalLM
from transformers.models.qwen3.modeling_qwen3 import Qwen3Model

from cgpt.baseline import END, BaselineConfig


class TransformerConfig(Qwen3Config):
    """Qwen3's settings, and rows and width of the bigrams' table; a narrow one is brought to the width by a matrix."""

    model_type = "constructible_transformer"
    bigram_rows: int = 1
    bigram_width: int = 1


class _Model(Qwen3Model):
    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.bigram_embed = nn.Embedding(config.bigram_rows, config.bigram_width)
        self.bigram_proj = nn.Linear(config.bigram_width, config.hidden_size, bias=False)
        self.post_init()

    def forward(self, input_ids: torch.Tensor | None = None, **options: Any) -> Any:  # type: ignore[override]
        if input_ids is None or options.get("past_key_values") is not None:
            raise ValueError("this network reads whole sequences of tokens: use_cache=False, no inputs_embeds")
        before = nn.functional.pad(input_ids[:, :-1], (1, 0), value=END)
        rows = bigram_rows(before, input_ids, self.config.bigram_rows)
        embedded = self.embed_tokens(input_ids) + self.bigram_proj(self.bigram_embed(rows))
        options |= {"inputs_embeds": embedded, "use_cache": False}
        return super().forward(None, **options)


class Transformer(Qwen3ForCausalLM):
    """The causal language model of that configuration."""

    config_class = TransformerConfig

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.model = _Model(config)
        self.post_init()
        if self.generation_config is not None:
            self.generation_config.use_cache = False


def bigram_rows(before: torch.Tensor, ids: torch.Tensor, rows: int) -> torch.Tensor:
    """Row of each pair of tokens: the upper bits of a multiplicative hash, so that pairs scatter evenly."""
    return (((before << 16) | ids) * 0x1E3779B97F4A7C15 >> 32) % rows


def build_network(config: BaselineConfig) -> Any:
    """A causal language model with freshly drawn weights; the same seed gives the same weights.

    Matrices that write to the residual stream and the bigrams start at zero, other matrices with a deviation of
    0.7 / sqrt(inputs). Without bigrams it is a plain Qwen3ForCausalLM.
    """
    options: dict[str, Any] = {
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.hidden_size // config.head_width,
        "num_key_value_heads": config.hidden_size // config.head_width,
        "head_dim": config.head_width,
        "max_position_embeddings": config.context,
        "tie_word_embeddings": True,
        "attention_dropout": 0.0,
        "bos_token_id": END,
        "eos_token_id": END,
        "pad_token_id": None,
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        if config.bigram_rows:
            options |= {"bigram_rows": config.bigram_rows, "bigram_width": config.bigram_width}
            network: Any = Transformer(TransformerConfig(**options))
        else:
            network = Qwen3ForCausalLM(Qwen3Config(**options))
        with torch.no_grad():
            for name, parameter in network.named_parameters():
                if name.endswith(("o_proj.weight", "down_proj.weight", "bigram_embed.weight")):
                    parameter.zero_()
                elif parameter.ndim == 2 and "embed" not in name and "lm_head" not in name:
                    parameter.normal_(0.0, 0.7 / math.sqrt(parameter.shape[1]))
    return network


AutoConfig.register(TransformerConfig.model_type, TransformerConfig)
AutoModelForCausalLM.register(TransformerConfig, Transformer)
