"""Adam on stacked parameters: learning rate and step count per module, untouched modules left exactly as they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from kernels.checks import shape

FUSED_PER_THREAD = 1 << 15  # numbers below which waking a second thread costs more than it brings


@dataclass
class AdamState:
    """Moments of a group of stacked parameters.

    Attributes:
        first, second: one tensor per parameter, its shape and dtype (mean and mean square of the gradient).
        step: int64 [M], updates each module has had; the bias correction of a module counts its own updates only.
    """

    first: list[Tensor]
    second: list[Tensor]
    step: Tensor

    @classmethod
    def of(cls, params: Sequence[Tensor]) -> AdamState:
        """Zero moments for stacked parameters [M, ...]."""
        if not params or any(p.shape[0] != params[0].shape[0] for p in params):
            raise ValueError("AdamState.of needs parameters that are stacked over the same number of modules")
        zeros = [[torch.zeros_like(p, requires_grad=False) for p in params] for _ in range(2)]
        return cls(zeros[0], zeros[1], torch.zeros(params[0].shape[0], dtype=torch.int64, device=params[0].device))


@dataclass(frozen=True)
class AdamRule:
    """Kingma & Ba 2015 (algorithm 1), with Loshchilov & Hutter's decoupled weight decay."""

    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        if not (0 <= self.beta1 < 1 and 0 <= self.beta2 < 1 and self.eps > 0 and self.weight_decay >= 0):
            raise ValueError(f"betas must lie in [0, 1), eps be positive, weight_decay not negative: {self}")

    @property
    def numbers(self) -> list[float]:
        """beta1, beta2, eps, weight decay: the order in which kernels and operations take them."""
        return [self.beta1, self.beta2, self.eps, self.weight_decay]


def rates(lr: float | Tensor, step: Tensor) -> Tensor:
    """float64 [M]: each module's learning rate, where the step counts are."""
    if isinstance(lr, Tensor):
        return lr.to(step.device, torch.float64)
    return torch.full(step.shape, lr, dtype=torch.float64, device=step.device)


def check(
    params: Sequence[Tensor], grads: Sequence[Tensor], state: AdamState, lr: float | Tensor, active: Tensor | None
) -> None:
    if not (len(params) == len(grads) == len(state.first) == len(state.second)):
        raise ValueError(f"{len(params)} parameters, {len(grads)} gradients and {len(state.first)} moments given")
    n_modules = len(state.step)
    for p, g, m in zip(params, grads, state.first, strict=True):
        if p.shape != g.shape or p.shape != m.shape or p.shape[0] != n_modules:
            raise ValueError(f"parameter {shape(p)}, gradient {shape(g)} and moment {shape(m)} must match")
        if p.dtype != g.dtype or p.device != g.device:
            raise TypeError(f"parameter is {shape(p)} on {p.device}, its gradient {shape(g)} on {g.device}")
    for label, value in (("lr", lr), ("active", active)):
        if isinstance(value, Tensor) and tuple(value.shape) != (n_modules,):
            raise ValueError(f"{label} must be [{n_modules}], one per module, not {shape(value)}")
    if active is not None and active.dtype != torch.bool:
        raise TypeError(f"active must be bool, not {shape(active)}")


def _fused(params: Sequence[Tensor], grads: Sequence[Tensor], state: AdamState) -> bool:
    """Whether the one-pass update can take these tensors; else torch's operations do the same in several passes."""
    tensors = (*params, *grads, *state.first, *state.second)
    return all(t.device.type == "cpu" and t.dtype == torch.float32 and t.is_contiguous() for t in tensors)


def _fused_step(
    params: Sequence[Tensor],
    grads: Sequence[Tensor],
    state: AdamState,
    lr: float | Tensor,
    rule: AdamRule,
    active: Tensor | None,
) -> None:
    import numpy as np

    from kernels import numba_adam
    from kernels.threads import threads_for

    n_modules = len(state.step)
    chosen = torch.ones(n_modules, dtype=torch.bool) if active is None else active.cpu()
    state.step += chosen
    numbers, each = np.array(rule.numbers), rates(lr, state.step).contiguous().numpy()
    for group in zip(params, grads, state.first, state.second, strict=True):
        count = group[0].numel()
        if count == 0:
            continue
        borders = np.linspace(0, count, threads_for(count, FUSED_PER_THREAD) + 1).astype(np.int64)
        p, g, m, v = (t.data_ptr() for t in group)
        numba_adam.adam_stacked(
            borders, p, g, m, v, count // n_modules, chosen.contiguous().numpy(), state.step.numpy(), each, numbers
        )


def _per_module(values: Tensor, like: Tensor) -> Tensor:
    return values.to(like.dtype).reshape(-1, *[1] * (like.dim() - 1))


@torch.no_grad()
def step_(
    params: Sequence[Tensor],
    grads: Sequence[Tensor],
    state: AdamState,
    lr: float | Tensor,
    rule: AdamRule,
    active: Tensor | None,
) -> None:
    """Update in place, in one pass where `_fused` says so. Of inactive modules no parameter and no moment changes."""
    grads = [g.contiguous() for g in grads]
    if _fused(params, grads, state):
        _fused_step(params, grads, state, lr, rule, active)
        return
    some = active is not None and not bool(active.all())
    chosen = torch.nonzero(active)[:, 0] if some and active is not None else slice(None)
    state.step[chosen] += 1
    step = state.step[chosen].double()
    rate = rates(lr, state.step)[chosen]
    first_scale = rate / (1 - rule.beta1**step)
    second_scale = 1 / torch.sqrt(1 - rule.beta2**step)
    for p, g, first, second in zip(params, grads, state.first, state.second, strict=True):
        p_part, g_part, m, v = (t[chosen] for t in (p, g, first, second))
        m.mul_(rule.beta1).add_(g_part, alpha=1 - rule.beta1)
        v.mul_(rule.beta2).addcmul_(g_part, g_part, value=1 - rule.beta2)
        if rule.weight_decay:
            p_part.mul_(_per_module(1 - rate * rule.weight_decay, p))
        denominator = v.sqrt().mul_(_per_module(second_scale, p)).add_(rule.eps)
        p_part.sub_(torch.div(m, denominator).mul_(_per_module(first_scale, p)))
        if some:
            p[chosen], first[chosen], second[chosen] = p_part, m, v
