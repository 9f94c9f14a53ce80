"""The mixer: how far each expert is believed, by concept in charge and by how much of the context was seen before.

A table of weights that a person can read: one row per concept and bucket, one column per expert, each row summing to 1.
The bucket is plain code over the context (`bucket_of`); the mixer never looks at the token being predicted. Weights are
those that make the tokens of held-out files most probable (expectation-maximisation), each bucket drawn towards its
concept's row and each concept towards the common row, so that a rare bucket does not invent an opinion.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

CORPUS_STEPS = (2, 3, 5, 9)
"""Borders between buckets of the longest match in the corpus, in tokens."""
FILE_STEPS = (1, 3, 5)
"""Borders between buckets of the deepest file level whose context occurred before (0: none)."""
N_CORPUS, N_FILE, N_NAMES = len(CORPUS_STEPS) + 1, len(FILE_STEPS) + 1, 2
N_MIX_BUCKETS = N_CORPUS * N_FILE * N_NAMES
EM_ROUNDS = 40
_PULL = 30.0
"""A bucket starts from this many imagined positions at its concept's weights, a concept at the common ones."""


def bucket_of(corpus_match: np.ndarray, file_depth: np.ndarray, names_present: np.ndarray) -> np.ndarray:
    """int64[m] bucket from the longest corpus match (tokens), the file levels that matched and whether names did."""
    corpus = np.digitize(corpus_match, CORPUS_STEPS)
    file = np.digitize(file_depth, FILE_STEPS)
    return (corpus * N_FILE + file) * N_NAMES + names_present.astype(np.int64)


def describe_bucket(bucket: int) -> dict[str, int]:
    """The bucket in words: indices of its corpus and file steps and whether names in scope match."""
    rest, names = divmod(int(bucket), N_NAMES)
    corpus, file = divmod(rest, N_FILE)
    return {"corpus_match": corpus, "file_match": file, "names": names}


@dataclass(frozen=True)
class Mixer:
    """Weights float64[C, N_MIX_BUCKETS, E] and the held-out positions int64[C, N_MIX_BUCKETS] each row rests on."""

    experts: tuple[str, ...]
    concepts: tuple[str, ...]
    weights: np.ndarray
    positions: np.ndarray

    def rows(self, concept: np.ndarray, bucket: np.ndarray) -> np.ndarray:
        """float64[m, E]: the weights in force at m positions."""
        return self.weights[concept, bucket]

    def mix(self, concept: np.ndarray, bucket: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
        """float64[m]: mixed probability of the targets; `probabilities` float64[m, E]."""
        return (self.rows(concept, bucket) * probabilities).sum(1)

    def table(self) -> list[dict]:
        """One readable row per concept: its positions and its average weight on each expert."""
        rows = []
        for c, concept in enumerate(self.concepts):
            n = self.positions[c].sum()
            share = self.positions[c] / n if n else np.full(N_MIX_BUCKETS, 1 / N_MIX_BUCKETS)
            mean = (self.weights[c] * share[:, None]).sum(0)
            weights = {name: float(w) for name, w in zip(self.experts, mean, strict=True)}
            rows.append({"concept": concept, "positions": int(n), "weights": weights})
        return rows

    @staticmethod
    def fit(
        experts: Sequence[str],
        concepts: Sequence[str],
        concept: np.ndarray,
        bucket: np.ndarray,
        probabilities: np.ndarray,
        needs_names: Sequence[str] = (),
        silent: Sequence[str] = (),
    ) -> Mixer:
        """Weights from held-out positions: `concept`, `bucket` int[m], `probabilities` float64[m, E] of the targets.

        Experts in `needs_names` get no weight in buckets where no name in scope matches, those in `silent` none at all.
        """
        n_concepts, n_experts = len(concepts), len(experts)
        allowed = np.ones((N_MIX_BUCKETS, n_experts))
        nameless = [e for e, name in enumerate(experts) if name in needs_names]
        allowed[np.ix_(np.arange(N_MIX_BUCKETS) % N_NAMES == 0, nameless)] = 0.0
        allowed[:, [e for e, name in enumerate(experts) if name in silent]] = 0.0

        def normalise(w: np.ndarray) -> np.ndarray:
            return w / w.sum(-1, keepdims=True)

        def share(weights: np.ndarray) -> np.ndarray:
            part = weights * probabilities
            return part / part.sum(1, keepdims=True)

        common = normalise(allowed)
        for _ in range(EM_ROUNDS):
            # One row for all positions; a bucket only takes away experts that have nothing to say there.
            common = normalise(allowed * (share(common[bucket]).sum(0) + 1.0))
        by_concept = np.broadcast_to(common, (n_concepts, N_MIX_BUCKETS, n_experts))
        for _ in range(EM_ROUNDS):
            held = share(by_concept[concept, bucket])
            sums = _PULL * _mean_row(common, allowed) + np.stack(
                [np.bincount(concept, held[:, e], n_concepts) for e in range(n_experts)], 1
            )
            by_concept = normalise(allowed[None] * sums[:, None, :])
        cell = concept.astype(np.int64) * N_MIX_BUCKETS + bucket
        n_cells = n_concepts * N_MIX_BUCKETS
        prior = _PULL * by_concept.reshape(n_cells, n_experts)
        weights = by_concept.reshape(n_cells, n_experts)
        for _ in range(EM_ROUNDS):
            held = share(weights[cell])
            sums = np.stack([np.bincount(cell, held[:, e], n_cells) for e in range(n_experts)], 1)
            weights = normalise(prior + sums)
        positions = np.bincount(cell, minlength=n_cells).reshape(n_concepts, N_MIX_BUCKETS)
        shape = (n_concepts, N_MIX_BUCKETS, n_experts)
        return Mixer(tuple(experts), tuple(concepts), weights.reshape(shape), positions)

    def as_json(self) -> dict:
        """JSON value with every weight (shortest round-trip decimals)."""
        return {
            "experts": list(self.experts),
            "concepts": list(self.concepts),
            "corpus_steps": list(CORPUS_STEPS),
            "file_steps": list(FILE_STEPS),
            "weights": self.weights.tolist(),
            "positions": self.positions.tolist(),
        }

    @staticmethod
    def from_json(value: dict) -> Mixer:
        """The mixer that `as_json` wrote."""
        return Mixer(
            tuple(value["experts"]),
            tuple(value["concepts"]),
            np.array(value["weights"], dtype=np.float64),
            np.array(value["positions"], dtype=np.int64),
        )


def _mean_row(common: np.ndarray, allowed: np.ndarray) -> np.ndarray:
    """One row of expert weights out of the common table: that of a bucket where as many experts as can may speak."""
    return common[int(allowed.sum(1).argmax())]
