"""The first use of the Triton kernels on a device: they are held against torch in float64 before the automatic choice
trusts them. Small work, a second or two for compiling, one wait for the device; once per process, operation and dtype.

No operation here goes through autograd: `kernels.backends.choose` also runs inside registered operations, where nothing
is recorded.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from kernels.adam import AdamRule, AdamState
from kernels.backends import interpreted
from kernels.plan import Plan, route
from kernels.stacking import MLPStack
from kernels.vocabulary import Vocabulary

# Of the distance between two results by the size of the right one: a wrong kernel is off by far more than rounding.
TOLERANCE = {torch.float32: 1e-4, torch.float16: 2e-2, torch.bfloat16: 5e-2}
CHOICE = (4, 0, 2, 0, 4, 4, 2) * 9  # modules 1 and 3 have no rows, the others more than a tile
MODULES, WIDTHS = 5, (9, 33, 20)
Pairs = Iterator[tuple[str, Tensor | None, Tensor | None, torch.dtype]]  # (name, Triton's, torch's, precision)


def _normal(dtype: torch.dtype, *sizes: int, scale: float = 1.0) -> Tensor:
    """Always the same numbers, those of the precision that is tried."""
    generator = torch.Generator().manual_seed(sum(sizes))
    return (torch.randn(*sizes, generator=generator) * scale).to(dtype)


def _plans(device: torch.device) -> tuple[Plan, Plan]:
    choice = torch.tensor(CHOICE)
    return route(choice.to(device), n_modules=MODULES), route(choice, n_modules=MODULES)


def _network(dtype: torch.dtype) -> MLPStack:
    shapes = list(zip(WIDTHS, WIDTHS[1:], strict=False))
    weights = [_normal(dtype, MODULES, a, b, scale=a**-0.5) for a, b in shapes]
    return MLPStack(weights, [None, _normal(dtype, MODULES, WIDTHS[-1])], "gelu")


def _moved(stacked: MLPStack, device: torch.device | str, dtype: torch.dtype) -> MLPStack:
    """A copy."""
    biases = [None if b is None else b.to(device, dtype, copy=True) for b in stacked.biases]
    return MLPStack([w.to(device, dtype, copy=True) for w in stacked.weights], biases, stacked.activation)


def mlp(device: torch.device, dtype: torch.dtype) -> Pairs:
    """Forward and backward of a network."""
    from kernels import torch_backend, triton_backend

    x, grad = _normal(dtype, len(CHOICE), WIDTHS[0]), _normal(dtype, len(CHOICE), WIDTHS[-1])
    found = []
    for module, plan, place, kind in zip(
        (triton_backend, torch_backend), _plans(device), (device, "cpu"), (dtype, torch.float64), strict=True
    ):
        net = _moved(_network(dtype), place, kind)
        rest = x.to(place, kind), net.weights, net.biases, plan, net.activation
        d_x, d_weights, d_biases = module.pairs_backward(grad.to(place, kind), *rest)
        found.append([module.pairs_forward(*rest), d_x, *d_weights, *d_biases])
    names = ["answers", "gradient by x", *["gradient by a weight"] * 2, *["gradient by a bias"] * 2]
    yield from ((*of, dtype) for of in zip(names, *found, strict=True))


def train(device: torch.device, dtype: torch.dtype) -> Pairs:
    """One training step, with gradients large enough for their squares in half precision."""
    from kernels import torch_backend, triton_backend
    from kernels.training import plain_step_

    x, targets = _normal(dtype, len(CHOICE), WIDTHS[0]), _normal(dtype, len(CHOICE), WIDTHS[-1], scale=30.0)
    rule, found = AdamRule(0.8, 0.9, 1e-3, 0.05), []
    for plan, place, kind in zip(_plans(device), (device, "cpu"), (dtype, torch.float64), strict=True):
        net = _moved(_network(dtype), place, kind)
        state = AdamState.of(net.params)
        given = x.to(place, kind), targets.to(place, kind), net, plan, state, 0.1, "mse", rule
        is_ours = kind != torch.float64
        losses = triton_backend.train_step_(*given) if is_ours else plain_step_(torch_backend, *given)
        found.append([losses, *net.params, *state.first, *state.second, state.step])
    names = ["losses", *["a parameter"] * 3, *["a mean of gradients"] * 3, *["a mean of squares"] * 3, "steps"]
    yield from ((*of, dtype) for of in zip(names, *found, strict=True))


def xent(device: torch.device, dtype: torch.dtype) -> Pairs:
    """Loss and gradients, over a shared table and over rows of each module's own, in each precision of products."""
    from kernels import torch_xent, triton_xent

    need = (True, True, True)
    sizes = (40, 1, 70, 2, 33)
    shared = Vocabulary.of([torch.arange(n) * 7 % 80 for n in sizes], 80)
    for vocabulary in (shared, Vocabulary.own(sizes)):
        hidden, grad = _normal(dtype, len(CHOICE), 20), _normal(dtype, len(CHOICE))
        output, bias = _normal(dtype, vocabulary.n_tokens, 20, scale=0.4), _normal(dtype, sum(sizes))
        targets = torch.arange(len(CHOICE)) % torch.tensor(sizes)[torch.tensor(CHOICE)]
        plan, exact = _plans(device)
        # torch works in position order, Triton in the order of the rows.
        rows, goals, scale = (t.index_select(0, exact.order) for t in (hidden.double(), targets, grad.double()))
        rest = output.double(), bias.double(), vocabulary, exact, False, torch_xent.torch_pass
        loss, _ = torch_xent.losses(rows, goals, *rest, keep=False)
        d_hidden, d_output, d_bias = torch_xent.gradients(scale, rows, goals, *rest, None, need)
        assert d_hidden is not None
        want = [loss.index_select(0, exact.inverse), d_hidden.index_select(0, exact.inverse), d_output, d_bias]
        for low in (False, True) if dtype == torch.float32 and not interpreted() else (False,):
            given = hidden.to(device), targets.to(device), output.to(device), bias.to(device)
            loss, peak = triton_xent.losses(*given, vocabulary.to(device), plan, low)
            found = triton_xent.gradients(grad.to(device), *given, vocabulary.to(device), plan, low, peak, need)
            names = ["loss", "gradient by hidden", "gradient by output", "gradient by bias"]
            yield from ((*of, torch.bfloat16 if low else dtype) for of in zip(names, [loss, *found], want, strict=True))


CHECKS: dict[str, Callable[[torch.device, torch.dtype], Pairs]] = {"mlp": mlp, "train": train, "xent": xent}
OPERATIONS = {"mlp": "ragged_mlp", "train": "train_step_", "xent": "ragged_softmax_xent"}
_found: dict[tuple[str, str, torch.dtype], str] = {}


def _difference(pairs: Pairs) -> str:
    """What the first two results that differ are, or ''."""
    for name, got, want, precision in pairs:
        if got is None or want is None:
            if got is not want:
                return f"{name} is missing"
            continue
        got, want = got.to("cpu", torch.float64), want.double()
        gap = float((got - want).norm() / want.norm().clamp(min=1e-30))
        if not gap <= TOLERANCE[precision]:  # NaN is no agreement
            return f"{name} differs by {gap:.1e} of its size"
    return ""


def failure(operation: str, device: torch.device, dtype: torch.dtype) -> str:
    """Why the Triton kernels of an operation ("mlp", "train", "xent") are not to be used on a device, or ''.

    Tried once, then remembered; warns where they fail. While a CUDA graph is being captured nothing can be tried.
    """
    key = operation, str(device), dtype
    if key not in _found:
        if device.type == "cuda" and torch.cuda.is_available() and torch.cuda.is_current_stream_capturing():
            return "its kernels have not run here yet, and a graph is being captured: run the operation once before"
        try:
            with torch.no_grad(), torch.device("cpu"):
                reason = _difference(CHECKS[operation](device, dtype))
        except Exception as error:  # whatever a compiler or a driver raises: torch takes the work
            reason = f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0][:160]}"
        _found[key] = reason
        if reason:
            warnings.warn(
                f"{OPERATIONS[operation]}: its Triton kernels failed their check on {device} in {dtype} ({reason});"
                " torch takes the work in this process",
                RuntimeWarning,
                stacklevel=2,
            )
    return _found[key]
