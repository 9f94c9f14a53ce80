"""The decomposition curve from raw results of known truth: steps, controls, seeds, the page."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eval.cli import eval_
from eval.decomposition import FORMAT, figure, lines, page, read_raw, warnings
from ontology.errors import ConstructibleError
from ontology.io import write_json
from ontology.main import run as run_command
from tests.support import ROOT

LEVELS = {"root": 1.0, "few": 1.02, "all": 1.15, "plain": 1.16}


def make_raw(levels: dict[str, float] = LEVELS, better: str = "lower", seeds: int = 3, n: int = 60) -> dict[str, Any]:
    """Figures scattered a little about these levels, with a control at `all`."""
    rng = np.random.default_rng(0)
    size = rng.lognormal(7, 0.5, n).round() + 10
    hard = np.exp(rng.normal(0, 0.2, n))
    runs, builds = [], []
    for seed in range(seeds):
        for cut, level in [*levels.items(), ("random", 1.3 * levels["all"])]:
            values = (level * size * hard * np.exp(rng.normal(0, 0.01, n))).tolist()
            place = {"cut": "all", "control": "random"} if cut == "random" else {"cut": cut, "control": ""}
            runs.append({"line": "whole", **place, "seed": seed, "values": values})
            if cut != "plain":
                builds.append({"cut": cut, "seed": seed, "parameters": 1_000_000 + len(cut), "nets": 3})
    return {
        "format": FORMAT, "track": "code", "command": "constructible eval curve-code", "environment": {},
        "budget": "5 steps", "data": {}, "method": ["How."], "unit": "files", "cluster_name": "files",
        "seed_name": "training seeds", "cuts": list(levels), "words": {"random": "a control"},
        "metric": {"name": "bits per byte", "better": better, "percent": False, "digits": 3},
        "examples": {"names": [f"f{i}" for i in range(n)], "clusters": [f"f{i}" for i in range(n)],
                     "sizes": size.tolist()},
        "builds": builds, "runs": runs,
    }  # fmt: skip


def test_the_largest_loss_is_found_with_its_interval() -> None:
    (line,) = lines(make_raw())
    assert list(line.points) == list(LEVELS) and line.seeds == [0, 1, 2]
    assert line.worst is not None and (line.worst.upper, line.worst.lower) == ("few", "all")
    upper, lower = line.points["few"].estimate, line.points["all"].estimate
    assert line.worst.loss.estimate == pytest.approx(lower - upper) and line.worst.told
    assert line.worst.loss.low < 0.13 * upper / 1.02 < line.worst.loss.high
    assert line.worst_share == 1.0 and "the largest loss is from few to all" in line.words
    assert [(step.upper, step.lower) for step in line.in_all] == [("root", "all"), ("root", "plain")]
    (control,) = line.controls
    assert (control.upper, control.lower) == ("all", "random") and control.told and control.loss.estimate > 0.2


def test_of_one_draw_alone_nothing_is_told() -> None:
    raw = make_raw(seeds=1, n=1)
    (line,) = lines(raw)
    assert all(not step.told and step.q_value == 1.0 for step in (*line.steps, *line.controls))
    assert "one alone says nothing of chance" in page(raw, "a.svg", "raw.json")
    assert "nan" not in page(raw, "a.svg", "raw.json") and figure([line])


def test_where_more_is_better_a_fall_is_a_loss() -> None:
    levels = {"root": 0.9, "few": 0.88, "all": 0.6, "plain": 0.7}
    (line,) = lines(make_raw(levels, better="higher"))
    assert line.worst is not None and (line.worst.upper, line.worst.lower) == ("few", "all")
    assert line.worst.loss.estimate > 0 and line.steps[-1].loss.estimate < 0
    assert line.controls[0].loss.estimate < 0, "this control is better"


def test_chance_is_called_chance() -> None:
    (line,) = lines(make_raw({cut: 1.0 for cut in LEVELS}))
    assert "not told from none" in line.words or "no step loses" in line.words
    assert line.worst_share < 1.0


def test_half_a_curve_shows_what_is_whole() -> None:
    raw = make_raw()
    raw["runs"] = [run for run in raw["runs"] if run["seed"] < 2 or run["cut"] == "root"]
    (line,) = lines(raw)
    assert line.seeds == [0, 1] and list(line.points) == list(LEVELS)
    raw["runs"] = [run for run in raw["runs"] if run["cut"] != "few"]
    assert list(lines(raw)[0].points) == ["root", "all", "plain"]
    assert "the cut 'few' was not measured" in warnings(raw)
    raw["runs"] = []
    assert lines(raw) == []


def test_unequal_sizes_are_named() -> None:
    raw = make_raw()
    assert not warnings(raw)
    raw["builds"][0]["parameters"] *= 2
    assert any("root 1,333" in text for text in warnings(raw))


def test_the_page_the_figure_and_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_json(tmp_path / "docs" / "results" / "some_curve.json", make_raw())
    pages = tmp_path / "docs" / "experiments"
    assert run_command(eval_, ["curve", str(path), "--pages", str(pages), "--svg", str(tmp_path / "one.svg")]) == 0
    said = capsys.readouterr().out
    assert "the largest loss is from few to all" in said and "random against all" in said
    text = (pages / "some_curve.md").read_text()
    assert text == page(read_raw(path), "some_curve.svg", "../results/some_curve.json")
    assert "| random | a control | 3 | 1,000,006 |" in text
    svg = ET.parse(pages / "some_curve.svg").getroot()
    assert len(svg.findall(".//{*}circle")) == 2 * 1 + len(LEVELS) + 1  # points, and the legend's two
    ET.fromstring(figure(lines(make_raw(seeds=1))))
    assert run_command(eval_, ["curve", str(path), "--json"]) == 0
    (line,) = json.loads(capsys.readouterr().out)["lines"]
    assert len(line["steps"]) == 3 + 2 + 1
    other = write_json(tmp_path / "other.json", {"format": "x"})
    with pytest.raises(ConstructibleError, match="not raw results"):
        read_raw(other)
    assert run_command(eval_, ["curve", str(tmp_path), "--pages", str(pages)]) == 2


def test_nets_that_were_taken_out_are_told_by_their_name() -> None:
    raw = make_raw()
    for build in raw["builds"]:
        if build["cut"] == "few":
            build |= {"kept": 2, "kept_parameters": 900_000}
    assert "| few |  | 3, of which 2 specialists kept | 1,000,003, 900,000 kept |" in page(raw, "a.svg", "a.json")
    raw["kept_name"] = ""
    assert "| few |  | 3, of which 2 kept | 1,000,003, 900,000 kept |" in page(raw, "a.svg", "a.json")


@pytest.mark.parametrize("path", sorted((ROOT / "docs" / "results").glob("*_curve.json")), ids=lambda path: path.stem)
def test_committed_pages_are_made_of_committed_results(path: Path) -> None:
    made = page(read_raw(path), f"{path.stem}.svg", f"../results/{path.name}")
    assert (ROOT / "docs" / "experiments" / f"{path.stem}.md").read_text(encoding="utf-8") == made
    assert (ROOT / "docs" / "experiments" / f"{path.stem}.svg").is_file()
