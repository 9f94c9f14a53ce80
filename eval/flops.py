"""Counted floating-point operations of one prediction: matrix products only, a multiply and an add count as two.

Training is three times the forward pass (the backward pass has two products for each of the forward's), times the
examples it saw. Looking up counts, sorting and mixing are not floating-point work worth counting; the clock has them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ontology.errors import ConstructibleError
from ontology.io import load_tensors, read_json


def forward_per_token(folder: Path) -> float | None:
    """FLOPs of one prediction by a model folder; 0 where nothing is trained, None where the model is of unknown make.

    A constructed model's nets differ; they are averaged by how often each situation occurred in the mixer's files.
    """
    try:
        if (folder / "nets.safetensors").is_file():
            return _nets(folder)
        if (folder / "index.safetensors").is_file():
            return 0.0
        for place in (folder / "transformer", folder):
            if (place / "config.json").is_file() and "model_type" in (config := read_json(place / "config.json")):
                return transformer_flops(config)
    except (ConstructibleError, KeyError, ValueError, IndexError):
        return None  # made by another version: unknown is said, not guessed
    return None


def _nets(folder: Path) -> float:
    nets, mixer = load_tensors(folder / "nets.safetensors"), read_json(folder / "mixer.json")
    owner = read_json(folder / "config.json")["owner"]
    names = nets["concept_names"].tobytes().decode().split("\n")
    _, d_in, hidden = nets["w1"].shape
    d_out = nets["w2_shared"].shape[1]
    reads, vocabulary = nets["declared"].sum(1), len(nets["output"])
    each = 2.0 * (reads * d_in * hidden + hidden * (d_out + nets["w_pointer"].shape[1]) + d_out * vocabulary)
    positions = np.array(mixer["positions"], dtype=np.float64)
    of = np.array([each[names.index(owner[concept])] for concept in mixer["concepts"]])
    return float((of * positions).sum() / positions.sum()) if positions.sum() else float(each.mean())


def transformer_flops(config: dict[str, Any]) -> float:
    """FLOPs per token of a Llama-like transformer's forward pass over a full context, attention included.

    Counted from its shapes: query, key, value and output projections, three feed-forward products, the logits, and
    for attention the scores and the weighted values over the mean number of positions to the left.

    Raises:
        KeyError: the configuration is not of that make.
    """
    width, layers, inner = config["hidden_size"], config["num_hidden_layers"], config["intermediate_size"]
    heads = config["num_attention_heads"]
    head = config.get("head_dim") or width // heads
    query, key_value = heads * head, config.get("num_key_value_heads", heads) * head
    context = config["max_position_embeddings"]
    projections = 2 * width * (2 * query + 2 * key_value)
    attention = 2 * 2 * query * (context + 1) / 2
    return float(layers * (projections + attention + 2 * 3 * width * inner) + 2 * width * config["vocab_size"])
