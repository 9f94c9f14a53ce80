"""Explanations: true to the model, the same in text, JSON and page, and the page is sound in a browser."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from ontology.errors import ConstructibleError, UsageError
from tests.browser import PHONE, Browser, browser  # noqa: F401
from tests.vision.small import SmallWorld, build_small
from vision.cli import read_changes, vision
from vision.explain import Explanation, as_rules_see, explain_picture, predict_files, predict_pixels
from vision.explain_page import fill_rule, heat, render_page
from vision.model import Constructed, load


@pytest.fixture(scope="module")
def model(model_folder: Path) -> Constructed:
    opened = load(model_folder)
    assert isinstance(opened, Constructed)
    return opened


@pytest.fixture(scope="module")
def explained(model: Constructed, world: SmallWorld) -> Explanation:
    row = world.validation.rows_of("bus")[0]
    said = predict_pixels(model, np.array(world.validation.pixels[row]), "<b>bus & co</b>.png")
    return explain_picture(model, said)


def test_what_a_term_adds_is_what_the_rule_loses_without_it(model: Constructed, explained: Explanation):
    said = explained.prediction
    rule = next(rule for rule in model.rules.rules if rule.label == said.label)
    assert max(said.values) == rule.value(said.scores) and sum(said.shares) == pytest.approx(1)
    for term in explained.terms:
        worst = 1.0 if term["absent"] else 0.0
        changed = dict(said.scores) | {term["concept"]: worst}
        assert term["adds"] == pytest.approx(rule.value(said.scores) - rule.value(changed)) and term["adds"] >= 0
        # The counterfactual is what the model would have said.
        again = predict_pixels(model, said.pixels, "x", {term["concept"]: worst})  # type: ignore[arg-type]
        assert (again.label, max(again.shares)) == (term["then_label"], pytest.approx(term["then_share"]))
    assert explained.terms[0]["adds"] == max(term["adds"] for term in explained.terms)


def test_nearest_evidence_is_of_the_class_and_really_near(model: Constructed, explained: Explanation):
    winner = model.classes.index(explained.prediction.label)
    assert explained.nearest and all(model.evidence.labels[i] == winner for i, _ in explained.nearest)
    distances = [d for _, d in explained.nearest]
    assert distances == sorted(distances) and 0 <= distances[0] <= 1
    # A photograph of the evidence is nearest to itself.
    own = int(np.flatnonzero(model.evidence.labels == winner)[0])
    said = predict_pixels(model, np.array(model.evidence.pixels[own]), "own")
    if said.label == model.classes[winner]:
        best, distance = explain_picture(model, said).nearest[0]
        assert distance < 1e-3 and (best == own or distance == 0.0)


def test_setting_a_concept_by_hand_changes_the_answer_as_the_rules_say(model: Constructed, world: SmallWorld):
    pixels = np.array(world.validation.pixels[0])
    free = predict_pixels(model, pixels, "x")
    name = model.rules.rules[0].concepts[0]
    value = 1.0 - round(free.scores[name])
    forced = predict_pixels(model, pixels, "x", {name: value})
    assert forced.scores[name] == value and forced.changed == {name: value}
    assert forced.values[0] != free.values[0]
    assert read_changes(model, (f"{name}=0.5",)) == {name: 0.5}
    for bad in (f"{name}=2", f"{name}=x", name, "nothing=1"):
        with pytest.raises(UsageError):
            read_changes(model, (bad,))


def test_files_that_cannot_be_read_are_listed_with_their_reason(model: Constructed, tmp_path: Path):
    (tmp_path / "broken.jpg").write_bytes(b"nothing")
    Image.new("RGB", (300, 200), (200, 30, 30)).save(tmp_path / "good.png")
    found = predict_files(model, [tmp_path / "broken.jpg", tmp_path / "absent.png", tmp_path / "good.png"])
    assert [item.pixels is None for item in found] == [True, True, False]
    assert "not a picture" in found[0].problem and "cannot be read" in found[1].problem
    assert found[2].label in model.classes and "problem" in found[0].as_json()
    with pytest.raises(ConstructibleError, match="broken.jpg"):
        explain_picture(model, found[0])


def test_a_rule_is_shown_with_its_numbers_filled_in():
    lines = fill_rule("def rule(s):\n    score = 2 * s.wheel + 1 * (1 - s.fur)\n    return score - 1\n",
                      {"wheel": 0.9312, "fur": 0.0})  # fmt: skip
    assert [line["filled"] for line in lines] == ["", "score = 2 * 0.9312 + 1 * (1 - 0)", ""]


def test_of_equal_classes_the_one_that_is_answered_is_explained(model: Constructed, world: SmallWorld):
    said = predict_pixels(model, np.array(world.validation.pixels[0]), "x")
    equal = replace(said, values=(1.0,) * len(model.classes), label=model.classes[0])
    assert explain_picture(model, equal).rule == model.rules.rules[0].source


def test_a_hard_model_shows_the_numbers_that_its_rules_see(world: SmallWorld, tmp_path: Path):
    build_small(world, tmp_path / "m", steps=6, mode="hard")
    hard = load(tmp_path / "m")
    assert isinstance(hard, Constructed)
    said = predict_pixels(hard, np.array(world.validation.pixels[0]), "x")
    seen = as_rules_see(hard, said.scores)
    assert set(seen.values()) <= {0.0, 1.0}
    assert hard.rules.rules[0].value(seen) == said.values[0]


def test_no_picture_that_can_be_read_is_a_failure_in_json_too(model_folder: Path, tmp_path: Path):
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    done = CliRunner().invoke(vision, ["predict", str(model_folder), str(tmp_path / "broken.jpg"), "--json"])
    assert isinstance(done.exception, ConstructibleError)
    assert json.loads(done.stdout)["predictions"][0]["path"].endswith("broken.jpg")


def test_heat_glows_where_the_evidence_is():
    pixels = np.full((64, 64, 3), 120, dtype=np.uint8)
    values = np.zeros((16, 16), dtype=np.float32)
    values[2:4, 2:4] = 1.0
    lit = heat(pixels, values).astype(int)
    assert lit[11, 11, 0] > lit[50, 50, 0] + 40 and (lit[50, 50] == lit[60, 60]).all()


def test_the_page_is_self_contained_and_escapes_names(model: Constructed, explained: Explanation):
    page = render_page(model, [explained])
    assert "<b>bus" not in page and "&lt;b&gt;bus &amp; co" in page
    assert not re.search(r"""(?:src|href)=["'](?!data:)""", page) and "<script" not in page
    assert json.loads(json.dumps(explained.as_json()))["label"] == explained.prediction.label
    assert len(explained.lines()) == len(explained.terms)


@pytest.mark.parametrize("dark", [False, True])
def test_the_page_in_a_browser(browser: Browser, model: Constructed, explained: Explanation, dark: bool):  # noqa: F811
    page = browser.open(render_page(model, [explained]), dark=dark)
    try:
        assert page.problems() == [] and page.overflow() == 0
        assert page.run("document.querySelectorAll('.terms li').length") == len(explained.terms)
        assert page.run("[...document.images].every((i) => i.complete && i.naturalWidth > 0 && i.alt)")
        # The rule keeps its lines, each with its numbers beside it.
        shown = page.run("document.querySelector('pre').innerText.trim().split('\\n').length")
        assert shown == len(explained.rule.strip().splitlines())
        page.resize(PHONE)
        assert page.overflow() == 0
    finally:
        page.close()
