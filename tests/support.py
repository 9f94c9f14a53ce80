"""What several tests share: where the development data lies."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def data_path(*parts: str) -> Path:
    """A file or folder of the development data; skips the test, with the reason, where it is not there.

    The data is not part of the project: it is looked for in $CONSTRUCTIBLE_DATA, by default `../shared/data` beside
    the checkout.
    """
    folder = Path(os.environ.get("CONSTRUCTIBLE_DATA") or ROOT / ".." / "shared" / "data").resolve()
    path = folder.joinpath(*parts)
    if not path.exists():
        pytest.skip(f"needs {'/'.join(parts)} of the development data; set CONSTRUCTIBLE_DATA to its folder")
    return path
