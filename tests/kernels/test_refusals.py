"""Wrong arguments get the same clear error on every backend; the choice of a backend can be told and explained."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from kernels import (
    AdamState,
    MLPStack,
    Vocabulary,
    adam_step_,
    explain,
    ragged_linear,
    ragged_mlp,
    ragged_softmax_xent,
    route,
    train_step_,
    use_backend,
)
from kernels.backends import BACKENDS

PLAN = route(torch.tensor([0, 1, 1]), n_modules=2)
PAIRS = route(torch.tensor([[0, 1], [1, 1]]), n_modules=2)
X, W, B = torch.zeros(3, 4), torch.zeros(2, 4, 5), torch.zeros(2, 5)
V = Vocabulary.of([[0, 1], [2]], 3)
TARGETS = torch.tensor([1, 0, 0])


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("args", "error", "says"),
    [
        ((torch.zeros(2, 4), W, B, PLAN), ValueError, r"x must be \[3, width\]"),
        ((X, torch.zeros(2, 3, 5), B, PLAN), ValueError, r"weight must be \[2, 4, out\], not float32\[2, 3, 5\]"),
        ((X, torch.zeros(3, 4, 5), B, PLAN), ValueError, "weight must be"),
        ((X, W, torch.zeros(2, 4), PLAN), ValueError, r"bias must be \[2, 5\]"),
        ((X, W.double(), B, PLAN), TypeError, "weight is torch.float64, x is torch.float32"),
        ((X.long(), W.long(), None, PLAN), TypeError, "x must be a float tensor"),
        ((X, W.to("meta"), B, PLAN), ValueError, "weight is on meta"),
        ((torch.zeros(2, 3, 4), W, B, PAIRS), ValueError, r"\[2, 2, width\]"),
    ],
)
def test_linear_refuses(backend, args, error, says):
    with pytest.raises(error, match=says):
        ragged_linear(*args, backend=backend)


@pytest.mark.parametrize("backend", BACKENDS)
def test_mlp_refuses(backend):
    second = torch.zeros(2, 5, 1)
    with pytest.raises(ValueError, match="2 to 4 layers, not 1"):
        ragged_mlp(X, [W], [B], PLAN, backend=backend)
    with pytest.raises(ValueError, match="2 weights but 1 biases"):
        ragged_mlp(X, [W, second], [B], PLAN, backend=backend)
    with pytest.raises(ValueError, match="activation must be one of relu, gelu, silu, not 'tanh'"):
        ragged_mlp(X, [W, second], [B, None], PLAN, "tanh", backend=backend)
    with pytest.raises(ValueError, match=r"weight must be \[2, 5, out\]"):
        ragged_mlp(X, [W, W], [B, None], PLAN, backend=backend)
    with pytest.raises(ValueError, match="needs a plan with a gate"):
        ragged_mlp(X, [W, second], [B, None], PLAN, combine=True, backend=backend)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        ({"targets": torch.tensor([1, 0, 1])}, IndexError, "target 1 of row 2 is out of range"),
        ({"targets": torch.tensor([-1, 0, 0])}, IndexError, "target -1 of row 0"),
        ({"targets": torch.tensor([1, 0])}, ValueError, "targets must be"),
        ({"output": torch.zeros(4, 4)}, ValueError, r"output must be \[3, 4\]"),
        ({"bias": torch.zeros(4)}, ValueError, r"bias must be \[3\]"),
        ({"vocabulary": Vocabulary.of([[0], [1], [2]], 3)}, ValueError, "vocabulary has 3 modules, the plan 2"),
        ({"plan": PAIRS, "hidden": torch.zeros(2, 4)}, ValueError, "one module per row"),
        ({"precision": "int8"}, ValueError, "precision must be"),
    ],
)
def test_xent_refuses(backend, change, error, says):
    good = {"hidden": X, "targets": TARGETS, "output": torch.zeros(3, 4), "bias": None, "vocabulary": V, "plan": PLAN}
    with pytest.raises(error, match=says):
        ragged_softmax_xent(**{**good, **change}, backend=backend)


@pytest.mark.parametrize("backend", BACKENDS)
def test_train_step_refuses(backend):
    stacked = MLPStack.init(2, (4, 5, 3))
    state = AdamState.of(stacked.params)
    with pytest.raises(IndexError, match="there are 3 outputs"):
        train_step_(X, torch.tensor([0, 1, 3]), stacked, PLAN, state, 0.1, loss="softmax", backend=backend)
    with pytest.raises(ValueError, match="loss must be one of"):
        train_step_(X, TARGETS, stacked, PLAN, state, 0.1, loss="hinge", backend=backend)
    with pytest.raises(ValueError, match=r"targets must be torch.float32 \[3, 3\]"):
        train_step_(X, torch.zeros(3, 2), stacked, PLAN, state, 0.1, backend=backend)
    with pytest.raises(ValueError, match="lr must be"):
        train_step_(X, torch.zeros(3, 3), stacked, PLAN, state, torch.ones(3), backend=backend)
    with pytest.raises(ValueError, match="takes no gate"):
        gated = route(torch.tensor([0, 1, 1]), torch.ones(3), 2)
        train_step_(X, torch.zeros(3, 3), stacked, gated, state, 0.1, backend=backend)


def test_adam_refuses():
    p = torch.zeros(2, 3)
    state = AdamState.of([p])
    with pytest.raises(ValueError, match="must match"):
        adam_step_([p], [torch.zeros(2, 4)], state, 0.1)
    with pytest.raises(TypeError, match="its gradient"):
        adam_step_([p], [torch.zeros(2, 3).double()], state, 0.1)
    with pytest.raises(TypeError, match="active must be bool"):
        adam_step_([p], [p], state, 0.1, active=torch.zeros(2))
    with pytest.raises(ValueError, match="1 parameters, 2 gradients"):
        adam_step_([p], [p, p], state, 0.1)


def test_backend_is_chosen_and_explained(monkeypatch):
    monkeypatch.setenv("CONSTRUCTIBLE_KERNELS", "reference")
    assert explain(PLAN, [W]).startswith("reference: asked for by the environment variable CONSTRUCTIBLE_KERNELS |")
    with use_backend("torch"):
        assert explain(PLAN, [W]).startswith("torch: asked for by use_backend")
        assert explain(PLAN, [W], "reference").startswith("reference: asked for by argument")
    monkeypatch.setenv("CONSTRUCTIBLE_KERNELS", "cuda")
    with pytest.raises(
        ValueError, match="CONSTRUCTIBLE_KERNELS: no kernel backend 'cuda'; known: reference, torch, cpu, triton"
    ):
        ragged_linear(X, W, B, PLAN)
    monkeypatch.setenv("CONSTRUCTIBLE_KERNELS", "cpu")
    with pytest.raises(ValueError, match="takes float32 on the CPU, not torch.float64 on cpu. Fix: use torch"):
        ragged_linear(X.double(), W.double(), B.double(), PLAN)
    monkeypatch.delenv("CONSTRUCTIBLE_KERNELS")
    assert "2 modules, 3 rows, per module 4x5, float32 on cpu" in explain(PLAN, [W])


def test_importing_kernels_is_light():
    code = (
        "import kernels, sys; kernels.__dir__(); print([m for m in ('torch', 'numba', 'triton') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_unknown_name_is_an_attribute_error():
    import kernels

    with pytest.raises(AttributeError, match="no attribute 'rout'"):
        _ = kernels.rout
