"""The CPU backend of `embedding_linear`: one sweep that gathers and scales (numba_embedding.py), then one product."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from kernels import numba_embedding as ne
from kernels.precision import multiplies_bfloat16
from kernels.threads import threads_for

SMALL_WORK = 50_000  # numbers below which waking a second thread costs more than it brings


def _kind(like: Tensor) -> str:
    return "bfloat16" if like.dtype == torch.bfloat16 else "float32"


def _bits(tensor: Tensor) -> Any:
    """A numpy view that numba knows: float32, or bfloat16 as uint16."""
    return tensor.numpy() if tensor.dtype == torch.float32 else tensor.view(torch.int16).numpy().view("uint16")


def operands(
    ids: Tensor, scale: Tensor, table: Tensor, weight: Tensor, padding: int, low: bool
) -> tuple[Tensor, Tensor]:
    """What the layer multiplies: scaled embeddings [T, R d] and the matrix [R d, H], all given contiguous.

    padding: an id, or -1. low: both in bfloat16, where this processor multiplies it.
    """
    scale, table, weight = scale.detach(), table.detach(), weight.detach()  # numpy takes none that wants a gradient
    dtype = torch.bfloat16 if low and multiplies_bfloat16() else torch.float32
    rows = torch.empty(len(ids), ids.shape[1] * table.shape[1], dtype=dtype)
    ne.gather[_kind(rows)](ids.numpy(), scale.numpy(), table.numpy(), padding, _bits(rows))
    return rows, weight.flatten(0, 1).to(dtype)


def answers(rows: Tensor, matrix: Tensor) -> Tensor:
    """[T, H] in float32."""
    return torch.mm(rows, matrix).to(torch.float32)


def gradients(
    grad: Tensor, ids: Tensor, scale: Tensor, table: Tensor, rows: Tensor, matrix: Tensor, padding: int,
    need: tuple[bool, bool, bool] = (True, True, True),
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:  # fmt: skip
    """Gradients by scale, table and weight (those that are needed); rows, matrix: from `operands`."""
    need_scale, need_table, need_weight = need
    grad, scale, table = grad.to(rows.dtype), scale.detach(), table.detach()
    d_scale = d_table = d_weight = None
    if need_weight:
        d_weight = torch.mm(rows.T, grad).to(torch.float32).reshape(ids.shape[1], table.shape[1], -1)
    if need_scale or need_table:
        d_rows = torch.mm(grad, matrix.T)
        d_scale, d_table = torch.empty_like(scale), torch.zeros_like(table)
        ne.scatter[_kind(d_rows)](
            ids.numpy(), scale.numpy(), table.numpy(), padding, _bits(d_rows), d_scale.numpy(), d_table.numpy(),
            threads_for(d_rows.numel(), SMALL_WORK),
        )  # fmt: skip
    return d_scale if need_scale else None, d_table if need_table else None, d_weight


class _Layer(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, ids: Tensor, scale: Tensor, table: Tensor, weight: Tensor, padding: int, low: bool) -> Tensor:
        rows, matrix = operands(ids, scale, table, weight, padding, low)
        ctx.padding = padding
        ctx.save_for_backward(ids, scale, table, rows, matrix)
        return answers(rows, matrix)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        ids, scale, table, rows, matrix = ctx.saved_tensors
        _, need_scale, need_table, need_weight, *_ = ctx.needs_input_grad
        need = (need_scale, need_table, need_weight)
        found = gradients(grads[0], ids, scale, table, rows, matrix, ctx.padding, need)
        return None, *found, None, None


def embedding_linear(ids: Tensor, scale: Tensor, table: Tensor, weight: Tensor, padding: int, low: bool) -> Tensor:
    return _Layer.apply(  # pyright: ignore[reportReturnType]
        ids.long().contiguous(), scale.contiguous(), table.contiguous(), weight, padding, low
    )
