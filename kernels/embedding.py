"""The layer that reads tokens: embeddings of several ids side by side, each scaled, times one matrix."""

from __future__ import annotations

from typing import Any

import numba
import torch
from torch import Tensor

from kernels.backends import asked
from kernels.checks import INTEGERS, shape
from kernels.precision import multiplies_bfloat16

SMALL_WORK = 50_000  # numbers below which waking a second thread costs more than it brings


def embedding_linear(
    ids: Tensor,
    scale: Tensor,
    table: Tensor,
    weight: Tensor,
    *,
    padding: int | None = None,
    precision: str = "float32",
    backend: str | None = None,
) -> Tensor:
    """y[t] = sum over r of scale[t, r] * (table[ids[t, r]] @ weight[r]).

    Args:
        ids: integer [T, R], rows of the table.
        scale: float [T, R].
        table: [V, d].
        weight: [R, d, H].
        padding: an id that stands for nothing: its terms are zero and nothing gets a gradient by them.
        precision: "float32"; or "bfloat16": where this processor multiplies bfloat16 faster (AMX, AVX512-BF16), the
            operands and the results of the products, forward and backward, are rounded to it; sums inside a product
            stay in float32, and so do all tensors given and returned.
        backend: "reference" and "torch" (plain operations of torch, any device and float dtype, always in the given
            precision) or "cpu" (float32 on the CPU). None: cpu where it can take the work, else torch; also where
            `use_backend` or the environment names a backend that cannot.

    Returns:
        [T, H]. Differentiable in scale, table and weight. Bitwise the same in every run; on the cpu backend the sums of
        the table's gradient do not depend on the number of threads either.

    Raises:
        TypeError, ValueError, IndexError: dtypes, devices, shapes or ids do not fit, or a backend cannot take them.
    """
    _check(ids, scale, table, weight, padding, precision)
    if torch.compiler.is_compiling():  # plain operations, which the compiler fuses
        return _plain(ids, scale, table, weight, padding)
    request = asked(backend)
    fits = table.device.type == "cpu" and table.dtype == torch.float32 and weight.numel() > 0 and ids.numel() > 0
    if backend in ("cpu", "triton") and not (fits and backend == "cpu"):
        raise ValueError(
            f"embedding_linear: backend {backend} cannot take {shape(table)} on {table.device} with {shape(ids)} ids."
            " Fix: use torch"
        )
    if not fits or (request is not None and request[0] in ("reference", "torch")):
        return _plain(ids, scale, table, weight, padding)
    low = precision == "bfloat16" and multiplies_bfloat16()
    return _Layer.apply(ids, scale, table, weight, padding, low)  # pyright: ignore[reportReturnType]


def _check(ids: Tensor, scale: Tensor, table: Tensor, weight: Tensor, padding: int | None, precision: str) -> None:
    if ids.dtype not in INTEGERS or ids.dim() != 2:
        raise TypeError(f"ids must be an integer tensor [rows, reads], not {shape(ids)}")
    if table.dim() != 2 or not table.is_floating_point():
        raise TypeError(f"table must be a float tensor [V, d], not {shape(table)}")
    if weight.dim() != 3 or weight.shape[:2] != (ids.shape[1], table.shape[1]):
        raise ValueError(f"weight must be [{ids.shape[1]}, {table.shape[1]}, out], not {shape(weight)}")
    if scale.shape != ids.shape:
        raise ValueError(f"scale must be [{ids.shape[0]}, {ids.shape[1]}] as ids are, not {shape(scale)}")
    for name, tensor in (("scale", scale), ("weight", weight)):
        if tensor.dtype != table.dtype:
            raise TypeError(f"{name} is {tensor.dtype}, table is {table.dtype}: use one dtype")
    for name, tensor in (("ids", ids), ("scale", scale), ("weight", weight)):
        if tensor.device != table.device:
            raise ValueError(f"{name} is on {tensor.device}, table on {table.device}: use one device")
    if precision not in ("float32", "bfloat16"):
        raise ValueError(f"precision must be float32 or bfloat16, not {precision!r}")
    if padding is not None and not 0 <= padding < len(table):
        raise IndexError(f"padding must lie in 0 .. {len(table) - 1}, not {padding}")
    if ids.device.type == "cpu" and ids.numel() and not torch.compiler.is_compiling():
        low, high = (int(v) for v in torch.aminmax(ids))
        if low < 0 or high >= len(table):
            raise IndexError(f"id {low if low < 0 else high} is out of range: the table has {len(table)} rows")


def _plain(ids: Tensor, scale: Tensor, table: Tensor, weight: Tensor, padding: int | None) -> Tensor:
    ids = ids.long()
    if padding is not None:
        scale = torch.where(ids == padding, torch.zeros_like(scale), scale)
    rows = torch.nn.functional.embedding(ids, table) * scale[:, :, None]
    return rows.flatten(1) @ weight.flatten(0, 1)


def _bits(tensor: Tensor) -> Any:
    """A numpy view that numba knows: float32, or bfloat16 as uint16."""
    return tensor.numpy() if tensor.dtype == torch.float32 else tensor.view(torch.int16).numpy().view("uint16")


class _Layer(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, ids: Tensor, scale: Tensor, table: Tensor, weight: Tensor, padding: int | None, low: bool
    ) -> Tensor:
        from kernels import numba_embedding as ne

        ids, scale, table = ids.long().contiguous(), scale.detach().contiguous(), table.detach().contiguous()
        kind = torch.bfloat16 if low else torch.float32
        rows = torch.empty(len(ids), ids.shape[1] * table.shape[1], dtype=kind)
        nothing = -1 if padding is None else padding
        ne.gather["bfloat16" if low else "float32"](ids.numpy(), scale.numpy(), table.numpy(), nothing, _bits(rows))
        matrix = weight.detach().flatten(0, 1).to(kind)
        ctx.low, ctx.nothing = low, nothing
        ctx.save_for_backward(ids, scale, table, rows, matrix)
        return torch.mm(rows, matrix).to(torch.float32)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        from kernels import numba_embedding as ne

        ids, scale, table, rows, matrix = ctx.saved_tensors
        _, need_scale, need_table, need_weight, *_ = ctx.needs_input_grad
        grad = grads[0].to(rows.dtype)
        d_scale = d_table = d_weight = None
        if need_weight:
            d_weight = torch.mm(rows.T, grad).to(torch.float32).reshape(ids.shape[1], table.shape[1], -1)
        if need_scale or need_table:
            d_rows = torch.mm(grad, matrix.T)
            d_scale, d_table = torch.empty_like(scale), torch.zeros_like(table)
            threads = min(torch.get_num_threads(), numba.get_num_threads()) if d_rows.numel() > SMALL_WORK else 1
            ne.scatter["bfloat16" if ctx.low else "float32"](
                ids.numpy(), scale.numpy(), table.numpy(), ctx.nothing, _bits(d_rows), d_scale.numpy(),
                d_table.numpy(), threads,
            )  # fmt: skip
        return None, d_scale if need_scale else None, d_table if need_table else None, d_weight, None, None
