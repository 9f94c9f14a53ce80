"""Three convolutions of many small modules, one (image, module) at a time while its values are in cache (numba).

Every convolution is one matrix product X W of `multiply`, in one of three forms:
FIRST   X [cells, R = taps x channels] is read straight from an image, one row of cells and one tap after the other;
PATCHES X [cells, R = taps x channels], each row what one cell sees (the values themselves if k = 1);
TAPS    X [cells, R = channels] times all taps at once, the answers shifted and added: for a layer of few channels out.
Values between layers are channels-last, padded to LANE. A module's gradients are summed over the images in their order
by one thread: results depend neither on the number of threads nor on what else is computed.
"""

# pyright: reportCallIssue=false, reportArgumentType=false
from __future__ import annotations

from typing import Any

import numba
import numpy as np

from kernels.numba_layers import activate, activate_gradient, aligned, fill_bias
from kernels.numba_math import INLINE, compiled
from kernels.numba_panels import add_row, copy_row, floats, multiply

LAYERS = 3
FIRST, PATCHES, TAPS = 0, 1, 2
# Columns of the geometry table, one row per layer: channels, kernel, stride, sizes, form; whether X is a copy; the
# product's sizes (ROWS of X, R summed, Q columns; RP: R padded; LENGTH: rows of the transposed weight); strides of a
# weight's channel and tap in W and in its transpose, and of the channel out in the transpose; WIDTH of z.
(IN, OUT, KERNEL, STRIDE, H_IN, W_IN, H_OUT, W_OUT, FORM, COPY, ROWS, R, Q, RP, LENGTH, BY_IN, BY_TAP,
 T_IN, T_TAP, T_OUT, WIDTH, GEOMETRY) = range(22)  # fmt: skip
# Columns of the table of addresses, one row per layer: packed weight, its transpose, bias, gradients of both, X, values
# before and after the activation, gradient of the values, gradient of X, answers of all taps.
WEIGHT, TRANSPOSE, BIAS, D_WEIGHT, D_BIAS, X, Z, AFTER, D_Z, D_X, TAP, PLACES = range(12)


@numba.njit(**INLINE)
def zero(address: Any, count: Any) -> None:
    values = floats(address, count)
    for j in range(count):
        values[j] = np.float32(0)


@compiled("void(i8, i8, i8[::1], i8, i8, i8, i8)")
def pack(weight: int, target: int, g: Any, count: int, by_in: int, by_tap: int, by_out: int) -> None:
    """weight [out, in, taps] -> target[in * by_in + tap * by_tap + out * by_out] of `count` floats, zeros elsewhere."""
    zero(target, count)
    taps = g[KERNEL] * g[KERNEL]
    values, out = floats(weight, g[OUT] * g[IN] * taps), floats(target, count)
    for o in range(g[OUT]):
        for c in range(g[IN]):
            for t in range(taps):
                out[c * by_in + t * by_tap + o * by_out] = values[(o * g[IN] + c) * taps + t]


@compiled("void(i8, i8, i8[::1])")
def unpack(gradient: int, target: int, g: Any) -> None:
    """The reverse of `pack`, for a gradient laid out as W."""
    taps = g[KERNEL] * g[KERNEL]
    values, out = floats(gradient, g[R] * g[Q]), floats(target, g[OUT] * g[IN] * taps)
    for o in range(g[OUT]):
        for c in range(g[IN]):
            for t in range(taps):
                out[(o * g[IN] + c) * taps + t] = values[c * g[BY_IN] + t * g[BY_TAP] + o]


@numba.njit(**INLINE)
def inside(g: Any, d: Any, n_in: Any, n_out: Any) -> Any:
    """Range of places out, for one shift d of the kernel, whose place in lies inside."""
    shift, stride = d - g[KERNEL] // 2, g[STRIDE]
    low = max(0, (stride - 1 - shift) // stride)
    high = min(n_out, (n_in - 1 - shift) // stride + 1)
    return shift, low, max(low, high)


@compiled("void(i8, i8, i8[::1])")
def widen(image: int, target: int, g: Any) -> None:
    """image [in, H, W] -> target [in, H + k - 1, W + k - 1], zeros around."""
    k = g[KERNEL]
    wide = g[W_IN] + k - 1
    plane = (g[H_IN] + k - 1) * wide
    zero(target, g[IN] * plane)
    for c in range(g[IN]):
        for y in range(g[H_IN]):
            to = c * plane + (y + k // 2) * wide + k // 2
            copy_row(image + 4 * (c * g[H_IN] + y) * g[W_IN], target + 4 * to, g[W_IN])


@compiled("void(i8[::1], i8, i8, i8, i8)")
def image_product(g: Any, image: int, weight: int, z: int, back: int) -> None:
    """z [cells, Q] += convolution of an image that `widen` made; `back`: the gradient of the weight from that of z.

    Row by row and tap by tap: what a row of cells sees through one tap lies at one distance in the image.
    """
    k, stride, q, n_in, n_out = g[KERNEL], g[STRIDE], g[Q], g[IN], g[W_OUT]
    wide = g[W_IN] + k - 1
    plane = (g[H_IN] + k - 1) * wide
    if k == 1 and stride == 1:  # all rows at once
        if back:
            multiply(image, plane, 1, z, q, weight, q, n_in, q, plane)
        else:
            multiply(image, 1, plane, weight, q, z, q, plane, q, n_in)
        return
    for y in range(g[H_OUT]):
        row = z + 4 * y * n_out * q
        for t in range(k * k):
            x = image + 4 * ((y * stride + t // k) * wide + t % k)
            w = weight + 4 * t * n_in * q
            if back:
                multiply(x, plane, stride, row, q, w, q, n_in, q, n_out)
            else:
                multiply(x, stride, plane, w, q, row, q, n_out, q, n_in)


@compiled("void(i8, i8, i8[::1])")
def add_to_image(gradient: int, image: int, g: Any) -> None:
    """Gradient of X [cells out, in x taps] -> added to the gradient of an image [in, H, W]."""
    k, stride, cells = g[KERNEL], g[STRIDE], g[H_OUT] * g[W_OUT]
    values, out = floats(gradient, cells * g[RP]), floats(image, g[IN] * g[H_IN] * g[W_IN])
    for c in range(g[IN]):
        for t in range(k * k):
            shift_y, low_y, high_y = inside(g, t // k, g[H_IN], g[H_OUT])
            shift_x, low_x, high_x = inside(g, t % k, g[W_IN], g[W_OUT])
            for y in range(low_y, high_y):
                at = (c * g[H_IN] + y * stride + shift_y) * g[W_IN] + shift_x
                for x in range(low_x, high_x):
                    out[at + x * stride] += values[(y * g[W_OUT] + x) * g[RP] + c * k * k + t]


@compiled("void(i8, i8, i8[::1], i8)")
def patches(values: int, target: int, g: Any, back: int) -> None:
    """values [cells in, width] -> target [cells out, taps x width]; with `back` the reverse, adding up gradients."""
    k, stride = g[KERNEL], g[STRIDE]
    width = g[R] // (k * k)
    zero(values if back else target, g[H_IN] * g[W_IN] * width if back else g[ROWS] * g[R])
    for t in range(k * k):
        shift_y, low_y, high_y = inside(g, t // k, g[H_IN], g[H_OUT])
        shift_x, low_x, high_x = inside(g, t % k, g[W_IN], g[W_OUT])
        for y in range(low_y, high_y):
            at = values + 4 * width * ((y * stride + shift_y) * g[W_IN] + shift_x)
            to = target + 4 * (y * g[W_OUT] * g[R] + t * width)
            for x in range(low_x, high_x):
                if back:
                    add_row(to + 4 * x * g[R], at + 4 * x * stride * width, width)
                else:
                    copy_row(at + 4 * x * stride * width, to + 4 * x * g[R], width)


@compiled("void(i8, i8, i8[::1], i8)")
def shift_taps(z: int, taps: int, g: Any, back: int) -> None:
    """Add the answers of all taps [cells, taps x out] to z [cells, width]; `back`: the gradient of z to all taps."""
    k, width, n = g[KERNEL], g[WIDTH], g[OUT]
    values, out = floats(z, g[ROWS] * width), floats(taps, g[ROWS] * g[Q])
    if back:
        zero(taps, g[ROWS] * g[Q])
    for t in range(k * k):
        shift_y, low_y, high_y = inside(g, t // k, g[H_IN], g[H_OUT])
        shift_x, low_x, high_x = inside(g, t % k, g[W_IN], g[W_OUT])
        for y in range(low_y, high_y):
            for x in range(low_x, high_x):
                to = (y * g[W_OUT] + x) * width
                at = ((y + shift_y) * g[W_IN] + x + shift_x) * g[Q] + t * n
                for o in range(n):
                    if back:
                        out[at + o] = values[to + o]
                    else:
                        values[to + o] += out[at + o]


@compiled("void(i8[::1], i8[::1], i8)")
def product(g: Any, place: Any, back: int) -> None:
    """X W of one layer, to Z (which holds the bias) or TAP; `back`: the gradient of W from that of the product."""
    if g[FORM] == FIRST:
        image_product(g, place[X], place[D_WEIGHT if back else WEIGHT], place[D_Z if back else Z], back)
        return
    rows, r, q = g[ROWS], g[R], g[Q]
    answer = place[TAP] if g[FORM] == TAPS else place[D_Z if back else Z]
    if back:
        multiply(place[X], 1, r, answer, q, place[D_WEIGHT], q, r, q, rows)
    else:
        multiply(place[X], r, 1, place[WEIGHT], q, answer, q, rows, q, r)


@compiled("void(i8[:, ::1], i8[:, ::1], i8, i8, i8)")
def forward_item(g: Any, place: Any, activation: int, known: int, last: int) -> None:
    """One image through one module. known: the values before activations are there; last: run the last product."""
    for layer in range(LAYERS):
        geometry, here = g[layer], place[layer]
        cells = geometry[H_OUT] * geometry[W_OUT]
        if layer and geometry[COPY]:
            patches(place[layer - 1, AFTER], here[X], geometry, 0)
        if (layer < LAYERS - 1 and not known) or (layer == LAYERS - 1 and last):
            fill_bias(here[BIAS], here[Z], cells, geometry[OUT])
            if geometry[FORM] == TAPS:
                zero(here[TAP], geometry[ROWS] * geometry[Q])
            product(geometry, here, 0)
            if geometry[FORM] == TAPS:
                shift_taps(here[Z], here[TAP], geometry, 0)
        if layer < LAYERS - 1:
            count = cells * geometry[WIDTH]
            if here[AFTER] != here[Z]:
                copy_row(here[Z], here[AFTER], count)
            activate(floats(here[AFTER], count), activation)


@compiled("void(i8[:, ::1], i8[:, ::1], i8, i8)")
def backward_item(g: Any, place: Any, activation: int, d_image: int) -> None:
    """Add one image to the gradients of one module; the gradient of the answers is at place[2, D_Z].

    d_image: address of a gradient [in, H, W] to add to, or 0.
    """
    for layer in range(LAYERS - 1, -1, -1):
        geometry, here = g[layer], place[layer]
        width, q, rp, rows = geometry[WIDTH], geometry[Q], geometry[RP], geometry[ROWS]
        for i in range(geometry[H_OUT] * geometry[W_OUT]):
            add_row(here[D_Z] + 4 * i * width, here[D_BIAS], width)
        right = here[D_Z]
        if geometry[FORM] == TAPS:
            right = here[TAP]
            shift_taps(here[D_Z], right, geometry, 1)
        product(geometry, here, 1)
        if layer == 0 and d_image == 0:
            return
        zero(here[D_X], rows * rp)
        multiply(right, q, 1, here[TRANSPOSE], rp, here[D_X], rp, rows, rp, geometry[LENGTH])
        if layer == 0:
            add_to_image(here[D_X], d_image, geometry)
            return
        if geometry[COPY]:
            patches(place[layer - 1, D_Z], here[D_X], geometry, 1)
        count = g[layer - 1, H_OUT] * g[layer - 1, W_OUT] * g[layer - 1, WIDTH]
        activate_gradient(floats(place[layer - 1, Z], count), floats(place[layer - 1, D_Z], count), activation)


@compiled("void(i8, i8, i8[::1], i8)")
def turn(z: int, packed: int, g: Any, back: int) -> None:
    """Answers z [cells, width] -> packed [out, cells]; `back`: the reverse, zeros in the padding."""
    cells, width = g[H_OUT] * g[W_OUT], g[WIDTH]
    values, out = floats(z, cells * width), floats(packed, g[OUT] * cells)
    if back:
        zero(z, cells * width)
    for o in range(g[OUT]):
        for i in range(cells):
            if back:
                values[i * width + o] = out[o * cells + i]
            else:
                out[o * cells + i] = values[i * width + o]


@compiled(
    "void(i8[::1], i8[:, ::1], i8[:, ::1], i8[:, ::1], i8, i8[:, ::1], i8, i8, i8, i8, i8, i8, i8, i8, i8, i8, i8, i8)"
)
def run_part(
    part: Any, g: Any, slots: Any, items: Any, slot_size: int, table: Any, n_modules: int, block: int, images: int,
    shared: int, activation: int, out: int, saved: int, saved_size: int, d_images: int, backward: int, known: int,
    scratch: int,
) -> None:  # fmt: skip
    """Modules part[0] .. part[1] on images part[2] .. part[3], `block` modules at a time; see `run`."""
    place = np.zeros((block, LAYERS, PLACES), np.int64)
    pixels, cells = g[0, IN] * g[0, H_IN] * g[0, W_IN], g[2, H_OUT] * g[2, W_OUT]
    for first in range(part[0], part[1], block):
        count = min(block, part[1] - first)
        for s in range(count):
            for layer in range(LAYERS):
                for j in range(PLACES):
                    if slots[layer, j] >= 0:
                        place[s, layer, j] = scratch + 4 * (s * slot_size + slots[layer, j])
                    elif items[layer, j] >= 0:
                        place[s, layer, j] = scratch + 4 * items[layer, j]
                geometry, m = g[layer], first + s
                size = geometry[OUT] * geometry[IN] * geometry[KERNEL] * geometry[KERNEL]
                weight = table[WEIGHT, layer] + 4 * m * size
                place[s, layer, BIAS] = table[BIAS, layer] + 4 * m * geometry[OUT] if table[BIAS, layer] else 0
                total, turned = geometry[R] * geometry[Q], geometry[LENGTH] * geometry[RP]
                pack(weight, place[s, layer, WEIGHT], geometry, total, geometry[BY_IN], geometry[BY_TAP], 1)
                if backward:
                    strides = geometry[T_IN], geometry[T_TAP], geometry[T_OUT]
                    pack(weight, place[s, layer, TRANSPOSE], geometry, turned, strides[0], strides[1], strides[2])
                    zero(place[s, layer, D_WEIGHT], total)
                    zero(place[s, layer, D_BIAS], geometry[WIDTH])
        for b in range(part[2], part[3]):
            for s in range(count):
                at = b * n_modules + first + s
                image = images + 4 * pixels * (b if shared else at)
                p = place[s]
                if not g[0, COPY]:
                    p[0, X] = image
                elif s == 0 or not shared:
                    widen(image, p[0, X], g[0])
                if saved:
                    p[0, Z] = saved + 4 * at * saved_size
                    p[1, Z] = p[0, Z] + 4 * g[0, H_OUT] * g[0, W_OUT] * g[0, WIDTH]
                forward_item(g, p, activation, known, 0 if backward else 1)
                answers = out + 4 * at * g[2, OUT] * cells
                turn(p[2, D_Z] if backward else p[2, Z], answers, g[2], backward)
                if backward:
                    backward_item(g, p, activation, d_images + 4 * pixels * at if d_images else 0)
        for s in range(count if backward else 0):
            for layer in range(LAYERS):
                n_out, m = g[layer, OUT], first + s
                size = n_out * g[layer, IN] * g[layer, KERNEL] * g[layer, KERNEL]
                if table[D_WEIGHT, layer]:
                    unpack(place[s, layer, D_WEIGHT], table[D_WEIGHT, layer] + 4 * m * size, g[layer])
                if table[D_BIAS, layer]:
                    copy_row(place[s, layer, D_BIAS], table[D_BIAS, layer] + 4 * m * n_out, n_out)


@compiled(
    "void(i8[:, ::1], i8[:, ::1], i8[:, ::1], i8[:, ::1], i8, i8[:, ::1], i8, i8, i8, i8, i8, i8, i8, i8, i8, i8, i8,"
    " f4[:, ::1])",
    parallel=True,
)
def run(
    parts: Any, g: Any, slots: Any, items: Any, slot_size: int, table: Any, n_modules: int, block: int, images: int,
    shared: int, activation: int, out: int, saved: int, saved_size: int, d_images: int, backward: int, known: int,
    scratch: Any,
) -> None:  # fmt: skip
    """All parts (first and last module, first and last image), one per thread with scratch memory of its own.

    g: geometry. slots, items: where in the scratch memory a module's and an image's tables lie, in floats; -1: not
    there. table: addresses of weights, biases and their gradients, by layer; 0 where there is none. out: answers
    [B, M, OUT, H, W], or their gradient if `backward`. saved: values before the activations [B, M, saved_size], written
    by the forward pass and (known) read by the backward pass, or 0. d_images: gradient of the images, zeros, or 0.
    """
    for c in numba.prange(len(parts)):
        run_part(
            parts[c], g, slots, items, slot_size, table, n_modules, block, images, shared, activation, out, saved,
            saved_size, d_images, backward, known, aligned(scratch[c].ctypes.data),
        )  # fmt: skip
