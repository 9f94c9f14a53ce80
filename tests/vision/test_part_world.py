"""The part world: what its masks and classes promise."""

from __future__ import annotations

import numpy as np

from vision.concepts import Library
from vision.part_world import CLASSES, PARTS, Tie, draw, draw_set, library_text, mask_array


def test_masks_are_exactly_the_parts_of_the_class():
    for drawing in draw_set("train", 2, seed=3):
        assert set(drawing.masks) == set(CLASSES[drawing.label])
        for part, mask in drawing.masks.items():
            assert mask.shape == (64, 64) and 4 < mask.sum() < 2500, (drawing.label, part)
        x0, y0, x1, y1 = drawing.box
        inside = np.zeros((64, 64), dtype=bool)
        inside[y0 : y1 + 1, x0 : x1 + 1] = True
        assert not any((mask & ~inside).any() for mask in drawing.masks.values())


def test_a_mask_covers_what_changes_when_the_part_is_there(monkeypatch):
    """The same drawing without its windows differs only under their mask (and the noise that follows)."""
    import vision.part_world as world

    with_it = draw("house", np.random.default_rng(5))
    monkeypatch.setitem(world._DRAW, "windows", lambda f, rng, body, colour: _nothing(f, rng))
    without = draw("house", np.random.default_rng(5))
    change = np.abs(with_it.pixels.astype(int) - without.pixels.astype(int)).max(2)
    assert (change[with_it.masks["windows"]] > 20).mean() > 0.5
    border = np.zeros((64, 64), dtype=bool)
    for dy in (-1, 0, 1):
        for dx in (-1, 0, 1):
            border |= np.roll(with_it.masks["windows"], (dy, dx), (0, 1))
    assert change[~border].max() <= 3


def _nothing(frame, rng):
    _ = rng.integers(3, 5), rng.uniform(0.05, 0.065)  # as many draws as the part makes
    return np.zeros_like(frame.x), rng.uniform(0.85, 1.0, 3).astype(np.float32)


def test_every_part_is_true_of_and_missing_from_enough_classes():
    library = Library.parse(library_text())
    names, table = library.table(tuple(CLASSES), minimum=3)
    assert set(names) == set(PARTS)
    for i, label in enumerate(CLASSES):
        assert {n for n, value in zip(names, table[i], strict=True) if value == 1} == set(CLASSES[label])
    rows = {tuple(row) for row in table.tolist()}
    assert len(rows) == len(CLASSES), "two classes have the same parts"


def test_a_tie_correlates_background_and_part_as_asked():
    drawings = draw_set("train", 40, classes=["daisy", "bus", "cup"], tie=Tie("petals", 0.9))
    with_it = np.mean([d.green for d in drawings if d.label == "daisy"])
    without = np.mean([d.green for d in drawings if d.label != "daisy"])
    assert with_it > 0.75 and without < 0.25
    assert not any(d.green for d in draw_set("train", 2))


def test_drawings_repeat_and_splits_differ():
    first, again = (draw_set("train", 1, classes=["cat"], seed=4)[0].pixels for _ in range(2))
    assert np.array_equal(first, again)
    other = draw_set("validation", 1, classes=["cat"], seed=4)[0].pixels
    assert not np.array_equal(first, other)
    masks = mask_array(draw_set("train", 2, classes=["cat", "bus"]), "ears")
    assert masks[:2].any((1, 2)).all() and not masks[2:].any()
