"""Helpers shared by the tests."""

from __future__ import annotations

import os
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
