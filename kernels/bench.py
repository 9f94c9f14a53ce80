"""Measure the operations against the other ways to run many small networks, in one run on the same inputs."""

from __future__ import annotations

import os
import platform
import resource
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from kernels import api, reference
from kernels.adam import AdamState
from kernels.backends import choose
from kernels.peers import PEERS
from kernels.plan import route
from kernels.stacking import MLPStack

MODES = ("forward", "forward+backward", "step")
SPREADS = ("uniform", "zipf", "empty")
SLOW = 2.0


@dataclass(frozen=True)
class Workload:
    """M modules with `rows` rows each on average, spread uniformly, by Zipf's law, or with 30 % of modules empty."""

    n_modules: int
    rows: int
    widths: tuple[int, ...]
    spread: str = "uniform"

    @property
    def name(self) -> str:
        return f"{self.n_modules}x{self.rows}x{'-'.join(map(str, self.widths))}/{self.spread}"

    def choice(self, seed: int) -> Tensor:
        """int64 [M * rows]; uniform: `rows` each, in order, as batched products want it; the others shuffled."""
        generator = torch.Generator().manual_seed(seed)
        total = self.n_modules * self.rows
        if self.spread == "uniform":
            return torch.arange(self.n_modules).repeat_interleave(self.rows)
        if self.spread == "zipf":
            chance = 1 / torch.arange(1, self.n_modules + 1, dtype=torch.float64)
            return torch.multinomial(chance, total, replacement=True, generator=generator)
        return torch.randint(0, max(1, round(0.7 * self.n_modules)), (total,), generator=generator)


FULL = [
    Workload(1024, 64, (32, 32, 8)),
    Workload(16384, 16, (32, 32, 8)),
    Workload(16384, 64, (32, 32, 8)),
    Workload(65536, 4, (16, 16, 4)),
    Workload(4096, 256, (64, 64, 16)),
    Workload(1024, 1024, (128, 128, 128)),
]
# A CPU has neither the memory nor the minutes for the largest two; fewer modules, the same networks.
ON_CPU = [*FULL[:4], Workload(1024, 256, (64, 64, 16)), Workload(64, 1024, (128, 128, 128))]
QUICK = [Workload(1024, 16, (32, 32, 8)), Workload(4096, 4, (16, 16, 4))]


def workloads(device: str, quick: bool) -> list[Workload]:
    """The selection for a device, each with every spread of rows over modules."""
    chosen = QUICK if quick else ON_CPU if device == "cpu" else FULL
    return [replace(w, spread=spread) for w in chosen for spread in SPREADS]


def timed(function: Callable[[], Any], seconds: float, device: str) -> tuple[float, float]:
    """(median, half the distance between the quartiles) of the milliseconds of a call; two calls warm it up.

    What takes longer than SLOW seconds is called three times in all, the first to warm it up.
    """

    def once() -> float:
        if device == "cuda":
            torch.cuda.synchronize()
        start = time.perf_counter()
        function()
        if device == "cuda":
            torch.cuda.synchronize()
        return (time.perf_counter() - start) * 1e3

    first = once() / 1e3
    found, used = [], once() / 1e3
    if min(first, used) > SLOW:
        return statistics.median([used * 1e3, last := once()]), abs(used * 1e3 - last) / 2
    while len(found) < 3 or (used < seconds and len(found) < 200):
        found.append(once())
        used += found[-1] / 1e3
    quarters = statistics.quantiles(found, n=4)
    return statistics.median(found), (quarters[2] - quarters[0]) / 2


def ceilings(device: str, seconds: float) -> dict[str, float]:
    """What this machine does at best in this run: copying (read + write, GB/s) and a large product (GFLOP/s)."""
    source = torch.randn(1 << (24 if device == "cpu" else 28), device=device)
    target = torch.empty_like(source)
    ms, _ = timed(lambda: target.copy_(source), seconds, device)
    a = torch.randn(1024 if device == "cpu" else 8192, 1024, device=device)
    b = torch.randn(1024, 1024, device=device)
    product_ms, _ = timed(lambda: a @ b, seconds, device)
    return {
        "memory_gb_per_s": 2 * source.numel() * 4 / ms / 1e6,
        "float32_gflop_per_s": 2 * a.shape[0] * 1024 * 1024 / product_ms / 1e6,
    }


def machine(device: str) -> dict[str, Any]:
    """Device and versions, for the rows."""
    import numba

    name = torch.cuda.get_device_name() if device == "cuda" else _processor()
    return {
        "device": name,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "numba": numba.__version__,
        "python": platform.python_version(),
    }


def _processor() -> str:
    try:
        with open("/proc/cpuinfo") as lines:
            return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def least_bytes(work: Workload, mode: str, busy: int) -> float:
    """Bytes that must move once: rows in and out, weights of the busy modules, and what the mode adds."""
    pairs = list(zip(work.widths, work.widths[1:], strict=False))
    weights = 4 * busy * sum(a * b + b for a, b in pairs)
    rows = 4 * work.n_modules * work.rows
    forward = rows * (work.widths[0] + work.widths[-1]) + weights
    if mode == "forward":
        return forward
    if mode == "forward+backward":
        return 2 * forward + rows * work.widths[-1] + weights
    return rows * (work.widths[0] + work.widths[-1]) + 6 * weights  # weights and both moments, in and out


@dataclass(frozen=True)
class Settings:
    """How to measure.

    Attributes:
        device: "cpu" or "cuda".
        quick: a small selection, briefly, without compiled peers.
        seconds: per measurement; None: 0.6, or 0.05 if quick.
        compiled: whether peers run through torch.compile as well (minutes of compiling).
        only: measure the workloads whose name contains this.
    """

    device: str = "cpu"
    quick: bool = False
    seed: int = 0
    seconds: float | None = None
    compiled: bool = True
    only: str = ""

    @property
    def duration(self) -> float:
        return self.seconds or (0.05 if self.quick else 0.6)


def bench(settings: Settings, progress: Callable[[str], None] = lambda _: None) -> Iterator[dict[str, Any]]:
    """One row per workload and mode; see docs/benchmarks/README.md for the columns."""
    from kernels import bench_cnn

    about, top = machine(settings.device), ceilings(settings.device, settings.duration)
    for work in workloads(settings.device, settings.quick):
        if settings.only in work.name:
            progress(work.name)
            yield from _measure(work, settings, about, top)
    for nodes in bench_cnn.workloads(settings.quick):
        if settings.only in nodes.name:
            progress(nodes.name)
            yield from bench_cnn.measure(nodes, settings, about, top)


def peer_names() -> list[str]:
    """Every peer that has a column."""
    from kernels.bench_cnn import PEERS as NODE_PEERS

    return list(dict.fromkeys([p.name for p in PEERS] + list(NODE_PEERS)))


def peer_times(
    runs: Mapping[str, Callable[[], tuple[Callable[[], Any], float]]], seconds: float, device: str
) -> tuple[dict[str, float], str]:
    """Milliseconds of each peer that ran, and what those said that did not ("name: reason; ...").

    A run prepares itself and gives the function to time and a factor for its time.
    """
    times, failures = {}, []
    for name, prepare in runs.items():
        try:
            function, scale = prepare()
            times[name] = timed(function, seconds, device)[0] * scale
        except Exception as error:  # whatever a peer or its compiler raises: its column stays empty, the reason is told
            reason = (str(error).strip().splitlines() or [""])[0][:160]
            failures.append(f"{name}: {type(error).__name__} {reason}".strip())
        torch.compiler.reset()
    return times, "; ".join(failures)


def row(
    work: str, mode: str, backend: str, why: str, ours: tuple[float, float], plan_ms: float, times: dict[str, float],
    failures: str, error: float, least: float, settings: Settings, about: dict[str, Any], top: dict[str, float],
) -> dict[str, Any]:  # fmt: skip
    """The columns of one measurement; `least`: bytes that must move."""
    ms, spread = ours
    best = min((name for name in times if name != "loop"), key=lambda name: times[name], default="loop")
    moved = least / ms / 1e6
    return {
        "workload": work, "mode": mode, "dtype": "float32", "backend": backend, "ms": round(ms, 4),
        "ms_spread": round(spread, 4), "ms_plan": round(plan_ms, 4), "best_peer": best,
        "ratio_to_best_peer": round(times[best] / ms, 3) if best in times else None,
        **{f"ratio_to_{name}": round(times[name] / ms, 3) if name in times else None for name in peer_names()},
        "memory_gb_per_s": round(moved, 2), "fraction_of_memory_ceiling": round(moved / top["memory_gb_per_s"], 3),
        "error_against_float64": error, "peak_memory_mb": _peak_mb(settings.device), "why": why, "failures": failures,
        **{f"ceiling_{k}": round(v, 1) for k, v in top.items()}, **about,
        "load_average": round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None,
    }  # fmt: skip


def _measure(work: Workload, settings: Settings, about: dict[str, Any], top: dict[str, float]) -> Iterator[dict]:
    device, seconds, seed = settings.device, settings.duration, settings.seed
    generator = torch.Generator().manual_seed(seed)
    choice = work.choice(seed).to(device)
    x = torch.randn(len(choice), work.widths[0], generator=generator).to(device)
    goal = torch.randn(len(choice), work.widths[-1], generator=generator).to(device)
    stacked = MLPStack.init(work.n_modules, work.widths, seed=seed)
    stacked = MLPStack(
        [w.to(device) for w in stacked.weights], [None if b is None else b.to(device) for b in stacked.biases]
    )
    plan = route(choice, n_modules=work.n_modules)
    plan_ms, _ = timed(lambda: route(choice, n_modules=work.n_modules), seconds / 4, device)
    backend, why = choose(plan, stacked.params)
    busy = int(plan.touched.sum())
    error = _error(x, stacked, plan)
    chosen = [p for p in PEERS if p.fits(work, settings)]
    for mode in MODES:
        ours = timed(_ours(mode, x, goal, stacked, plan), seconds, device)
        runs = {p.name: partial(p.prepare, work, mode, x, goal, stacked, plan) for p in chosen}
        times, failures = peer_times(runs, seconds, device)
        yield row(work.name, mode, backend, why, ours, plan_ms, times, failures, error, least_bytes(work, mode, busy),
                  settings, about, top)  # fmt: skip


def _peak_mb(device: str) -> int:
    if device == "cuda":
        return torch.cuda.max_memory_allocated() >> 20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10


def _error(x: Tensor, stacked: MLPStack, plan: Any) -> float:
    """Largest error of our forward pass against float64, over the size of the answers."""
    with torch.no_grad():
        got = api.ragged_mlp(x, stacked.weights, stacked.biases, plan, stacked.activation)
        weights = [w.double() for w in stacked.weights]
        biases = [None if b is None else b.double() for b in stacked.biases]
        want = reference.ragged_mlp(x.double(), weights, biases, plan, stacked.activation, False)
        return float((got - want).abs().max() / want.abs().max().clamp(min=1e-12))


def _ours(mode: str, x: Tensor, goal: Tensor, stacked: MLPStack, plan: Any) -> Callable[[], Any]:
    if mode == "step":
        copy = MLPStack(
            [w.clone() for w in stacked.weights], [None if b is None else b.clone() for b in stacked.biases]
        )
        state = AdamState.of(copy.params)
        return lambda: api.train_step_(x, goal, copy, plan, state, 1e-3)
    leaves = [p.clone().requires_grad_() for p in stacked.params]

    def forward() -> Tensor:
        return api.ragged_mlp(x, leaves[0::2], leaves[1::2], plan, stacked.activation)

    if mode == "forward":
        return torch.no_grad()(forward)
    return lambda: torch.autograd.grad(torch.nn.functional.mse_loss(forward(), goal), leaves)
