"""Heads on top of the nodes: on right nodes they follow the table, on inverted ones a free head hides the inversion."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from click.testing import CliRunner

from tests.vision.small import SmallWorld
from vision.cli import vision
from vision.heads import against_table, changes, draw, fit_head, judge_heads, responses, table_head
from vision.part_world import CLASSES, PARTS

LABELS = ("bus", "cup", "bee", "daisy")
TRUTH = np.array([[part in CLASSES[label] for part in PARTS] for label in LABELS], dtype=np.int8)


@pytest.fixture(scope="module")
def scored():
    """Scores of right nodes on 400 pictures, and their classes."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(4), 100)
    return np.clip(0.25 + 0.5 * TRUTH[labels] + rng.normal(0, 0.15, (400, len(PARTS))), 0, 1), labels


def judged(scores: np.ndarray, labels: np.ndarray):
    half = np.arange(len(labels)) % 2 == 0
    rules = table_head(TRUTH)
    return judge_heads(scores[half], labels[half], scores[~half], labels[~half], TRUTH, rules, 10)


def test_on_right_nodes_every_head_follows_the_table(scored):
    rows, _ = judged(*scored)
    assert set(rows) == {"table", "rules", "signed linear", "small net"}
    for name, row in rows.items():
        assert row["accuracy"] > 0.95 and row["against_table"] < 0.1, name
        assert row["like_the_rules"] > 0.7, name
    assert rows["table"]["against_table"] == 0 and rows["table"]["parameters"] == 0


def test_on_inverted_nodes_a_free_head_hides_what_a_forced_one_shows(scored):
    scores, labels = scored
    rows, _ = judged(1 - scores, labels)
    for name in ("signed linear", "small net"):
        assert rows[name]["accuracy"] > 0.95 and rows[name]["against_table"] > 0.9
    assert rows["table"]["accuracy"] < 0.1 and rows["table"]["against_table"] == 0


def test_a_response_is_the_mean_share_as_one_concept_moves():
    head = table_head(np.array([[1, 0], [0, 1]], dtype=np.int8))
    scores = np.array([[0.2, 0.8], [0.9, 0.1]])
    found = responses(head, scores)
    assert found.shape == (2, 2, 11) and np.allclose(found.sum(1), 1)
    moved = scores.copy()
    moved[:, 0] = 1.0
    powers = np.exp(head(moved))
    assert found[0, 0, -1] == pytest.approx((powers / powers.sum(1, keepdims=True))[:, 0].mean())
    change = changes(head, scores)
    assert np.allclose(change, [[10, -10], [-10, 10]])
    assert against_table(change, np.array([[1, 0], [0, 1]])) == 0
    assert against_table(change, np.array([[0, 1], [1, 0]])) == 1
    assert against_table(change, np.array([[1, -1], [1, 0]])) == 0  # nothing to compare: no pair differs


def test_a_net_learns_what_no_linear_head_can():
    rng = np.random.default_rng(1)
    scores = rng.random((600, 2))
    labels = ((scores[:, 0] > 0.5) != (scores[:, 1] > 0.5)).astype(np.int64)
    right = [(fit_head(scores, labels, 2, hidden)(scores).argmax(1) == labels).mean() for hidden in (0, 16)]
    assert right[0] < 0.65 and right[1] > 0.85


def test_the_figure_is_sound(scored):
    _, curves = judged(*scored)
    drawn = ElementTree.fromstring(draw(curves, ("<bus>", *LABELS[1:]), list(PARTS), TRUTH))
    lines = [e for e in drawn.iter() if e.tag.endswith("polyline")]
    assert len(lines) == 4 * 4 * 4
    for line in lines:
        assert all(np.isfinite(float(v)) for v in line.attrib["points"].replace(",", " ").split())


def test_the_study_runs(world: SmallWorld, tmp_path: Path, monkeypatch):
    monkeypatch.setenv("CONSTRUCTIBLE_STORE", str(tmp_path / "cache" / "store"))
    arguments = ["study", "heads", str(world.folder), "--classes", "bus,bee,daisy", "--draws", "0", "--steps", "4",
                 "--out", str(tmp_path / "h"), "--json"]  # fmt: skip
    done = CliRunner().invoke(vision, arguments)
    assert done.exit_code == 0, done.output
    assert set(json.loads(done.stdout)["rows"]) == {"table", "rules", "signed linear", "small net"}
    assert (tmp_path / "h" / "heads-0.svg").read_text().startswith("<svg")
    assert "against table" in (tmp_path / "h" / "study.md").read_text()
