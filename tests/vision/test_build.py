"""Builds of the image track: every cut is a model, they repeat, share work, and refuse what cannot be built."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from eval.tasks.base import Options
from eval.tasks.images import photographs
from ontology.errors import ConstructibleError, UsageError
from ontology.io import read_json
from ontology.store import Store
from tests.vision.small import CLASSES, SmallWorld, build_small
from vision.build import Plan, Recipe, choose_classes, split_rows
from vision.concepts import Library
from vision.data import ImageSet, read_images
from vision.model import Constructed, RootModel, load
from vision.score import auroc, score


def artefacts(folder: Path) -> dict[str, str]:
    about = {"ledger.json", "metrics.jsonl", "environment.json", ".lock"}
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and ".store" not in path.parts and path.name not in about
    }


def test_a_small_leaf_model_recognises_its_classes_by_their_parts(world: SmallWorld, model_folder: Path):
    model = load(model_folder)
    assert isinstance(model, Constructed)
    figures = score(model, world.validation).as_json()
    assert figures["accuracy"] > 0.6  # chance is 0.25; a minute of training would reach 0.99
    assert figures["balanced_one_vs_rest"] > 0.6 and figures["photographs"] == 20 and figures["negatives"] == 100
    assert set(figures["per_concept"]) == set(model.bank.names)
    assert all(node.slope > 0 and node.shape.parameters <= 10_000 for node in model.bank.nodes)
    for rule in model.rules.rules:
        assert 1 <= len(rule.concepts) <= 9
        for concept, influence in rule.influence.items():  # the table decides the direction, never the fit
            true = rule.label in model.concepts[concept]["true_of"]
            assert (influence > 0) == true


def test_a_prediction_replays_from_concept_scores_bit_for_bit(world: SmallWorld, model_folder: Path):
    model = load(model_folder)
    assert isinstance(model, Constructed)
    scores = model.concept_scores(world.validation.pixels[:12])
    values = model.values(world.validation.pixels[:12])
    for row, expected in zip(scores, values, strict=True):
        # The scores as they would be printed, and the rule's text run as ordinary Python.
        said = {name: float(repr(value)) for name, value in zip(model.bank.names, row.tolist(), strict=True)}
        for c, rule in enumerate(model.rules.rules):
            space: dict = {}
            exec(rule.source, space)
            assert space["rule"](type("Scores", (), said)) == expected[c]


def test_the_same_build_again_gives_the_same_bits_and_reuses_the_store(world: SmallWorld, tmp_path: Path):
    store = Store(tmp_path / "store")
    first = build_small(world, tmp_path / "a", steps=6, store=store)
    again = build_small(world, tmp_path / "b", steps=6, store=store)
    build_small(world, tmp_path / "c", steps=6)
    assert not first.reused and not again.done and len(again.reused) == len(first.done)
    # Taken over with their original seconds, less what it took to put them into the store (much on a busy machine).
    assert again.total_seconds >= 0.5 * sum(first.seconds.values())
    assert artefacts(tmp_path / "a") == artefacts(tmp_path / "b") == artefacts(tmp_path / "c")
    # New classes: nodes that are there already are not trained again.
    build_small(world, tmp_path / "e", steps=6, store=store, shared=True)
    more = build_small(world, tmp_path / "d", steps=6, store=store, classes=("bus", "bee", "cat"), shared=True)
    reused = {name for name in more.reused if name.startswith("node-")}
    assert "node-wheels" in reused and "node-ears" in more.done and "primitives" in more.reused


@pytest.mark.parametrize("cut", ["root", "classes", "parts"])
def test_every_cut_is_a_model_of_about_equal_size(cut: str, world: SmallWorld, model_folder: Path, tmp_path: Path):
    build_small(world, tmp_path / "m", steps=6, cut=cut)
    model, leaf = load(tmp_path / "m"), load(model_folder)
    assert isinstance(model, RootModel) == (cut == "root")
    assert 0.4 < model.parameters / leaf.parameters < 2.5
    figures = score(model, world.validation).as_json()
    assert 0 <= figures["accuracy"] <= 1 and set(figures["per_class"]) == set(CLASSES)
    if cut == "classes":
        assert isinstance(model, Constructed) and set(model.bank.names) <= set(CLASSES)


APPLES = """
name: apples
features:
  - {name: red, question: "Is it red?", kind: colour, scale: 0.1}
  - {name: round, question: "Is it round?", kind: shape, scale: 1.0}
  - {name: crust, question: "Is there a crust?", kind: texture, scale: 0.2}
  - {name: handle, question: "Is there a handle?", kind: part, scale: 0.35}
  - {name: solid, question: "Is it one thing?", kind: shape, scale: 1.0}
classes:
  - {name: apple, wnid: n07739125, parts: {skin: [red]}, whole: [round, solid]}
  - {name: apple_pie, wnid: n07614198, parts: {crust: [crust]}, whole: [round, solid]}
  - {name: cup, wnid: n03147509, parts: {handle: [handle]}, whole: [solid]}
"""


def few_pictures(classes: tuple[str, ...]) -> ImageSet:
    labels = np.repeat(np.arange(len(classes)), 12)
    boxes = np.full((len(labels), 4), np.nan, dtype=np.float32)
    pixels = np.zeros((len(labels), 64, 64, 3), dtype=np.uint8)
    return ImageSet("few", "train", pixels, labels, classes, tuple(f"{i}.png" for i in range(len(labels))), boxes)


def test_a_part_belongs_to_its_class_and_to_none_whose_name_begins_alike():
    library, names = Library.parse(APPLES, "apples"), ("apple", "apple_pie", "cup")
    plan = Plan(few_pictures(names), library, Recipe(classes=names, cut="parts"))
    assert plan.truth["apple_pie_crust"].tolist() == [0, 1, 0]
    assert plan.truth["apple_skin"].tolist() == [1, 0, 0]


def test_classes_may_be_named_by_their_wordnet_ids():
    library = Library.parse(APPLES, "apples")
    by_id, names = ("n03147509", "n07614198", "n07739125"), ("cup", "apple_pie", "apple")
    for cut in ("classes", "parts", "leaves"):
        found = Plan(few_pictures(by_id), library, Recipe(classes=by_id, cut=cut)).truth
        told = Plan(few_pictures(names), library, Recipe(classes=names, cut=cut)).truth
        assert found and {k: v.tolist() for k, v in found.items()} == {k: v.tolist() for k, v in told.items()}


def test_the_monolith_is_given_the_parameters_of_nodes_that_there_are():
    names = ("apple", "apple_pie", "cup")
    plan = Plan(few_pictures(names), Library.parse(APPLES, "apples"), Recipe(classes=names))
    assert "solid" not in plan.truth  # true of all of them: nothing to learn
    assert plan.leaf_parameters() == plan.trained_parameters()


def test_hard_mode_sees_zero_and_one_only(world: SmallWorld, tmp_path: Path):
    build_small(world, tmp_path / "m", steps=20, mode="hard")
    model = load(tmp_path / "m")
    assert isinstance(model, Constructed)
    scores = np.array([[0.49] * len(model.bank.nodes), [0.51] * len(model.bank.nodes)], dtype=np.float64)
    assert np.array_equal(model.values_of(scores), model.values_of(np.array([[0.0], [1.0]]) + 0 * scores))


def test_what_cannot_be_built_is_refused(world: SmallWorld, tmp_path: Path):
    with pytest.raises(ConstructibleError, match="usable photograph"):
        few = replace(world.train, labels=np.zeros_like(world.train.labels))
        build_small(replace(world, train=few), tmp_path / "few")
    with pytest.raises(UsageError, match="cut"):
        build_small(world, tmp_path / "cut", cut="leafs")
    with pytest.raises(ConstructibleError, match="no model in this folder"):
        load(tmp_path)


def test_classes_are_chosen_by_name_or_by_seed():
    available = [f"c{i}" for i in range(10)]
    assert choose_classes("c3, c1", available, 0) == ("c3", "c1")
    drawn = choose_classes("random:4", available, 7)
    assert drawn == choose_classes("random:4", available[::-1], 7) and len(set(drawn)) == 4
    assert drawn != choose_classes("random:4", available, 8)
    for bad in ("random:1", "random:11", "random:x", "c1", "c1,c99"):
        with pytest.raises(UsageError):
            choose_classes(bad, available, 0)


def test_rows_are_split_class_by_class():
    labels = np.repeat([0, 1, 2], [10, 2, 1])
    learn, held = split_rows(labels, 0)
    assert sorted([*learn, *held]) == list(range(13))
    assert np.bincount(labels[held], minlength=3).tolist() == [2, 1, 0]


def test_auroc_counts_ties_half():
    truth = np.array([True, True, False, False])
    assert auroc(np.array([3.0, 2.0, 1.0, 0.0]), truth) == 1.0
    assert auroc(np.array([1.0, 1.0, 1.0, 1.0]), truth) == 0.5
    assert auroc(np.array([0.0, 2.0, 1.0, 1.0]), truth) == 0.5
    assert np.isnan(auroc(np.array([1.0]), np.array([True])))


def test_a_build_lists_the_photographs_it_used_as_the_leakage_check_knows_them(world: SmallWorld, model_folder: Path):
    said = read_json(model_folder / "training_files.json")
    assert sorted(world.train.fingerprints) == said["files"] and len(set(said["files"])) == len(world.train)
    assert not set(said["files"]) & set(world.validation.fingerprints)
    for row, example in enumerate(photographs(Options(data=str(world.folder)))):
        assert example.fingerprint == world.validation.fingerprints[row]


def test_a_photograph_keeps_its_fingerprint_at_another_size(world: SmallWorld, tmp_path: Path):
    larger = read_images(str(world.folder), "validation", size=128, classes=["bee"], cache=tmp_path)
    rows = world.validation.rows_of("bee")
    assert larger.fingerprints == tuple(world.validation.fingerprints[row] for row in rows)


def test_config_says_what_it_was_built_from(model_folder: Path):
    config = read_json(model_folder / "config.json")
    assert config["classes"] == list(CLASSES) and config["cut"] == "leaves" and len(config["trained_on"]) == 24
