"""One small constructed model for the tests of the code track."""

from __future__ import annotations

from pathlib import Path

import pytest

from cgpt.corpus import SourceFile
from cgpt.model import ConstructedLM, load
from tests.cgpt.small import build_small, unseen_files


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished build with the cut at the leaves."""
    folder = tmp_path_factory.mktemp("small-model") / "model"
    build_small(folder)
    return folder


@pytest.fixture(scope="session")
def model(model_folder: Path) -> ConstructedLM:
    """The small model, opened."""
    opened = load(model_folder)
    assert isinstance(opened, ConstructedLM)
    return opened


@pytest.fixture(scope="session")
def unseen() -> list[SourceFile]:
    """Files that the small model has not seen."""
    return unseen_files()
