"""Photograph tasks: the figures of the track's own score, corruptions, and classifiers from elsewhere."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from eval.models import open_specs
from eval.records import read_header, read_results
from eval.runner import run
from eval.tasks import Options, load_tasks
from eval.tasks.images import CORRUPTIONS
from ontology.errors import UsageError
from ontology.progress import Progress
from tests.vision.small import SmallWorld, build_small, make_world
from vision.model import load
from vision.score import score

QUIET = Progress(quiet=True)
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> SmallWorld:
    return make_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def folders(world: SmallWorld, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A constructed model, a monolith, and a randomly drawn classifier as transformers saves it."""
    import torch
    from transformers import ViTConfig, ViTForImageClassification

    root = tmp_path_factory.mktemp("image-models")
    build_small(world, root / "ours", steps=4)
    build_small(world, root / "root", steps=4, cut="root", parameters=20_000)
    torch.manual_seed(0)
    config = ViTConfig(
        image_size=32, patch_size=8, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        id2label={0: "bee", 1: "bus", 2: "unheard of"}, label2id={"bee": 0, "bus": 1, "unheard of": 2},
    )  # fmt: skip
    ViTForImageClassification(config).save_pretrained(root / "vit")
    (root / "vit" / "preprocessor_config.json").write_text('{"size": {"height": 32, "width": 32}}')
    return [root / "ours", root / "root", root / "vit"]


def test_the_figures_are_those_of_the_tracks_own_score(world: SmallWorld, folders: list[Path], tmp_path: Path) -> None:
    options = Options(data=str(world.folder))
    paths = run(open_specs([str(f) for f in folders[:2]]), load_tasks("images"), options, tmp_path, progress=QUIET)
    for folder, path in zip(folders, paths, strict=False):
        theirs = score(load(folder), world.validation).figures
        header = read_header(path)
        assert header["figures"]["accuracy"]["value"] == pytest.approx(theirs["accuracy"])
        found = np.mean([row["one_vs_rest"]["found"] for row in theirs["per_class"].values()])
        assert header["figures"]["own class found"]["value"] == pytest.approx(found), "as many of each class"
        assert set(header["parts"]) == set(world.validation.classes)
        assert header["budget"]["data_hash"] and header["budget"]["seconds"] > 0
        assert header["examples"] == len(world.validation)


def test_a_classifier_from_elsewhere_knows_some_of_the_classes(
    world: SmallWorld, folders: list[Path], tmp_path: Path
) -> None:
    options = Options(data=str(world.folder))
    (path,) = run(open_specs([str(folders[2])]), load_tasks("images"), options, tmp_path, progress=QUIET)
    values = read_results(path).values
    assert values["known"].sum() == sum(len(world.validation.rows_of(name)) for name in ("bee", "bus"))
    assert np.isnan(values["correct"]).sum() == (values["known"] == 0).sum()
    assert read_header(path)["figures"]["accuracy"]["value"] is not None
    with pytest.raises(UsageError, match="cannot do what the task 'bits' needs"):
        run(open_specs([str(folders[2])]), load_tasks("bits"), Options(), tmp_path, progress=QUIET)


def test_corruptions_change_pictures_and_repeat(world: SmallWorld, folders: list[Path], tmp_path: Path) -> None:
    pictures = np.array(world.validation.pixels[:3])
    for name, apply in CORRUPTIONS.items():
        made = apply(pictures)
        assert made.shape == pictures.shape and made.dtype == np.uint8 and (made != pictures).mean() > 0.3, name
        assert (apply(pictures) == made).all()
        assert (apply(pictures[1:2]) == made[1:2]).all(), "whatever the batch"
    options = Options(data=str(world.folder), limit=6)
    (path,) = run(open_specs([str(folders[0])]), load_tasks("corrupted"), options, tmp_path, progress=QUIET)
    assert set(read_header(path)["parts"]) == set(CORRUPTIONS)
