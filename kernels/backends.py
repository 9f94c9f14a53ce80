"""Which backend does the work, and why."""

from __future__ import annotations

import contextlib
import importlib.util
import os
from collections.abc import Iterator, Sequence
from contextvars import ContextVar

from torch import Tensor

from kernels.plan import Plan

BACKENDS = ("reference", "torch", "cpu")
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


def choose(plan: Plan, params: Sequence[Tensor], backend: str | None = None) -> tuple[str, str]:
    """The backend's name and the reason. Order: argument, `use_backend`, the environment, the machine."""
    if backend is not None:
        return _known(backend, "argument backend"), "asked for by argument"
    if (set_here := _chosen.get()) is not None:
        return set_here, "asked for by use_backend"
    if from_environment := os.environ.get(VARIABLE):
        return _known(from_environment, VARIABLE), f"asked for by the environment variable {VARIABLE}"
    return "torch", "the general backend for every device and dtype"


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


def has_package(name: str) -> bool:
    return importlib.util.find_spec(name) is not None
