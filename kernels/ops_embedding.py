"""`embedding_linear` on the CPU as a torch.library custom op, for torch.compile (see kernels/ops.py)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from kernels.checks import check_ids
from kernels.ops import NAMESPACE, like


@torch.library.custom_op(f"{NAMESPACE}::embedding_linear", mutates_args=())
def layer(ids: Tensor, scale: Tensor, table: Tensor, weight: Tensor, padding: int, low: bool) -> Tensor:
    """Answers [T, H] of `embedding_linear`; padding: an id, or -1; low: products in bfloat16 where that is faster."""
    from kernels import cpu_embedding

    check_ids(ids, len(table))
    ids, scale, table = ids.long().contiguous(), scale.contiguous(), table.contiguous()
    return cpu_embedding.answers(*cpu_embedding.operands(ids, scale, table, weight, padding, low))


@layer.register_fake
def _(ids: Tensor, scale: Tensor, table: Tensor, weight: Tensor, *_: Any) -> Tensor:
    return scale.new_empty(ids.shape[0], weight.shape[2])


@torch.library.custom_op(f"{NAMESPACE}::embedding_linear_backward", mutates_args=())
def layer_backward(
    grad: Tensor, ids: Tensor, scale: Tensor, table: Tensor, weight: Tensor, padding: int, low: bool
) -> list[Tensor]:
    """Gradients by scale, table and weight; the scaled embeddings are gathered again, none was kept."""
    from kernels import cpu_embedding

    ids, scale, table = ids.long().contiguous(), scale.contiguous(), table.contiguous()
    rows, matrix = cpu_embedding.operands(ids, scale, table, weight, padding, low)
    found = cpu_embedding.gradients(grad, ids, scale, table, rows, matrix, padding)
    return [t for t in found if t is not None]


@layer_backward.register_fake
def _(grad: Tensor, ids: Tensor, scale: Tensor, table: Tensor, weight: Tensor, *_: Any) -> list[Tensor]:
    return like(scale, table, weight)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *tensors, ctx.padding, ctx.low = inputs
    ctx.save_for_backward(*tensors)


def _gradient(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    return None, *layer_backward(grad, *ctx.saved_tensors, ctx.padding, ctx.low), None, None


layer.register_autograd(_gradient, setup_context=_setup)
