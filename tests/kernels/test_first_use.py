"""The automatic choice on a GPU: Triton kernels that do not agree with torch there are not used. No GPU is needed."""

from __future__ import annotations

import warnings
from dataclasses import replace

import pytest
import torch

from kernels import backends, first_use, route
from kernels.backends import choose

GPU = torch.device("cuda:0")
WEIGHT = torch.zeros(2, 4, 4)
ONE = torch.ones(3)


class Away(torch.Tensor):
    """An index tensor that says it is on a GPU."""

    device = GPU  # pyright: ignore[reportAssignmentType, reportIncompatibleVariableOverride]


@pytest.fixture
def plan(monkeypatch):
    monkeypatch.setattr(first_use, "_found", {})
    monkeypatch.setattr(backends, "triton_refusal", lambda device, dtype: "")
    made = route(torch.tensor([0, 1]), n_modules=2)
    return replace(made, order=made.order.as_subclass(Away))


def _check(monkeypatch, operation, results):
    """Put results (or an error) in the place of a check; returns the list of its calls."""
    calls = []

    def check(device, dtype):
        calls.append((device, dtype))
        if isinstance(results, Exception):
            raise results
        yield from results

    monkeypatch.setitem(first_use.CHECKS, operation, check)
    return calls


@pytest.mark.parametrize("operation", ["mlp", "train", "xent"])
def test_kernels_that_agree_are_chosen_and_tried_once(monkeypatch, plan, operation):
    calls = _check(monkeypatch, operation, [("answers", ONE * 1.000001, ONE.double(), torch.float32)])
    for _ in range(3):
        name, reason = choose(plan, [WEIGHT], None, operation)
        assert name == "triton" and "checked there at first use" in reason
    assert calls == [(GPU, torch.float32)]
    choose(plan, [WEIGHT.half()], None, operation)  # other kernels are compiled for another dtype
    assert calls[1:] == [(GPU, torch.float16)]


@pytest.mark.parametrize(
    ("results", "says"),
    [
        ([("loss", ONE * 1.01, ONE.double(), torch.float32)], "loss differs by 1.0e-02 of its size"),
        ([("loss", ONE * float("nan"), ONE.double(), torch.float32)], "loss differs by nan"),
        ([("loss", ONE, ONE, torch.float32), ("gradient", None, ONE, torch.float32)], "gradient is missing"),
        (RuntimeError("PTX does not build\nmore"), "RuntimeError: PTX does not build"),
        (AssertionError(), "AssertionError: "),
    ],
)
def test_kernels_that_fail_leave_the_work_to_torch(monkeypatch, plan, results, says):
    calls = _check(monkeypatch, "xent", results)
    with pytest.warns(RuntimeWarning, match="ragged_softmax_xent: its Triton kernels failed their check on cuda:0"):
        name, reason = choose(plan, [WEIGHT], None, "xent")
    assert name == "torch" and f"triton did not pass its check on this device ({says}" in reason
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert choose(plan, [WEIGHT], None, "xent")[0] == "torch"  # told once
    assert len(calls) == 1


def test_bfloat16_products_are_held_to_their_own_precision(monkeypatch, plan):
    _check(monkeypatch, "xent", [("loss", ONE * 1.01, ONE.double(), torch.bfloat16)])
    assert choose(plan, [WEIGHT], None, "xent")[0] == "triton"


def test_who_asks_for_triton_gets_it_unchecked(monkeypatch, plan):
    calls = _check(monkeypatch, "mlp", RuntimeError("broken"))
    assert choose(plan, [WEIGHT], "triton")[0] == "triton" and not calls


def test_nothing_is_tried_while_a_graph_is_captured(monkeypatch, plan):
    calls = _check(monkeypatch, "mlp", [])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    name, reason = choose(plan, [WEIGHT])
    assert name == "torch" and "a graph is being captured" in reason and not calls
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    assert choose(plan, [WEIGHT])[0] == "triton"  # what could not be tried then is tried now
