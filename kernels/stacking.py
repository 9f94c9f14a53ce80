"""Many modules of one shape <-> one set of stacked tensors."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from kernels.checks import shape

_NAMES: dict[type[nn.Module], str] = {nn.ReLU: "relu", nn.GELU: "gelu", nn.SiLU: "silu"}


@dataclass
class MLPStack:
    """M networks linear-activation-linear of one shape.

    Attributes:
        weights: per layer [M, Din, Dout] (input first: y = x @ w, so nn.Linear's weight is transposed).
        biases: per layer [M, Dout] or None.
        activation: "relu", "gelu" or "silu".
    """

    weights: list[Tensor]
    biases: list[Tensor | None]
    activation: str = "relu"

    @classmethod
    def init(
        cls,
        n_modules: int,
        widths: Sequence[int],
        activation: str = "relu",
        seed: int = 0,
        dtype: torch.dtype = torch.float32,
    ) -> MLPStack:
        """New networks; weights uniform in +-1/sqrt(Din) as nn.Linear's, each module's numbers its own, on the CPU."""
        generator = torch.Generator().manual_seed(seed)
        weights: list[Tensor] = []
        biases: list[Tensor | None] = []
        for wide, narrow in zip(widths, widths[1:], strict=False):
            bound = wide**-0.5
            weights.append(
                torch.empty(n_modules, wide, narrow, dtype=dtype).uniform_(-bound, bound, generator=generator)
            )
            biases.append(torch.empty(n_modules, narrow, dtype=dtype).uniform_(-bound, bound, generator=generator))
        return cls(weights, biases, activation)

    @property
    def n_modules(self) -> int:
        return self.weights[0].shape[0]

    @property
    def params(self) -> list[Tensor]:
        """All stacked tensors: weight and bias of the first layer, then of the next (biases that are None left out)."""
        both = zip(self.weights, self.biases, strict=True)
        return [t for pair in both for t in pair if t is not None]

    @property
    def biased(self) -> list[bool]:
        """Which layers have a bias."""
        return [b is not None for b in self.biases]


def by_layer(tensors: Iterable[Tensor], biased: Sequence[bool | int]) -> tuple[list[Tensor], list[Tensor | None]]:
    """Tensors in the order of `MLPStack.params` -> (weights, biases with None where there is none)."""
    queue = iter(tensors)
    pairs = [(next(queue), next(queue) if has else None) for has in biased]
    return [w for w, _ in pairs], [b for _, b in pairs]


def _layers(module: nn.Module) -> tuple[list[nn.Linear], str]:
    if not isinstance(module, nn.Sequential):
        raise TypeError(f"stack takes nn.Sequential of Linear and activation, not {type(module).__name__}")
    linears = [layer for layer in module if isinstance(layer, nn.Linear)]
    between = [layer for layer in module if not isinstance(layer, nn.Linear)]
    kinds = {type(layer) for layer in between}
    alternate = all(isinstance(layer, nn.Linear) == (i % 2 == 0) for i, layer in enumerate(module))
    if len(linears) < 2 or len(module) % 2 == 0 or not alternate or len(kinds) != 1 or not kinds <= set(_NAMES):
        raise TypeError("stack takes Linear, activation, Linear, ... with one of ReLU, GELU, SiLU between")
    if any(isinstance(layer, nn.GELU) and layer.approximate != "none" for layer in between):
        raise TypeError("stack takes the exact GELU only (approximate='none')")
    return linears, _NAMES[kinds.pop()]


def stack(modules: Sequence[nn.Module]) -> MLPStack:
    """Copy the parameters of equal nn.Sequential networks into stacked tensors.

    Raises:
        TypeError, ValueError: a module of another make, or shapes that differ; the message says which.
    """
    if not modules:
        raise ValueError("stack needs at least one module")
    parsed = [_layers(module) for module in modules]
    first, activation = parsed[0]
    for number, (linears, kind) in enumerate(parsed):
        shapes = [(tuple(a.weight.shape), a.bias is None) for a in linears]
        if kind != activation or shapes != [(tuple(a.weight.shape), a.bias is None) for a in first]:
            raise ValueError(f"module {number} differs from module 0 in shape, bias or activation")
    weights = [torch.stack([p[0][i].weight.detach().T for p in parsed]) for i in range(len(first))]
    biases = [
        None if first[i].bias is None else torch.stack([p[0][i].bias.detach() for p in parsed])
        for i in range(len(first))
    ]
    return MLPStack(weights, biases, activation)


def unstack(stacked: MLPStack) -> list[nn.Sequential]:
    """The stacked networks as separate nn.Sequential modules (copies, same dtype and device)."""
    if any(w.dim() != 3 for w in stacked.weights):
        raise ValueError(f"weights must be [modules, in, out], not {shape(stacked.weights[0])}")
    makers = {name: kind for kind, name in _NAMES.items()}
    result = []
    for m in range(stacked.n_modules):
        layers: list[nn.Module] = []
        for i, (weight, bias) in enumerate(zip(stacked.weights, stacked.biases, strict=True)):
            if i:
                layers.append(makers[stacked.activation]())
            linear: Any = nn.utils.skip_init(
                nn.Linear,
                weight.shape[1],
                weight.shape[2],
                bias=bias is not None,
                dtype=weight.dtype,
                device=weight.device,
            )
            with torch.no_grad():
                linear.weight.copy_(weight[m].T)
                if bias is not None:
                    linear.bias.copy_(bias[m])
            layers.append(linear)
        result.append(nn.Sequential(*layers))
    return result
