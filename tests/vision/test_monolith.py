"""The baseline network: its size, that it learns, continues exactly, and keeps to its own classes."""

from __future__ import annotations

import numpy as np
import pytest

from ontology.errors import ConstructibleError
from vision.explain import predict_pixels
from vision.model import RootModel, probabilities
from vision.monolith import Monolith, MonolithTrainer, _count, make_network, width_for


def pictures(n: int = 48) -> tuple[np.ndarray, np.ndarray]:
    """Three classes of plain colours under noise."""
    labels = np.arange(n) % 3
    noise = np.random.default_rng(0).integers(0, 60, (n, 64, 64, 3))
    noise[np.arange(n), :, :, labels] += 150
    return noise.astype(np.uint8), labels


def trainer(own: list[int]) -> MonolithTrainer:
    pixels, labels = pictures()
    return MonolithTrainer(pixels, labels, np.arange(len(labels)), own, width=8, seed=0)


def run(made: MonolithTrainer, first: int, last: int) -> MonolithTrainer:
    for step in range(first, last):
        made.set_progress(step / 8)
        made.step(step)
    return made


@pytest.mark.parametrize("width", [8, 16, 32])
def test_the_count_of_parameters_is_the_networks(width: int):
    network = make_network(width, 5)
    linear = 4 * width * 5 + 5
    assert sum(p.numel() for p in network.parameters()) - linear == _count(width)
    assert width_for(_count(width)) == width


def test_it_learns_and_answers_in_the_order_of_its_own_classes():
    made = run(trainer([2, 0]), 0, 8).finish(["blue", "red"])
    pixels, labels = pictures()
    values = made.values(pixels)
    assert values.shape == (48, 2) and made.classes == ("blue", "red")
    own = labels != 1
    assert (values[own].argmax(1) == (labels[own] == 0)).mean() > 0.9


def test_training_continues_exactly_from_its_state(tmp_path):
    whole = run(trainer([0, 1]), 0, 4).finish(["a", "b"])
    half = run(trainer([0, 1]), 0, 2).state()
    resumed = trainer([0, 1])
    resumed.restore(half)
    again = run(resumed, 2, 4).finish(["a", "b"])
    pixels, _ = pictures()
    assert np.array_equal(whole.values(pixels), again.values(pixels))
    again.save(tmp_path)
    assert np.array_equal(Monolith.load(tmp_path).values(pixels), again.values(pixels))
    wrong = MonolithTrainer(*pictures(), np.arange(48), [0, 1], width=16)
    with pytest.raises(ConstructibleError, match="another training"):
        wrong.restore(half)


def test_what_is_shown_of_a_monolith_is_its_own_softmax(tmp_path):
    monolith = run(trainer([0, 1, 2]), 0, 4).finish(["a", "b", "c"])
    monolith.save(tmp_path / "monolith")
    model = RootModel(tmp_path, {"classes": ["a", "b", "c"], "size": 64})
    pixels, _ = pictures(6)
    values = model.values(pixels)
    np.testing.assert_allclose(model.shares(values), probabilities(monolith.values(pixels)), rtol=1e-6)
    said = predict_pixels(model, pixels[0], "x.png")
    np.testing.assert_allclose(said.shares, probabilities(monolith.values(pixels[:1]))[0], rtol=1e-4)
