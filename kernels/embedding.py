"""The layer that reads tokens: embeddings of several ids side by side, each scaled, times one matrix."""

from __future__ import annotations

import torch
from torch import Tensor

from kernels.backends import asked
from kernels.checks import INTEGERS, check_floats, check_ids, check_precision, shape


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
            `use_backend` or the environment names a backend that cannot. Under torch.compile only this argument counts.

    Returns:
        [T, H]. Differentiable in scale, table and weight. Bitwise the same in every run; on the cpu backend the sums of
        the table's gradient do not depend on the number of threads either.

    Raises:
        TypeError, ValueError, IndexError: dtypes, devices, shapes or ids do not fit, or a backend cannot take them.
    """
    _check(ids, scale, table, weight, padding, precision)
    if _backend(ids, table, weight, backend) == "torch":
        return _plain(ids, scale, table, weight, padding)
    rest = -1 if padding is None else padding, precision == "bfloat16"
    if torch.compiler.is_compiling():
        from kernels import ops_embedding

        return ops_embedding.layer(ids, scale, table, weight, *rest)
    from kernels import cpu_embedding

    return cpu_embedding.embedding_linear(ids, scale, table, weight, *rest)


def _backend(ids: Tensor, table: Tensor, weight: Tensor, backend: str | None) -> str:
    """The one that takes the work: "cpu", or "torch", whose plain operations torch.compile fuses.

    Raises:
        ValueError: the argument names a backend that cannot take the work.
    """
    # What use_backend and the environment say cannot be read while a graph is captured.
    request = None if backend is None and torch.compiler.is_compiling() else asked(backend)
    fits = table.device.type == "cpu" and table.dtype == torch.float32 and weight.numel() > 0 and ids.numel() > 0
    if backend in ("cpu", "triton") and not (fits and backend == "cpu"):
        raise ValueError(
            f"embedding_linear: backend {backend} cannot take {shape(table)} on {table.device} with {shape(ids)} ids."
            " Fix: use torch"
        )
    plain = request is not None and request[0] in ("reference", "torch")
    return "cpu" if fits and not plain else "torch"


def _check(ids: Tensor, scale: Tensor, table: Tensor, weight: Tensor, padding: int | None, precision: str) -> None:
    if ids.dtype not in INTEGERS or ids.dim() != 2:
        raise TypeError(f"ids must be an integer tensor [rows, reads], not {shape(ids)}")
    if table.dim() != 2 or not table.is_floating_point():
        raise TypeError(f"table must be a float tensor [V, d], not {shape(table)}")
    if weight.dim() != 3 or weight.shape[:2] != (ids.shape[1], table.shape[1]):
        raise ValueError(f"weight must be [{ids.shape[1]}, {table.shape[1]}, out], not {shape(weight)}")
    if scale.shape != ids.shape:
        raise ValueError(f"scale must be [{ids.shape[0]}, {ids.shape[1]}] as ids are, not {shape(scale)}")
    check_floats(table, [("scale", scale), ("weight", weight)], "table")
    if ids.device != table.device:
        raise ValueError(f"ids is on {ids.device}, table on {table.device}: use one device")
    check_precision(precision)
    if padding is not None and not 0 <= padding < len(table):
        raise IndexError(f"padding must lie in 0 .. {len(table) - 1}, not {padding}")
    if ids.device.type == "cpu" and not torch.compiler.is_compiling():  # the registered operation looks when it runs
        check_ids(ids, len(table))


def _plain(ids: Tensor, scale: Tensor, table: Tensor, weight: Tensor, padding: int | None) -> Tensor:
    ids = ids.long()
    if padding is not None:
        scale = torch.where(ids == padding, torch.zeros_like(scale), scale)
    rows = torch.nn.functional.embedding(ids, table) * scale[:, :, None]
    return rows.flatten(1) @ weight.flatten(0, 1)
