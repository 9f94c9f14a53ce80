"""The GPU kernels of networks and convolutions. This file and triton_xent_kernels.py import triton: load them last.

One program takes one tile of rows, all of one module, so the weights of a module are read once per tile and stay in
cache while its tiles run. No atomics: every number is written by one program, in one order.
"""

# pyright: reportMissingImports=false, reportPossiblyUnboundVariable=false, reportGeneralTypeIssues=false
# pyright: reportOperatorIssue=false
# (triton is an extra; inside a kernel, constexpr decides which branch exists)
from __future__ import annotations

import triton
import triton.language as tl

RELU, GELU, SILU, NONE = tl.constexpr(1), tl.constexpr(2), tl.constexpr(3), tl.constexpr(0)


@triton.jit
def _activate(z, KIND: tl.constexpr):
    if KIND == RELU:
        z = tl.maximum(z, 0.0)
    elif KIND == GELU:
        z = 0.5 * z * (1.0 + tl.erf(z * 0.7071067811865476))
    elif KIND == SILU:
        z = z / (1.0 + tl.exp(-z))
    return z


@triton.jit
def _slope(z, KIND: tl.constexpr):
    """Derivative of the activation at z."""
    one = tl.full(z.shape, 1.0, tl.float32)
    if KIND == RELU:
        one = tl.where(z > 0, 1.0, 0.0)
    elif KIND == GELU:
        one = 0.5 * (1.0 + tl.erf(z * 0.7071067811865476)) + z * 0.3989422804014327 * tl.exp(-0.5 * z * z)
    elif KIND == SILU:
        s = 1.0 / (1.0 + tl.exp(-z))
        one = s * (1.0 + z * (1.0 - s))
    return one


@triton.jit
def linear_tiles(
    x, weight, bias, before, out, offsets, tile_module, tile_start, source, target,
    n_modules, n_in, n_out, weight_module, weight_in, weight_out,
    GATHER: tl.constexpr, SCATTER: tl.constexpr, BIAS: tl.constexpr, ACTIVATION: tl.constexpr, SLOPE: tl.constexpr,
    PRECISION: tl.constexpr, TILE: tl.constexpr, BLOCK_IN: tl.constexpr, BLOCK_OUT: tl.constexpr,
):  # fmt: skip
    """out[rows of the tile] = f(x[rows] @ weight[module] + bias[module]).

    Program (i, j): tile i, columns block j. The weight is read through its strides, so the same kernel multiplies by
    the transpose in the backward pass. ACTIVATION is applied to x as it is read; SLOPE multiplies the result by the
    derivative of that activation at `before`.
    """
    tile = tl.program_id(0)
    module = tl.load(tile_module + tile)
    if module >= n_modules:  # the grid has as many programs as there can be tiles at most
        return
    start = tl.load(tile_start + tile)
    stop = tl.load(offsets + module + 1)
    positions = start + tl.arange(0, TILE)
    alive = positions < stop
    columns = tl.program_id(1) * BLOCK_OUT + tl.arange(0, BLOCK_OUT)
    in_columns = columns < n_out
    rows = positions
    if GATHER:
        rows = tl.load(source + positions, mask=alive, other=0)
    rows = rows.to(tl.int64)
    base = weight + module.to(tl.int64) * weight_module
    total = tl.zeros((TILE, BLOCK_OUT), tl.float32)
    for k in range(0, n_in, BLOCK_IN):
        inner = k + tl.arange(0, BLOCK_IN)
        inside = inner < n_in
        left = tl.load(x + rows[:, None] * n_in + inner[None, :], mask=alive[:, None] & inside[None, :], other=0.0)
        if ACTIVATION != NONE:
            left = _activate(left.to(tl.float32), ACTIVATION).to(x.dtype.element_ty)
        right = tl.load(
            base + inner[:, None] * weight_in + columns[None, :] * weight_out,
            mask=inside[:, None] & in_columns[None, :],
            other=0.0,
        )
        total = tl.dot(left, right, total, input_precision=PRECISION)
    if BIAS:
        line = tl.load(bias + module.to(tl.int64) * n_out + columns, mask=in_columns, other=0.0)
        total += line.to(tl.float32)[None, :]
    here = alive[:, None] & in_columns[None, :]
    if SLOPE != NONE:
        z = tl.load(before + positions.to(tl.int64)[:, None] * n_out + columns[None, :], mask=here, other=0.0)
        total *= _slope(z.to(tl.float32), SLOPE)
    ends = positions
    if SCATTER:
        ends = tl.load(target + positions, mask=alive, other=0)
    at = out + ends.to(tl.int64)[:, None] * n_out + columns[None, :]
    tl.store(at, total.to(out.dtype.element_ty), mask=here)


@triton.jit
def _gradient_block(
    x, grad, source, target, n_in, n_out, start, stop, inner, columns,
    GATHER: tl.constexpr, SCATTER: tl.constexpr, BIAS: tl.constexpr, ACTIVATION: tl.constexpr,
    PRECISION: tl.constexpr, TILE: tl.constexpr, BLOCK_IN: tl.constexpr, BLOCK_OUT: tl.constexpr,
):  # fmt: skip
    """(sum over positions start .. stop of f(x)^T grad, sum of grad), one block of each."""
    inside, in_columns = inner < n_in, columns < n_out
    total = tl.zeros((BLOCK_IN, BLOCK_OUT), tl.float32)
    line = tl.zeros((BLOCK_OUT,), tl.float32)
    for first in range(start, stop, TILE):
        positions = first + tl.arange(0, TILE)
        alive = positions < stop
        rows, ends = positions, positions
        if GATHER:
            rows = tl.load(source + positions, mask=alive, other=0)
        if SCATTER:
            ends = tl.load(target + positions, mask=alive, other=0)
        left = tl.load(
            x + rows.to(tl.int64)[None, :] * n_in + inner[:, None], mask=inside[:, None] & alive[None, :], other=0.0
        )
        if ACTIVATION != NONE:
            left = _activate(left.to(tl.float32), ACTIVATION).to(x.dtype.element_ty)
        right = tl.load(
            grad + ends.to(tl.int64)[:, None] * n_out + columns[None, :],
            mask=alive[:, None] & in_columns[None, :],
            other=0.0,
        )
        total = tl.dot(left, right, total, input_precision=PRECISION)
        if BIAS:
            line += tl.sum(right.to(tl.float32), 0)
    return total, line


@triton.jit
def weight_gradient(
    x, grad, d_weight, d_bias, offsets, source, target, n_in, n_out,
    GATHER: tl.constexpr, SCATTER: tl.constexpr, BIAS: tl.constexpr, ACTIVATION: tl.constexpr,
    PRECISION: tl.constexpr, TILE: tl.constexpr, BLOCK_IN: tl.constexpr, BLOCK_OUT: tl.constexpr,
):  # fmt: skip
    """d_weight[m] = sum over its rows of f(x)^T grad, d_bias[m] = sum of grad; program (m, in block, out block).

    A module's rows are summed by one program in their order; a module without rows gets zeros.
    """
    module = tl.program_id(0)
    inner = tl.program_id(1) * BLOCK_IN + tl.arange(0, BLOCK_IN)
    columns = tl.program_id(2) * BLOCK_OUT + tl.arange(0, BLOCK_OUT)
    start, stop = tl.load(offsets + module), tl.load(offsets + module + 1)
    total, line = _gradient_block(
        x, grad, source, target, n_in, n_out, start, stop, inner, columns,
        GATHER, SCATTER, BIAS, ACTIVATION, PRECISION, TILE, BLOCK_IN, BLOCK_OUT,
    )  # fmt: skip
    module = module.to(tl.int64)
    at = d_weight + module * n_in * n_out + inner[:, None] * n_out + columns[None, :]
    tl.store(at, total.to(d_weight.dtype.element_ty), mask=(inner < n_in)[:, None] & (columns < n_out)[None, :])
    if BIAS:
        once = (columns < n_out) & (tl.program_id(1) == 0)
        tl.store(d_bias + module * n_out + columns, line.to(d_bias.dtype.element_ty), mask=once)


@triton.jit
def _adam(param, first, second, at, mask, gradient, rate, scale, keep, beta1, beta2, eps):
    """Update the numbers at these places in place; see kernels/adam.py."""
    mean = tl.load(first + at, mask=mask, other=0.0).to(tl.float32)
    square = tl.load(second + at, mask=mask, other=0.0).to(tl.float32)
    mean = beta1 * mean + (1.0 - beta1) * gradient
    square = beta2 * square + (1.0 - beta2) * gradient * gradient
    tl.store(first + at, mean.to(first.dtype.element_ty), mask=mask)
    tl.store(second + at, square.to(second.dtype.element_ty), mask=mask)
    value = tl.load(param + at, mask=mask, other=0.0).to(tl.float32)
    value = value * keep - rate * mean / (tl.sqrt(square) * scale + eps)
    tl.store(param + at, value.to(param.dtype.element_ty), mask=mask)


@triton.jit
def weight_update(
    x, grad, weight, weight_first, weight_second, bias, bias_first, bias_second, offsets, source, target, rates,
    scales, keeps, n_in, n_out, beta1, beta2, eps,
    GATHER: tl.constexpr, SCATTER: tl.constexpr, BIAS: tl.constexpr, ACTIVATION: tl.constexpr,
    PRECISION: tl.constexpr, TILE: tl.constexpr, BLOCK_IN: tl.constexpr, BLOCK_OUT: tl.constexpr,
):  # fmt: skip
    """As weight_gradient, and the gradient goes into an Adam update where it was made; it is written nowhere.

    rates, scales, keeps: float32 [M], of this step (kernels/adam.py). A module without rows is left as it is.
    """
    module = tl.program_id(0)
    start, stop = tl.load(offsets + module), tl.load(offsets + module + 1)
    if start == stop:
        return
    inner = tl.program_id(1) * BLOCK_IN + tl.arange(0, BLOCK_IN)
    columns = tl.program_id(2) * BLOCK_OUT + tl.arange(0, BLOCK_OUT)
    total, line = _gradient_block(
        x, grad, source, target, n_in, n_out, start, stop, inner, columns,
        GATHER, SCATTER, BIAS, ACTIVATION, PRECISION, TILE, BLOCK_IN, BLOCK_OUT,
    )  # fmt: skip
    rate, scale, keep = tl.load(rates + module), tl.load(scales + module), tl.load(keeps + module)
    module = module.to(tl.int64)
    at = module * n_in * n_out + inner[:, None] * n_out + columns[None, :]
    here = (inner < n_in)[:, None] & (columns < n_out)[None, :]
    _adam(weight, weight_first, weight_second, at, here, total, rate, scale, keep, beta1, beta2, eps)
    if BIAS:
        once = (columns < n_out) & (tl.program_id(1) == 0)
        _adam(bias, bias_first, bias_second, module * n_out + columns, once, line, rate, scale, keep, beta1, beta2, eps)


@triton.jit
def convolution(
    x, weight, bias, out, n_modules, n_in, height, width, n_out, high, wide, stride, image_step, module_step,
    KERNEL: tl.constexpr, BIAS: tl.constexpr, ACTIVATION: tl.constexpr, PRECISION: tl.constexpr, TILE: tl.constexpr,
    BLOCK_IN: tl.constexpr, BLOCK_OUT: tl.constexpr,
):  # fmt: skip
    """One convolution of every module: program (cells, out block, image x module).

    ACTIVATION is applied to x as it is read. x: the channels of an image begin at image * image_step + module *
    module_step (0: all modules see the same). out: [B, M, n_out, high, wide].
    """
    image, module = tl.program_id(2) // n_modules, tl.program_id(2) % n_modules
    image, module = image.to(tl.int64), module.to(tl.int64)
    cells = tl.program_id(0) * TILE + tl.arange(0, TILE)
    row, column = (cells // wide) * stride - KERNEL // 2, (cells % wide) * stride - KERNEL // 2
    columns = tl.program_id(1) * BLOCK_OUT + tl.arange(0, BLOCK_OUT)
    in_columns = columns < n_out
    base = x + image * image_step + module * module_step
    kernel = weight + module * n_out * n_in * KERNEL * KERNEL
    total = tl.zeros((TILE, BLOCK_OUT), tl.float32)
    for tap in range(KERNEL * KERNEL):
        r, c = row + tap // KERNEL, column + tap % KERNEL
        seen = (cells < high * wide) & (r >= 0) & (r < height) & (c >= 0) & (c < width)
        for k in range(0, n_in, BLOCK_IN):
            inner = k + tl.arange(0, BLOCK_IN)
            inside = inner < n_in
            at = base + inner[None, :] * (height * width) + (r * width + c)[:, None]
            left = tl.load(at, mask=seen[:, None] & inside[None, :], other=0.0)
            if ACTIVATION != NONE:
                left = _activate(left.to(tl.float32), ACTIVATION).to(x.dtype.element_ty)
            right = tl.load(
                kernel + (columns[None, :] * n_in + inner[:, None]) * (KERNEL * KERNEL) + tap,
                mask=inside[:, None] & in_columns[None, :],
                other=0.0,
            )
            total = tl.dot(left, right, total, input_precision=PRECISION)
    if BIAS:
        line = tl.load(bias + module * n_out + columns, mask=in_columns, other=0.0)
        total += line.to(tl.float32)[None, :]
    at = out + ((image * n_modules + module) * n_out + columns[None, :]) * (high * wide) + cells[:, None]
    tl.store(at, total.to(out.dtype.element_ty), mask=(cells < high * wide)[:, None] & in_columns[None, :])


@triton.jit
def _layer(values, weight, bias, module, n_in, n_out, BIAS: tl.constexpr, P_IN: tl.constexpr, P_OUT: tl.constexpr,
           PRECISION: tl.constexpr):  # fmt: skip
    """values [TILE, P_IN] -> float32 [TILE, P_OUT]; the whole weight at once."""
    inner, columns = tl.arange(0, P_IN), tl.arange(0, P_OUT)
    at = weight + module * n_in * n_out + inner[:, None] * n_out + columns[None, :]
    w = tl.load(at, mask=(inner < n_in)[:, None] & (columns < n_out)[None, :], other=0.0)
    total = tl.dot(values, w, input_precision=PRECISION)
    if BIAS:
        line = tl.load(bias + module * n_out + columns, mask=columns < n_out, other=0.0)
        total += line.to(tl.float32)[None, :]
    return total


@triton.jit
def network_tiles(
    x, w0, b0, w1, b1, w2, b2, w3, b3, out, offsets, tile_module, tile_start, source, target,
    n_modules, d0, d1, d2, d3, d4,
    LAYERS: tl.constexpr, BIASES: tl.constexpr, ACTIVATION: tl.constexpr, GATHER: tl.constexpr,
    PRECISION: tl.constexpr, TILE: tl.constexpr, P0: tl.constexpr, P1: tl.constexpr, P2: tl.constexpr,
    P3: tl.constexpr, P4: tl.constexpr,
):  # fmt: skip
    """A tile of rows through all layers of its module; hidden values stay in registers and shared memory.

    P0 .. P4: the widths d0 .. d4 rounded up to powers of two of at least 16. BIASES: bit l says layer l has a bias.
    """
    tile = tl.program_id(0)
    module = tl.load(tile_module + tile)
    if module >= n_modules:
        return
    start = tl.load(tile_start + tile)
    stop = tl.load(offsets + module + 1)
    module = module.to(tl.int64)
    positions = start + tl.arange(0, TILE)
    alive = positions < stop
    rows, ends = positions, positions
    if GATHER:
        rows = tl.load(source + positions, mask=alive, other=0)
        ends = tl.load(target + positions, mask=alive, other=0)
    inner = tl.arange(0, P0)
    kind = x.dtype.element_ty
    at = x + rows.to(tl.int64)[:, None] * d0 + inner[None, :]
    values = tl.load(at, mask=alive[:, None] & (inner < d0)[None, :], other=0.0)
    z = _layer(values, w0, b0, module, d0, d1, BIASES & 1, P0, P1, PRECISION)
    z = _layer(_activate(z, ACTIVATION).to(kind), w1, b1, module, d1, d2, BIASES & 2, P1, P2, PRECISION)
    if LAYERS > 2:
        z = _layer(_activate(z, ACTIVATION).to(kind), w2, b2, module, d2, d3, BIASES & 4, P2, P3, PRECISION)
    if LAYERS > 3:
        z = _layer(_activate(z, ACTIVATION).to(kind), w3, b3, module, d3, d4, BIASES & 8, P3, P4, PRECISION)
    if LAYERS == 2:
        _store_rows(z, out, ends, alive, d2, P2)
    elif LAYERS == 3:
        _store_rows(z, out, ends, alive, d3, P3)
    else:
        _store_rows(z, out, ends, alive, d4, P4)


@triton.jit
def _store_rows(z, out, ends, alive, width, P: tl.constexpr):
    columns = tl.arange(0, P)
    at = out + ends.to(tl.int64)[:, None] * width + columns[None, :]
    tl.store(at, z.to(out.dtype.element_ty), mask=alive[:, None] & (columns < width)[None, :])
