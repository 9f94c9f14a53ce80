"""Workloads and peers of `module_cnn` for the benchmark: the feature nodes of the image track."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from kernels import api, cnn
from kernels.adam import AdamState

if TYPE_CHECKING:
    from kernels.bench import Settings

CHANNELS, KERNELS, STRIDES, SIDE = (42, 16, 24, 1), (1, 3, 3), (1, 2, 1), 16
LOOP_PART = 64  # modules that the Python loop really runs; its time is scaled to all

# (images, weights, biases) -> answers [B, M, 1, H', W']
Network = Callable[[Tensor, Sequence[Tensor], Sequence[Tensor]], Tensor]


@dataclass(frozen=True)
class Nodes:
    """M nodes 42-16-24-1, kernels 1, 3, 3, on `batch` maps of 16 x 16 that they share or that each has for itself."""

    n_modules: int
    batch: int
    shared: bool

    @property
    def name(self) -> str:
        return f"cnn-{self.n_modules}x{self.batch}x{'-'.join(map(str, CHANNELS))}/{'shared' if self.shared else 'own'}"

    def inputs(self, seed: int, device: str) -> tuple[Tensor, list[Tensor], list[Tensor], Tensor]:
        """(images, weights, biases, goal [B, M])."""
        generator = torch.Generator().manual_seed(seed)
        own = [] if self.shared else [self.n_modules]
        images = torch.randn(self.batch, *own, CHANNELS[0], SIDE, SIDE, generator=generator)
        shapes = zip(CHANNELS[1:], CHANNELS, KERNELS, strict=False)
        weights = [
            torch.randn(self.n_modules, out, into, k, k, generator=generator).mul_((into * k * k) ** -0.5)
            for out, into, k in shapes
        ]
        biases = [torch.randn(self.n_modules, c, generator=generator) for c in CHANNELS[1:]]
        goal = torch.randn(self.batch, self.n_modules, generator=generator)
        return images.to(device), [w.to(device) for w in weights], [b.to(device) for b in biases], goal.to(device)

    def least_bytes(self, mode: str) -> float:
        """Bytes that must move once: images, answers, weights, and what the mode adds."""
        shapes = zip(CHANNELS[1:], CHANNELS, KERNELS, strict=False)
        weights = 4 * self.n_modules * sum(out * (into * k * k + 1) for out, into, k in shapes)
        seen = 1 if self.shared else self.n_modules
        moved = 4 * self.batch * (seen * CHANNELS[0] * SIDE**2 + self.n_modules * (SIDE // 2) ** 2)
        if mode == "forward":
            return moved + weights
        return moved + weights * 2 + moved if mode == "forward+backward" else 2 * moved + 6 * weights


FULL = [(64, 32), (1024, 4), (4096, 1)]
QUICK = [(64, 4)]


def workloads(quick: bool) -> list[Nodes]:
    return [Nodes(m, batch, shared) for m, batch in (QUICK if quick else FULL) for shared in (True, False)]


def _grouped(images: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor]) -> Tensor:
    """All modules as one convolution with groups, channels last."""
    return cnn.module_cnn(images, weights, biases, strides=STRIDES, backend="torch")


def _one(image: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor]) -> Tensor:
    for layer, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        image = image if layer == 0 else F.relu(image)
        image = F.conv2d(image, weight, bias, STRIDES[layer], weight.shape[-1] // 2)
    return image


def _vmap(images: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor]) -> Tensor:
    shared = images.dim() == 4
    return torch.func.vmap(_one, (None if shared else 1, 0, 0), 1)(images, list(weights), list(biases))


def _unfold(images: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor]) -> Tensor:
    """Patches of all cells, one batched product per layer."""
    n_modules, (batch, *_, height, width) = len(weights[0]), images.shape
    values = images if images.dim() == 4 else images.flatten(0, 1)
    per_module = images.dim() == 5
    for layer, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        stride, k = STRIDES[layer], weight.shape[-1]
        height, width = -(-height // stride), -(-width // stride)
        patches = F.unfold(F.relu(values) if layer else values, k, padding=k // 2, stride=stride)
        matrix = weight.flatten(2)
        if per_module:
            patches = patches.unflatten(0, (batch, n_modules)).permute(1, 2, 0, 3).flatten(2)  # [M, K, B cells]
            found = torch.baddbmm(bias[:, :, None], matrix, patches)
        else:  # one large product for all modules
            rows = patches.transpose(0, 1).flatten(1)
            found = torch.addmm(bias.flatten()[:, None], matrix.flatten(0, 1), rows).unflatten(0, (n_modules, -1))
        found = found.unflatten(2, (batch, height, width)).permute(2, 0, 1, 3, 4)  # [B, M, C, H, W]
        values, per_module = found.flatten(0, 1), True
    return values.unflatten(0, (batch, n_modules))


# name -> (network, whether through torch.compile)
PEERS: dict[str, tuple[Network, bool]] = {
    "vmap": (_vmap, False),
    "vmap_compiled": (_vmap, True),
    "unfold_bmm": (_unfold, False),
    "unfold_bmm_compiled": (_unfold, True),
    "grouped_conv": (_grouped, False),
    "grouped_conv_compiled": (_grouped, True),
}


def _ours(images: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor]) -> Tensor:
    return cnn.module_cnn(images, weights, biases, strides=STRIDES)


def _run(
    network: Network, mode: str, images: Tensor, params: Sequence[Tensor], goal: Tensor, ours: bool = False
) -> Callable[[], Any]:
    leaves = [p.clone().requires_grad_() for p in params]
    layers = len(KERNELS)

    def loss() -> Tensor:
        return F.mse_loss(network(images, leaves[:layers], leaves[layers:]).mean((2, 3, 4)), goal)

    if mode == "forward":
        return torch.no_grad()(lambda: network(images, leaves[:layers], leaves[layers:]))
    if mode == "forward+backward":
        return lambda: torch.autograd.grad(loss(), leaves)
    if ours:
        state = AdamState.of(leaves)
        plain = [leaf.detach() for leaf in leaves]
        return lambda: api.adam_step_(plain, torch.autograd.grad(loss(), leaves), state, 1e-3)
    optimizer = torch.optim.Adam(leaves, lr=1e-3, fused=True)

    def step() -> None:
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()

    return step


def _peer(
    network: Network, compiled: bool, mode: str, images: Tensor, params: Sequence[Tensor], goal: Tensor
) -> tuple[Callable[[], Any], float]:
    return _run(torch.compile(network, dynamic=False) if compiled else network, mode, images, params, goal), 1.0


def _loop(mode: str, images: Tensor, params: Sequence[Tensor], goal: Tensor) -> tuple[Callable[[], Any], float]:
    """One module after the other, each with its own optimizer; over every n-th module."""
    n_modules = goal.shape[1]
    chosen = range(0, n_modules, max(1, n_modules // LOOP_PART))

    def network(own: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor]) -> Tensor:
        return _one(own, [w[0] for w in weights], [b[0] for b in biases])[:, None]

    runs = []
    for m in chosen:
        own = images if images.dim() == 4 else images[:, m].contiguous()
        runs.append(_run(network, mode, own, [p[m : m + 1] for p in params], goal[:, m : m + 1]))
    return lambda: [run() for run in runs], n_modules / len(chosen)


def measure(work: Nodes, settings: Settings, about: dict[str, Any], top: dict[str, float]) -> Iterator[dict[str, Any]]:
    """One row per mode; the step is forward, backward and `adam_step_`."""
    from kernels import bench

    images, weights, biases, goal = work.inputs(settings.seed, settings.device)
    params = [*weights, *biases]
    backend = cnn.choose(images, weights)
    with torch.no_grad():
        few = images[:2]
        want = _grouped(few.double(), [w.double() for w in weights], [b.double() for b in biases])
        error = float((_ours(few, weights, biases) - want).abs().max() / want.abs().max())
    allowed = {n: p for n, p in PEERS.items() if not p[1] or (settings.compiled and not settings.quick)}
    for mode in bench.MODES:
        ours = bench.timed(_run(_ours, mode, images, params, goal, ours=True), settings.duration, settings.device)
        runs = {"loop": partial(_loop, mode, images, params, goal)}
        runs |= {n: partial(_peer, *p, mode, images, params, goal) for n, p in allowed.items()}
        times, failures = bench.peer_times(runs, settings.duration, settings.device)
        yield bench.row(work.name, mode, backend, "feature nodes", ours, 0.0, times, failures, error,
                        work.least_bytes(mode), settings, about, top)  # fmt: skip
