"""Completion: token after token, greedy or sampled, with a prompt that ends inside a word or in white space healed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from cgpt.index import SEPARATOR

if TYPE_CHECKING:
    from cgpt.model import LanguageModel
    from cgpt.valid import Checker


@dataclass(frozen=True)
class Sampling:
    """How the next token is taken from its distribution.

    `temperature` 0 takes the most probable one; else probabilities are raised to 1 / temperature and drawn from, after
    all but the `top_k` most probable (0: all) and all beyond the share `top_p` of the probability are left out.
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int = 0


@dataclass(frozen=True)
class Step:
    """One generated token: its `text` (bytes added to the prompt), probability and the view's boundary it came at."""

    token: int
    text: bytes
    probability: float
    boundary: int


@dataclass(frozen=True)
class Completion:
    """What was added to the prompt.

    `healed` is the typed part of the word or white space that was predicted again; `closed` the end of `text` that
    plain code added because the tokens allowed ran out before the statement did (`valid` alone).
    """

    prompt: bytes
    text: bytes
    steps: list[Step]
    healed: bytes
    closed: bytes = b""


def heal_point(model: LanguageModel, prompt: bytes) -> tuple[np.ndarray, bytes]:
    """(tokens to keep, typed bytes to predict again): the last token is given back if the prompt ends inside a word or
    in white space, since the token that comes next begins with what was typed of it."""
    ids = model.tokenizer.encode(prompt)
    if not len(ids):
        return ids, b""
    last = model.tokenizer.token_bytes[int(ids[-1])]
    unfinished = last[-1:].isalnum() or last[-1:] == b"_" or last[-1:] >= b"\x80" or last[-1:].isspace()
    return (ids[:-1], last) if unfinished else (ids, b"")


def steps(
    model: LanguageModel,
    prompt: bytes,
    max_tokens: int,
    sampling: Sampling | None = None,
    line: bool = False,
    checker: Checker | None = None,
) -> Iterator[Step]:
    """Generate tokens until the end of the file or `max_tokens`.

    Args:
        model: the model.
        prompt: the text to the left.
        max_tokens: tokens at most.
        sampling: how a token is taken; None: the most probable one each time.
        line: stop before the line break that ends the line; blank lines before it pass.
        checker: takes only tokens that it lets pass (it has read `prompt`), and stops where a statement has ended.
    """
    sampling = sampling or Sampling()
    ids, typed = heal_point(model, prompt)
    view = model.view(ids)
    random = np.random.default_rng(sampling.seed)
    visible = bool(prompt.rpartition(b"\n")[2].strip())
    for _ in range(max_tokens):
        p = model.next_distribution(view)
        if typed:
            allowed = model.tokenizer.candidates(typed)
            healed = np.zeros(len(p))
            healed[allowed] = p[allowed]
            p = healed / healed.sum()
        for token in _in_turn(p, sampling, random):
            text = model.tokenizer.token_bytes[token][len(typed) :]
            if checker is None:
                break
            if token != SEPARATOR and (not text or checker.length(text)):
                text = checker.accept(text) if text else text
                break
        else:
            return
        if token == SEPARATOR:
            return
        if line:
            end = _end_of_line(text, visible)
            if end >= 0:
                if end:
                    yield Step(token, text[:end], float(p[token]), view.n)
                return
            visible = bool(text.rpartition(b"\n")[2].strip()) or (visible and b"\n" not in text)
        yield Step(token, text, float(p[token]), view.n)
        if checker is not None and checker.ended:
            return
        typed = b""
        view.extend(np.array([token], dtype=np.uint16))


def _in_turn(p: np.ndarray, sampling: Sampling, random: np.random.Generator) -> Iterator[int]:
    """Tokens in the order in which they are tried: by probability, or as they are drawn, none of them twice.

    Drawing again after a refusal is the same as drawing once from the distribution restricted to what is let pass.
    Where all that `top_k` and `top_p` leave is refused, the others follow by probability.
    """
    if sampling.temperature <= 0.0:
        yield int(p.argmax())  # nearly always enough
        yield from np.argsort(-p, kind="stable")[1:].tolist()
        return
    order = np.argsort(-p, kind="stable")
    keep = len(p) if sampling.top_k <= 0 else min(sampling.top_k, len(p))
    if sampling.top_p < 1.0:
        keep = min(keep, 1 + int(np.searchsorted(np.cumsum(p[order]), sampling.top_p)))
    # Relative to the largest, so that a low temperature does not lose everything to rounding.
    weights = (p[order[:keep]] / p[order[0]]) ** (1.0 / sampling.temperature)
    left = np.ones(len(p), dtype=np.bool_)
    while (sums := np.cumsum(weights))[-1] > 0.0:
        place = min(int(np.searchsorted(sums, random.random() * sums[-1], side="right")), keep - 1)
        weights[place] = 0.0
        left[place] = False
        yield int(order[place])
    yield from order[left].tolist()


def _end_of_line(text: bytes, visible: bool) -> int:
    """Offset of the line break that ends a line with something on it, -1 where there is none in `text`."""
    at = 0
    while (end := text.find(b"\n", at)) >= 0:
        if visible or text[at:end].strip():
            return end - (text[end - 1 : end] == b"\r" and end > 0)
        at = end + 1
    return -1


def complete(
    model: LanguageModel,
    prompt: bytes,
    max_tokens: int = 64,
    temperature: float = 0.0,
    seed: int = 0,
    *,
    top_k: int = 0,
    top_p: float = 1.0,
    line: bool = False,
    valid: bool = False,
) -> Completion:
    """Complete a prompt.

    Args:
        model: the model.
        prompt: the text to the left.
        max_tokens: tokens at most.
        temperature: 0 takes the most probable token; see `Sampling` for the others.
        seed: of the draws.
        top_k: draw from this many most probable tokens (0: all).
        top_p: draw from the most probable tokens that hold this share of the probability.
        line: complete to the end of the line (its line break is not part of the completion).
        valid: complete to the end of a statement, its line break included, with tokens that keep it free of
            `tokenize`, bracket and indentation errors; see `cgpt.valid`.
    """
    from cgpt.valid import Checker

    checker = Checker(prompt) if valid else None
    sampling = Sampling(temperature, top_k, top_p, seed)
    made = list(steps(model, prompt, max_tokens, sampling, line, checker))
    closed = b"" if checker is None or checker.ended or line else checker.closing()
    text = b"".join(step.text for step in made) + closed
    return Completion(prompt, text, made, heal_point(model, prompt)[1], closed)
