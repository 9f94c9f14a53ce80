"""Feature nodes: one tiny convolutional net per concept, many trained in one batched call.

A node sees the primitives (`vision.bank`) that fit into its declared scale and nothing else; it knows no class and
shares no weight with another node. Three convolutions give a map of evidence, pooling makes one number of it, and two
calibrated constants, the slope above zero, turn that number into the probability that the concept is in the picture.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from ontology.errors import ConstructibleError
from ontology.io import load_tensors, read_json, save_tensors, write_json
from vision.bank import CHANNELS, GRID, REACH

if TYPE_CHECKING:
    from torch import Tensor

    from vision.plain import PlainNode

FORMAT = "constructible-nodes/1"
MAX_PARAMS = 10_000
Pooling = Literal["average", "max", "lse", "annealed", "topk", "linear_softmax"]
POOLINGS: tuple[Pooling, ...] = ("average", "max", "lse", "annealed", "topk", "linear_softmax")
SHARPNESS = 2.0
FIRST_SHARPNESS = 0.3

# scale -> kernels of the three convolutions. The first one halves the map where its kernel is 3: it reads the shared
# primitives, so the first layers of all nodes are one dense product, and what follows works on a quarter of the cells.
_KERNELS: dict[float, tuple[int, int, int]] = {
    0.1: (1, 1, 1), 0.2: (3, 1, 1), 0.35: (3, 1, 1), 0.6: (3, 3, 1), 1.0: (3, 3, 3),
}  # fmt: skip
_WEIGHTS = ("first", "first_bias", "second", "second_bias", "third", "third_bias")


@dataclass(frozen=True)
class NodeShape:
    """What all nodes of one scale have in common.

    Attributes:
        scale: the declared receptive field as a fraction of the picture's side.
        hidden: channels after the first and the second convolution.
        pooling: how a map becomes one number.
        capped: whether the limit of parameters holds; nodes above the leaves of an ontology are exempt and say so.
    """

    scale: float
    hidden: tuple[int, int] = (16, 16)
    pooling: Pooling = "average"
    capped: bool = True

    def __post_init__(self) -> None:
        if self.scale not in _KERNELS:
            raise ConstructibleError(
                f"there is no node of scale {self.scale}.", fix=f"use one of {', '.join(map(str, _KERNELS))}"
            )
        if self.capped and self.parameters > MAX_PARAMS:
            raise ConstructibleError(
                f"a node of {self.hidden} channels has {self.parameters} parameters, more than {MAX_PARAMS}.",
                fix="use fewer channels",
            )

    @property
    def kernels(self) -> tuple[int, int, int]:
        """Kernel sizes of the three convolutions."""
        return _KERNELS[self.scale]

    @property
    def strides(self) -> tuple[int, int, int]:
        """Strides of the three convolutions."""
        return (2 if self.kernels[0] > 1 else 1, 1, 1)

    @property
    def cells(self) -> int:
        """Cells along a side that one value of the map depends on."""
        first, second, third = self.kernels
        return first + (second + third - 2) * self.strides[0]

    @property
    def channels(self) -> npt.NDArray[np.int64]:
        """Primitives that a node may read: those whose reach, with the net's own, stays within the scale, rounded up
        to a whole cell."""
        cap = math.ceil(round(self.scale * GRID, 6)) / GRID
        return np.array([i for i, reach in enumerate(REACH) if self.cells / GRID + reach <= cap + 1e-9])

    @property
    def receptive_field(self) -> float:
        """What one value of the map depends on at most, as a fraction of the picture's side, primitives included."""
        return self.cells / GRID + max(REACH[i] for i in self.channels)

    @property
    def sizes(self) -> tuple[tuple[int, ...], ...]:
        """Shapes of one node's six tensors."""
        (k1, k2, k3), (h1, h2), n = self.kernels, self.hidden, len(self.channels)
        return (h1, n, k1, k1), (h1,), (h2, h1, k2, k2), (h2,), (1, h2, k3, k3), (1,)

    @property
    def parameters(self) -> int:
        """Trained numbers of one node, the two of its calibration not counted."""
        return sum(math.prod(size) for size in self.sizes)


@dataclass(frozen=True)
class Node:
    """One trained node.

    Attributes:
        weights: six float32 arrays (see `NodeShape.sizes`) that take primitives in [0, 1].
        slope, offset: probability = sigmoid(slope * pooled + offset); slope > 0.
    """

    name: str
    shape: NodeShape
    weights: tuple[npt.NDArray[np.float32], ...]
    slope: float = 1.0
    offset: float = 0.0

    def save(self, folder: str | Path, about: Mapping[str, Any] | None = None) -> None:
        """Write `weights.safetensors` and `node.json`."""
        save_tensors(Path(folder) / "weights.safetensors", dict(zip(_WEIGHTS, self.weights, strict=True)))
        write_json(
            Path(folder) / "node.json",
            {"format": FORMAT, "name": self.name, **asdict(self.shape), "slope": self.slope, "offset": self.offset,
             "parameters": self.shape.parameters, "receptive_field": self.shape.receptive_field,
             "reads": [CHANNELS[i] for i in self.shape.channels], "about": dict(about or {})},
        )  # fmt: skip

    @classmethod
    def load(cls, folder: str | Path) -> Node:
        """Read a node's folder.

        Raises:
            ConstructibleError: files are missing, of another version, or do not fit each other.
        """
        path = Path(folder) / "node.json"
        said = read_json(path)
        if said.get("format") != FORMAT:
            raise ConstructibleError(f"has the format {said.get('format')!r}.", fix="build the model again", file=path)
        shape = NodeShape(said["scale"], tuple(said["hidden"]), said["pooling"], said["capped"])
        tensors = load_tensors(Path(folder) / "weights.safetensors")
        weights = tuple(np.array(tensors[name]) for name in _WEIGHTS)
        if tuple(w.shape for w in weights) != shape.sizes or said["reads"] != [CHANNELS[i] for i in shape.channels]:
            raise ConstructibleError("the weights do not fit the shape.", fix="build the model again", file=path)
        if not said["slope"] > 0:
            raise ConstructibleError("the slope is not above zero.", fix="build the model again", file=path)
        return cls(said["name"], shape, weights, float(said["slope"]), float(said["offset"]))


class NodeBank:
    """Several nodes, answered together: nets, plain code (`vision.plain`), or both.

    Attributes:
        nodes: in the order of the columns of all answers.
    """

    def __init__(self, nodes: Sequence[Node | PlainNode]) -> None:
        self.nodes = tuple(nodes)
        groups: dict[NodeShape, list[tuple[int, Node]]] = {}
        self._plain: list[tuple[int, PlainNode]] = []
        for i, node in enumerate(self.nodes):
            if isinstance(node, Node):
                groups.setdefault(node.shape, []).append((i, node))
            else:
                self._plain.append((i, node))
        self._groups = [
            (shape, np.array([i for i, _ in own]), [np.stack([node.weights[t] for _, node in own]) for t in range(6)])
            for shape, own in groups.items()
        ]

    @property
    def names(self) -> tuple[str, ...]:
        """The nodes' names."""
        return tuple(node.name for node in self.nodes)

    @property
    def parameters(self) -> int:
        """Trained numbers of all nodes."""
        return sum(node.shape.parameters for node in self.nodes)

    def maps(self, primitives: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Maps of evidence, float32 [n, nodes, 16, 16]; coarser ones are repeated to the common grid."""
        import torch

        out = np.empty((len(primitives), len(self.nodes), GRID, GRID), dtype=np.float32)
        for i, node in self._plain:
            out[:, i] = node.maps(primitives)
        with torch.inference_mode():
            for shape, columns, weights in self._groups:
                found = node_maps(_inputs(primitives, shape), [torch.from_numpy(w) for w in weights], shape).numpy()
                repeat = GRID // found.shape[-1]
                out[:, columns] = found.repeat(repeat, axis=2).repeat(repeat, axis=3)
        return out

    def pooled(self, primitives: npt.NDArray[np.uint8], batch: int = 250) -> npt.NDArray[np.float64]:
        """Pooled evidence before calibration, float64 [n, nodes]."""
        import torch

        out = np.empty((len(primitives), len(self.nodes)))
        for i, node in self._plain:
            out[:, i] = node.pooled(primitives)
        with torch.inference_mode():
            for begin in range(0, len(primitives), batch):
                part = primitives[begin : begin + batch]
                for shape, columns, weights in self._groups:
                    maps = node_maps(_inputs(part, shape), [torch.from_numpy(w) for w in weights], shape)
                    out[begin : begin + batch, columns] = pool(maps, shape.pooling).double().numpy()
        return out

    def scores(self, primitives: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
        """Calibrated probabilities that each concept is in each picture, float64 [n, nodes]."""
        return self.calibrate(self.pooled(primitives))

    def calibrate(self, pooled: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Turn pooled evidence [n, nodes] into probabilities, to four decimals: what a rule is given can be read."""
        slopes = np.array([node.slope for node in self.nodes])
        offsets = np.array([node.offset for node in self.nodes])
        return np.round(1 / (1 + np.exp(-np.clip(pooled * slopes + offsets, -30, 30))), 4)


def pool(maps: Tensor, how: Pooling, progress: float = 1.0) -> Tensor:
    """Maps [n, nodes, h, w] -> [n, nodes].

    `lse` is log-mean-exp with sharpness 2; `annealed` the same with a sharpness that rises in training (`progress`, 0
    to 1) from 0.3, which is nearly the average; `topk` the mean of the largest quarter; `linear_softmax` weighs each
    cell's probability by itself (Wang, Li and Metze 2019) and answers as a logit.
    """
    import torch

    flat = maps.flatten(2)
    if how == "average":
        return flat.mean(2)
    if how == "max":
        return flat.amax(2)
    if how in ("lse", "annealed"):
        share = min(1.0, progress / 0.7) if how == "annealed" else 1.0
        sharp = FIRST_SHARPNESS + (SHARPNESS - FIRST_SHARPNESS) * share
        return (torch.logsumexp(sharp * flat, 2) - math.log(flat.shape[2])) / sharp
    if how == "topk":
        return flat.topk(max(1, flat.shape[2] // 4), 2).values.mean(2)
    share = torch.sigmoid(flat)
    return torch.logit((share.square().sum(2) / (share.sum(2) + 1e-6)).clamp(1e-4, 1 - 1e-4))


def calibration(
    pooled: npt.NDArray[np.float64], truth: npt.NDArray[np.bool_], weights: npt.NDArray[np.float64]
) -> tuple[float, float]:
    """Slope and offset of a logistic fit of truth [n] on pooled evidence [n] (Platt 1999), by Newton's method.

    A slope that is not above zero means that the node answers the opposite question, or none.
    """
    x = np.stack([pooled, np.ones_like(pooled)], axis=1)
    y, w = truth.astype(np.float64), weights / weights.sum()
    beta = np.zeros(2)
    spread = max(float(pooled.std()), 1e-6)
    ridge = np.array([1e-3 * spread**2, 1e-6])
    for _ in range(50):
        p = 1 / (1 + np.exp(-np.clip(x @ beta, -30, 30)))
        gradient = x.T @ (w * (p - y)) + ridge * beta
        hessian = (x * (w * p * (1 - p))[:, None]).T @ x + np.diag(ridge + 1e-12)
        step = np.linalg.solve(hessian, gradient)
        beta -= step / max(1.0, float(np.abs(step * np.array([spread, 1.0])).max()) / 2)
        if np.abs(step).max() < 1e-9:
            break
    return float(beta[0]), float(beta[1])


def balanced_weights(table: npt.NDArray[np.int8], labels: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Weight of each picture for each node, float64 [n, nodes]: true and false sides weigh the same, and on a side all
    classes weigh the same, so that no class carries a node. Unclear classes weigh nothing.

    Args:
        table: 1 true, 0 false, -1 unclear, int8 [classes, nodes].
        labels: class of each picture, [n].
    """
    count = np.bincount(labels, minlength=len(table)).astype(np.float64)
    have = (count > 0)[:, None]
    weights = np.zeros(table.shape)
    for side in (0, 1):
        there = (table == side) & have
        weights += there / np.maximum(1, there.sum(0)) / np.maximum(count, 1)[:, None] / 2
    return weights[labels]


def _inputs(primitives: npt.NDArray[np.uint8], shape: NodeShape) -> Tensor:
    import torch

    chosen = primitives if len(shape.channels) == len(CHANNELS) else primitives[:, shape.channels]
    return torch.from_numpy(chosen.astype(np.float32)).div_(255.0)  # a copy: what is memory-mapped stays read-only


def node_maps(inputs: Tensor, tensors: Sequence[Tensor], shape: NodeShape) -> Tensor:
    """Maps [n, nodes, h, w] from inputs [n, channels, 16, 16]."""
    from kernels import module_cnn

    answers = module_cnn(inputs, list(tensors[0::2]), list(tensors[1::2]), strides=shape.strides)
    return answers[:, :, 0]
