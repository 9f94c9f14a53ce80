"""Adam on a few small tables, as the mixer's are; `torch.optim` would first load torch's compiler, for seconds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


class Descent:
    """Moves tables down the gradient of a loss (Kingma and Ba 2015); the tables must ask for gradients."""

    def __init__(self, tables: Sequence[torch.Tensor]) -> None:
        import kernels

        self._tables = list(tables)
        # One module each, since `kernels` steps stacks of modules.
        self._stacks = [table.detach()[None] for table in self._tables]
        self._state = kernels.AdamState.of(self._stacks)

    def step(self, loss: torch.Tensor, rate: float) -> None:
        """One step against the gradient of `loss`, in place."""
        import torch

        import kernels

        gradients = torch.autograd.grad(loss, self._tables)
        kernels.adam_step_(self._stacks, [gradient[None] for gradient in gradients], self._state, rate)
