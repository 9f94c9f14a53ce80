"""The primitives: what plain code says about a picture before any net looks at it.

Every feature node reads maps from this bank, a grid of 16 x 16 cells: which colours a cell holds, how its edges are
oriented at three scales, spots and contrast. Nothing here is trained; each channel has a name, and a reach that says
how far beyond its own cell it looks.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt

from ontology.environment import threads
from ontology.errors import ConstructibleError

GRID = 16
"""Cells along a side."""

HUES: tuple[tuple[str, float], ...] = (
    ("red", 0), ("orange", 30), ("yellow", 58), ("green", 115), ("cyan", 180), ("blue", 225), ("purple", 280),
    ("pink", 330),
)  # fmt: skip
SIGNED, UNSIGNED = 8, 6
LEVELS = (("fine", SIGNED, 360.0), ("middle", UNSIGNED, 180.0), ("coarse", UNSIGNED, 180.0))

_GROUPS: tuple[tuple[tuple[str, ...], int], ...] = (
    (("lightness", "red_green", "blue_yellow", "lightness_spread", "red_green_spread", "blue_yellow_spread"), 0),
    ((*(name for name, _ in HUES), "brown", "white", "grey", "black"), 0),
    (tuple(f"edge_fine_{360 * i // SIGNED}" for i in range(SIGNED)), 2),
    (tuple(f"edge_middle_{180 * i // UNSIGNED}" for i in range(UNSIGNED)), 4),
    (tuple(f"edge_coarse_{180 * i // UNSIGNED}" for i in range(UNSIGNED)), 8),
    (("light_spot", "dark_spot"), 8),
    (("light_blob", "dark_blob"), 16),
)
"""Names of channels, and how many pixels of a 64-pixel picture they look at beyond their cell (both sides together)."""

CHANNELS: tuple[str, ...] = tuple(name for names, _ in _GROUPS for name in names)
"""Edges are named by the gradient's direction in degrees; only fine ones tell light-to-dark from dark-to-light."""
REACH: tuple[float, ...] = tuple(reach / 64 for names, reach in _GROUPS for _ in names)
"""What each channel sees beyond its cell, as a fraction of the side."""


def primitives(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Compute the maps of pictures.

    Args:
        pixels: uint8 [n, side, side, 3], side a multiple of 64.

    Returns:
        uint8 [n, channels, 16, 16].

    Raises:
        ConstructibleError: the pictures are of another shape.
    """
    if pixels.ndim != 4 or pixels.shape[1] != pixels.shape[2] or pixels.shape[1] % 64 or pixels.shape[3] != 3:
        raise ConstructibleError(
            f"pictures of shape {list(pixels.shape)} have no primitives.", fix="use a side of 64, 128, 192 ... pixels"
        )
    from vision import bank_kernel

    out = np.zeros((len(pixels), len(CHANNELS), GRID, GRID), dtype=np.uint8)
    borders = np.linspace(0, len(pixels), max(1, min(threads(), len(pixels) // 16)) + 1).astype(int)
    parts = list(zip(borders[:-1], borders[1:], strict=True))
    if len(parts) == 1:
        bank_kernel.fill_maps(np.ascontiguousarray(pixels), out)
        return out
    with ThreadPoolExecutor(len(parts)) as pool:
        jobs = [pool.submit(bank_kernel.fill_maps, np.ascontiguousarray(pixels[a:b]), out[a:b]) for a, b in parts]
        for job in jobs:
            job.result()
    return out


def in_blocks(pixels: npt.NDArray[np.uint8], block: int = 500) -> Iterator[npt.NDArray[np.uint8]]:
    """`primitives` of pictures that may be memory-mapped, so many read and held at a time; one empty block of none."""
    for begin in range(0, max(1, len(pixels)), block):
        yield primitives(np.array(pixels[begin : begin + block]))


def flip_order() -> npt.NDArray[np.int64]:
    """For each channel, the channel that a mirrored picture has in its place (edges change their direction)."""
    order = np.arange(len(CHANNELS))
    index = {name: i for i, name in enumerate(CHANNELS)}
    for level, bins, period in LEVELS:
        step = int(period) // bins
        for i in range(bins):
            mirrored = (180 - i * step) % int(period)
            order[index[f"edge_{level}_{i * step}"]] = index[f"edge_{level}_{mirrored}"]
    return order


def mirror(maps: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """The maps of the mirrored pictures, up to rounding, without looking at the pictures again."""
    return maps[:, flip_order(), :, ::-1]
