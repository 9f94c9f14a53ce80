"""For all tests: shapes and types checked while they run, and one quick start that several tests look at."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ontology.waiting import threads_wait_briefly

threads_wait_briefly()  # before torch is loaded, as the console script does it

import jaxtyping  # noqa: E402
import pytest  # noqa: E402

from tests.support import ROOT  # noqa: E402

PACKAGES = ("cgpt", "ontology", "kernels")


def modules_with_shapes() -> list[str]:
    """Modules that annotate with jaxtyping and compile nothing with numba (a wrapped function cannot be compiled)."""
    found = []
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            text = path.read_text(encoding="utf-8")
            jitted = re.search(r"^\s*@(numba\.)?n?jit\b", text, re.M)
            if not jitted and re.search(r"^from jaxtyping import", text, re.M):
                found.append(".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"))
    return found


# Before any test module imports them: the hook rewrites a module while it is being imported.
jaxtyping.install_import_hook(modules_with_shapes(), "beartype.beartype")


@dataclass(frozen=True)
class Quickstart:
    """A finished `make run`, with a small budget: where it ran, and what it printed."""

    folder: Path  # working directory; the results are in runs/quickstart below it
    stdout: str
    stderr: str


@pytest.fixture(scope="session")
def quickstart(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Quickstart]:
    """Runs the quick start once per session (mark its users with `xdist_group("quickstart")`: one session per worker).

    The folder looks like a checkout, so that commands of the README find what they name. The budget of each model is
    $CONSTRUCTIBLE_QUICKSTART_MINUTES, by default 0.3: the results are not good, the files are all there.
    """
    folder = tmp_path_factory.mktemp("checkout")
    for path in ROOT.iterdir():
        if not path.name.startswith(".") and path.name not in ("runs", "build", "dist"):
            (folder / path.name).symlink_to(path)
    minutes = os.environ.get("CONSTRUCTIBLE_QUICKSTART_MINUTES") or "0.3"
    command = [sys.executable, "-m", "ontology.main", "eval", "quickstart", "--minutes", minutes]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=1200)
    if done.returncode != 0:
        pytest.fail(f"{' '.join(command[1:])} exited {done.returncode}:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
    yield Quickstart(folder, done.stdout, done.stderr)
