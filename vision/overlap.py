"""One node, one concept? Every node is probed for every other concept, with its own concept held fixed.

Concepts go together in the table: a node for wings tells what has feathers because what has wings has feathers. So a
node is asked for concept j only between classes that agree on its own concept: among the winged ones, does it fire more
on those with feathers? 0.5 is no. Some probes come out high by chance, since a picture of another class looks different
in every way; nodes that know nothing of any concept (random weights, or trained for a permuted column of the table) are
probed in the same way, and a node carries a concept where it goes beyond 95 % of them.

The probe is the area under the curve over pairs of a true and a false class (as `fidelity_metrics.held_out_transfer`),
conditional on the own concept. That probes of a representation say little without random controls is the lesson of
Hewitt and Liang 2019, "Designing and Interpreting Probes with Control Tasks".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from vision.fidelity_metrics import class_pairs
from vision.nodes import Node, NodeBank
from vision.plain import PlainNode

Floats = npt.NDArray[np.float64]
LEVEL = 0.95
MIN_RANDOM = 10
"""With fewer random nodes there is no 95 % of them, and the largest is taken."""


@dataclass(frozen=True)
class Overlap:
    """What nodes carry beside their own concept.

    Attributes:
        own: area under the curve of each node for its own concept, [k].
        probes: of node i for concept j among classes that agree on concept i, [k, k]; nan where there is no such pair.
        limit: distance from 0.5 that 95 % of random nodes stay within, by the same pair, [k, k].
        carried: share of pairs in which a node goes beyond that, and the same for random nodes judged by the others.
        alike: pairs of nodes whose scores agree almost entirely (correlation above 0.95): one node too many.
    """

    names: tuple[str, ...]
    own: Floats
    probes: Floats
    limit: Floats
    carried: float
    carried_by_random: float
    alike: tuple[tuple[str, str, float], ...]

    def of(self, i: int) -> list[tuple[str, float]]:
        """Concepts that node i carries, furthest beyond random nodes first, with the probe's figure."""
        beyond = np.nan_to_num(np.abs(self.probes[i] - 0.5) - self.limit[i], nan=-1.0)
        return [(self.names[j], float(self.probes[i, j])) for j in np.argsort(-beyond, kind="stable") if beyond[j] > 0]

    def as_json(self) -> dict[str, Any]:
        """The figures, and for each node the (at most five) concepts it carries most."""
        with np.errstate(invalid="ignore"):
            others = np.nanmax(np.where(np.isnan(self.probes), -1.0, np.abs(self.probes - 0.5)), axis=1)
        return {
            "carried_share": self.carried, "carried_share_of_random_nodes": self.carried_by_random,
            "own_is_strongest": float(np.mean(np.abs(self.own - 0.5) > others)),
            "alike": [{"a": a, "b": b, "correlation": r} for a, b, r in self.alike],
            "nodes": {
                name: {"own": float(self.own[i]), "carries": len(self.of(i)),
                       "most": [{"concept": c, "auroc": value} for c, value in self.of(i)[:5]]}
                for i, name in enumerate(self.names)
            },
        }  # fmt: skip


def overlap(
    scores: Floats, labels: npt.NDArray[np.int64], truth: npt.NDArray[np.int8], names: Sequence[str], random: Floats
) -> Overlap:  # fmt: skip
    """Probe every node for every other concept.

    Args:
        scores: evidence of the nodes on photographs they did not learn from, float64 [n, k].
        labels: class of each, [n]; rows of -1 are left out.
        truth: 1 true, 0 false, -1 unclear, int8 [classes, k].
        random: evidence of nodes that know no concept, [n, r].
    """
    known = labels >= 0
    scores, labels, random = scores[known], labels[known], random[known]
    k = scores.shape[1]
    yes, no = (truth == 1).astype(np.float64), (truth == 0).astype(np.float64)
    there = np.bincount(labels, minlength=len(truth)) > 0
    yes, no = yes * there[:, None], no * there[:, None]
    classes = list(range(len(truth)))
    agree = [(np.outer(yes[:, i], yes[:, i]) + np.outer(no[:, i], no[:, i])) for i in range(k)]
    pairs_of = [class_pairs(scores[:, i], labels, classes) for i in range(k)]
    probes = np.stack([_areas(pairs_of[i] * agree[i], agree[i], yes, no) for i in range(k)])
    own = np.array([_areas(pairs_of[i], np.ones_like(agree[i]), yes, no)[i] for i in range(k)])
    np.fill_diagonal(probes, np.nan)
    chance = np.full((random.shape[1], k, k), np.nan)
    for r in range(random.shape[1]):
        pairs = class_pairs(random[:, r], labels, classes)
        for i in range(k):
            chance[r, i] = _areas(pairs * agree[i], agree[i], yes, no)
    away = np.abs(chance - 0.5)
    away[:, np.arange(k), np.arange(k)] = np.nan
    limit = _limit(away)
    beyond = np.abs(probes - 0.5) > limit
    usable = ~np.isnan(probes)
    rest = [
        float((away[r] > _limit(np.delete(away, r, axis=0)))[usable].mean()) for r in range(len(away)) if len(away) > 1
    ]
    return Overlap(
        tuple(names), own, probes, limit, float(beyond[usable].mean()) if usable.any() else float("nan"),
        float(np.mean(rest)) if rest and usable.any() else float("nan"), _alike(scores, names),
    )  # fmt: skip


def random_nodes(nodes: Sequence[Node | PlainNode], n: int, seed: int = 0) -> NodeBank:
    """Nodes of the same shapes that nobody trained: weights drawn as a training would draw its first ones, or, for
    plain code, random constants over as many readings."""
    rng = np.random.default_rng((seed, 9))
    made: list[Node | PlainNode] = []
    for i in range(n):
        like = nodes[i % len(nodes)]
        if isinstance(like, Node):
            sizes = like.shape.sizes
            weights = tuple(
                np.zeros(size, np.float32) if t % 2 else
                (rng.standard_normal(size) * np.sqrt((2.0 if t < 4 else 0.3) / np.prod(size[1:]))).astype(np.float32)
                for t, size in enumerate(sizes)
            )  # fmt: skip
            made.append(Node(f"random_{i}", like.shape, weights))
        else:
            terms = [f"({rng.standard_normal():.3g}) * p.{name}" for name in like.reads]
            source = f"def evidence(p):\n    return {' + '.join(terms) or '0'}\n"
            made.append(PlainNode(f"random_{i}", like.shape, source))
    return NodeBank(made)


def _areas(weighted: Floats, weight: Floats, yes: Floats, no: Floats) -> Floats:
    """For each concept the mean of class pairs (true, false) that count, [k]; nan where none does."""
    total = (yes * (weighted @ no)).sum(0)
    count = (yes * (weight @ no)).sum(0)
    return np.where(count > 0, total / np.maximum(count, 1e-12), np.nan)


def _limit(away: Floats) -> Floats:
    if len(away) == 0:
        return np.full(away.shape[1:], np.inf)
    filled = np.nan_to_num(away, nan=np.inf)
    return filled.max(0) if len(away) < MIN_RANDOM else np.quantile(filled, LEVEL, axis=0, method="higher")


def _alike(scores: Floats, names: Sequence[str]) -> tuple[tuple[str, str, float], ...]:
    if scores.shape[1] < 2:
        return ()
    x = scores - scores.mean(0)
    size = np.sqrt((x**2).sum(0))
    both = (x.T @ x) / np.maximum(np.outer(size, size), 1e-12)
    pairs = [(i, j) for i in range(len(names)) for j in range(i + 1, len(names)) if both[i, j] > 0.95]
    found = [(names[i], names[j], float(both[i, j])) for i, j in pairs]
    return tuple(sorted(found, key=lambda item: -item[2]))
