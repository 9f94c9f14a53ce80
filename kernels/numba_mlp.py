"""Forward, backward and training step of stacked networks, one module at a time from its weights in cache (numba).

Work is shared out by whole modules, so every number is made by one thread in one order: results do not depend on the
number of threads. Rows go through all layers in tiles of TILE; hidden values are never written to memory.

Layout of one thread's scratch memory (float32): for each layer the padded weight, its transpose, the padded gradient of
weight and bias, and for a tile the values before and after the activation and their gradient.
"""

# pyright: reportCallIssue=false, reportArgumentType=false
from __future__ import annotations

from typing import Any

import numba
import numpy as np

from kernels.numba_adam import adam
from kernels.numba_layers import LINE, activate, activate_gradient, aligned, fill_bias, padded
from kernels.numba_math import INLINE, ONE, compiled, exp32, sigmoid32
from kernels.numba_panels import copy_row, floats, multiply, multiply_from, prefetch_row, sum_row

TILE = 64
AHEAD = 32  # rows that are asked for before they are used
LAYERS = 4
GIVEN, MSE, LOGISTIC, SOFTMAX = 0, 1, 2, 3
# Rows of the address table, one column per layer; 0 where there is none.
WEIGHT, BIAS, D_WEIGHT, D_BIAS, FIRST_WEIGHT, FIRST_BIAS, SECOND_WEIGHT, SECOND_BIAS, TABLE = range(9)


@compiled("i8(i8[::1])")
def scratch_size(widths: Any) -> int:
    """Floats one thread needs for networks of these widths."""
    total = TILE * padded(widths[0])
    for layer in range(len(widths) - 1):
        wide, narrow = padded(widths[layer]), padded(widths[layer + 1])
        total += 3 * wide * narrow + 2 * narrow + 3 * TILE * narrow + TILE * wide + 8 * LINE // 4
    return total + 64


@compiled("void(i8, i8, i8, i8, i8)")
def copy_rows(source: int, source_row: int, target: int, rows: int, columns: int) -> None:
    """Packed rows at `source` (row stride in floats) -> rows padded to LANE at `target`, zeros behind."""
    wide = padded(columns)
    for i in range(rows):
        copy_row(source + 4 * i * source_row, target + 4 * i * wide, columns)
        out = floats(target + 4 * i * wide, wide)
        for j in range(columns, wide):
            out[j] = np.float32(0)


@compiled("void(i8, i4[::1], i4[::1], i8, i8, i8, i8, i8, i8)")
def gather_rows(
    x: int, source: Any, goal: Any, start: int, rows: int, width: int, target: int, out: int, answer: int
) -> None:
    """Rows source[start : start + rows] of x [., width] -> rows of the padded width at `target`; pads are left.

    Rows that are AHEAD, of x and (goal) of out [., answer], are asked for: they lie anywhere in memory, and the wait
    for them would be longer than the work on them.
    """
    wide = padded(width)
    for i in range(rows):
        later = start + i + AHEAD
        if later < len(source):
            prefetch_row(x + 4 * np.int64(source[later]) * width, width)
            prefetch_row(out + 4 * np.int64(goal[later]) * answer, answer)
        copy_row(x + 4 * np.int64(source[start + i]) * width, target + 4 * i * wide, width)


@compiled("void(i8, i4[::1], i8, i8, i8, i8, i8)")
def scatter_rows(values: int, target: Any, start: int, rows: int, width: int, out: int, scatter: int) -> None:
    """Rows of the padded width at `values` -> rows target[start : start + rows] of out; without scatter, in order."""
    wide = padded(width)
    for i in range(rows):
        at = np.int64(target[start + i]) if scatter else start + i
        copy_row(values + 4 * i * wide, out + 4 * at * width, width)


@compiled("void(i8, i8, i8, i8)")
def transpose(source: int, target: int, rows: int, columns: int) -> None:
    """source [rows, columns] packed -> target [columns, rows padded to LANE], zeros behind."""
    wide = padded(rows)
    values, out = floats(source, rows * columns), floats(target, wide * columns)
    for j in range(columns):
        for i in range(rows):
            out[j * wide + i] = values[i * columns + j]
        for i in range(rows, wide):
            out[j * wide + i] = np.float32(0)


@compiled("void(i8[:, ::1], i8[::1], i8[::1], i8, i8, i8, i8[:, ::1])")
def load_module(table: Any, widths: Any, base: Any, module: int, backward: int, need_x: int, place: Any) -> None:
    """Say where each layer's weight and the rest lie for this module, packing what must be packed.

    `base` [layers] is each layer's own scratch. `place` [layers, 8] gets the addresses: weight (padded rows), its
    transpose, padded bias, weight gradient, bias gradient, values before the activation, after it, their gradient.
    """
    for layer in range(len(widths) - 1):
        wide, narrow = widths[layer], widths[layer + 1]
        wide8, narrow8 = padded(wide), padded(narrow)
        weight = table[WEIGHT, layer] + 4 * module * wide * narrow
        at = base[layer]
        place[layer, 0] = weight
        if narrow8 != narrow:
            copy_rows(weight, narrow, at, wide, narrow)
            place[layer, 0] = at
        at = aligned(at + 4 * wide8 * narrow8)
        place[layer, 1] = at
        if backward and (layer or need_x):
            transpose(weight, at, wide, narrow)
        at = aligned(at + 4 * wide8 * narrow8)
        place[layer, 3] = at
        at = aligned(at + 4 * wide8 * narrow8)
        place[layer, 4] = at
        place[layer, 2] = at + 4 * narrow8
        fill_bias(table[BIAS, layer] + 4 * module * narrow if table[BIAS, layer] else 0, place[layer, 2], 1, narrow)
        at = aligned(at + 4 * 2 * narrow8)
        if backward:
            gradient = floats(place[layer, 3], wide8 * narrow8)
            for j in range(wide8 * narrow8):
                gradient[j] = np.float32(0)
            gradient = floats(place[layer, 4], narrow8)
            for j in range(narrow8):
                gradient[j] = np.float32(0)
        place[layer, 5] = at
        at = aligned(at + 4 * TILE * narrow8)
        place[layer, 6] = at
        at = aligned(at + 4 * TILE * narrow8)
        place[layer, 7] = at


@compiled("void(i8[:, ::1], i8[::1], i8, i8, i8, i8, i8)")
def forward_tile(place: Any, widths: Any, x: int, x_row: int, rows: int, activation: int, keep: int) -> None:
    """Run `rows` rows (address x, row stride in floats) through all layers.

    With `keep` the values before the activation stay at place[., 5], those after it at place[., 6]; without, both are
    at place[., 5]. The last layer has no activation: its answer is at place[last, 5].
    """
    layers = len(widths) - 1
    for layer in range(layers):
        narrow = padded(widths[layer + 1])
        multiply_from(
            place[layer, 2], 0, x, x_row, 1, place[layer, 0], narrow, place[layer, 5], narrow, rows, narrow,
            widths[layer],
        )  # fmt: skip
        x, x_row = place[layer, 5], narrow
        if layer + 1 < layers:
            values = floats(x, rows * narrow)
            if keep:
                after = floats(place[layer, 6], rows * narrow)
                for j in range(rows * narrow):
                    after[j] = values[j]
                values, x = after, place[layer, 6]
            activate(values, activation)


@compiled("void(i8[:, ::1], i8[::1], i8, i8, i8, i8, i8)")
def backward_tile(place: Any, widths: Any, x: int, x_row: int, rows: int, activation: int, d_x: int) -> None:
    """Add this tile to the weight gradients; the gradient of the answers is at place[last, 7].

    d_x: where the gradient by x goes, [rows, padded width], or 0.
    """
    for layer in range(len(widths) - 2, -1, -1):
        wide, narrow = widths[layer], padded(widths[layer + 1])
        gradient = place[layer, 7]
        source, source_row = (place[layer - 1, 6], padded(wide)) if layer else (x, x_row)
        multiply(source, 1, source_row, gradient, narrow, place[layer, 3], narrow, wide, narrow, rows)
        total, values = floats(place[layer, 4], narrow), floats(gradient, rows * narrow)
        for i in range(rows):
            for j in range(narrow):
                total[j] += values[i * narrow + j]
        target = place[layer - 1, 7] if layer else d_x
        if target:
            wide8 = padded(wide)
            fill_bias(0, target, rows, wide)
            multiply(gradient, narrow, 1, place[layer, 1], wide8, target, wide8, rows, wide8, widths[layer + 1])
            if layer:
                count = rows * wide8
                activate_gradient(floats(place[layer - 1, 5], count), floats(target, count), activation)


@numba.njit(**INLINE)
def layer_bases(widths: Any, start: Any, base: Any) -> Any:
    """Each layer's part of the scratch at address `start`; returns the address behind them."""
    for layer in range(len(widths) - 1):
        base[layer] = start
        wide, narrow = padded(widths[layer]), padded(widths[layer + 1])
        start += 4 * (3 * wide * narrow + 2 * narrow + 3 * TILE * narrow) + 7 * LINE
        start = aligned(start)
    return start


@compiled("void(i8, i8, i4[::1], i4[::1], i4[::1], i8, i8, i8[:, ::1], i8[::1], i8, i8, i8)")
def forward_modules(
    low: int,
    high: int,
    offsets: Any,
    source: Any,
    target: Any,
    x: int,
    gather: int,
    table: Any,
    widths: Any,
    activation: int,
    out: int,
    scratch: int,
) -> None:
    """Modules low .. high - 1: rows `source` of x (if gather; else positions) -> rows `target` of out."""
    layers = len(widths) - 1
    base, place = np.zeros(LAYERS, np.int64), np.zeros((LAYERS, 8), np.int64)
    tile = layer_bases(widths, scratch, base)
    width, answer = widths[0], widths[layers]
    for module in range(low, high):
        start, stop = np.int64(offsets[module]), np.int64(offsets[module + 1])
        if start == stop:
            continue
        load_module(table, widths, base, module, 0, 0, place)
        while start < stop:
            rows = min(TILE, stop - start)
            values, row = x + 4 * start * width, width
            if gather:
                gather_rows(x, source, target, start, rows, width, tile, out, answer)
                values, row = tile, padded(width)
            else:
                for later in range(start + rows, min(start + rows + TILE, len(source))):
                    prefetch_row(x + 4 * later * width, width)
            forward_tile(place, widths, values, row, rows, activation, 0)
            scatter_rows(place[layers - 1, 5], target, start, rows, answer, out, gather)
            start += rows


@numba.njit(**INLINE)
def row_loss(kind: Any, answers: Any, target: Any, label: Any, share: Any, gradient: Any, count: Any) -> Any:
    """Loss of one row and `share` times its gradient; answers, gradient: [padded], the first `count` are real."""
    loss = np.float32(0)
    if kind == MSE:
        scale = ONE / np.float32(count)
        for j in range(count):
            gap = answers[j] - target[j]
            loss += gap * gap
            gradient[j] = np.float32(2) * gap * scale * share
        return loss * scale
    if kind == LOGISTIC:
        scale = ONE / np.float32(count)
        for j in range(count):
            # log(1 + exp(a)) - a t, stable for both signs
            size = abs(answers[j])
            loss += np.log1p(exp32(-size)) + max(answers[j], np.float32(0)) - answers[j] * target[j]
            gradient[j] = (sigmoid32(answers[j]) - target[j]) * scale * share
        return loss * scale
    top = answers[0]
    for j in range(1, count):
        top = answers[j] if answers[j] > top or answers[j] != answers[j] else top
    for j in range(count):
        gradient[j] = exp32(answers[j] - top)
    total = sum_row(gradient.ctypes.data, count)
    for j in range(count):
        gradient[j] *= share / total
    gradient[label] -= share
    return top + np.log(total) - answers[label]


@compiled("void(i8[:, ::1], i8[::1], i8[:, ::1], i8, i8, f8, f8[::1])")
def finish_module(table: Any, widths: Any, place: Any, module: int, step: int, lr: float, rule: Any) -> None:
    """Take this module's gradients out of the scratch: into the gradient tensors, or (step > 0) into an Adam update.

    rule: beta1, beta2, eps, weight decay.
    """
    for layer in range(len(widths) - 1):
        wide, narrow = widths[layer], widths[layer + 1]
        narrow8 = padded(narrow)
        if narrow8 != narrow:  # close the gaps, in place: rows only move towards the front
            values = floats(place[layer, 3], wide * narrow8)
            for i in range(1, wide):
                for j in range(narrow):
                    values[i * narrow + j] = values[i * narrow8 + j]
        for part in range(2):
            count = wide * narrow if part == 0 else narrow
            if table[WEIGHT + part, layer] == 0:
                continue
            gradient, shift = place[layer, 3 + part], 4 * module * count
            if step == 0:
                if table[D_WEIGHT + part, layer]:
                    source, out = floats(gradient, count), floats(table[D_WEIGHT + part, layer] + shift, count)
                    for j in range(count):
                        out[j] = source[j]
                continue
            adam(
                table[WEIGHT + part, layer] + shift,
                gradient,
                table[FIRST_WEIGHT + part, layer] + shift,
                table[SECOND_WEIGHT + part, layer] + shift,
                count,
                step,
                lr,
                rule,
            )


@compiled(
    "void(i8, i8, i4[::1], i4[::1], i4[::1], i8, i8, i8[:, ::1], i8[::1], i8, i8, i8, i8, i8, i8[::1], f4[::1],"
    " i8[::1], f8[::1], f8[::1])",
)
def backward_modules(
    low: int,
    high: int,
    offsets: Any,
    source: Any,
    target: Any,
    x: int,
    gather: int,
    table: Any,
    widths: Any,
    activation: int,
    d_x: int,
    scratch: int,
    loss_kind: int,
    given: int,
    labels: Any,
    losses: Any,
    steps: Any,
    rates: Any,
    rule: Any,
) -> None:
    """Modules low .. high - 1: gradients (loss_kind GIVEN, of answers at `given`) or a whole training step.

    given: gradients of the answers [N, D] in pair order, or targets [T, D]. d_x: gradient by x [N, D0] in pair order,
    or 0. losses, steps, rates are read and written for a training step only.
    """
    layers = len(widths) - 1
    base, place = np.zeros(LAYERS, np.int64), np.zeros((LAYERS, 8), np.int64)
    tile = layer_bases(widths, scratch, base)
    width, width8, answer, answer8 = widths[0], padded(widths[0]), widths[layers], padded(widths[layers])
    d_tile = tile + 4 * TILE * width8 if d_x else 0
    for module in range(low, high):
        start, stop = np.int64(offsets[module]), np.int64(offsets[module + 1])
        if start == stop:
            continue
        load_module(table, widths, base, module, 1, 1 if d_x else 0, place)
        share = ONE / np.float32(stop - start)
        while start < stop:
            rows = min(TILE, stop - start)
            values, row = x + 4 * start * width, width
            if gather:
                gather_rows(x, source, target, start, rows, width, tile, given, answer)
                values, row = tile, width8
            if layers > 1 or loss_kind != GIVEN:
                forward_tile(place, widths, values, row, rows, activation, 1)
            for i in range(rows):
                at = np.int64(target[start + i]) if gather else start + i
                gradient = floats(place[layers - 1, 7] + 4 * i * answer8, answer8)
                for j in range(answer, answer8):
                    gradient[j] = np.float32(0)
                if loss_kind == GIVEN:
                    copy_row(given + 4 * at * answer, place[layers - 1, 7] + 4 * i * answer8, answer)
                else:
                    answers = floats(place[layers - 1, 5] + 4 * i * answer8, answer8)
                    wanted = floats(given + 4 * at * answer, answer)
                    label = labels[at] if loss_kind == SOFTMAX else 0
                    losses[at] = row_loss(loss_kind, answers, wanted, label, share, gradient, answer)
            backward_tile(place, widths, values, row, rows, activation, d_tile)
            if d_x:
                scatter_rows(d_tile, target, start, rows, width, d_x, gather)
            start += rows
        step, lr = 0, 0.0
        if loss_kind != GIVEN:
            steps[module] += 1
            step, lr = steps[module], rates[module]
        finish_module(table, widths, place, module, step, lr, rule)


@compiled(
    "void(i8[::1], i4[::1], i4[::1], i4[::1], i8, i8, i8[:, ::1], i8[::1], i8, i8, f4[:, ::1])",
    parallel=True,
)
def forward(
    borders: Any,
    offsets: Any,
    source: Any,
    target: Any,
    x: int,
    gather: int,
    table: Any,
    widths: Any,
    activation: int,
    out: int,
    scratch: Any,
) -> None:
    for c in numba.prange(len(borders) - 1):
        memory = aligned(scratch[c].ctypes.data)
        forward_modules(
            borders[c], borders[c + 1], offsets, source, target, x, gather, table, widths, activation, out, memory
        )


@compiled(
    "void(i8[::1], i4[::1], i4[::1], i4[::1], i8, i8, i8[:, ::1], i8[::1], i8, i8, f4[:, ::1], i8, i8, i8[::1],"
    " f4[::1], i8[::1], f8[::1], f8[::1])",
    parallel=True,
)
def backward(
    borders: Any,
    offsets: Any,
    source: Any,
    target: Any,
    x: int,
    gather: int,
    table: Any,
    widths: Any,
    activation: int,
    d_x: int,
    scratch: Any,
    loss_kind: int,
    given: int,
    labels: Any,
    losses: Any,
    steps: Any,
    rates: Any,
    rule: Any,
) -> None:
    for c in numba.prange(len(borders) - 1):
        memory = aligned(scratch[c].ctypes.data)
        backward_modules(
            borders[c], borders[c + 1], offsets, source, target, x, gather, table, widths, activation, d_x, memory,
            loss_kind, given, labels, losses, steps, rates, rule,
        )  # fmt: skip
