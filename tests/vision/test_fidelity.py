"""The whole way of judging a model: twins, figures, cards, and the command line around it."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from ontology.errors import ConstructibleError
from ontology.fit import Budget
from ontology.io import read_json
from ontology.progress import Progress
from tests.browser import PHONE, Browser, browser  # noqa: F401
from tests.vision.small import SmallWorld, build_small
from vision.build import plan_of
from vision.cards import reads, render_cards
from vision.cli import vision
from vision.concepts import Library
from vision.fidelity import FidelityPlan, find_masks, judge
from vision.model import Constructed, load


@pytest.fixture(scope="module")
def judged(world: SmallWorld, model_folder: Path, tmp_path_factory: pytest.TempPathFactory):
    """A small model's figures, from few steps: the numbers are poor, all of them are there."""
    model = load(model_folder)
    assert isinstance(model, Constructed)
    plan = plan_of(model.config, world.train, Library.load(model_folder / "ontology.yaml"))
    out = tmp_path_factory.mktemp("fidelity")
    masks = find_masks(str(world.folder), world.validation)
    judge(model, plan, world.validation, out, Budget(steps=12), masks=masks, progress=Progress(quiet=True))
    return model, plan, read_json(out / "fidelity.json")


def test_twins_never_learn_from_the_classes_they_are_judged_on(world: SmallWorld, judged):
    model, plan, _ = judged
    made = FidelityPlan(model, plan, world.validation)
    assert sorted(sum(made.folds, [])) == list(range(len(plan.known)))
    assert set(made.groups()) == {"0", "1", "new", "swap"}
    for purpose, group in made.groups().items():
        unseen = plan.own if purpose == "new" else [] if purpose == "swap" else made.folds[int(purpose)]
        assert list(group.unseen) == list(unseen)
        assert not set(plan.labels[group.rows(plan)].tolist()) & set(unseen)  # not even as a patch in another picture
        for twin in group.twins:
            name, _, said = twin.name.partition("@")
            assert said == purpose and (twin.truth[list(unseen)] == -1).all()
            if purpose == "swap":
                assert np.array_equal(twin.truth, plan.truth[name]) and twin.seed_name != name
    randoms = {name: column for name, column in made.controls.items()}
    assert randoms and all(
        any(np.array_equal(np.sort(column), np.sort(plan.truth[n])) for n in made.names) for column in randoms.values()
    )


def test_masks_are_those_of_the_pictures_that_are_judged(world: SmallWorld):
    masks = find_masks(str(world.folder), world.validation)
    assert masks and all(mask.shape == (len(world.validation), 64, 64) for mask in masks.values())
    drawn = find_masks("part-world", replace(world.validation, pixels=np.zeros((len(world.validation), 128, 128, 3))))
    assert all(mask.shape[1:] == (128, 128) for mask in drawn.values())
    name = next(name for name in masks if masks[name].any())
    assert np.array_equal(drawn[name][:, ::2, ::2], find_masks("part-world", world.validation)[name])
    # As many pictures of the other split are other pictures.
    some = world.train.part(np.arange(len(world.validation)))
    assert find_masks(str(world.folder), some) == {}


def test_every_node_has_every_figure(judged):
    model, _, figures = judged
    assert set(figures["nodes"]) == set(model.bank.names)
    for row in figures["nodes"].values():
        assert 0 <= row["polarity"] <= 1 and set(row["controls"]) == {"picture_statistics", "class_memoriser"}
        moved = row["transfer"]
        if moved["auroc"] is not None:
            assert moved["low"] <= moved["auroc"] <= moved["high"] and 0 < moved["p_value"] <= 1
        place = row["place"]
        assert place is None or (place["truth"] == "mask" and 0 <= place["locality"] <= 1)
    summary = figures["summary"]
    curve = summary["interventions"]["random"]
    assert curve[0] == summary["accuracy"] and curve[-1] >= curve[0]
    assert set(summary["faithful"]) == {name for name, row in figures["nodes"].items() if row["faithful"]}
    assert 0 <= summary["rule_weight_on_faithful"] <= 1
    assert summary["swap_drop"] == pytest.approx(summary["accuracy"] - summary["accuracy_swapped_nodes"], abs=2e-4)


def test_leakage_and_overlap_are_judged_with_nodes_of_permuted_columns_as_control(judged):
    model, _, figures = judged
    said, shared = figures["leakage"], figures["overlap"]
    assert 0 <= said["ois_low"] <= said["ois"] <= said["ois_high"] <= 1 and 0.3 < said["nis"] <= 1
    assert set(said["nodes"]) == set(shared["nodes"]) == set(model.bank.names)
    assert 0 <= shared["carried_share"] <= 1 and shared["carried_share_of_random_nodes"] is not None


def test_probing_needs_no_training(world: SmallWorld, model_folder: Path):
    arguments = ["probe", str(model_folder), str(world.folder), "--random", "12"]
    done = CliRunner().invoke(vision, [*arguments, "--json"])
    assert done.exit_code == 0, done.output
    figures = json.loads(done.stdout)
    assert figures["classes"] == 24 and figures["random_nodes"] == 12
    assert set(figures["leakage"]["nodes"]) == set(figures["overlap"]["nodes"])
    shown = CliRunner().invoke(vision, arguments)
    assert "Leakage: OIS" in shown.output and "Overlap: nodes carry" in shown.output


def test_the_plain_cut_is_judged_like_any_other(world: SmallWorld, tmp_path: Path):
    build_small(world, tmp_path / "m", cut="plain", steps=1)
    model = load(tmp_path / "m")
    assert isinstance(model, Constructed)
    plan = plan_of(model.config, world.train, Library.load(tmp_path / "m" / "ontology.yaml"))
    judge(model, plan, world.validation, tmp_path / "f", Budget(steps=1), progress=Progress(quiet=True))
    figures = read_json(tmp_path / "f" / "fidelity.json")
    assert set(figures["nodes"]) == set(model.bank.names)
    assert figures["summary"]["swap_drop"] == pytest.approx(0, abs=1e-9)  # nothing in it depends on a seed


def test_a_model_is_judged_only_on_its_own_photographs(world: SmallWorld, model_folder: Path):
    config = read_json(model_folder / "config.json")
    with pytest.raises(ConstructibleError, match="not the photographs that the model was built from"):
        plan_of(config, world.validation, world.library)


def test_cards_show_every_node_and_are_sound_in_a_browser(judged, world: SmallWorld, browser: Browser):  # noqa: F811
    model, _, figures = judged
    page_text = render_cards(model, world.validation, figures)
    assert not re.search(r"""(?:src|href)=["'](?!data:)""", page_text) and "<script" not in page_text
    page = browser.open(page_text)
    try:
        assert page.problems() == [] and page.overflow() == 0
        assert page.run("document.querySelectorAll('section.card').length") == len(model.bank.nodes)
        assert page.run("[...document.images].every((i) => i.complete && i.naturalWidth > 0)")
        page.resize(PHONE)
        assert page.overflow() == 0
    finally:
        page.close()


def test_what_a_node_leans_on_are_primitives_it_reads(judged):
    model, _, _ = judged
    from vision.bank import CHANNELS

    for node in model.bank.nodes:
        allowed = {CHANNELS[i].replace("_", " ") for i in node.shape.channels}
        found = reads(node)
        assert found and {name for name, _ in found} <= allowed


def test_the_command_line_from_build_to_explanation(world: SmallWorld, tmp_path: Path, monkeypatch):
    monkeypatch.setenv("CONSTRUCTIBLE_STORE", str(tmp_path / "cache" / "store"))
    run = CliRunner()
    data, folder = str(world.folder), str(tmp_path / "m")
    made = run.invoke(vision, ["build", data, "--classes", "bus,bee", "--steps", "3", "--out", folder, "--json"])
    assert made.exit_code == 0, made.output
    said = json.loads(made.stdout)
    assert said["classes"] == ["bus", "bee"] and "photographs" in said["jobs"] and said["photographs"] == 24 * 16
    scored = run.invoke(vision, ["score", folder, data, "--json"])
    figures = json.loads(scored.stdout)
    assert {"accuracy", "macro_f1", "balanced_one_vs_rest", "per_class", "per_concept", "seconds"} <= set(figures)
    assert "accuracy" in run.invoke(vision, ["score", folder, data]).output
    from PIL import Image

    Image.fromarray(np.array(world.validation.pixels[0])).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"no")
    arguments = ["predict", folder, str(tmp_path / "a.png"), str(tmp_path / "b.png"), "--explain"]
    shown = run.invoke(vision, [*arguments, "--html", str(tmp_path / "page.html")])
    assert shown.exit_code == 0 and "left out (not a picture" in shown.output and (tmp_path / "page.html").exists()
    made = run.invoke(vision, [*arguments, "--json"])
    parsed = json.loads(made.stdout)
    assert len(parsed["predictions"]) == 2 and len(parsed["explanations"]) == 1
    failed = run.invoke(vision, ["predict", folder, str(tmp_path / "b.png")])
    assert isinstance(failed.exception, ConstructibleError)


def test_the_track_in_one_command(tmp_path: Path, world: SmallWorld, monkeypatch):
    monkeypatch.setenv("CONSTRUCTIBLE_STORE", str(tmp_path / "cache" / "store"))
    arguments = ["--classes", "bus,bee", "--steps", "2", "--out", str(tmp_path / "t"), "--json"]
    done = CliRunner().invoke(vision, ["track", str(world.folder), *arguments])
    assert done.exit_code == 0, done.output
    board = json.loads(done.stdout)
    assert [row["cut"] for row in board["rows"]] == ["leaves", "root"] and len(board["differences"]) == 1
    for name in ("report.html", "leaderboard.md", "explained.html", "leaves/fidelity/cards.html"):
        assert (tmp_path / "t" / name).stat().st_size > 200, name
