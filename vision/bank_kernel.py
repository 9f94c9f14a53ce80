"""The loops behind `vision.bank`, compiled with numba: one pass over a picture's pixels per scale."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from numba import njit

from kernels.numba_cache import cache_by_sources, fingerprint
from vision.bank import GRID, HUES, SIGNED, UNSIGNED

_SOURCES = fingerprint([Path(__file__), Path(__file__).with_name("bank.py")])
_HUE = np.array([hue for _, hue in HUES], dtype=np.float32)
_N_HUES = len(HUES)
_DEGREES = np.float32(180 / math.pi)


def compiled(function: Any) -> Any:
    """Compile on first call, or load what an earlier process compiled; lets go of the interpreter's lock."""
    return cache_by_sources(njit(nogil=True)(function), _SOURCES)


@compiled
def _put(out, channel, sums, scale, offset, power_half):  # [16, 16] sums of a channel to bytes
    for i in range(GRID):
        for j in range(GRID):
            value = sums[i, j] * scale
            if power_half:
                value = math.sqrt(max(value, 0.0))
            out[channel, i, j] = np.uint8(min(255.0, max(0.0, (value + offset) * 255.0 + 0.5)))


@compiled
def _clip(x):
    return min(np.float32(1.0), max(np.float32(0.0), x))


@compiled
def _apart(angle, hue):  # degrees from an angle in [-180, 180] to a hue in [0, 360); "%" is ten times slower
    apart = abs(angle - hue)
    if apart > np.float32(360.0):
        apart -= np.float32(360.0)
    return min(apart, np.float32(360.0) - apart)


@compiled
def _colour_maps(pixels, grey, out):  # channels 0 .. 17
    side = grey.shape[0]
    cell = side // GRID
    sums = np.zeros((18, GRID, GRID), dtype=np.float32)
    for y in range(side):
        for x in range(side):
            r = np.float32(pixels[y, x, 0]) / np.float32(255.0)
            g = np.float32(pixels[y, x, 1]) / np.float32(255.0)
            b = np.float32(pixels[y, x, 2]) / np.float32(255.0)
            i, j = y // cell, x // cell
            light = (r + g + b) / np.float32(3.0)
            grey[y, x] = light
            rg, by = (r - g) * np.float32(0.5), b * np.float32(0.5) - (r + g) * np.float32(0.25)
            sums[0, i, j] += light
            sums[1, i, j] += rg
            sums[2, i, j] += by
            sums[3, i, j] += light * light
            sums[4, i, j] += rg * rg
            sums[5, i, j] += by * by
            high, low = max(r, g, b), min(r, g, b)
            # A pixel has a hue where it is neither grey nor dark.
            vivid = _clip(((high - low) / max(high, np.float32(1e-3)) - np.float32(0.12)) * np.float32(3.0))
            vivid *= _clip(high * np.float32(4.0) - np.float32(0.4))
            if vivid > 0.0:
                angle = math.atan2(np.float32(1.7320508) * (g - b), np.float32(2.0) * r - g - b) * _DEGREES
                for h in range(_N_HUES):
                    apart = _apart(angle, _HUE[h])
                    if apart < 35.0:
                        sums[6 + h, i, j] += (np.float32(1.0) - apart / np.float32(35.0)) * vivid
                warm = _apart(angle, np.float32(25.0))
                if warm < 30.0:
                    dark = _clip(np.float32(1.6) - np.float32(2.4) * high)
                    sums[14, i, j] += (np.float32(1.0) - warm / np.float32(30.0)) * vivid * dark
            plain = np.float32(1.0) - vivid
            sums[15, i, j] += plain * _clip(high * np.float32(4.0) - np.float32(2.8))
            sums[16, i, j] += plain * _clip(np.float32(1.0) - abs(high - np.float32(0.5)) * np.float32(3.3))
            sums[17, i, j] += _clip(np.float32(1.2) - np.float32(4.0) * high)
    share = np.float32(1.0 / (cell * cell))
    for c in range(3):
        for i in range(GRID):
            for j in range(GRID):
                mean = sums[c, i, j] * share
                sums[3 + c, i, j] = max(sums[3 + c, i, j] * share - mean * mean, np.float32(0.0))
    _put(out, 0, sums[0], share, 0.0, False)
    # Chroma varies less than lightness: stretched so that a byte can hold it.
    _put(out, 1, sums[1], 2 * share, 0.5, False)
    _put(out, 2, sums[2], 2 * share, 0.5, False)
    _put(out, 3, sums[3], 6.25, 0.0, True)
    _put(out, 4, sums[4], 64.0, 0.0, True)
    _put(out, 5, sums[5], 64.0, 0.0, True)
    for c in range(6, 18):
        _put(out, c, sums[c], share, 0.0, False)


@compiled
def _edge_maps(plane, bins, period, first, out):  # edge energy by direction, relative to the contrast of the cell
    side = plane.shape[0]
    cell = side // GRID
    sums = np.zeros((bins, GRID, GRID), dtype=np.float32)
    width = np.float32(period / bins)
    for y in range(side):
        above, below = max(y - 1, 0), min(y + 1, side - 1)
        for x in range(side):
            left, right = max(x - 1, 0), min(x + 1, side - 1)
            dx = (plane[above, right] - plane[above, left]) + np.float32(2.0) * (plane[y, right] - plane[y, left])
            dx += plane[below, right] - plane[below, left]
            dy = (plane[below, left] - plane[above, left]) + np.float32(2.0) * (plane[below, x] - plane[above, x])
            dy += plane[below, right] - plane[above, right]
            size = math.sqrt(dx * dx + dy * dy) / np.float32(8.0)
            if size < 1e-4:
                continue
            turned = math.atan2(dy, dx) * _DEGREES
            while turned < 0.0:
                turned += np.float32(period)
            place = (turned - np.float32(period) if turned >= period else turned) / width
            low = int(place)
            share = place - low
            i, j = y // cell, x // cell
            sums[low % bins, i, j] += (np.float32(1.0) - share) * size
            sums[(low + 1) % bins, i, j] += share * size
    share = np.float32(1.0 / (cell * cell))
    for i in range(GRID):
        for j in range(GRID):
            whole = np.float32(0.0)
            for k in range(bins):
                whole += sums[k, i, j] * share
            for k in range(bins):
                sums[k, i, j] = sums[k, i, j] * share / (whole + np.float32(0.03))
    for k in range(bins):
        _put(out, first + k, sums[k], 1.0, 0.0, True)


@compiled
def _half(plane):
    side = plane.shape[0] // 2
    out = np.empty((side, side), dtype=np.float32)
    for y in range(side):
        for x in range(side):
            out[y, x] = np.float32(0.25) * (
                plane[2 * y, 2 * x] + plane[2 * y + 1, 2 * x] + plane[2 * y, 2 * x + 1] + plane[2 * y + 1, 2 * x + 1]
            )
    return out


@compiled
def _blur(plane, weights):  # weights of 0 .. reach pixels away
    side, reach = plane.shape[0], len(weights) - 1
    across = np.empty_like(plane)
    for y in range(side):
        for x in range(side):
            value = weights[0] * plane[y, x]
            for d in range(1, reach + 1):
                value += weights[d] * (plane[y, max(x - d, 0)] + plane[y, min(x + d, side - 1)])
            across[y, x] = value
    out = np.empty_like(plane)
    for y in range(side):
        for x in range(side):
            value = weights[0] * across[y, x]
            for d in range(1, reach + 1):
                value += weights[d] * (across[max(y - d, 0), x] + across[min(y + d, side - 1), x])
            out[y, x] = value
    return out


def _gauss(sigma: float, reach: int) -> np.ndarray:
    line = np.exp(-0.5 * (np.arange(reach + 1) / sigma) ** 2)
    return (line / (line[0] + 2 * line[1:].sum())).astype(np.float32)


NARROW, WIDE = _gauss(1.0, 3), _gauss(1.6, 4)


@compiled
def _spot_maps(plane, first, out):  # lighter or darker than the surroundings
    side = plane.shape[0]
    cell = side // GRID
    narrow, wide = _blur(plane, NARROW), _blur(plane, WIDE)
    sums = np.zeros((2, GRID, GRID), dtype=np.float32)
    for y in range(side):
        for x in range(side):
            d = narrow[y, x] - wide[y, x]
            if d > 0:
                sums[0, y // cell, x // cell] += d
            else:
                sums[1, y // cell, x // cell] -= d
    scale = np.float32(8.0 / (cell * cell))
    _put(out, first, sums[0], scale, 0.0, False)
    _put(out, first + 1, sums[1], scale, 0.0, False)


@compiled
def fill_maps(pixels, out):
    """Fill uint8 out [n, channels, 16, 16] from uint8 pixels [n, side, side, 3]."""
    side = pixels.shape[1]
    for n in range(len(pixels)):
        grey = np.empty((side, side), dtype=np.float32)
        _colour_maps(pixels[n], grey, out[n])
        half = _half(grey)
        quarter = _half(half)
        _edge_maps(grey, SIGNED, 360.0, 18, out[n])
        _edge_maps(half, UNSIGNED, 180.0, 18 + SIGNED, out[n])
        _edge_maps(quarter, UNSIGNED, 180.0, 18 + SIGNED + UNSIGNED, out[n])
        _spot_maps(grey, 18 + SIGNED + 2 * UNSIGNED, out[n])
        _spot_maps(half, 20 + SIGNED + 2 * UNSIGNED, out[n])
