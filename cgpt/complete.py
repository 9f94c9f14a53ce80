"""Completion: token after token, greedy or sampled, with a prompt that ends inside a word healed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from cgpt.index import SEPARATOR

if TYPE_CHECKING:
    from cgpt.model import LanguageModel


@dataclass(frozen=True)
class Step:
    """One generated token: its `text` (bytes added to the prompt), probability and the view's boundary it came at."""

    token: int
    text: bytes
    probability: float
    boundary: int


@dataclass(frozen=True)
class Completion:
    """What was added to the prompt; `healed` is the typed part of the word that was predicted again."""

    prompt: bytes
    text: bytes
    steps: list[Step]
    healed: bytes


def heal_point(model: LanguageModel, prompt: bytes) -> tuple[np.ndarray, bytes]:
    """(tokens to keep, typed bytes to predict again): the last token is given back if the prompt ends inside a word."""
    ids = model.tokenizer.encode(prompt)
    if not len(ids):
        return ids, b""
    last = model.tokenizer.token_bytes[int(ids[-1])]
    inside_word = last[-1:].isalnum() or last[-1:] == b"_" or last[-1:] >= b"\x80"
    return (ids[:-1], last) if inside_word else (ids, b"")


def steps(
    model: LanguageModel, prompt: bytes, max_tokens: int, temperature: float = 0.0, seed: int = 0
) -> Iterator[Step]:
    """Generate tokens until the end of the file or `max_tokens`; temperature 0 takes the most probable one.

    A prompt that ends inside a word is healed: its last token is predicted again among those that begin as typed.
    """
    ids, typed = heal_point(model, prompt)
    view = model.view(ids)
    random = np.random.default_rng(seed)
    for _ in range(max_tokens):
        p = model.next_distribution(view)
        if typed:
            allowed = np.zeros(len(p), dtype=np.bool_)
            allowed[model.tokenizer.candidates(typed)] = True
            p = np.where(allowed, p, 0.0)
            p /= p.sum()
        if temperature > 0.0:
            q = p ** (1.0 / temperature)
            token = int(random.choice(len(q), p=q / q.sum()))
        else:
            token = int(p.argmax())
        if token == SEPARATOR:
            return
        yield Step(token, model.tokenizer.token_bytes[token][len(typed) :], float(p[token]), view.n)
        typed = b""
        view.extend(np.array([token], dtype=np.uint16))


def complete(
    model: LanguageModel, prompt: bytes, max_tokens: int = 64, temperature: float = 0.0, seed: int = 0
) -> Completion:
    """Complete a prompt; see `steps`."""
    made = list(steps(model, prompt, max_tokens, temperature, seed))
    return Completion(prompt, b"".join(step.text for step in made), made, heal_point(model, prompt)[1])
