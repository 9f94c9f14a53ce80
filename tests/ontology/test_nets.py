"""The stacked trainer: deterministic, independent of company, continuing exactly."""

from __future__ import annotations

import numpy as np
import pytest

from ontology.errors import ConstructibleError
from ontology.modules import Examples
from ontology.nets import NetModule, StackedTrainer


def net(number: int, hidden: int = 12) -> NetModule:
    return NetModule(f"net{number}", ["x", "c"], {"x": 0, "c": 4}, 3, hidden, widths={"x": 5})


def examples(number: int, rows: int = 200) -> Examples:
    rng = np.random.default_rng(number)
    x, c = rng.normal(size=(rows, 5)).astype(np.float32), rng.integers(0, 4, rows)
    return Examples({"x": x, "c": c}, ((x[:, number % 5] > 0) + (c == number % 4)).astype(np.int64))


def trained(numbers: list[int], steps: int = 60, stop_at: int | None = None, **options) -> dict[str, list[np.ndarray]]:
    """Weights of nets trained together; with `stop_at` state is moved to a second trainer at that step."""
    nets = [net(number) for number in numbers]
    data = {f"net{number}": examples(number) for number in numbers}
    trainer = StackedTrainer(nets, data, **options)
    for step in range(steps):
        if step == stop_at:
            state = trainer.state()
            trainer = StackedTrainer(nets, data, **options)
            trainer.restore(state)
        trainer.set_progress(step / steps)
        trainer.step(step)
    trainer.finish()
    return {module.name: module.weights for module in nets}


def same(one: list[np.ndarray], other: list[np.ndarray]) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("company", [[3, 4], [1, 2, 3, 7, 8], list(range(30))])
def test_what_a_net_learns_does_not_depend_on_its_company(company: list[int]) -> None:
    assert same(trained([3])["net3"], trained(company)["net3"])


def test_seed_and_continuing() -> None:
    one = trained([0, 1])
    assert same(one["net1"], trained([0, 1])["net1"]) and same(one["net0"], trained([0, 1], stop_at=23)["net0"])
    assert not same(one["net1"], trained([0, 1], seed=1)["net1"])
    assert not same(one["net0"], one["net1"])


def test_training_lowers_the_loss_of_every_net() -> None:
    nets = [net(number, 24) for number in range(6)]
    data = {module.name: examples(i, 400) for i, module in enumerate(nets)}
    trainer = StackedTrainer(nets, data, learning_rate=1e-2)
    first = trainer.step(0)
    for step in range(1, 300):
        trainer.set_progress(step / 300)
        last = trainer.step(step)
    trainer.finish()
    assert last < 0.4 * first
    for module in nets:
        right = module.predict(data[module.name].reads).argmax(1) == data[module.name].targets
        assert right.mean() > 0.9


def test_numeric_reads_are_standardised_and_codes_are_not() -> None:
    module, data = net(0), examples(0)
    shifted = Examples({"x": data.reads["x"] * 100 + 7, "c": data.reads["c"]}, data.targets)
    inputs, _ = module.prepare(shifted)
    assert np.allclose(inputs[:, :5].mean(0), 0, atol=1e-3) and np.allclose(inputs[:, :5].std(0), 1, atol=1e-3)
    assert set(np.unique(inputs[:, 5:])) == {0.0, 1.0}


def test_a_net_without_examples_keeps_its_first_weights() -> None:
    nets = [net(0), net(1)]
    data = {"net0": examples(0), "net1": examples(1, rows=0)}
    trainer = StackedTrainer(nets, data)
    before = [array.copy() for array in nets[1].weights]
    trainer.step(0)
    trainer.finish()
    assert same(before, nets[1].weights) and any(array.any() for array in before)
    with pytest.raises(ConstructibleError, match="none of the nets has examples"):
        StackedTrainer([net(1)], {"net1": examples(1, rows=0)})


def test_what_does_not_fit_together_is_refused() -> None:
    with pytest.raises(ConstructibleError, match="'net0' and 'net1' differ in shape"):
        StackedTrainer([net(0), net(1, 13)], {"net0": examples(0), "net1": examples(1)})
    with pytest.raises(ConstructibleError, match="no nets"):
        StackedTrainer([], {})
    trainer = StackedTrainer([net(0)], {"net0": examples(0)})
    with pytest.raises(ConstructibleError, match="belongs to another training"):
        trainer.restore({"param.0": np.zeros(3)})
    wrong = Examples(examples(0).reads, np.full(200, 3))
    with pytest.raises(ConstructibleError, match="outside of 0..2"):
        StackedTrainer([net(0)], {"net0": wrong})
