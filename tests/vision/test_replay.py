"""The independent checker: every prediction replays, and one that was tampered with does not."""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from ontology.errors import CheckFailed, ConstructibleError
from ontology.track import Track
from tests.vision.small import SmallWorld, build_small
from vision.bank import primitives
from vision.cli import vision
from vision.model import Constructed, load
from vision.nodes import POOLINGS
from vision.replay import _pooled, compare, record
from vision.track import VisionTrack


def said_of(folder: Path, world: SmallWorld, n: int = 40) -> dict:
    model = load(folder)
    assert isinstance(model, Constructed)
    made = record(model, world.validation.pixels[:n], world.validation.paths[:n])
    return json.loads(json.dumps(made))


@pytest.fixture(scope="module")
def maps(world: SmallWorld):
    return primitives(np.array(world.validation.pixels[:40]))


def test_every_prediction_replays_from_its_record(world: SmallWorld, model_folder: Path, maps):
    said = said_of(model_folder, world)
    found = compare(model_folder, said, maps)
    assert found == {"predictions": 40, "replayed": 40, "failed": []}


@pytest.mark.parametrize("cut, mode", [("plain", "soft"), ("classes", "hard")])
def test_other_cuts_and_hard_rules_replay_as_well(cut: str, mode: str, world: SmallWorld, tmp_path: Path, maps):
    build_small(world, tmp_path / "m", cut=cut, mode=mode, steps=8)
    assert compare(tmp_path / "m", said_of(tmp_path / "m", world), maps)["failed"] == []


@pytest.mark.parametrize("what", ["score", "value", "label", "share", "rule", "node"])
def test_what_was_tampered_with_does_not_replay(what: str, world: SmallWorld, model_folder: Path, tmp_path: Path, maps):
    folder = shutil.copytree(model_folder, tmp_path / "m")
    said = copy.deepcopy(said_of(folder, world, 8))
    picture = said["pictures"][3]
    read = load(folder).rules.rules[0].concepts[0]  # type: ignore[union-attr]
    if what == "score":
        place = said["concepts"].index(read)
        picture["scores"][place] = round(abs(picture["scores"][place] - 0.01), 4)
    elif what == "value":
        picture["values"][0] = float(np.nextafter(picture["values"][0], 9.0))  # one bit
    elif what == "label":
        picture["label"] = next(c for c in said["classes"] if c != picture["label"])
    elif what == "share":
        picture["shares"] = picture["shares"][::-1]
    elif what == "rule":
        path = next((folder / "rules").glob("*.py"))
        path.write_text(path.read_text().replace("return score", "return 1.25 * score"))
    else:
        from ontology.io import read_json, write_json

        about = read_json(folder / "nodes" / read / "node.json")
        write_json(folder / "nodes" / read / "node.json", {**about, "offset": about["offset"] + 0.5})
    failed = compare(folder, said, maps[:8])["failed"]
    names = [row["name"] for row in failed]
    assert len(names) >= 4 if what in ("rule", "node") else names == [picture["name"]]


def test_pooling_is_the_models(maps):
    import torch

    from vision.nodes import pool

    cells = np.random.default_rng(0).normal(0, 2, (1, 1, 8, 8))
    for how in POOLINGS:
        assert _pooled(cells.ravel(), how) == pytest.approx(float(pool(torch.from_numpy(cells), how)[0, 0]), abs=1e-9)


def test_the_checker_refuses_what_is_no_plain_code(model_folder: Path, world: SmallWorld, tmp_path: Path):
    folder = shutil.copytree(model_folder, tmp_path / "m")
    path = next((folder / "rules").glob("*.py"))
    said = said_of(folder, world, 2)
    path.write_text("def rule(s):\n    return print(1)\n")
    with pytest.raises(ConstructibleError, match="no plain code"):
        compare(folder, said)
    with pytest.raises(ConstructibleError, match="another version"):
        compare(folder, {"format": "x"})


def test_the_command_says_how_many_and_fails_where_one_does_not(model_folder: Path, world: SmallWorld, monkeypatch):
    arguments = ["replay", str(model_folder), str(world.folder), "--limit", "2", "--json"]
    done = CliRunner().invoke(vision, arguments)
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout) == {"predictions": 48, "replayed": 48, "failed": []}
    monkeypatch.setattr("vision.replay.SCORE_TOLERANCE", -1.0)
    assert isinstance(CliRunner().invoke(vision, arguments).exception, CheckFailed)


def test_the_engine_knows_the_track():
    track = VisionTrack()
    assert isinstance(track, Track) and track.router is None and track.state_of("x") is None
    assert "orange" in track.ontology
