"""The names expert: scope, recency, attributes, names in progress."""

from __future__ import annotations

import numpy as np
import pytest

from cgpt import names
from cgpt.model import ConstructedLM

CODE = """import os

LIMIT = 10


def first(alpha, beta):
    gamma = alpha + beta
    return gamma


class Box:
    def __init__(self, width):
        self.width = width
        self.height = LIMIT

    def area(self):
        return self."""


def offered_after(model: ConstructedLM, text: str) -> list[str]:
    """First pieces offered at the end of the text, bare, in order."""
    view = model.view(model.tokenizer.encode(text.encode()))
    row, slots = view.offered[view.n], view.slots[view.n]
    return [
        "<end>" if token == names.END_OF_NAME else model.tokenizer.token_bytes[token].decode().strip()
        for token, slot in zip(row.tolist(), slots.tolist(), strict=True)
        if slot != names.NOTHING
    ]


def starts(names_: list[str], word: str) -> bool:
    return any(piece and word.startswith(piece) for piece in names_)


def test_names_of_a_function_are_in_scope_inside_it_only(model: ConstructedLM):
    inside = offered_after(model, CODE[: CODE.index("return gamma") + len("return")])
    assert starts(inside, "alpha") and starts(inside, "beta") and starts(inside, "LIMIT")
    after = offered_after(model, CODE[: CODE.index("    def area")] + "    def area(self):\n        return")
    assert starts(after, "LIMIT") and not starts(after, "gamma")


def test_attributes_of_the_receiver_come_first(model: ConstructedLM):
    offered = offered_after(model, CODE)
    assert starts(offered[:1], "height")
    assert starts(offered, "width") and not starts(offered, "alpha")


def test_inside_a_name_only_its_continuations_are_offered(model: ConstructedLM):
    """After the first piece of a name that takes several, the next piece of that name is offered, and nothing else."""
    code = CODE.replace("width", "quizzical_marker")
    whole, before = (model.tokenizer.encode(text.encode()) for text in (code + "quizzical_marker", code))
    assert len(whole) >= len(before) + 2
    view = model.view(whole[: len(before) + 1])
    offered = view.offered[view.n][view.slots[view.n] != names.NOTHING]
    assert int(whole[len(before) + 1]) in offered.tolist()
    typed = model.tokenizer.token_bytes[int(whole[len(before)])].decode()
    known = ("quizzical_marker", "height", "area")
    for token in offered.tolist():
        piece = "" if token == names.END_OF_NAME else model.tokenizer.token_bytes[token].decode()
        assert any(name.startswith(typed + piece) for name in known)


def test_text_is_offered_the_names_in_scope_by_their_first_pieces(model: ConstructedLM):
    """In strings and comments: names, no attributes, with their space where a word may begin, in slots of their own."""
    for text in ("width  # the", 'width + "al'):
        offered = offered_after(model, CODE + text)
        assert starts(offered, "LIMIT") and not starts(offered, "height") and "<end>" not in offered
        view = model.view(model.tokenizer.encode((CODE + text).encode()))
        slots = view.slots[view.n]
        assert (slots[slots != names.NOTHING] >= 3 * names.N_RANKS).all()
        pieces = [model.tokenizer.token_bytes[t] for t in view.offered[view.n][slots != names.NOTHING].tolist()]
        assert any(piece.startswith(b" ") for piece in pieces)


def test_ranks_are_learned_from_what_came():
    random = np.random.default_rng(0)
    slots = np.tile(np.arange(6, dtype=np.uint8), (4000, 1))
    tokens = np.tile(np.arange(10, 16, dtype=np.uint16), (4000, 1))
    truth = np.array([0.5, 0.25, 0.12, 0.07, 0.04, 0.02])
    targets = 10 + random.choice(6, size=4000, p=truth)
    weights = names.fit_ranks(targets, tokens, slots)[:6]
    assert weights / weights.sum() == pytest.approx(truth, abs=0.03)
    assert (weights[:-1] > weights[1:]).all()
