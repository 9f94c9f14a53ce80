"""The blocks of docs/cgpt_use.md run, one after the other, as they stand."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.quality.test_readme import blocks, script
from tests.support import ROOT

PAGE = ROOT / "docs" / "cgpt_use.md"


@pytest.fixture(scope="module")
def checkout(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that looks like a checkout after `make run`, with a small model."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in ("cgpt", "eval"):
        (folder / name).symlink_to(ROOT / name)
    (folder / "runs" / "quickstart").mkdir(parents=True)
    (folder / "runs" / "quickstart" / "constructed").symlink_to(model_folder)
    return folder


def test_every_block_runs(checkout: Path):
    found = blocks(PAGE.read_text(encoding="utf-8"))
    assert [block.language for block in found] == ["python", "python", "sh", "python"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "HF_MODULES_CACHE": str(checkout / "modules")}
    own = f"{shlex.quote(sys.executable)} -m ontology.main "
    for block in found:
        text = script(block)
        shell = ["bash", "-euo", "pipefail", "-c", text.replace("constructible cgpt ", own + "cgpt ")]
        command = [sys.executable, "-c", text] if block.language == "python" else shell
        done = subprocess.run(command, cwd=checkout, env=environment, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, f"line {block.line}: {done.stderr[-2000:]}"
        assert done.stdout.strip(), f"line {block.line} prints nothing"
