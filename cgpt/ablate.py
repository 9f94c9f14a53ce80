"""Ablation by name: the model without one of its modules, and what that changes.

What can be taken away: a **concept** (the nets that answer in its situations, wherever they act), a **source** (`net`:
all nets; `corpus`: the match index; `file`: the file's own past; `names`: names in scope), or a **read** (no net is
handed it). What is left keeps its weights among itself: nothing is trained again, so a report says what the model as it
is owes to the module, not how good a model built without it would be.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import networkx as nx
import numpy as np

from cgpt import counts, mixing
from cgpt.corpus import SourceFile
from cgpt.mixer import FIRST_LEVEL, NAMES, NET
from cgpt.model import ConstructedLM
from cgpt.nets import SHARED_NAMES
from cgpt.reads import READS
from ontology.errors import UsageError, did_you_mean
from ontology.graph import digraph

_SOURCES = ("net", "corpus", "file", "names")
_BEFORE = 60
"""Bytes of text shown to the left of an example."""


def without(model: ConstructedLM, name: str) -> ConstructedLM:
    """The model without the module of that name; the model itself stays as it is.

    Raises:
        UsageError: nothing of that name can be taken away.
    """
    kind = _kind(model, name)
    ablated = copy.copy(model)
    ablated.variant += f" without {name}"
    if kind == "read":
        assert model.nets is not None
        declared = model.nets.declared.copy()
        declared[:, READS.index(name)] = False
        split = np.where(model.nets.split == READS.index(name), np.int32(-1), model.nets.split)
        ablated.nets = replace(model.nets, declared=declared, split=split)
    elif name == "corpus" and kind == "source":
        _silence(ablated, slice(None), slice(FIRST_LEVEL, FIRST_LEVEL + counts.N_LEVELS))
    elif name == "file" and kind == "source":
        _silence(ablated, slice(None), slice(FIRST_LEVEL + counts.N_LEVELS, NAMES))
    elif name == "names" and kind == "source":
        _silence(ablated, slice(None), [NAMES])
    else:
        situations = np.array([model.concepts.index(concept) for concept in situations_of(model, name)])
        ablated.net_of = model.net_of.copy()
        ablated.net_of[situations] = -1
        _silence(ablated, situations, [NET])
    return ablated


def situations_of(model: ConstructedLM, name: str) -> list[str]:
    """The situations in which a module acts: for a concept those at and below it, else all."""
    if _kind(model, name) != "concept":
        return list(model.concepts)
    below = nx.descendants(digraph(model.ontology), name) | {name}
    return [concept for concept in model.concepts if concept in below]


def _kind(model: ConstructedLM, name: str) -> str:
    """One of "concept", "source", "read"; raises UsageError where there is nothing to take away."""
    if name in _SOURCES[1:]:
        return "source"
    if name in SHARED_NAMES.values():
        raise UsageError(f"{name!r} is shared by all nets.", fix="take away `net`, one concept, or one read")
    if name == mixing.SOURCES[mixing.S_UNIGRAM]:
        raise UsageError("without the unigram nothing is left to fall back on.", fix="choose another module")
    kind = "source" if name == "net" else "read" if name in READS else "concept" if name in model.ontology else ""
    if not kind:
        known = [*_SOURCES, *model.concepts, *READS]
        raise UsageError(f"no module {name!r}.{did_you_mean(name, known)}", fix="name a concept, a source or a read")
    if model.nets is None:
        raise UsageError(f"this model has no nets, so {name!r} changes nothing.", fix="take away corpus, file or names")
    return kind


def _silence(model: ConstructedLM, concepts: slice | np.ndarray, experts: slice | list[int]) -> None:
    """Take these experts' factor to zero: the others share their weight in proportion."""
    by_concept = model.mixer.by_concept.copy()
    rows = by_concept[concepts]
    rows[..., experts] = -np.inf
    by_concept[concepts] = rows
    model.mixer = replace(model.mixer, by_concept=by_concept)


@dataclass(frozen=True)
class Example:
    """A token whose cost changed: where it stands, what stood before it on its line, and its bits with and without."""

    path: str
    line: int
    before: str
    token: str
    concept: str
    bits: float
    bits_without: float


@dataclass(frozen=True)
class Ablation:
    """What a module is worth on some files.

    Attributes:
        situations: where it acts; elsewhere nothing may change.
        n_bytes, tokens: of the files, their ends included.
        changed: tokens whose bits are not the same without it.
        bits, bits_without: of all tokens.
        per_concept: {concept: {"tokens", "changed", "bits", "bits_without"}}, those with changes only.
        examples: the tokens that cost most more, and those that cost most less, largest change first.
    """

    name: str
    kind: str
    situations: list[str]
    n_bytes: int
    tokens: int
    changed: int
    bits: float
    bits_without: float
    per_concept: dict[str, dict[str, float]]
    examples: list[Example]

    def as_json(self) -> dict[str, Any]:
        """The keys of `without --json`."""
        return {
            **{name: getattr(self, name) for name in ("name", "kind", "situations", "tokens", "changed", "bits")},
            "bytes": self.n_bytes, "bits_without": self.bits_without,
            "bits_per_byte": self.bits / self.n_bytes, "bits_per_byte_without": self.bits_without / self.n_bytes,
            "per_concept": self.per_concept, "examples": [vars(example) for example in self.examples],
        }  # fmt: skip


def ablate(
    model: ConstructedLM,
    name: str,
    files: Sequence[SourceFile],
    n_examples: int = 20,
    advance: Callable[[int], None] | None = None,
) -> Ablation:
    """Score files with and without a module; `advance` is told the bytes done.

    Raises:
        UsageError: nothing of that name can be taken away.
    """
    ablated, situations = without(model, name), situations_of(model, name)
    columns = ("tokens", "changed", "bits", "bits_without")
    table = {column: np.zeros(len(model.concepts)) for column in columns}
    examples: list[Example] = []
    for file in files:
        before, after = model.score_file(file.data, file.path), ablated.score_file(file.data, file.path)
        weights = {
            "tokens": None,
            "changed": before.bits != after.bits,
            "bits": before.bits,
            "bits_without": after.bits,
        }
        for column in columns:
            table[column] += np.bincount(before.concept, weights[column], len(model.concepts))
        change = after.bits - before.bits
        ends = np.cumsum(before.token_bytes)
        for i in np.argsort(-np.abs(change), kind="stable")[:n_examples]:
            if change[i]:
                examples.append(_example(model, file, int(ends[i]), int(before.token_bytes[i]), before, after, int(i)))
        examples = sorted(examples, key=lambda e: -abs(e.bits_without - e.bits))[:n_examples]
        if advance is not None:
            advance(len(file.data))
    per_concept = {
        concept: {column: float(table[column][c]) for column in columns}
        for c, concept in enumerate(model.concepts) if table["changed"][c]
    }  # fmt: skip
    totals = {column: float(table[column].sum()) for column in columns}
    return Ablation(
        name, _kind(model, name), situations, sum(len(file.data) for file in files), int(totals["tokens"]),
        int(totals["changed"]), totals["bits"], totals["bits_without"], per_concept, examples,
    )  # fmt: skip


def _example(model: ConstructedLM, file: SourceFile, end: int, length: int, before: Any, after: Any, i: int) -> Example:
    start = end - length
    line = file.data.count(b"\n", 0, start) + 1
    left = file.data[max(file.data.rfind(b"\n", 0, start) + 1, start - _BEFORE) : start]
    text = file.data[start:end].decode("utf-8", "replace") if length else "<end>"
    return Example(
        file.path, line, left.decode("utf-8", "replace"), text, model.concepts[before.concept[i]],
        float(before.bits[i]), float(after.bits[i]),
    )  # fmt: skip
