"""The other ways to run many small networks, as a benchmark's opponents: each as fast as its idea allows.

Every peer gets its inputs as it likes them (sorted, padded, bucketed) before the clock starts, which favours the peers:
only their computing counts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from kernels import torch_backend
from kernels.plan import Plan, route
from kernels.stacking import MLPStack

if TYPE_CHECKING:
    from kernels.bench import Settings, Workload

LOOP_PART = 256  # modules that the Python loop really runs; its time is scaled to all
PADDED_LIMIT = 1 << 27  # floats that a padded batch may have (512 MB)
QUICK_PADDED_LIMIT = 1 << 24  # in a quick run: padding Zipf's rows takes seconds a call, and is never the best peer

# (inputs, weights, biases) -> answers; inputs as `inputs` made them
Network = Callable[[Any, Sequence[Any], Sequence[Any]], Any]


@dataclass(frozen=True)
class Peer:
    """A way to run the networks.

    Attributes:
        name: as in the results' columns.
        ragged: takes uneven rows.
        inputs: (x, goal, plan) -> (input, goal) in the form the network wants.
        network: the forward pass.
        compiled: run through torch.compile.
    """

    name: str
    ragged: bool
    inputs: Callable[[Tensor, Tensor, Plan], tuple[Any, Any]]
    network: Network
    compiled: bool = False

    def fits(self, work: Workload, settings: Settings) -> bool:
        """False where the peer cannot run this workload, or where there is no time for it."""
        if self.compiled and (settings.quick or not settings.compiled):
            return False
        if self.name == "padded_bmm":
            most = QUICK_PADDED_LIMIT if settings.quick else PADDED_LIMIT
            return work.spread != "uniform" and _padded_floats(work) <= most
        if self.name == "grouped_mm" and any(width % 4 for width in work.widths):
            return False  # torch asks for rows of a multiple of 16 bytes
        return self.ragged or work.spread == "uniform"

    def prepare(
        self, work: Workload, mode: str, x: Tensor, goal: Tensor, stacked: MLPStack, plan: Plan
    ) -> tuple[Callable[[], Any], float]:
        """A function to time, and the factor for its time."""
        if self.name == "loop":
            return _loop(mode, x, goal, stacked, plan)
        given, wanted = self.inputs(x, goal, plan)
        leaves = [p.clone().requires_grad_() for p in stacked.params]
        network = torch.compile(self.network, dynamic=False) if self.compiled else self.network

        def loss() -> Tensor:
            return F.mse_loss(network(given, leaves[0::2], leaves[1::2]), wanted)

        if mode == "forward":
            return torch.no_grad()(lambda: network(given, leaves[0::2], leaves[1::2])), 1.0
        if mode == "forward+backward":
            return lambda: torch.autograd.grad(loss(), leaves), 1.0
        return _step(leaves, loss), 1.0


def _step(leaves: Sequence[Tensor], loss: Callable[[], Tensor]) -> Callable[[], None]:
    optimizer = torch.optim.Adam(leaves, lr=1e-3, fused=True)

    def run() -> None:
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()

    return run


def _padded_floats(work: Workload) -> int:
    plan = route(work.choice(0), n_modules=work.n_modules)
    return int(plan.counts.max()) * work.n_modules * max(work.widths)


def _sorted(x: Tensor, goal: Tensor, plan: Plan) -> tuple[Tensor, Tensor]:
    return x[plan.rows.long()], goal[plan.rows.long()]


def _even(x: Tensor, goal: Tensor, plan: Plan) -> tuple[Tensor, Tensor]:
    rows, wanted = _sorted(x, goal, plan)
    shape = (plan.n_modules, -1)
    return rows.reshape(*shape, x.shape[1]), wanted.reshape(*shape, goal.shape[1])


def _padded(x: Tensor, goal: Tensor, plan: Plan) -> tuple[Tensor, Tensor]:
    size = int(plan.counts.max())
    step = torch.arange(size, device=x.device)
    inside = step[None] < plan.counts[:, None]
    places = torch.where(inside, plan.offsets[:-1, None] + step, 0).long()
    rows, wanted = _sorted(x, goal, plan)
    return rows[places] * inside[..., None], wanted[places] * inside[..., None]


def _baddbmm(rows: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor]) -> Tensor:
    for layer, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        rows = torch.baddbmm(bias[:, None], rows if layer == 0 else F.relu(rows), weight)
    return rows


def _one(rows: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor]) -> Tensor:
    for layer, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        rows = torch.addmm(bias, rows if layer == 0 else F.relu(rows), weight)
    return rows


def _vmap(rows: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor]) -> Tensor:
    return torch.func.vmap(_one)(rows, list(weights), list(biases))


def _grouped(given: tuple[Tensor, Tensor, Tensor], weights: Sequence[Tensor], biases: Sequence[Tensor]) -> Tensor:
    rows, ends, module = given
    for layer, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        rows = rows if layer == 0 else F.relu(rows)
        rows = F.grouped_mm(rows, weight, offs=ends) + bias.index_select(0, module)
    return rows


def _grouped_inputs(x: Tensor, goal: Tensor, plan: Plan) -> tuple[Any, Tensor]:
    rows, wanted = _sorted(x, goal, plan)
    module = torch.repeat_interleave(torch.arange(plan.n_modules, device=x.device), plan.counts.long())
    return (rows, plan.offsets[1:].contiguous(), module), wanted


def _bucketed_inputs(x: Tensor, goal: Tensor, plan: Plan) -> tuple[Any, Tensor]:
    rows, wanted = _sorted(x, goal, plan)
    in_order = route(
        torch.repeat_interleave(torch.arange(plan.n_modules), plan.counts.long().cpu()), None, plan.n_modules
    )
    in_order.cache["way"] = "buckets"
    return (rows, in_order), wanted


def _bucketed(given: tuple[Tensor, Plan], weights: Sequence[Tensor], biases: Sequence[Tensor]) -> Tensor:
    return torch_backend.ragged_mlp(given[0], weights, biases, given[1], "relu", False)


def _loop(mode: str, x: Tensor, goal: Tensor, stacked: MLPStack, plan: Plan) -> tuple[Callable[[], Any], float]:
    """One call of each module after the other, each with its own optimizer; over every n-th busy module."""
    rows, wanted = _sorted(x, goal, plan)
    offsets = plan.host_offsets()
    busy = [m for m in range(plan.n_modules) if offsets[m + 1] > offsets[m]]
    part = busy[:: max(1, len(busy) // LOOP_PART)]
    nets = []
    for m in part:
        leaves = [p[m].clone().requires_grad_() for p in stacked.params]
        span = slice(offsets[m], offsets[m + 1])

        def answer(leaves: list[Tensor] = leaves, span: slice = span) -> Tensor:
            return _one(rows[span], leaves[0::2], leaves[1::2])

        def loss(answer: Callable[[], Tensor] = answer, span: slice = span) -> Tensor:
            return F.mse_loss(answer(), wanted[span])

        def grads(loss: Callable[[], Tensor] = loss, leaves: list[Tensor] = leaves) -> Any:
            return torch.autograd.grad(loss(), leaves)

        run = torch.no_grad()(answer) if mode == "forward" else grads if mode != "step" else _step(leaves, loss)
        nets.append(run)
    return lambda: [run() for run in nets], len(busy) / max(1, len(part))


PEERS = [
    Peer("loop", True, _sorted, _one),
    Peer("vmap", False, _even, _vmap),
    Peer("vmap_compiled", False, _even, _vmap, compiled=True),
    Peer("baddbmm", False, _even, _baddbmm),
    Peer("baddbmm_compiled", False, _even, _baddbmm, compiled=True),
    Peer("padded_bmm", True, _padded, _baddbmm),
    Peer("bucketed_bmm", True, _bucketed_inputs, _bucketed),
    Peer("grouped_mm", True, _grouped_inputs, _grouped),
]
