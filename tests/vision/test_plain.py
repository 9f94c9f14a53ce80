"""The cut below the leaves: concepts in plain code, fitted, saved, edited by hand, refused where it says too much."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ontology.errors import ConstructibleError
from ontology.io import read_json
from ontology.restricted import RestrictedError
from tests.vision.small import SmallWorld, build_small
from vision.bank import CHANNELS, primitives
from vision.cards import reads
from vision.model import Constructed, load
from vision.plain import MAX_READS, READS, PlainNode, PlainShape, fit_plain, load_node, reading, readings
from vision.score import score

SOURCE = (
    "def evidence(p):\n    score = 2 * p.orange_strongest\n    score = score - 0.5 * p.green_middle\n    return score\n"
)


@pytest.fixture(scope="module")
def maps(world: SmallWorld):
    return primitives(np.array(world.train.pixels[:24]))


def test_a_model_of_the_plain_cut_has_no_net_and_recognises_better_than_chance(world: SmallWorld, tmp_path: Path):
    build_small(world, tmp_path / "m", cut="plain")
    model = load(tmp_path / "m")
    assert isinstance(model, Constructed) and model.parameters == 0 and model.config["cut"] == "plain"
    assert not list((tmp_path / "m").rglob("weights.safetensors"))
    for node in model.bank.nodes:
        assert isinstance(node, PlainNode) and node.slope > 0 and 1 <= len(node.reads) <= MAX_READS
        allowed = {CHANNELS[i] for i in node.shape.channels}
        assert {name.rsplit("_", 1)[0] for name in node.reads} <= allowed
        assert reads(node)
    figures = score(model, world.validation).as_json()
    assert figures["accuracy"] > 0.4 and set(figures["per_concept"]) == set(model.bank.names)
    said = read_json(tmp_path / "m" / "concepts.json")["concepts"]
    assert all(row["parameters"] == 0 for row in said)
    # A person's edit is what runs.
    name = model.rules.rules[0].concepts[0]
    (tmp_path / "m" / "nodes" / name / "plain.py").write_text("def evidence(p):\n    return 0\n")
    changed = load(tmp_path / "m")
    assert isinstance(changed, Constructed)
    column = changed.concept_scores(world.validation.pixels[:6])[:, changed.bank.names.index(name)]
    assert len(set(column.tolist())) == 1


def test_the_map_of_a_plain_sum_has_its_evidence_as_mean(maps):
    node = PlainNode("n", PlainShape(0.35), SOURCE)
    assert node.coefficients == {"orange_strongest": 2.0, "green_middle": -0.5}
    assert np.allclose(node.maps(maps).mean((1, 2)), node.pooled(maps), atol=1e-5)
    expected = 2 * reading(maps, "orange_strongest") - 0.5 * reading(maps, "green_middle")
    assert np.allclose(node.pooled(maps), expected)


def test_readings_are_what_their_names_say():
    maps = np.zeros((1, len(CHANNELS), 16, 16), dtype=np.uint8)
    maps[0, CHANNELS.index("red"), :4] = 255  # a quarter of the picture, none of it in the middle
    assert [reading(maps, f"red_{where}")[0] for where in ("everywhere", "middle", "strongest")] == [0.25, 0.0, 1.0]
    assert np.array_equal(readings(maps, np.array([0]))[0, READS.index("red_strongest")], 1.0)


def test_selection_finds_the_one_reading_that_tells(maps):
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(6), 40)
    table = np.array([[1], [1], [1], [0], [0], [0]], dtype=np.int8)
    read = rng.random((240, len(READS)))
    telling = READS.index("blue_middle")
    read[:, telling] += 3 * (labels < 3)
    [node] = fit_plain(["sky"], [PlainShape(1.0)], table, read, labels)
    assert node.reads[0] == "blue_middle" and node.coefficients["blue_middle"] > 0
    read[:, telling] *= -1
    [node] = fit_plain(["sky"], [PlainShape(1.0)], table, read, labels)
    assert node.coefficients["blue_middle"] < 0


def test_a_plain_node_is_saved_and_refused_where_it_says_too_much(tmp_path: Path):
    PlainNode("n", PlainShape(0.35), SOURCE, 3.0, -1.0).save(tmp_path)
    again = load_node(tmp_path)
    assert isinstance(again, PlainNode) and (again.slope, again.offset, again.source) == (3.0, -1.0, SOURCE)
    for bad in (
        "import os\n" + SOURCE,
        SOURCE.replace("orange_strongest", "oranges"),
        SOURCE.replace("2 *", "open(p) *"),
    ):
        (tmp_path / "plain.py").write_text(bad)
        with pytest.raises(RestrictedError):
            load_node(tmp_path)
    (tmp_path / "plain.py").unlink()
    with pytest.raises(ConstructibleError, match="cannot be read"):
        load_node(tmp_path)
    # What lies beyond its declared scale may not be read.
    with pytest.raises(RestrictedError):
        _ = PlainNode("n", PlainShape(0.1), SOURCE.replace("orange_strongest", "edge_coarse_0_everywhere")).reads
