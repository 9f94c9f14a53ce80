"""Primitives: they say what their names say, and mirror exactly."""

from __future__ import annotations

import numpy as np
import pytest

from ontology.errors import ConstructibleError
from vision.bank import CHANNELS, GRID, REACH, mirror, primitives
from vision.part_world import draw_set

PLAIN = {"red": (220, 30, 30), "green": (40, 180, 60), "blue": (30, 60, 210), "yellow": (230, 225, 40),
         "white": (250, 250, 250), "grey": (128, 128, 128), "black": (8, 8, 8)}  # fmt: skip


def picture(colour: tuple[int, int, int], side: int = 64) -> np.ndarray:
    return np.full((1, side, side, 3), colour, dtype=np.uint8)


@pytest.mark.parametrize("name", PLAIN)
def test_a_plain_colour_is_its_own_strongest_channel_and_has_no_edges(name: str):
    maps = primitives(picture(PLAIN[name]))[0].astype(int)
    means = {channel: maps[i].mean() for i, channel in enumerate(CHANNELS)}
    colours = [c for c in CHANNELS if c in PLAIN or c in ("orange", "cyan", "purple", "pink", "brown")]
    assert max(colours, key=means.__getitem__) == name
    assert all(means[c] == 0 for c in CHANNELS if c.startswith(("edge", "light_", "dark_")) or "spread" in c)


def test_edges_have_the_direction_of_their_gradient():
    upright = np.zeros((1, 64, 64, 3), dtype=np.uint8)
    upright[:, :, 30:] = 255  # dark left, light right: the gradient points along x
    maps = primitives(upright)[0]
    fine = {c: int(maps[i].max()) for i, c in enumerate(CHANNELS) if c.startswith("edge_fine")}
    assert max(fine, key=fine.__getitem__) == "edge_fine_0" and fine["edge_fine_180"] == 0
    middle = {c: int(maps[i].max()) for i, c in enumerate(CHANNELS) if c.startswith("edge_middle")}
    assert max(middle, key=middle.__getitem__) == "edge_middle_0"


def test_mirrored_maps_are_the_maps_of_the_mirrored_picture():
    pixels = np.stack([d.pixels for d in draw_set("train", 1, classes=["bee", "tram", "cat"])])
    ours = mirror(primitives(pixels)).astype(int)
    theirs = primitives(np.ascontiguousarray(pixels[:, :, ::-1])).astype(int)
    assert np.abs(ours - theirs).max() <= 2


def test_no_channel_looks_farther_than_it_says():
    rng = np.random.default_rng(0)
    base = rng.integers(0, 256, (1, 64, 64, 3), dtype=np.uint8)
    before = primitives(base)[0].astype(int)
    y, x = 30, 33
    changed = base.copy()
    changed[0, y, x] = 255 - changed[0, y, x]
    moved = primitives(changed)[0].astype(int) != before
    cell = 64 // GRID
    for i, reach in enumerate(REACH):
        rows, columns = np.nonzero(moved[i])
        for row, column in zip(rows, columns, strict=True):
            for place, at in ((row, y), (column, x)):
                away = max(place * cell - at, at - (place * cell + cell - 1), 0)
                assert away <= reach * 64 / 2 + 1e-9, (CHANNELS[i], away)


def test_larger_pictures_and_wrong_shapes():
    assert primitives(picture((10, 200, 10), 128)).shape == (1, len(CHANNELS), GRID, GRID)
    assert primitives(np.zeros((0, 64, 64, 3), np.uint8)).shape[0] == 0
    with pytest.raises(ConstructibleError, match="no primitives. Fix: use a side of 64, 128"):
        primitives(np.zeros((1, 50, 50, 3), np.uint8))
