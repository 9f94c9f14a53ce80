"""Small models of the part world, built once per session."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.vision.small import SmallWorld, build_small, make_world


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> SmallWorld:
    """A part world of a few pictures per class."""
    return make_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="session")
def model_folder(world: SmallWorld, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A constructed model of four classes, leaf cut."""
    folder = tmp_path_factory.mktemp("model")
    build_small(world, folder)
    return folder
