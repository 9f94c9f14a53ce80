"""The study of nodes over several draws: figures of made-up judgements, and the whole command."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from tests.vision.small import SmallWorld
from vision.cli import vision
from vision.fidelity_study import means, of_draw


def judged(weight: float, swapped: list[int]) -> dict[str, Any]:
    """What a judgement says of four photographs, all of which the model names rightly."""
    return {
        "summary": {
            "positive_polarity_share": 1.0, "faithful_share": 0.5, "rule_weight_on_faithful": weight,
            "mean_transfer_auroc": 0.7, "mean_controls": {"picture_statistics": 0.6, "class_memoriser": None},
        },
        "nodes": {"red": {"memory": 0.1}, "wheel": {"memory": 0.3}, "legs": {"memory": None}},
        "random_concepts": {"random_0": {}, "random_1": {}}, "random_concepts_that_pass": 1,
        "leakage": {"nis": 0.7, "nis_of_truth": 0.6, "ois": 0.2},
        "right": {"as built": [1, 1, 1, 1], "nodes of another seed": swapped}, "target": [0, 0, 1, 1],
    }  # fmt: skip


def test_figures_are_means_over_draws_with_their_intervals():
    draws = [of_draw(judged(weight, [1, 1, 1, 0]), 1000) for weight in (0.6, 0.7, 0.8)]
    built, swapped = draws[0]["rows"]
    assert built["accuracy"] == 1.0 and swapped["accuracy"] == 0.75 and "rule_weight_on_faithful" not in swapped
    assert built["random_concepts_passing"] == 0.5 and built["memory"] == pytest.approx(0.2)
    found = {row["figure"]: row for row in means([made["rows"][0] for made in draws])}
    weight = found["rule_weight_on_faithful"]
    assert weight["mean"] == pytest.approx(0.7) and weight["mean_low"] < 0.62 and weight["mean_high"] > 0.78
    assert weight["draws"] == 3 and "class_memoriser" not in found
    alone = {row["figure"]: row for row in means([draws[0]["rows"][0]])}
    assert alone["rule_weight_on_faithful"]["mean_low"] is None  # one draw has no interval


def test_the_study_judges_every_draw_and_resumes(world: SmallWorld, tmp_path: Path):
    arguments = ["study", "fidelity", str(world.folder), "--classes", "random:3", "--draws", "0,1", "--steps", "8",
                 "--out", str(tmp_path / "f")]  # fmt: skip
    done = CliRunner().invoke(vision, [*arguments, "--json"])
    assert done.exit_code == 0, done.output
    made = json.loads(done.stdout)
    built, swapped = made["rows"]["as built"], made["rows"]["nodes of another seed"]
    assert len(built) == len(swapped) == 2 and all(row["photographs"] == 15 for row in [*built, *swapped])
    by_pair = {(d["a"], d["b"]): d["difference"] for d in made["differences"]}
    drop = sum(a["accuracy"] - b["accuracy"] for a, b in zip(built, swapped, strict=True)) / 2
    assert by_pair["nodes of another seed", "as built"] == pytest.approx(-drop)
    for seed in (0, 1):
        summary = json.loads((tmp_path / "f" / f"fidelity-{seed}" / "fidelity.json").read_text())["summary"]
        assert summary["swap_drop"] == pytest.approx(built[seed]["accuracy"] - swapped[seed]["accuracy"], abs=1e-4)
    text = CliRunner().invoke(vision, arguments)
    assert "nodes of another seed - as built: " in text.stdout and "rule weight on faithful: " in text.stdout
    assert "in the store already" in text.stderr
