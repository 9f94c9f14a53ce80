"""Anything neural joined with the constructed model's tables and caches: what the neural part adds to counting.

It takes the place of the nets, everything else is the constructed model's: the same index over the same files, the same
caches of the file's own past, the same names in scope, and a mixer of the same form fitted to it on the same files.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import numpy as np

from cgpt.baseline import Baseline
from cgpt.data import TokenizedCorpus
from cgpt.fit_mixer import fit_mixing
from cgpt.mixer import Mixer
from cgpt.model import CHUNK_ROWS, ConstructedLM, by_concept
from cgpt.nets import Nets
from cgpt.reads import FileView
from cgpt.score import FileScore
from ontology.routers import Router

Block = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Boundaries int64[rows], and for them powers and their sums as `cgpt.nets.Nets.powers` gives them."""


class Neural(Protocol):
    """What can take the place of the nets."""

    @property
    def parameters(self) -> int:
        """Trained numbers."""
        ...

    def blocks(self, view: FileView) -> Iterator[Block]:
        """Every boundary of a file once, in blocks of few rows."""
        ...


class Transformer:
    """A transformer, with overlapping windows."""

    def __init__(self, baseline: Baseline) -> None:
        self.baseline, self.parameters = baseline, baseline.parameters

    def blocks(self, view: FileView) -> Iterator[Block]:
        """See Neural."""
        for places, logits in self.baseline.logit_blocks(view.history[1 : view.n + 1]):
            for begin in range(0, len(places), CHUNK_ROWS):
                rows = places[begin : begin + CHUNK_ROWS]
                yield rows, *_powers(logits[begin : begin + CHUNK_ROWS].numpy())


class RoutedNets:
    """Nets under a router of their own, which need not be the one that the tables' mixer goes by.

    Args:
        nets: anything with the `powers` and the `parameters` of `cgpt.nets.Nets`.
        router: says which situation is in charge.
        net_of: int[situations], the net that answers each.
    """

    def __init__(self, nets: Nets, router: Router, net_of: np.ndarray) -> None:
        self.nets, self.router, self.net_of = nets, router, net_of
        self.parameters = nets.parameters

    def blocks(self, view: FileView) -> Iterator[Block]:
        """See Neural."""
        for concept, rows in by_concept(self.router.route(view.fields[: view.n + 1])):
            yield rows, *self.nets.powers(int(self.net_of[concept]), view.reads[rows])


class JoinedLM:
    """Something neural in the place of the nets of a `plain` model.

    Args:
        plain: a model of the cut `plain`; its tables are used, its mixer is not.
        neural: trained on the same tokens, the files held out for the mixer aside.
        mixer: fitted by `fit_joined`.
    """

    def __init__(self, plain: ConstructedLM, neural: Neural, mixer: Mixer) -> None:
        self.plain, self.neural, self.mixer = plain, neural, mixer
        self._tables = copy.copy(plain)
        self._tables.mixer = mixer
        self.concepts, self.tokenizer = plain.concepts, plain.tokenizer
        self.parameters, self.table_entries = neural.parameters, plain.table_entries

    def score_file(self, data: bytes, path: str = "", project: str = "") -> FileScore:
        """Score one file: float64 bits of every token and of its end."""
        return self.score_both(data, path, project)[0]

    def score_both(self, data: bytes, path: str = "", project: str = "") -> tuple[FileScore, FileScore]:
        """(joined with the tables, the neural part alone), each as `score_file`."""
        model = self._tables
        ids = model.tokenizer.encode(data)
        view = model.view(ids)
        n = view.n + 1
        concept, matches, targets = model.concepts_at(view), model.matches(view), view.history[1 : n + 1]
        probability, best = np.zeros(n), np.zeros(n, np.int64)
        alone, first = np.zeros(n), np.zeros(n, np.int64)
        for rows, powers, total in self.neural.blocks(view):
            alone[rows] = powers[np.arange(len(rows)), targets[rows]] / total
            first[rows] = powers.argmax(1)
            probability[rows], best[rows], _ = model.score_rows(view, matches, concept[rows], rows, (powers, total))
        lengths = np.append([len(model.tokenizer.token_bytes[i]) for i in ids.tolist()], 0).astype(np.int32)
        joined = FileScore(
            path, project, int(lengths.sum()), -np.log2(probability), best == targets, concept, lengths
        )  # fmt: skip
        # A net may round to nothing what it holds for next to impossible; no figure may be infinite for that.
        bits = -np.log2(np.maximum(alone, 1e-12))
        return joined, replace(joined, bits=bits, correct=first == targets)


def fit_joined(tokens: Path, plain: ConstructedLM, neural: Neural) -> Mixer:
    """The mixer for something neural beside the tables; `tokens` is the build's `tokens.safetensors`."""
    return fit_mixing(
        TokenizedCorpus.load(tokens), plain.index, plain.alphabet, plain.router, lambda view, _: _says(neural, view)
    ).mixer


def _says(neural: Neural, view: FileView) -> tuple[np.ndarray, np.ndarray]:
    """What it says of each target of a file, and of its own first choice: float64[n + 1] each."""
    n = view.n + 1
    targets, said, top = view.history[1 : n + 1], np.zeros(n), np.zeros(n)
    for rows, powers, total in neural.blocks(view):
        said[rows] = powers[np.arange(len(rows)), targets[rows]] / total
        top[rows] = 1.0 / total
    return said, top


def _powers(logits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """As `cgpt.nets.Nets.powers`."""
    powers = np.exp(logits - logits.max(1, keepdims=True))
    return powers, powers.sum(1, dtype=np.float64)
