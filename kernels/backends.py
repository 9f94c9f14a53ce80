"""Which backend does the work, and why."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from contextvars import ContextVar

import torch
from torch import Tensor

from kernels.plan import Plan

BACKENDS = ("reference", "torch", "cpu")
LARGEST_SHARE, LARGE_ROWS = 0.6, 512  # the cpu backend gives a module to one thread
VARIABLE = "CONSTRUCTIBLE_KERNELS"
_chosen: ContextVar[str | None] = ContextVar("constructible_kernels_backend", default=None)


@contextlib.contextmanager
def use_backend(name: str | None) -> Iterator[None]:
    """Within the block, calls without a `backend` argument use this one (None: choose automatically)."""
    token = _chosen.set(None if name is None else _known(name, "use_backend"))
    try:
        yield
    finally:
        _chosen.reset(token)


def _known(name: str, origin: str) -> str:
    if name not in BACKENDS:
        raise ValueError(f"{origin}: no kernel backend {name!r}; known: {', '.join(BACKENDS)}")
    return name


def asked(backend: str | None) -> tuple[str, str] | None:
    """(name, who asked) where somebody asked for a backend."""
    if backend is not None:
        return _known(backend, "argument backend"), "asked for by argument"
    if (set_here := _chosen.get()) is not None:
        return set_here, "asked for by use_backend"
    if from_environment := os.environ.get(VARIABLE):
        return _known(from_environment, VARIABLE), f"asked for by the environment variable {VARIABLE}"
    return None


def choose(plan: Plan, params: Sequence[Tensor], backend: str | None = None, operation: str = "mlp") -> tuple[str, str]:
    """The backend's name and the reason. Order: argument, `use_backend`, the environment, the work itself.

    operation: "mlp", "train" (the fused step) or "xent".

    Raises:
        ValueError: the backend asked for cannot take this device or dtype, or is not known.
    """
    request = asked(backend)
    if request is not None and request[0] != "cpu":
        return request
    plain = all(p.dtype == torch.float32 for p in params) and plan.device.type == "cpu"
    if not plain:
        if request is not None:
            found = f"{params[0].dtype} on {plan.device}"
            raise ValueError(f"backend cpu ({request[1]}) takes float32 on the CPU, not {found}: use torch")
        return "torch", "the backend for every device and dtype"
    if request is not None:
        return request
    if operation == "xent":
        return "cpu", "float32 on the CPU: one pass over each module's logits"
    from kernels.cpu_backend import largest_share

    if largest_share(plan) > LARGEST_SHARE and plan.n_pairs >= LARGE_ROWS:
        return "torch", f"one module has {largest_share(plan):.0%} of the rows: one large product uses all cores"
    return "cpu", "float32 on the CPU: each module's whole network while its weights are in cache"


def explain(plan: Plan, params: Sequence[Tensor], backend: str | None = None) -> str:
    """One line that says which backend takes these parameters and why, with the shape of the work.

    Args:
        plan: made by `route`.
        params: the stacked tensors [M, ...] the call would be given.
        backend: as the argument of the operations.
    """
    name, reason = choose(plan, params, backend)
    shapes = " ".join("x".join(map(str, p.shape[1:])) for p in params)
    dtype = str(params[0].dtype).removeprefix("torch.") if params else "no parameters"
    return (
        f"{name}: {reason} | {plan.n_modules} modules, {plan.n_pairs} rows, per module {shapes or '-'}, "
        f"{dtype} on {plan.device}"
    )
