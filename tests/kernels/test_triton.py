"""Two lanes that need no GPU: the kernels in Triton's interpreter, and every shipped configuration built for sm_90."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from kernels import ragged_linear, route
from kernels.triton_backend import fused_tile
from kernels.triton_build import SHARED_LIMIT, build

HERE = Path(__file__).parent
needs_triton = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="triton is not installed: pip install 'constructible[gpu]'"
)


def _run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    variables = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"} | environment
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, env=variables, cwd=HERE.parents[1]
    )


@needs_triton
@pytest.mark.slow
def test_kernels_in_the_interpreter():
    """In a process of its own: the interpreter is chosen when triton is imported."""
    result = _run(
        "-m", "pytest", "-q", "-p", "no:cacheprovider", str(HERE / "interpreted_cases.py"), TRITON_INTERPRET="1"
    )
    assert result.returncode == 0, result.stdout[-6000:] + result.stderr[-2000:]
    assert "passed" in result.stdout and "skipped" not in result.stdout


@needs_triton
@pytest.mark.slow
def test_kernels_build_for_an_h200():
    """In a process of its own, without the interpreter: the hungriest configuration of each kernel."""
    code = "import json, kernels.triton_build as b; print(json.dumps([found.row for found in b.build_all(quick=True)]))"
    result = _run("-c", code)
    assert result.returncode == 0, result.stderr[-3000:]
    rows = json.loads(result.stdout)
    assert {row["kernel"] for row in rows} == {
        "linear_tiles", "weight_gradient", "weight_update", "network_tiles", "convolution",
        "xent_loss", "xent_hidden", "xent_table", "sum_entries",
    }  # fmt: skip
    for row in rows:
        assert row["spill_bytes"] == 0, row
        assert row["shared_bytes"] <= SHARED_LIMIT, row
        # float32 means IEEE float32 (no TF32), so no tensor cores; bfloat16 must use them.
        low = row["dtype"] == "bfloat16" or "LOW=True" in row["configuration"]
        assert (row["tensor_core"] > 0) == (low and row["kernel"] != "sum_entries"), row


def test_building_in_the_interpreter_is_refused(monkeypatch):
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    with pytest.raises(RuntimeError, match="nothing is compiled in the interpreter"):
        build(None, "float32", {}, {})


@pytest.mark.parametrize("half", [False, True])
def test_wide_networks_are_not_fused(half):
    """Where one launch would spill registers, the layers run one by one."""
    assert fused_tile(64, 16, half) == 64
    assert fused_tile(64, 32, half) == (64 if half else 32)
    assert fused_tile(64, 64, half) == (64 if half else 16)
    assert fused_tile(64, 128, half) == (32 if half else None)
    assert fused_tile(16, 256, half) is None


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_without_a_gpu_triton_is_refused_with_the_reason():
    plan = route(torch.tensor([0, 1]), n_modules=2)
    with pytest.raises(ValueError, match="backend triton .asked for by argument. cannot take this"):
        ragged_linear(torch.zeros(2, 4), torch.zeros(2, 4, 4), None, plan, backend="triton")
