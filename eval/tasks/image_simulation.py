"""Simulation scoring of feature nodes, without an API: can a node be imitated from its question and its reads alone?

An imitation is plain code, written from a concept's question and the names of the primitives before any output of a
node was looked at (`eval.imitations`). Held against the node: the correlation of what the two say over all photographs,
the Jensen-Shannon divergence of their answers, and how the shares of the classes change when the imitation answers in
the node's place, one node at a time and all together. Controls: the imitation of another concept (a shuffled name) and
a node that says nothing (one half). A model whose nodes can be imitated decides by what its words say; one that cannot
may still be right, for reasons of its own.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import cast

import numpy as np

from eval.imitations import SLOPE, WORDS, Imitator, readings_of
from eval.models import EvalModel
from eval.tasks.base import Example, Measured, Metric, Task
from eval.tasks.images import Photograph, photographs
from eval.vision_models import OurImages
from ontology.errors import UsageError
from vision.bank import in_blocks, primitives
from vision.data import read_images
from vision.model import Constructed
from vision.nodes import Node

KINDS = ("own", "shuffled", "silent")
"""The concept's own imitation, that of another concept, and a node that says nothing."""


@dataclass(frozen=True)
class Imitated:
    """All photographs of a source: for each of the `names` float64[n] by column, and float64[n] for the whole."""

    names: tuple[str, ...]
    each: dict[str, dict[str, np.ndarray]]
    whole: dict[str, np.ndarray]


def divergences(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """Jensen-Shannon divergence in bits of rows of two tables of probabilities, [n, k] -> [n]."""
    middle = (p + q) / 2
    total = np.zeros(len(p))
    for one in (p, q):
        with np.errstate(divide="ignore", invalid="ignore"):
            total += 0.5 * np.where(one > 0, one * np.log2(one / middle), 0.0).sum(1)
    return np.maximum(total, 0.0)


def _sure(p: np.ndarray) -> np.ndarray:
    """[n] probabilities as [n, 2]."""
    return np.stack([p, 1 - p], axis=1)


def _product(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Products whose mean is Pearson's correlation; 0 where one of the two does not vary."""
    if a.std() < 1e-9 or b.std() < 1e-9:
        return np.zeros(len(a))
    return (a - a.mean()) / a.std() * (b - b.mean()) / b.std()


def others(names: tuple[str, ...]) -> dict[str, str]:
    """Each concept's shuffled name: the next one of the model's that somebody wrote a line for."""
    order = sorted(names)
    return dict(zip(order, [*order[1:], *order[:1]], strict=True))


@lru_cache(maxsize=4)
def imitate(model: OurImages, source: str) -> Imitated:
    """Imitate the nodes of a model on the held-out photographs of a source.

    Raises:
        UsageError: fewer than two of its nodes are nets of which somebody wrote an imitation.
    """
    inner = model.model
    assert isinstance(inner, Constructed)
    images = read_images(source, "validation", size=model.size)
    maps = np.concatenate(list(in_blocks(images.pixels)))
    imitator, values = Imitator(primitives(np.array(inner.evidence.pixels))), readings_of(maps)
    node_of = {node.name: i for i, node in enumerate(inner.bank.nodes) if isinstance(node, Node)}
    names = tuple(name for name in node_of if name in WORDS)
    if len(names) < 2:
        fix = "give a model whose concepts are in eval/imitations.py"
        raise UsageError("no node here has an imitation.", fix=fix, file=model.folder)
    pooled = inner.bank.pooled(maps)
    scores = inner.bank.calibrate(pooled)
    shares, other = inner.shares(inner.values_of(scores)), others(names)

    def changed(columns: dict[int, np.ndarray]) -> np.ndarray:
        given = scores.copy()
        for column, answer in columns.items():
            given[:, column] = np.round(answer, 4)
        return inner.shares(inner.values_of(given))

    each: dict[str, dict[str, np.ndarray]] = {}
    answers: dict[str, dict[int, np.ndarray]] = {kind: {} for kind in KINDS}
    for name in names:
        column = node_of[name]
        reads = inner.bank.nodes[column].shape.channels.tolist()
        found: dict[str, np.ndarray] = {}
        for kind in KINDS:
            named = {"own": name, "shuffled": other[name]}.get(kind)
            seen = np.zeros(len(maps)) if named is None else imitator.evidence(named, values, reads)
            answer = 1 / (1 + np.exp(-SLOPE * seen))
            answers[kind][column] = answer
            found[f"correlation_{kind}"] = _product(seen, pooled[:, column])
            found[f"node_{kind}"] = divergences(_sure(answer), _sure(scores[:, column]))
            found[f"output_{kind}"] = divergences(changed({column: answer}), shares)
        each[name] = found
    own = images.labels_in(inner.classes)
    whole = {"known": (own >= 0).astype(float), "right": ((shares.argmax(1) == own) & (own >= 0)).astype(float)}
    for kind in KINDS:
        together = changed(answers[kind])
        whole[f"all_{kind}"] = divergences(together, shares)
        whole[f"right_{kind}"] = ((together.argmax(1) == own) & (own >= 0)).astype(float)
    return Imitated(names, each, whole)


def measure(model: EvalModel, example: Example) -> Iterable[Measured]:
    """One photograph: sums over the model's nodes, and a part for each."""
    photograph = cast(Photograph, example.data)
    found, i = imitate(cast(OurImages, model), photograph.source), photograph.row
    rows = {name: {key: float(v[i]) for key, v in found.each[name].items()} | {"nodes": 1.0} for name in found.names}
    total = {key: sum(row[key] for row in rows.values()) for key in next(iter(rows.values()))}
    yield Measured(total | {key: float(v[i]) for key, v in found.whole.items()} | {"photographs": 1.0})
    for name, row in rows.items():
        yield Measured(row, name)


IMAGE_SIMULATION = Task(
    name="image-simulation",
    version=1,
    question="Can the feature nodes be imitated by plain code that knows their questions and reads?",
    columns=(
        "nodes", "photographs", "known", "right",
        *(f"{what}_{kind}" for what in ("correlation", "node", "output", "all", "right") for kind in KINDS),
    ),
    metrics=(
        Metric("correlation with the node", "correlation_own", "nodes"),
        Metric("the same, shuffled names", "correlation_shuffled", "nodes", "neither"),
        Metric("divergence from the node in bits", "node_own", "nodes", "lower"),
        Metric("divergence, shuffled names", "node_shuffled", "nodes", "neither"),
        Metric("divergence, a node that says nothing", "node_silent", "nodes", "neither"),
        Metric("change of the classes in bits", "output_own", "nodes", "lower", digits=4),
        Metric("change of the classes, shuffled names", "output_shuffled", "nodes", "neither", digits=4),
        Metric("change of the classes, a node that says nothing", "output_silent", "nodes", "neither", digits=4),
        Metric("change with all imitated at once", "all_own", "photographs", "lower"),
        Metric("the same, shuffled names, all at once", "all_shuffled", "photographs", "neither"),
        Metric("accuracy", "right", "known", percent=True),
        Metric("accuracy with all imitated", "right_own", "known", percent=True),
        Metric("accuracy with all imitated, shuffled names", "right_shuffled", "known", "neither", percent=True),
    ),
    load=photographs,
    measure=measure,
    needs=frozenset({"imitate"}),
)  # fmt: skip
