"""The research post: every number is one of a raw results file, and what is unfavourable is in it."""

from __future__ import annotations

import re
import shutil
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from eval.cli import eval_
from eval.research import make_post, to_html, to_markdown, write_post
from eval.tasks.pairs import PAIRS
from eval.tasks.replay import REPLAY
from ontology.io import read_json, write_json
from ontology.main import run as run_command
from tests.browser import DESKTOP, PHONE, Browser, browser  # noqa: F401
from tests.eval.results import bits_rows, make_results
from tests.eval.test_decomposition import make_raw
from tests.support import ROOT


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """The quick start's results, a pair of runs, and tasks on which the constructed model fails."""
    folder = tmp_path / "docs" / "results"
    folder.mkdir(parents=True)
    shutil.copy(ROOT / "docs" / "results" / "quickstart.json", folder)
    make_results(folder / "pair", "ours", bits_rows(1.3))
    make_results(folder / "pair", "monolith", bits_rows(1.2, noise_seed=4), budget={"cut": "root", "seconds": 300.0})
    one = {"example": "a", "cluster": "a", "sha256": "0", "detail": ""}
    values = {"right": 0.0, "pairs": 1.0, "margin": -1.0}
    make_results(folder / "pair", "ours", [{**one, "part": part, **values} for part in ("", "bracket")], task=PAIRS)
    replayed = {"replayed": 99.0, "positions": 100.0, "largest_difference": 0.1, "files": 1.0}
    make_results(folder / "pair", "ours", [{**one, "part": "", **replayed}], task=REPLAY)
    write_json(folder / "code_curve.json", make_raw())
    return folder


def test_curves_of_models_with_training_seeds_are_shown(results: Path) -> None:
    for cut, bits in (("root", 1.4), ("leaves", 1.2)):
        for seed in (0, 1):
            make_results(results / "bench", cut, bits_rows(bits), seed=seed, budget={"cut": cut})
    (results / "bench" / "leaves" / "seed-0" / "bits.rows").mkdir()
    shutil.copy(results / "bench" / "root" / "seed-0" / "bits.parquet",
                results / "bench" / "leaves" / "seed-0" / "bits.rows" / "00000.parquet")  # fmt: skip
    assert "Decomposition: bench" in to_markdown(make_post(results))


def test_what_is_unfavourable_is_said(results: Path) -> None:
    text = to_markdown(make_post(results))
    negative = text.partition("## Negative results")[2].partition("## Limitations")[0]
    assert "ours is behind monolith" in negative
    assert "99.00 % of the explanations were replayed, not all" in negative
    assert "0.0 % of the pairs `bracket`: no better than a coin" in negative
    assert "not an equal-budget pair: seconds, monolith has 300 s" in text
    waterfall = read_json(results / "quickstart.json")["waterfall"]
    lost = [row["concept"] for row in waterfall if row["constructed_bits"] > row["baseline_bits"]]
    assert all(f"`{name}`" in negative for name in lost)


def test_every_table_row_and_claim_links_to_a_file_that_is_there(results: Path) -> None:
    write_post(results, results.parent)
    text = (results.parent / "REPORT.md").read_text(encoding="utf-8")
    links = re.findall(r"\]\((results/[^)]+)\)", text)
    assert len(links) > 10 and all((results.parent / link).exists() for link in links)
    for line in text.partition("## Results")[2].partition("## Negative")[0].splitlines():
        if line.startswith("|") and not line.startswith(("| Model", "| Cut", "| ---")):
            assert "(results/" in line or "(experiments/" in line, line
    for figure in re.findall(r"\((figures/[^)]+)\)", text):
        ET.parse(results.parent / figure)


def test_what_is_committed_is_what_the_raw_results_give(tmp_path: Path) -> None:
    docs = ROOT / "docs"
    post = make_post(docs / "results")
    assert (docs / "REPORT.md").read_text(encoding="utf-8") == to_markdown(post)
    assert (docs / "report.html").read_text(encoding="utf-8") == to_html(post)
    shown = {block[0]: block[1] for kind, block in post.blocks if kind == "figure"}
    kept = {path.stem: path.read_text(encoding="utf-8") for path in (docs / "figures").glob("*.svg")}
    assert kept == shown
    for place in re.findall(r"\]\(([\w./ +-]+)\)", to_markdown(post)):
        assert (docs / place).exists(), place


def test_pages_are_made_again_by_one_call_and_old_figures_go(results: Path) -> None:
    assert run_command(eval_, ["publish", "--docs", str(results.parent)]) == 0
    docs = results.parent
    first = {path.relative_to(docs).as_posix(): path.read_bytes() for path in docs.rglob("*") if path.is_file()}
    assert {"LEADERBOARD.md", "leaderboard.html", "REPORT.md", "report.html", "experiments/code_curve.md"} <= set(first)
    assert run_command(eval_, ["publish", "--docs", str(docs)]) == 0
    assert first == {p.relative_to(docs).as_posix(): p.read_bytes() for p in docs.rglob("*") if p.is_file()}
    (results / "code_curve.json").unlink()
    assert run_command(eval_, ["publish", "--docs", str(docs)]) == 0
    assert not (docs / "figures" / "code_curve.svg").exists()


def test_seeds_are_compared_together(results: Path) -> None:
    for seed in range(2):
        make_results(results / "pair", "seeded", bits_rows(1.0 + 0.1 * seed), seed=seed)
    text = to_markdown(make_post(results))
    assert (
        "seeded less monolith: refused. not an equal-budget pair: training seeds: seeded has 2, monolith has 1" in text
    )
    for seed in range(2):
        root = {"cut": "root", "seconds": 181.0}
        make_results(results / "pair", "roots", bits_rows(1.9 + 0.1 * seed, noise_seed=2), seed=seed, budget=root)
    assert "seeded less roots: -0." in to_markdown(make_post(results))


def test_sections_are_all_there(results: Path) -> None:
    text = to_markdown(make_post(results))
    for heading in ("In short", "Methods", "Results", "Negative results", "Limitations", "Threats to validity"):
        assert f"\n## {heading}\n" in text
    assert "constructible eval quickstart --minutes 3" in text
    assert "Decomposition: pair" in text, "two cuts are a curve"
    curve = text.partition("## Decomposition: code")[2].partition("\n## ")[0]
    assert "the largest loss is from few to all" in curve and "random against all" in curve
    assert curve.count("[code_curve.json](results/code_curve.json)") > 8 and "figures/code_curve.svg" in curve
    negative = text.partition("## Negative results")[2].partition("## Limitations")[0]
    assert "cutting from few to all loses" in negative and "the control" not in negative
    assert "`constructible eval curve-code`" in text


def test_studies_of_images_are_told_with_what_they_could_have_found(results: Path) -> None:
    row = {"accuracy": 0.8, "photographs": 100, "parameters": 10}
    lost = {"a": "rules", "b": "monolith", "difference": -0.2, "difference_low": -0.3, "difference_high": -0.1,
            "p_value": 0.001, "minimum_detectable": 0.14}  # fmt: skip
    # Filed with 2.8 standard errors, which lie inside the interval: that cannot be what would be found.
    unclear = {"a": "leaves", "b": "root", "difference": 0.05, "difference_low": -0.1, "difference_high": 0.2,
               "p_value": 0.4, "minimum_detectable": 0.056, "resampled": "draws"}  # fmt: skip
    study = {"format": "constructible-vision-study/1", "study": "cuts", "data": "tiny", "minutes": 1.5, "steps": None,
             "judged_on": "validation", "draws": {"0": ["a", "b"], "1": ["a", "c"]}, "differences": [lost, unclear],
             "rows": {"leaves": [row, row], "root": [row, row]}, "order": ["leaves", "root"]}  # fmt: skip
    write_json(results / "vision_cuts.json", study)
    text = to_markdown(make_post(results))
    section = text.partition("## Studies of the image track")[2].partition("\n## ")[0]
    assert "| leaves | 80.0%" in section and section.count("[vision_cuts.json](results/vision_cuts.json)") == 4
    assert "±16.7 would be found 4 times in 5" in section and "over draws" in section
    negative = text.partition("## Negative results")[2].partition("## Limitations")[0]
    assert "rules less monolith: -20.0 [-30.0, -10.0] points" in negative and "leaves less root" not in negative
    assert "Images, 2 draws of classes: leaves less root: +5.0" in text.partition("## Methods")[0]


def test_names_cannot_break_out_of_the_page(results: Path) -> None:
    make_results(results / "pair", "<img src=x onerror=alert(1)> [a](javascript:alert(1))", bits_rows(1.1),
                 budget={"cut": "1"})  # fmt: skip
    page = to_html(make_post(results))
    assert "<img" not in page and 'href="javascript' not in page


@pytest.mark.parametrize(("size", "dark"), [(DESKTOP, True), (PHONE, False)])
def test_the_page(browser: Browser, results: Path, size, dark) -> None:  # noqa: F811
    assert run_command(eval_, ["report", "--results", str(results), "--out", str(results.parent)]) == 0
    page = browser.open(results.parent / "report.html", size, dark=dark)
    assert page.overflow() == 0 and page.problems() == []
    assert page.run("document.querySelectorAll('figure svg').length") >= 3
    page.close()
