"""The monolith of the root cut: one small residual network from pixels to classes, the baseline of this track."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ontology.errors import ConstructibleError
from ontology.io import load_tensors, read_json, save_tensors, write_json
from vision.sizes import nearest

if TYPE_CHECKING:
    from torch import Tensor, nn

FORMAT = "constructible-monolith/1"
BATCH = 64
LEARNING_RATE = 4e-3
WEIGHT_DECAY = 0.02
FINE_TUNING = 0.4
"""Share of the budget, at its end, in which a monolith that learned from more classes is fitted to its own."""


def width_for(parameters: int) -> int:
    """The width (a multiple of 4) whose network comes nearest to a number of parameters."""
    return min(range(8, 129, 4), key=lambda w: abs(_count(w) - parameters))


def channels_for(parameters: int, n_classes: int) -> tuple[int, int]:
    """Width and channels of the last stage whose network, its head for so many classes included, has as many parameters
    as whole channels allow; the last stage is about four widths."""
    shapes = [(width, last) for width in range(4, 129) for last in range(3 * width, 5 * width + 1)]
    return nearest(
        shapes, lambda s: _count(*s) + (s[1] + 1) * n_classes, parameters, lambda s: abs(math.log(s[1] / s[0] / 4))
    )


def _count(width: int, last: int | None = None) -> int:
    stages = [(width, width), (width, 2 * width), (2 * width, last or 4 * width)]
    convolutions = 27 * width + sum(9 * a * b + 9 * b * b + (a * b if a != b else 0) for a, b in stages)
    return convolutions + 2 * width + sum(4 * b + (2 * b if a != b else 0) for a, b in stages)


def make_network(width: int, n_classes: int, last: int | None = None) -> nn.Module:
    """A residual network of three stages (width, 2 x, 4 x or `last`) with one block each (He et al. 2016), for 64
    pixels: 32 x 32 after the stem, 8 x 8 before the mean."""
    last = last or 4 * width
    import torch
    import torch.nn.functional as F
    from torch import nn

    class Block(nn.Module):
        def __init__(self, a: int, b: int, stride: int) -> None:
            super().__init__()
            self.conv1 = nn.Conv2d(a, b, 3, stride, 1, bias=False)
            self.norm1 = nn.BatchNorm2d(b)
            self.conv2 = nn.Conv2d(b, b, 3, 1, 1, bias=False)
            self.norm2 = nn.BatchNorm2d(b)
            self.short = (
                nn.Sequential(nn.Conv2d(a, b, 1, stride, bias=False), nn.BatchNorm2d(b)) if a != b else nn.Identity()
            )

        def forward(self, x: Tensor) -> Tensor:
            y = self.norm2(self.conv2(F.relu(self.norm1(self.conv1(x)))))
            return F.relu(y + self.short(x))

    network = nn.Sequential(
        nn.Conv2d(3, width, 3, 2, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU(),
        Block(width, width, 1), Block(width, 2 * width, 2), Block(2 * width, last, 2),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(last, n_classes),
    )  # fmt: skip
    return network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]


class MonolithTrainer:
    """Trains the network; see `ontology.training.Trainer`.

    Where `rows` hold more classes than `own`, the first part of the budget learns all of them and the last part
    (`FINE_TUNING`) its own alone, so that it may use the same photographs as the nodes do.

    Args:
        pixels: uint8 [n, side, side, 3].
        labels: class of each picture.
        rows: pictures to learn from.
        own: the model's classes; answers are in their order.
        width, last: channels of the first stage, and of the last one (four times as many by default).
    """

    def __init__(
        self,
        pixels: npt.NDArray[np.uint8],
        labels: npt.NDArray[np.int64],
        rows: npt.NDArray[np.int64],
        own: Sequence[int],
        *,
        width: int,
        last: int | None = None,
        seed: int = 0,
        learning_rate: float = LEARNING_RATE,
    ) -> None:
        import torch

        present = [int(c) for c in np.unique(labels[rows])]
        self.own = list(own)
        self.order = [*self.own, *(c for c in present if c not in self.own)]
        self.pixels, self.labels, self.seed, self.width, self.last = pixels, labels, seed, width, last
        self._rows = {c: rows[labels[rows] == c] for c in self.order}
        self.learning_rate = learning_rate
        torch.manual_seed(seed)
        self.network = make_network(width, len(self.order), last)
        decayed = [p for p in self.network.parameters() if p.dim() > 1]
        plain = [p for p in self.network.parameters() if p.dim() <= 1]
        groups = [{"params": decayed, "weight_decay": WEIGHT_DECAY}, {"params": plain, "weight_decay": 0.0}]
        self._optimiser = torch.optim.AdamW(groups, lr=learning_rate)
        from kernels.precision import multiplies_bfloat16

        self._fraction, self._low = 0.0, multiplies_bfloat16()
        self.rows_per_step = BATCH

    def set_progress(self, fraction: float) -> None:
        """Tell how much of the training is over, 0 to 1."""
        self._fraction = min(1.0, max(0.0, fraction))

    def step(self, index: int) -> float:
        """Make step `index` and return its mean loss in nats."""
        import torch
        import torch.nn.functional as F

        rng = np.random.default_rng((self.seed, index))
        last = len(self.order) == len(self.own) or self._fraction >= 1 - FINE_TUNING
        order = self.own if last else self.order
        places = np.concatenate([rng.permutation(len(order)) for _ in range(-(-BATCH // len(order)))])[:BATCH]
        rows = np.array([self._rows[order[p]][rng.integers(len(self._rows[order[p]]))] for p in places])
        images = _augment(self.pixels[rows], rng)
        warm = min(1.0, (self._fraction + 1e-3) / 0.05)
        for group in self._optimiser.param_groups:
            group["lr"] = self.learning_rate * warm * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * self._fraction)))
        self.network.train()
        # As the nodes do: products in bfloat16 where the processor has them in hardware, so that seconds compare.
        with torch.enable_grad(), torch.autocast("cpu", torch.bfloat16, enabled=self._low):
            logits = self.network(images)[:, : len(order)].float()
            loss = F.cross_entropy(logits, torch.from_numpy(places), label_smoothing=0.05)
            self._optimiser.zero_grad()
            loss.backward()
        self._optimiser.step()
        return float(loss.detach())

    def state(self) -> dict[str, npt.NDArray[Any]]:
        """Weights, running statistics and optimizer."""
        found = {f"n.{k}": v.detach().numpy().copy() for k, v in self.network.state_dict().items()}
        for i, p in enumerate(self.network.parameters()):
            for key, value in self._optimiser.state.get(p, {}).items():
                found[f"o.{i}.{key}"] = np.array(value.detach().numpy())
        return found

    def restore(self, state: Mapping[str, npt.NDArray[Any]]) -> None:
        """Continue from a `state`."""
        import torch

        network = {k[2:]: torch.from_numpy(np.array(v)) for k, v in state.items() if k.startswith("n.")}
        try:
            self.network.load_state_dict(network)
        except RuntimeError as error:
            raise ConstructibleError(
                "the checkpoint belongs to another training.", fix="delete it and run again"
            ) from error
        for i, p in enumerate(self.network.parameters()):
            own = {k.split(".", 2)[2]: v for k, v in state.items() if k.startswith(f"o.{i}.")}
            if own:
                self._optimiser.state[p] = {k: torch.from_numpy(np.array(v)) for k, v in own.items()}

    def finish(self, class_names: Sequence[str]) -> Monolith:
        """The trained model, cut down to its own classes."""
        tensors = {k: v.detach().numpy().copy() for k, v in self.network.state_dict().items()}
        for name in ("8.weight", "8.bias"):
            tensors[name] = tensors[name][: len(self.own)]
        return Monolith(tuple(class_names), self.width, tensors, self.last)


def _augment(pixels: npt.NDArray[np.uint8], rng: np.random.Generator) -> Tensor:
    """Mirror at random, shift by up to a sixteenth of the side; float [n, 3, side, side]."""
    import torch

    out = np.empty_like(pixels)
    side = pixels.shape[1]
    reach = max(1, side // 16)
    padded = np.pad(pixels, ((0, 0), (reach, reach), (reach, reach), (0, 0)), mode="edge")
    for i in range(len(pixels)):
        y, x = rng.integers(0, 2 * reach + 1, 2)
        part = padded[i, y : y + side, x : x + side]
        out[i] = part[:, ::-1] if rng.random() < 0.5 else part
    return _prepare(torch.from_numpy(out))


def _prepare(pixels: Tensor) -> Tensor:
    return (pixels.permute(0, 3, 1, 2).float() - 118.0) / 65.0


class RowsOf:
    """Some rows of a memory-mapped array, read when asked for."""

    def __init__(self, array: npt.NDArray[np.uint8], rows: npt.NDArray[np.int64]) -> None:
        self._array, self._rows = array, rows
        self.shape = (len(rows), *array.shape[1:])

    def __getitem__(self, index: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
        return self._array[self._rows[index]]


class Monolith:
    """A trained network: pixels in, class scores out, no concept inside that anybody named.

    Attributes:
        classes: what it tells apart.
    """

    def __init__(
        self, classes: Sequence[str], width: int, tensors: Mapping[str, npt.NDArray[Any]], last: int | None = None
    ) -> None:
        import torch

        self.classes, self.width, self.last, self._tensors = tuple(classes), width, last, dict(tensors)
        self.network = make_network(width, len(classes), last)
        self.network.load_state_dict({k: torch.from_numpy(np.array(v)) for k, v in tensors.items()})
        self.network.eval()

    @property
    def parameters(self) -> int:
        """Trained numbers."""
        return sum(p.numel() for p in self.network.parameters())

    def values(self, pixels: npt.NDArray[np.uint8], batch: int = 250) -> npt.NDArray[np.float64]:
        """Logits float64 [n, classes]."""
        import torch

        with torch.inference_mode():
            parts = [
                self.network(_prepare(torch.from_numpy(np.array(pixels[i : i + batch])))).double().numpy()
                for i in range(0, len(pixels), batch)
            ]
        return np.concatenate(parts) if parts else np.zeros((0, len(self.classes)))

    def save(self, folder: str | Path) -> None:
        """Write `network.safetensors` and `network.json`."""
        save_tensors(Path(folder) / "network.safetensors", self._tensors)
        about = {"format": FORMAT, "width": self.width, "classes": list(self.classes), "parameters": self.parameters}
        if self.last is not None:
            about["last"] = self.last
        write_json(Path(folder) / "network.json", about)

    @classmethod
    def load(cls, folder: str | Path) -> Monolith:
        """Read a monolith's folder."""
        said = read_json(Path(folder) / "network.json")
        if said.get("format") != FORMAT:
            raise ConstructibleError(f"has the format {said.get('format')!r}.", fix="build it again", file=folder)
        return cls(said["classes"], said["width"], load_tensors(Path(folder) / "network.safetensors"),
                   said.get("last"))  # fmt: skip
