"""The mixer: how far each source is believed at a position, as a product of factors from tables a person can read.

    weight of a source  ~  factor of its own level, by how often its context was seen and how surely it went on
                         x factor of the source under the concept in charge
                         x factor of the source by how sure the net is of its first choice
                         x factor of the source by which name in scope is offered first

taken over the sources that have something to say here, and divided by their sum. The mixer looks at the context alone,
never at the token being predicted, so the result is a plain weighted sum of distributions. The factors are those that
make the tokens of held-out files most probable. The concept's row is its own; the other tables are shared by all.

Method: a log-linear gate over experts (Jacobs, Jordan, Nowlan and Hinton 1991) whose inputs are plain-code buckets.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from cgpt import counts, names
from cgpt.compiled import compiled
from cgpt.descent import Descent
from cgpt.index import LEVELS, N_LEVELS

N_EXPERTS = counts.N_ALL_LEVELS + 3
NET, UNIGRAM, FIRST_LEVEL, NAMES = 0, 1, 2, N_EXPERTS - 1
EXPERTS: tuple[str, ...] = (
    "net", "unigram", *(f"corpus {k}" for k in LEVELS), *counts.FILE_COLUMNS, "names",
)  # fmt: skip
"""What is weighed: the net in charge, the unigram, what followed contexts of each length in the corpus and earlier in
this file and at places of it like this one, and names in scope."""
N_CONFIDENCE = 20
"""Steps of the net's probability of its first choice; the last also stands for certainty."""
N_NAMES = names.N_SLOTS + 1
"""Kinds and ranks of the first name offered, and that there is none."""

_ROUNDS, _BATCH, _RATE = 4, 1024, 2e-2
_STEPS = 400
"""A small corpus is gone through more than _ROUNDS times, until there were this many steps."""
_PULL = 1e-5
"""Pull towards the start, per position: what was never seen keeps its first guess."""


@dataclass(frozen=True)
class Mixer:
    """Logarithms of the factors, float64: `level` [N_ALL_LEVELS, N_BUCKETS], `by_concept` [C, N_EXPERTS],
    `by_confidence` [N_CONFIDENCE, N_EXPERTS], `by_names` [N_NAMES, N_EXPERTS]; `positions` int64[C] is how many
    held-out positions each concept's row rests on, `mean` float64[C, N_EXPERTS] the average weights there."""

    concepts: tuple[str, ...]
    level: np.ndarray
    by_concept: np.ndarray
    by_confidence: np.ndarray
    by_names: np.ndarray
    positions: np.ndarray
    mean: np.ndarray

    def tables(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """All tables, in the order in which compiled code takes them."""
        return self.level, self.by_concept, self.by_confidence, self.by_names

    def tables_of(self, concept: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """The same with the row of the concept in charge alone."""
        return self.level, self.by_concept[concept], self.by_confidence, self.by_names

    @property
    def entries(self) -> int:
        """Numbers in all tables."""
        return self.level.size + self.by_concept.size + self.by_confidence.size + self.by_names.size

    def table(self) -> list[dict]:
        """One readable row per concept: its positions and the average weight of each group of sources there."""
        groups = {"net": [NET], "corpus": range(FIRST_LEVEL, FIRST_LEVEL + N_LEVELS)}
        groups |= {"file": range(FIRST_LEVEL + N_LEVELS, NAMES), "names": [NAMES], "unigram": [UNIGRAM]}
        return [
            {
                "concept": concept, "positions": int(self.positions[c]),
                "weights": {name: float(self.mean[c, list(columns)].sum()) for name, columns in groups.items()},
            }
            for c, concept in enumerate(self.concepts)
        ]  # fmt: skip

    @staticmethod
    def start(concepts: Sequence[str], nets: bool) -> Mixer:
        """The first guess: trust longer contexts more, and the file's own past most; without nets, none in the net."""
        level = np.zeros((counts.N_ALL_LEVELS, counts.N_BUCKETS))
        level[:N_LEVELS] = np.linspace(-1.0, 2.0, N_LEVELS)[:, None]
        level[N_LEVELS : N_LEVELS + counts.N_FILE_LEVELS] = np.linspace(-1.0, 2.0, counts.N_FILE_LEVELS)[:, None]
        level[N_LEVELS + counts.N_FILE_LEVELS :] = -1.0
        common = np.zeros(N_EXPERTS)
        common[UNIGRAM] = -3.0
        common[NET] = 1.0 if nets else -np.inf
        n = len(concepts)
        return Mixer(
            tuple(concepts), level, np.tile(common, (n, 1)), np.zeros((N_CONFIDENCE, N_EXPERTS)),
            np.zeros((N_NAMES, N_EXPERTS)), np.zeros(n, np.int64), np.zeros((n, N_EXPERTS)),
        )  # fmt: skip

    def fit(self, seen: Positions, seed: int = 0) -> Mixer:
        """The mixer under which the targets of these positions are most probable, starting from this one.

        Adam on batches of positions, one thread: the same positions give the same numbers.
        """
        import torch

        if not len(seen.concept):
            return self
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            return self._fit(seen, seed)
        finally:
            torch.set_num_threads(threads)

    def _fit(self, seen: Positions, seed: int) -> Mixer:
        import torch

        first = [torch.from_numpy(t) for t in (self.level, self.by_concept, self.by_confidence, self.by_names)]
        silent = torch.isinf(first[1])
        first[1] = first[1].masked_fill(silent, 0.0)
        tables = [table.float().requires_grad_() for table in first]
        level, by_concept, by_confidence, by_names = tables
        cells = torch.from_numpy(
            np.where(seen.buckets == counts.ABSENT, 0, seen.buckets).astype(np.int64)
            + np.arange(counts.N_ALL_LEVELS) * counts.N_BUCKETS
        )
        absent = torch.from_numpy(~seen.present()) | silent[torch.from_numpy(seen.concept.astype(np.int64))]
        rows = [torch.from_numpy(a.astype(np.int64)) for a in (seen.concept, seen.confidence, seen.first_name)]
        said = torch.from_numpy(seen.said)

        def weights(i: torch.Tensor) -> torch.Tensor:
            logits = by_concept[rows[0][i]] + by_confidence[rows[1][i]] + by_names[rows[2][i]]
            own = torch.nn.functional.pad(level.reshape(-1)[cells[i]], (FIRST_LEVEL, 1))
            return (logits + own).masked_fill(absent[i], -torch.inf).softmax(1)

        descent = Descent(tables)
        generator = torch.Generator().manual_seed(seed)
        n, done = len(said), 0
        batches = (n + _BATCH - 1) // _BATCH
        rounds = max(_ROUNDS, _STEPS // batches)
        steps = rounds * batches
        for _ in range(rounds):
            for i in torch.randperm(n, generator=generator).split(_BATCH):
                loss = -torch.log((weights(i) * said[i]).sum(1)).mean()
                loss = loss + _PULL * sum((t - f.float()).square().sum() for t, f in zip(tables, first, strict=True))
                descent.step(loss, _RATE * min(1.0, (1.0 - done / steps) / 0.7))
                done += 1
        mean = np.zeros_like(self.mean)
        with torch.no_grad():
            for i in torch.arange(n).split(1 << 14):
                np.add.at(mean, seen.concept[i.numpy()], weights(i).numpy())
        positions = np.bincount(seen.concept, minlength=len(self.concepts))
        fitted = [table.detach().double().numpy() for table in tables]
        fitted[1] = np.where(silent.numpy(), -np.inf, fitted[1])
        return replace(
            self, level=fitted[0], by_concept=fitted[1], by_confidence=fitted[2], by_names=fitted[3],
            positions=positions, mean=mean / np.maximum(positions, 1)[:, None],
        )  # fmt: skip

    def mix(self, seen: Positions) -> np.ndarray:
        """float64[m]: mixed probability of the targets."""
        out = np.zeros(len(seen.concept))
        _mix_targets(
            self.level, self.by_concept, self.by_confidence, self.by_names, seen.concept.astype(np.int64),
            seen.confidence, seen.first_name, seen.buckets, seen.said, out,
        )  # fmt: skip
        return out

    def as_json(self) -> dict[str, Any]:
        """JSON value with every factor's logarithm (shortest round-trip decimals; null: never believed)."""

        def numbers(table: np.ndarray) -> list:
            return [[None if np.isinf(x) else x for x in row] for row in table.tolist()]

        return {
            "experts": list(EXPERTS), "corpus_levels": list(LEVELS), "file_levels": list(counts.FILE_LEVELS),
            "file_places": [place.as_json() for place in counts.PLACES],
            "concepts": list(self.concepts), "level": numbers(self.level), "by_concept": numbers(self.by_concept),
            "by_confidence": numbers(self.by_confidence), "by_names": numbers(self.by_names),
            "positions": self.positions.tolist(), "mean": self.mean.tolist(),
        }  # fmt: skip

    @staticmethod
    def from_json(value: dict[str, Any]) -> Mixer:
        """The mixer that `as_json` wrote."""

        def table(name: str) -> np.ndarray:
            rows = np.array(value[name], dtype=np.float64)  # None becomes nan
            return np.where(np.isnan(rows), -np.inf, rows)

        if tuple(value["experts"]) != EXPERTS:
            raise ValueError(f"experts {value['experts']}")
        return Mixer(
            tuple(value["concepts"]), table("level"), table("by_concept"), table("by_confidence"), table("by_names"),
            np.array(value["positions"], dtype=np.int64), np.array(value["mean"], dtype=np.float64),
        )  # fmt: skip


@dataclass(frozen=True)
class Positions:
    """What the mixer may look at, at m positions, and what each expert said of the target there.

    `concept` int[m], `confidence` int64[m] step of the net's first choice, `first_name` int64[m], `buckets`
    uint8[m, N_ALL_LEVELS] (counts.ABSENT: never seen), `said` float32[m, N_EXPERTS].
    """

    concept: np.ndarray
    confidence: np.ndarray
    first_name: np.ndarray
    buckets: np.ndarray
    said: np.ndarray

    def present(self) -> np.ndarray:
        """bool[m, N_EXPERTS]: who has something to say."""
        there = np.ones((len(self.concept), N_EXPERTS), dtype=np.bool_)
        there[:, FIRST_LEVEL:NAMES] = self.buckets != counts.ABSENT
        there[:, NAMES] = self.first_name != names.N_SLOTS
        return there


def confidence_step(top: np.ndarray) -> np.ndarray:
    """int64[m]: step of the net's probability of its first choice, float[m]."""
    return np.minimum((top * N_CONFIDENCE).astype(np.int64), N_CONFIDENCE - 1)


def first_name(slots: np.ndarray) -> np.ndarray:
    """int64[m]: which row of `by_names` holds, from `slots` uint8[m, N_OFFERED]."""
    return np.where(slots[:, 0] == names.NOTHING, names.N_SLOTS, slots[:, 0]).astype(np.int64)


@compiled
def weigh(level, concept_row, confidence_row, names_row, buckets, has_names, weights):  # pragma: no cover - compiled
    """Weights float64[N_EXPERTS] in force at one position; they sum to 1."""
    top = -np.inf
    for e in range(N_EXPERTS):
        x = concept_row[e] + confidence_row[e] + names_row[e]
        if FIRST_LEVEL <= e < NAMES:
            b = buckets[e - FIRST_LEVEL]
            x = x + level[e - FIRST_LEVEL, b] if b != counts.ABSENT else -np.inf
        if e == NAMES and not has_names:
            x = -np.inf
        weights[e] = x
        top = max(top, x)
    total = 0.0
    for e in range(N_EXPERTS):
        weights[e] = np.exp(weights[e] - top)
        total += weights[e]
    for e in range(N_EXPERTS):
        weights[e] /= total


@compiled
def _mix_targets(
    level, by_concept, by_confidence, by_names, concept, confidence, first, buckets, said, out
):  # pragma: no cover - compiled
    weights = np.zeros(N_EXPERTS)
    for i in range(len(concept)):
        weigh(
            level, by_concept[concept[i]], by_confidence[confidence[i]], by_names[first[i]], buckets[i],
            first[i] != names.N_SLOTS, weights,
        )  # fmt: skip
        p = 0.0
        for e in range(N_EXPERTS):
            p += weights[e] * said[i, e]
        out[i] = p
