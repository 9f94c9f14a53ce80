"""Controls: models that should be worse if situations mean something.

`shuffled-router:FOLDER` lets the net and the mixer row of another situation answer, without training anew. A router
that `random_router` writes divides positions by random questions about the same state, into the same situations' names;
built with `constructible cgpt build --router`, it is trained like the real one, and what is left of the difference is
what the real questions are worth.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cgpt.model import ConstructedLM, load
from eval.models import RANDOM_MARK, EvalModel, Ours
from ontology.errors import UsageError
from ontology.routers import StateField

SEED = 0
TRIES = 24
"""Random questions of which the most even one is asked."""


class _Shuffled:
    """A router whose answers are exchanged by a fixed permutation that leaves none in its place."""

    def __init__(self, router: Any) -> None:
        self._router, self.concepts, self.source = router, router.concepts, router.source
        order = np.random.default_rng(SEED).permutation(len(router.concepts))
        self._to = np.empty(len(order), dtype=np.int32)
        self._to[order] = np.roll(order, 1)

    def route(self, fields: Any) -> np.ndarray:
        """int32[m]: another situation than the one in charge."""
        return self._to[self._router.route(fields)]


def open_shuffled_router(name: str, folder: Path) -> EvalModel:
    """A constructed model in which every situation is answered by another one's modules."""
    model = load(folder)
    if not isinstance(model, ConstructedLM):
        raise UsageError("a monolith has no router to shuffle.", fix="give a constructed model", file=folder)
    if len(model.router.concepts) < 2:
        raise UsageError("this router has one situation only.", fix="give a model with more", file=folder)
    model.router = _Shuffled(model.router)  # type: ignore[assignment]
    opened = Ours(name, model)
    opened.control = "shuffled router"
    opened.abilities -= {"explain"}
    return opened


def random_router(concepts: Sequence[str], fields: Sequence[StateField], states: np.ndarray, seed: int = 0) -> str:
    """Source of a router that returns every concept, by random questions about the lexer's state.

    Args:
        concepts: names to return.
        fields: of the state.
        states: uint8[n, F], states of some text: of a few random questions the one is taken that divides them most
            evenly, so that the situations are of use and only their meaning is random.
        seed: of the questions.

    Raises:
        ValueError: no concepts.
    """
    if not concepts:
        raise ValueError("a random router needs concepts")
    rng = np.random.default_rng(seed)
    lines = ["def route(state):", f"    # {RANDOM_MARK} {seed}: a control, not a description of anything."]

    def question(rows: np.ndarray) -> tuple[str, np.ndarray]:
        best = ("", np.zeros(len(rows), dtype=np.bool_), -1)
        for _ in range(TRIES):
            column = int(rng.integers(len(fields)))
            field, values = fields[column], fields[column].values
            if not isinstance(values, tuple):
                continue
            chosen = np.flatnonzero(rng.random(len(values)) < 0.5)
            if not 0 < len(chosen) < len(values):
                continue
            text = " or ".join(f'state.{field.name} == "{values[code]}"' for code in chosen)
            if field.is_flag:
                text = f"state.{field.name}" if chosen[0] else f"not state.{field.name}"
            yes = np.isin(rows[:, column], chosen)
            even = int(min(yes.sum(), (~yes).sum()))
            if even > best[2]:
                best = (text, yes, even)
        return best[0], best[1]

    def split(names: list[str], depth: int, rows: np.ndarray) -> None:
        indent = "    " * depth
        if len(names) == 1:
            lines.append(f'{indent}return "{names[0]}"')
            return
        text, yes = question(rows)
        half = len(names) // 2
        lines.append(f"{indent}if {text}:")
        split(names[:half], depth + 1, rows[yes])
        split(names[half:], depth, rows[~yes])

    split([str(concepts[i]) for i in rng.permutation(len(concepts))], 1, np.asarray(states))
    return "\n".join(lines) + "\n"
