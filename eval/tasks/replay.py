"""Explanation replay: the independent checker rebuilds whole distributions from explanations alone.

A position counts as replayed if all its evidence is true (the counts, places, names and reads it claims are there) and
the distribution worked out from that evidence and the model's folder, by code that shares nothing with the model's, is
the model's own to 1e-6.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable

import numpy as np

from cgpt.model import ConstructedLM
from cgpt.record import compare, record
from eval.models import EvalModel, Ours
from eval.tasks.base import Example, Measured, Metric, Task
from eval.tasks.language import files

POSITIONS = 200
"""Positions per file, chosen by hash; a file's start and end always."""


def boundaries(name: str, n: int) -> list[int]:
    """Some of the boundaries 0 to n of a file, ascending."""
    rng = np.random.default_rng(int(hashlib.sha256(f"replay {name}".encode()).hexdigest()[:12], 16))
    drawn = rng.permutation(n + 1)[: POSITIONS - 2].tolist()
    return sorted({0, n, *drawn})


def measure(model: EvalModel, example: Example) -> Iterable[Measured]:
    """Explain positions of one file, write the explanations down, read them back, and have them checked."""
    assert isinstance(model, Ours) and isinstance(model.model, ConstructedLM)
    data = example.data.data
    chosen = boundaries(example.id, len(model.model.tokenizer.encode(data)))
    made = json.loads(json.dumps(record(model.model, data, example.data.path, chosen)))
    found = compare(model.model, made)
    yield Measured(
        {
            "replayed": float(found["positions"] - len(found["failed"])), "positions": float(found["positions"]),
            "largest_difference": found["largest_difference"], "files": 1.0,
        },
        detail=found["failed"][:5] or None,
    )  # fmt: skip


REPLAY = Task(
    name="replay",
    version=1,
    question="Can every prediction be rebuilt from its explanation by code that does not know the model?",
    columns=("replayed", "positions", "largest_difference", "files"),
    metrics=(
        Metric("explanations replayed", "replayed", "positions", percent=True, digits=4),
        Metric("largest difference in a file, mean", "largest_difference", "files", "lower", digits=9),
    ),
    load=files,
    measure=measure,
    needs=frozenset({"explain"}),
)
