"""Training of feature nodes: all on the same pictures, each on its own loss, from the class-by-concept table alone."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import numpy.typing as npt

from ontology.errors import ConstructibleError
from vision.bank import mirror
from vision.nodes import Node, NodeShape, balanced_weights, calibration, node_maps, pool
from vision.plain import PlainNode

if TYPE_CHECKING:
    from torch import Tensor

BATCH = 96
WEIGHT_DECAY = 0.02
LEARNING_RATE = 2e-2
OWN_SHARE = 0.75
"""Of the pictures of a step, and of the weight of a side of a node's truth, how much belongs to the own classes."""
SHIFT = 1
"""Cells (a sixteenth of the side each) by which pictures are moved at random."""
PATCHED = 0.5
"""Share of pictures in which a rectangle of another one stands; truths then count by area (Yun et al. 2019, CutMix).
The monolith is better without (docs/experiments/vision_nodes.md)."""
AnyNode = TypeVar("AnyNode", bound=Node | PlainNode)


@dataclass(frozen=True)
class NodePlan:
    """A node to be trained.

    Attributes:
        truth: for each class 1 (has it), 0 (has it not) or -1 (no example), int8 [classes].
        seed_name: what its first weights are drawn from, its name by default.
    """

    name: str
    shape: NodeShape
    truth: npt.NDArray[np.int8]
    seed_name: str = ""


class NodeTrainer:
    """Trains nodes together; see `ontology.training.Trainer`.

    Each step takes pictures of as many different classes as it can, mirrors half of them, moves each by up to a cell,
    puts a rectangle of another one into half of them, and updates every node by its own class-balanced logistic loss.
    First weights depend on seed and name alone. Where the processor multiplies bfloat16 in hardware, products are
    rounded to it; weights and sums stay in float32.

    Args:
        plans: what to train; names are unique.
        primitives: uint8 [n, channels, 16, 16], may be memory-mapped.
        labels: class of each picture, [n].
        rows: the pictures to learn from.
        own: the classes of the model that the nodes are for; `OWN_SHARE` of pictures and weight are theirs. Without
            them all classes count alike, as for a library of nodes.
    """

    def __init__(
        self,
        plans: Sequence[NodePlan],
        primitives: npt.NDArray[np.uint8],
        labels: npt.NDArray[np.int64],
        rows: npt.NDArray[np.int64],
        *,
        seed: int = 0,
        own: Sequence[int] = (),
        batch: int = BATCH,
        learning_rate: float = LEARNING_RATE,
    ) -> None:
        import torch

        from kernels import AdamState

        if not plans:
            raise ConstructibleError("no nodes to train.", fix="give at least one concept")
        self.plans, self.primitives, self.labels, self.seed = list(plans), primitives, labels, seed
        self.batch, self.learning_rate = batch, learning_rate
        table = np.stack([plan.truth for plan in self.plans], axis=1)
        present = np.unique(labels[rows])
        for plan in self.plans:
            sides = set(plan.truth[present].tolist())
            if not {0, 1} <= sides:
                raise ConstructibleError(
                    f"the concept {plan.name!r} is {'never' if 1 not in sides else 'always'} true in the training "
                    "classes.", fix="train it with classes of both kinds, or leave it out",
                )  # fmt: skip
        self._by_class = [rows[labels[rows] == c] for c in present]
        self._classes = present
        self._chance, per_class = _shares(table[present], np.isin(present, list(own)))
        self._weights = torch.from_numpy(per_class).float()
        self._truth = torch.from_numpy((table[present] == 1).astype(np.float32))
        groups: dict[NodeShape, list[int]] = {}
        for i, plan in enumerate(self.plans):
            groups.setdefault(plan.shape, []).append(i)
        self._groups = [(shape, np.array(columns)) for shape, columns in groups.items()]
        self._shift, self._scale = _channel_statistics(primitives, rows)
        self._params = [self._first_weights(shape, columns) for shape, columns in self._groups]
        self._adam = [AdamState.of(params) for params in self._params]
        from kernels.precision import multiplies_bfloat16

        self._fraction, self._low = 0.0, multiplies_bfloat16()
        self.rows_per_step = batch

    def _first_weights(self, shape: NodeShape, columns: npt.NDArray[np.int64]) -> list:
        import torch

        stacked = []
        for i in columns:
            plan = self.plans[i]
            digest = hashlib.sha256(f"{self.seed} {plan.seed_name or plan.name}".encode()).digest()
            generator = torch.Generator().manual_seed(int.from_bytes(digest[:6], "big"))
            own = []
            for t, size in enumerate(shape.sizes):
                if t % 2:
                    own.append(torch.zeros(size))
                    continue
                spread = math.sqrt((2.0 if t < 4 else 0.3) / math.prod(size[1:]))
                own.append(torch.randn(size, generator=generator) * spread)
            stacked.append(own)
        return [torch.stack([own[t] for own in stacked]) for t in range(6)]

    def set_progress(self, fraction: float) -> None:
        """Tell how much of the training is over; the learning rate rises over 3 % and falls to 2 % of its height."""
        self._fraction = min(1.0, max(0.0, fraction))

    def step(self, index: int) -> float:
        """Make step `index` and return the mean loss of a node in nats; pictures depend on seed and index alone."""
        import torch
        import torch.nn.functional as F

        inputs, shown = self.shown(index)
        seen = [(self._truth[c], self._weights[c] * share[:, None]) for c, share in shown]
        total, gradients = 0.0, []
        for (shape, columns), params in zip(self._groups, self._params, strict=True):
            leaves = [p.detach().requires_grad_() for p in params]
            with torch.enable_grad():
                logits = self.logits(inputs, leaves, shape)
                loss = torch.zeros(())
                for truth, weights in seen:
                    losses = F.binary_cross_entropy_with_logits(logits, truth[:, columns], reduction="none")
                    loss = loss + (losses * weights[:, columns]).mean(0).sum()
                gradients.append(torch.autograd.grad(loss, leaves))
            total += float(loss.detach())
        self.update(gradients)
        return total / len(self.plans)

    def shown(self, index: int) -> tuple[Tensor, tuple[tuple[npt.NDArray[np.int64], Tensor], ...]]:
        """Step `index`: (what nodes read of its pictures, the two classes in each: places [batch], shares [batch])."""
        chosen, pictures = self.draw(index)
        pictures, partner, area = self.patched(pictures, index)
        return self.inputs(pictures), ((chosen, 1 - area), (chosen[partner], area))

    def update(self, gradients: Sequence[Sequence[Tensor]]) -> None:
        """Move the parameters by their gradients, group by group."""
        from kernels import AdamRule, adam_step_

        rate, rule = self._rate(), AdamRule(weight_decay=WEIGHT_DECAY)
        for params, adam, own in zip(self._params, self._adam, gradients, strict=True):
            adam_step_(params, [g.contiguous() for g in own], adam, rate, rule=rule)

    def draw(self, index: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint8]]:
        """The pictures of step `index`: places of their classes among those present, [batch], and primitives, mirrored
        and moved at random."""
        rng = np.random.default_rng((self.seed, index))
        order = rng.permutation(len(self._classes))
        # Evenly spaced points on the line of all chances: every class comes as often as it should, within one picture.
        points = (np.arange(self.batch) + rng.random()) / self.batch
        places = np.searchsorted(np.cumsum(self._chance[order]), points)
        chosen = order[np.minimum(places, len(order) - 1)]
        rows = np.array([self._by_class[c][rng.integers(len(self._by_class[c]))] for c in chosen])
        pictures = np.array(self.primitives[rows])
        turned = rng.random(len(rows)) < 0.5
        pictures[turned] = mirror(pictures[turned])
        return chosen, moved(pictures, rng.integers(-SHIFT, SHIFT + 1, (len(rows), 2)))

    def patched(
        self, pictures: npt.NDArray[np.uint8], index: int
    ) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64], Tensor]:
        """The pictures of step `index` with rectangles of each other; see `patches`."""
        import torch

        rng = np.random.default_rng((self.seed, index, 1))
        partner, corner, extent = patches(len(pictures), pictures.shape[2], rng)
        whole = pictures.copy()
        for i in np.flatnonzero(extent[:, 0]):
            (y, x), (h, w) = corner[i], extent[i]
            pictures[i, :, y : y + h, x : x + w] = whole[partner[i], :, y : y + h, x : x + w]
        return pictures, partner, torch.from_numpy(extent.prod(1) / pictures.shape[2] ** 2).float()

    def inputs(self, pictures: npt.NDArray[np.uint8]) -> Tensor:
        """Primitives [n, channels, 16, 16] standardised, as all shapes read them: once a step, not once a shape."""
        import torch

        maps = torch.from_numpy(pictures.astype(np.float32)).sub_(255.0 * self._shift).div_(255.0 * self._scale)
        return maps.bfloat16() if self._low else maps

    def logits(self, inputs: Tensor, leaves: Sequence[Tensor], shape: NodeShape) -> Tensor:
        """Pooled evidence float32 [n, nodes] of the nodes of one shape, by weights that stand for theirs; see
        `inputs`."""
        if self._low:
            leaves = [leaf.bfloat16() for leaf in leaves]
        seen = inputs if len(shape.channels) == inputs.shape[1] else inputs[:, shape.channels]
        return pool(node_maps(seen, leaves, shape).float(), shape.pooling, self._fraction)

    def state(self) -> dict[str, npt.NDArray]:
        """All that training needs to continue exactly: weights and optimizer."""
        return {name: tensor.detach().numpy().copy() for name, tensor in self._named().items()}

    def restore(self, state: Mapping[str, npt.NDArray]) -> None:
        """Continue from a `state`; raise ConstructibleError where it belongs to another training."""
        import torch

        named = self._named()
        if set(named) != set(state) or any(tuple(named[n].shape) != state[n].shape for n in named):
            raise ConstructibleError("the checkpoint belongs to another training.", fix="delete it and run again")
        for name, tensor in named.items():
            tensor.copy_(torch.from_numpy(np.array(state[name])))

    def finish(self) -> list[Node]:
        """Return the nodes, in the order of the plans, uncalibrated, with the standardisation folded in."""
        made: dict[int, Node] = {}
        for (shape, columns), params in zip(self._groups, self._params, strict=True):
            shift = self._shift[shape.channels].double().numpy().reshape(1, -1, 1, 1)
            scale = self._scale[shape.channels].double().numpy().reshape(1, -1, 1, 1)
            for place, i in enumerate(columns):
                weights = [np.array(p[place].numpy()) for p in params]
                first = weights[0].astype(np.float64) / scale
                weights[1] = (weights[1] - (first * shift).sum((1, 2, 3))).astype(np.float32)
                weights[0] = first.astype(np.float32)
                made[int(i)] = Node(self.plans[i].name, shape, tuple(weights))
        return [made[i] for i in range(len(self.plans))]

    def _rate(self) -> float:
        warm = min(1.0, (self._fraction + 1e-3) / 0.03)
        return self.learning_rate * warm * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * self._fraction)))

    def _named(self) -> dict:
        named = {}
        for g, (params, adam) in enumerate(zip(self._params, self._adam, strict=True)):
            named[f"{g}.steps"] = adam.step
            for t in range(6):
                named |= {f"{g}.p{t}": params[t], f"{g}.m{t}": adam.first[t], f"{g}.v{t}": adam.second[t]}
        return named


def patches(
    n: int, side: int, rng: np.random.Generator
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """For each of n pictures a partner [n], and corner and extent (down, right) [n, 2] of the rectangle that is taken
    from it, a quarter to three quarters of the side long; of extent 0 in pictures that stay whole."""
    partner = rng.permutation(n)
    extent = rng.integers(side // 4, 3 * side // 4 + 1, (n, 2))
    corner = (rng.random((n, 2)) * (side - extent + 1)).astype(np.int64)
    extent[rng.random(n) >= PATCHED] = 0
    return partner, corner, extent


def moved(pictures: npt.NDArray[np.uint8], by: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
    """Each picture's maps [n, channels, 16, 16] moved by cells [n, 2] (down, right), edges repeated."""
    side = np.arange(pictures.shape[2])
    down = np.clip(side[None, :] - by[:, :1], 0, side[-1])
    right = np.clip(side[None, :] - by[:, 1:], 0, side[-1])
    return pictures[np.arange(len(pictures))[:, None, None], :, down[:, :, None], right[:, None, :]].transpose(
        0, 3, 1, 2
    )


def _shares(
    table: npt.NDArray[np.int8], own: npt.NDArray[np.bool_]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """How often each class is drawn, [classes], and what one of its pictures then weighs for each node, [classes,
    nodes]: both sides of a node weigh the same, and of a side `OWN_SHARE` belongs to the own classes on it, all alike,
    the rest to all classes on it, all alike."""
    n = len(table)
    apart = own.any() and not own.all()
    chance = np.where(own, OWN_SHARE / own.sum(), (1 - OWN_SHARE) / (~own).sum()) if apart else np.full(n, 1 / n)
    weights = balanced_weights(table, np.arange(n))
    if apart:
        for side in (0, 1):
            mine = (table == side) & own[:, None]
            share = np.where(mine.any(0), OWN_SHARE, 0.0)
            there = table == side
            weights = np.where(there, (1 - share) * weights + share * mine / np.maximum(1, mine.sum(0)) / 2, weights)
    return chance, weights / chance[:, None]


def calibrated(
    nodes: Sequence[AnyNode],
    table: npt.NDArray[np.int8],
    pooled: npt.NDArray[np.float64],
    labels: npt.NDArray[np.int64],
) -> tuple[list[AnyNode], list[AnyNode]]:
    """Fit slope and offset of each node on pictures it did not learn from.

    Args:
        table: truth, int8 [classes, nodes].
        pooled: evidence on those pictures, [n, nodes].

    Returns:
        The calibrated nodes, and those whose slope was not above zero: they answer another question than their own.
    """
    weights = balanced_weights(table, labels)
    good, bad = [], []
    for i, node in enumerate(nodes):
        used = weights[:, i] > 0
        slope, offset = calibration(pooled[used, i], table[labels[used], i] == 1, weights[used, i])
        if slope > 1e-3:
            good.append(replace(node, slope=slope, offset=offset))
        else:
            bad.append(node)
    return good, bad


def _channel_statistics(primitives: npt.NDArray[np.uint8], rows: npt.NDArray[np.int64]) -> tuple:
    """Mean and spread of each channel over at most 1,000 of the pictures, float32 [channels, 1, 1], in [0, 1]."""
    import torch

    some = primitives[np.sort(rows[:: max(1, len(rows) // 1000)])].astype(np.float32) / 255.0
    mean, spread = some.mean((0, 2, 3), dtype=np.float64), some.std((0, 2, 3), dtype=np.float64)
    shape = (-1, 1, 1)
    return (
        torch.from_numpy(mean).float().reshape(shape),
        torch.from_numpy(np.maximum(spread, 0.02)).float().reshape(shape),
    )
