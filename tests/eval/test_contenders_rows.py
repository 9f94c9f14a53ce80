"""Contenders on the leaderboard and in the post: paired, multiplicity counted, only what is comparable together."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eval import contenders_rows
from eval.board import entries, place_of, to_markdown

from eval.research import make_post, to_markdown as post_text  # isort: skip
from ontology.io import write_json
from ontology.stats import paired_ratio

LEVELS = {"constructed": 0.9, "gpt": 1.8, "unrouted": 0.897, "plain": 1.02}


def stored(seeds: int = 1, minutes: tuple[float, ...] = (1.0, 5.0), **more: Any) -> dict[str, Any]:
    rng, runs = np.random.default_rng(0), {}
    size = rng.lognormal(8, 0.7, 60).round()
    hard = np.exp(rng.normal(0, 0.3, 60))
    for budget in minutes:
        for model, level in LEVELS.items():
            for seed in range(seeds):
                bits = size * hard * level * budget**-0.05 * np.exp(rng.normal(0, 0.01, 60))
                run = {
                    "model": model, "minutes": budget, "seed": seed, "split": "test", "corpus": "211 MB",
                    "setting": "static", "seconds": 60 * budget, "parameters": 0 if model == "plain" else 1_000_000,
                    "table_entries": 5, "accuracy": 0.5, "accuracy_low": 0.4, "accuracy_high": 0.6,
                    "bytes_per_token": 3.5, "commit": "c" * 40, "cpu": "a CPU", "bits": bits.tolist(),
                    "bytes": size.astype(int).tolist(), "project": [f"p{i % 4}" for i in range(60)],
                    "path": [f"f{i}.py" for i in range(60)],
                } | more  # fmt: skip
                runs[f"{budget} {model} {seed}"] = run
    return {"environment": {"git": {"commit": "d" * 40}, "cpu": "a CPU"}, "runs": runs}


@pytest.fixture
def results(tmp_path: Path) -> Path:
    folder = tmp_path / "docs" / "results"
    folder.mkdir(parents=True)
    write_json(folder / contenders_rows.RAW, stored())
    return folder


def test_rows_are_those_of_the_file_and_link_to_it(results: Path) -> None:
    rows = entries(results)
    assert len(rows) == 8 and len({row.board for row in rows}) == 1
    best = rows[0]
    run = stored()["runs"]["5.0 unrouted 0"]
    assert best.figures.name == "one unrouted net with the same tables, 5 min" and best.kind == "one net with tables"
    assert best.figures.bits_per_byte == pytest.approx(sum(run["bits"]) / sum(run["bytes"]))
    assert best.figures.bits_per_byte_low < best.figures.bits_per_byte < best.figures.bits_per_byte_high  # type: ignore[operator]
    assert {row.kind: row.opaque for row in rows}["monolith"] == 1_000_000 and best.opaque is None
    assert place_of(contenders_rows.RAW) == "experiments/contenders.json"
    text = to_markdown(rows)
    for place in re.findall(r"\]\(([^)]+json)\)", text):
        assert (results.parent / place).is_file()
    assert "--minutes 5 --split test" in text


def test_comparisons_are_paired_and_say_where_construction_does_not_win(results: Path) -> None:
    found = contenders_rows.ratios(contenders_rows.read(results))
    assert len(found) == 6, "at one budget only, and never against itself"
    one = next(one for one in found if one.other.model == "gpt" and one.ours.minutes == 5)
    runs = stored()["runs"]
    ours, theirs = runs["5.0 constructed 0"], runs["5.0 gpt 0"]
    assert one.ratio.low == paired_ratio(ours["bits"], theirs["bits"], ours["bytes"]).low
    assert one.told and one.ratio.estimate == pytest.approx(0.5, abs=0.01)
    text = post_text(make_post(results))
    short, negative = text.partition("## Methods")[0], text.partition("## Negative")[2].partition("## Limit")[0]
    assert "constructed, 5 min / transformer, 5 min: 0.5" in short
    assert "one unrouted net with the same tables, 5 min: 1.0" in negative and "/ transformer," not in negative
    assert "(experiments/contenders.json)" in negative and "figures/contenders_test_60_files_" in text


def test_seeds_are_one_row_and_what_is_not_comparable_is_left_out(results: Path) -> None:
    write_json(results / contenders_rows.RAW, stored(seeds=3))
    rows = entries(results)
    assert len(rows) == 8 and all(row.figures.note.startswith("3 training seeds") for row in rows)
    assert all(one.ratio.n_clusters == 60 for one in contenders_rows.ratios(contenders_rows.read(results)))
    mixed = stored(seeds=2)
    mixed["runs"]["5.0 gpt 1"] |= {"commit": "e" * 40}
    write_json(results / contenders_rows.RAW, mixed)
    cells = [line.split(" | ")[-2] for line in to_markdown(entries(results)).splitlines() if "json](" in line]
    assert sorted(set(cells)) == ["c" * 12, f"{'c' * 12}, {'e' * 12}"] and cells.count("c" * 12) == 7
    other = stored(seeds=1)
    odd = dict(other["runs"]["5.0 gpt 0"]) | {"path": [f"other{i}.py" for i in range(60)]}
    older = {key: value for key, value in other["runs"]["5.0 plain 0"].items() if key != "setting"}
    other["runs"] |= {"5.0 gpt 0": odd, "5.0 plain 0": older}
    other["runs"]["5.0 unrouted 0"] |= {"parameters": 1_300_000, "cpu": "another CPU", "commit": "e" * 40}
    write_json(results / contenders_rows.RAW, other)
    found = contenders_rows.read(results)
    assert len(found) == 6
    said = " ".join(contenders_rows.unlike(found))
    assert "30% more parameters" in said and "2 different cpus" in said and "2 different commits" in said
    # An earlier version's rows stand beside these, and are never paired with them.
    write_json(results / "../experiments/contenders_v3.json", stored(minutes=(5.0,)))
    both = contenders_rows.read(results)
    assert len(both) == 6 + 4 and {one.version for one in both} == {"", "v3"}
    assert all(one.ours.raw == one.other.raw for one in contenders_rows.ratios(both))
    assert "constructed, 5 min (v3)" in to_markdown(entries(results))
    assert "another" not in to_markdown(entries(results))


def test_rows_that_do_not_say_their_commit_are_not_given_one(results: Path) -> None:
    write_json(results / contenders_rows.RAW, stored(commit=""))
    (first, *_) = entries(results)
    assert first.commit == "" and "at or before dddddddddddd" in first.figures.note
    assert contenders_rows.read(results.parent) == []


def test_the_command_is_the_one_that_makes_the_rows_again(results: Path) -> None:
    more = {"split": "test, all files", "corpus": "40 MB", "setting": "dynamic"}
    write_json(results / contenders_rows.RAW, stored(seeds=2, minutes=(1.0,), **more))
    (command,) = {contenders_rows.command_of(one) for one in contenders_rows.read(results)}
    asked = "--minutes 1 --split test --seeds 2 --sample --whole --dynamic"
    assert command == f"python -m eval.studies.contenders DATA {asked}"
    write_json(results / contenders_rows.RAW, stored(minutes=(5.0,)))
    (command,) = {contenders_rows.command_of(one) for one in contenders_rows.read(results)}
    assert command == "python -m eval.studies.contenders DATA --minutes 5 --split test"
