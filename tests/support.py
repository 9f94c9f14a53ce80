"""Helpers shared by the tests."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def data_path(*parts: str) -> Path:
    """Return a file or folder of the project's data, or skip the test with the reason where it is missing.

    The data lies where the environment variable CONSTRUCTIBLE_DATA says, else in `../shared/data` beside the project.
    """
    base = Path(os.environ.get("CONSTRUCTIBLE_DATA") or ROOT / ".." / "shared" / "data")
    path = base.joinpath(*parts)
    if not path.exists():
        pytest.skip(f"needs {'/'.join(parts)} of the project's data; set CONSTRUCTIBLE_DATA to its folder")
    return path


def project_files() -> list[Path]:
    """Every file of the project: what git tracks or would track; all but hidden and built ones outside a checkout."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True
    )
    if listed.returncode == 0:
        paths = [ROOT / os.fsdecode(name) for name in listed.stdout.split(b"\0") if name]
    else:
        built = {"__pycache__", "runs", "build", "dist"}
        paths = [
            path
            for path in ROOT.rglob("*")
            if not any(part.startswith(".") or part in built for part in path.relative_to(ROOT).parts)
        ]
    return sorted(path for path in paths if path.is_file())
