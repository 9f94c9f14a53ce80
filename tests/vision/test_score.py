"""Figures of class scores, on cases that can be worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from vision.model import log_odds, probabilities
from vision.score import calibration, class_figures


def test_calibration_tells_a_model_that_can_be_believed_from_one_that_boasts():
    rng = np.random.default_rng(0)
    sure = rng.uniform(0, 3, 20_000)
    right = rng.random(20_000) < 1 / (1 + np.exp(-sure))
    values = np.stack([sure, np.zeros(20_000)], axis=1)
    target = np.where(right, 0, 1)
    honest, boasting = calibration(probabilities(values), target), calibration(probabilities(5 * values), target)
    assert honest["expected_calibration_error"] < 0.02 < 0.1 < boasting["expected_calibration_error"]
    assert honest["brier"] < boasting["brier"] and honest["log_loss_bits"] < boasting["log_loss_bits"]
    assert boasting["mean_share"] > honest["mean_share"]
    certain = calibration(probabilities(np.array([[50.0, 0.0], [0.0, 50.0]])), np.array([0, 1]))
    assert certain["expected_calibration_error"] == pytest.approx(0) and certain["brier"] == pytest.approx(0)


def test_a_monolith_is_judged_by_the_shares_that_it_gives():
    logits = np.array([[2.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    target = np.array([0, 1])
    given = class_figures(log_odds(logits), target, target, ("a", "b", "c"), probabilities(logits))
    assert given["calibration"]["mean_share"] == pytest.approx(probabilities(logits).max(1).mean())
    assert class_figures(log_odds(logits), target, target, ("a", "b", "c"))["calibration"] != given["calibration"]


def test_figures_by_hand():
    # Two photographs of a, one of b, one of another class that both should reject.
    values = np.array([[2.0, -1.0], [-1.0, 1.0], [-2.0, 3.0], [1.0, -1.0]])
    found = class_figures(values, np.array([0, 0, 1, -1]), np.array([0, 0, 1, 2]), ("a", "b"))
    assert found["accuracy"] == pytest.approx(2 / 3) and (found["photographs"], found["negatives"]) == (3, 1)
    assert found["per_class"]["a"] | {"one_vs_rest": 0} == {
        "photographs": 2, "precision": 1.0, "recall": 0.5, "f1": pytest.approx(2 / 3), "one_vs_rest": 0,
    }  # fmt: skip
    assert found["macro_f1"] == pytest.approx((2 / 3 + 2 / 3) / 2)
    # a: found 1 of 2; rejected all of b, none of the other class.
    assert found["per_class"]["a"]["one_vs_rest"]["balanced"] == pytest.approx((0.5 + 0.5) / 2)
