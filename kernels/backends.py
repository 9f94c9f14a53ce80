"""Which backend does the work, and why."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import os
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from types import ModuleType

import torch
from torch import Tensor

from kernels.plan import Plan

BACKENDS = ("reference", "torch", "cpu", "triton")
LARGEST_SHARE, LARGE_ROWS = 0.6, 512  # the cpu backend gives a module to one thread
VARIABLE = "CONSTRUCTIBLE_KERNELS"
TRITON_VERIFIED = (
    "the Triton kernels are verified in Triton's interpreter (float32, float16) and build for sm_90 without spills;"
    " nobody has run them on a GPU yet"
)
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


def module_of(name: str) -> ModuleType:
    """A backend's own module, imported when it is first used."""
    return importlib.import_module("kernels.reference" if name == "reference" else f"kernels.{name}_backend")


def choose(plan: Plan, params: Sequence[Tensor], backend: str | None = None, operation: str = "mlp") -> tuple[str, str]:
    """The backend's name and the reason. Order: argument, `use_backend`, the environment, the work itself.

    On a GPU the work itself asks for triton only after its kernels agreed with torch there (kernels/first_use.py); who
    names triton gets it unchecked.

    operation: "mlp", "train" (the fused step) or "xent".

    Raises:
        ValueError: the backend asked for cannot take this device or dtype, or is not known.
    """
    request = asked(backend)
    refusal = {name: _refusal(name, plan, params, operation) for name in ("cpu", "triton")}
    if request is not None:
        name, origin = request
        if refusal.get(name):
            raise ValueError(f"backend {name} ({origin}) cannot take this: {refusal[name]}. Fix: use torch")
        return request
    if plan.device.type == "cuda":
        if refusal["triton"]:
            return "torch", f"triton cannot take it ({refusal['triton']})"
        from kernels.first_use import failure

        if reason := failure(operation, plan.device, _dtype(params)):
            return "torch", f"triton did not pass its check on this device ({reason})"
        return "triton", "on a GPU, in float32 or less: no padding, no wait for the device; checked there at first use"
    if refusal["cpu"]:
        return "torch", f"cpu cannot take it ({refusal['cpu']})"
    if operation == "xent":
        return "cpu", "float32 on the CPU: one pass over each module's logits"
    from kernels.cpu_backend import largest_share

    if largest_share(plan) > LARGEST_SHARE and plan.n_pairs >= LARGE_ROWS:
        return "torch", f"one module has {largest_share(plan):.0%} of the rows: one large product uses all cores"
    return "cpu", "float32 on the CPU: each module's whole network while its weights are in cache"


def interpreted() -> bool:
    """Whether this process runs Triton kernels in the interpreter (set before triton is imported)."""
    return os.environ.get("TRITON_INTERPRET") == "1"


def _dtype(params: Sequence[Tensor]) -> torch.dtype:
    return params[0].dtype if params else torch.float32


def _refusal(name: str, plan: Plan, params: Sequence[Tensor], operation: str) -> str:
    """Why a backend cannot take the work, or ''."""
    dtype = _dtype(params)
    if name == "cpu":
        fits = plan.device.type == "cpu" and dtype == torch.float32
        return "" if fits else f"it takes float32 on the CPU, not {dtype} on {plan.device}"
    refusal = triton_refusal(plan.device, dtype)
    if not refusal and operation == "xent":
        from kernels.triton_xent import WIDEST

        if params[0].shape[1] > WIDEST:
            return f"its loss takes a width of at most {WIDEST}, not {params[0].shape[1]}"
    return refusal


def triton_refusal(device: torch.device, dtype: torch.dtype) -> str:
    """Why no Triton kernel can take tensors of this device and dtype, or ''."""
    if importlib.util.find_spec("triton") is None:
        return "the package triton is not installed"
    if device.type != "cuda" and not (device.type == "cpu" and interpreted()):
        return f"it needs a CUDA device, this is on {device}"
    if dtype not in (torch.float32, torch.bfloat16, torch.float16):
        return f"it takes float32, bfloat16 or float16, not {dtype}"
    if interpreted() and dtype == torch.bfloat16:
        return "the interpreter's bfloat16 products are wrong"
    return ""


def explain(plan: Plan, params: Sequence[Tensor], backend: str | None = None) -> str:
    """One line: which backend takes these parameters and why, the shape of the work, and where triton was verified.

    Args:
        plan: made by `route`.
        params: the stacked tensors [M, ...] the call would be given.
        backend: as the argument of the operations.
    """
    name, reason = choose(plan, params, backend)
    shapes = " ".join("x".join(map(str, p.shape[1:])) for p in params)
    dtype = str(_dtype(params)).removeprefix("torch.") if params else "no parameters"
    return (
        f"{name}: {reason} | {plan.n_modules} modules, {plan.n_pairs} rows, per module {shapes or '-'}, "
        f"{dtype} on {plan.device}{f' | {TRITON_VERIFIED}' if name == 'triton' else ''}"
    )
