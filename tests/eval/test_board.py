"""The leaderboard: made of the raw results that are kept, equal to what is committed, usable in a browser."""

from __future__ import annotations

import csv
import io
import re
import shutil
from pathlib import Path

import pytest

from eval.board import MARKDOWN, PAGE, RESULTS, entries, to_csv, to_markdown, write_board
from eval.board_page import render
from eval.cli import eval_
from eval.tasks.replay import REPLAY
from ontology.errors import ConstructibleError, UsageError
from ontology.io import read_json, write_json
from ontology.main import run as run_command
from tests.browser import DESKTOP, PHONE, Browser, browser  # noqa: F401
from tests.eval.results import bits_rows, make_results
from tests.support import ROOT


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """Raw results of both makes: the quick start's, and three runs on other files."""
    folder = tmp_path / "docs" / "results"
    folder.mkdir(parents=True)
    shutil.copy(ROOT / RESULTS / "quickstart.json", folder)
    make_results(folder / "lib", "mine <b>bold</b>", bits_rows(1.1))
    root = {"cut": "root", "parameters": 1_600_000, "seconds": 181.0}
    make_results(folder / "lib", "monolith", bits_rows(1.9), budget=root)
    make_results(folder / "lib", "from the hub", bits_rows(1.4), leaked=None, budget={"seconds": None, "cut": None})
    return folder


def test_what_is_committed_is_what_the_raw_results_give() -> None:
    rows = entries(ROOT / RESULTS)
    assert (ROOT / "docs" / MARKDOWN).read_text(encoding="utf-8") == to_markdown(rows)
    assert (ROOT / "docs" / PAGE).read_text(encoding="utf-8") == render(rows)


def test_rows_come_from_the_files_they_name(results: Path) -> None:
    rows = entries(results)
    quick = {row["name"]: row for row in read_json(results / "quickstart.json")["leaderboard"]}
    for row in rows:
        assert (results / row.raw).is_file()
        if row.raw == "quickstart.json":
            assert row.figures.bits_per_byte == quick[row.figures.name]["bits_per_byte"]
    assert [row.board for row in rows] == sorted(row.board for row in rows)
    kinds = {row.figures.name: row.kind for row in rows}
    assert kinds["monolith"] == kinds["baseline (one transformer)"] == "monolith"
    assert kinds["constructed"] == "constructed" and kinds["constructed, no nets"] == "no nets"
    assert kinds["from the hub"] == "other"
    hub = next(row for row in rows if row.figures.name == "from the hub")
    assert "not known" in hub.figures.note


def test_a_control_is_no_model_and_figures_of_another_model_are_not_its_own(results: Path) -> None:
    about = {"name": "dealt out", "kind": "", "seed": None, "fingerprint": "x", "control": "random router"}
    make_results(results / "pair", "dealt out", bits_rows(1.1), model=about)
    rows = {row.figures.name: row for row in entries(results)}
    assert rows["dealt out"].kind == "control" and "a control: random router" in rows["dealt out"].figures.note
    one = {"example": "a", "cluster": "a", "sha256": "0", "detail": "", "part": ""}
    replayed = {"replayed": 50.0, "positions": 100.0, "largest_difference": 0.1, "files": 1.0}
    make_results(results / "pair", "dealt out", [{**one, **replayed}], task=REPLAY, model=about)
    assert next(row for row in entries(results) if row.figures.name == "dealt out").faithful == 0.5
    make_results(results / "pair", "dealt out", bits_rows(1.1), model=about | {"fingerprint": "built again"})
    assert next(row for row in entries(results) if row.figures.name == "dealt out").faithful is None


def test_a_changed_figure_changes_the_table(results: Path, tmp_path: Path) -> None:
    before = to_markdown(entries(results))
    raw = read_json(results / "quickstart.json")
    raw["leaderboard"][0]["bits_per_byte"] = 0.123
    write_json(results / "quickstart.json", raw)
    after = to_markdown(entries(results))
    assert after != before and "0.123" in after


def test_training_seeds_are_one_row_that_knows_of_other_seeds(results: Path) -> None:
    for seed in range(3):
        make_results(
            results / "seeds", "three", bits_rows(1.1 + 0.1 * seed), seed=seed, budget={"seconds": 180.0 + seed}
        )
    (row,) = [row for row in entries(results) if row.figures.name == "three"]
    single = next(row for row in entries(results) if row.figures.name == "mine <b>bold</b>")
    assert row.figures.note.startswith("3 training seeds") and row.figures.seconds == 181.0
    widths = [r.figures.bits_per_byte_high - r.figures.bits_per_byte_low for r in (row, single)]  # type: ignore[operator]
    assert widths[0] > 1.5 * widths[1]
    assert len(row.facts["seeds"]) == 3
    make_results(results / "seeds", "three", bits_rows(1.1, n=20), seed=1)
    with pytest.raises(ConstructibleError, match="same files"):
        entries(results)


def test_all_formats(results: Path, capsys) -> None:
    rows = entries(results)
    text = to_markdown(rows)
    assert text.count("\n| ") == len(rows) + 2 * 2 and "mine <b>bold</b>" in text
    read = list(csv.DictReader(io.StringIO(to_csv(rows))))
    assert [row["name"] for row in read] == [row.figures.name for row in rows]
    assert float(read[0]["bits_per_byte"]) == rows[0].figures.bits_per_byte
    for form, words in (("table", "bits/byte"), ("md", "# Leaderboard"), ("csv", "board,kind"), ("html", "<!doctype")):
        assert run_command(eval_, ["leaderboard", "--results", str(results), "--format", form]) == 0
        assert words in capsys.readouterr().out
    assert "<b>" not in render(rows), "names are text"
    written = write_board(results, results.parent)
    assert [path.name for path in written] == [MARKDOWN, PAGE]
    with pytest.raises(UsageError, match="no results"):
        entries(results.parent / "nothing")


@pytest.mark.parametrize("size", [DESKTOP, PHONE])
@pytest.mark.parametrize("dark", [False, True])
def test_the_page_sorts_filters_and_opens_raw_results(browser: Browser, results: Path, size, dark) -> None:  # noqa: F811
    path = write_board(results, results.parent)[1]
    page = browser.open(path, size, dark=dark)
    press = page.tap if size is PHONE else page.click
    assert page.overflow() == 0
    paper = page.run("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", paper)[:3])) < 150) == dark

    def shown(column: int = 0) -> list[str]:
        return page.run(
            "[...document.querySelectorAll('.board tbody tr')].filter(r => !r.hidden)"
            f".map(r => r.cells[{column}].dataset.sort)"
        )

    everything = shown()
    assert len(everything) == 6
    press(".board thead button", 0)
    assert shown() == sorted(everything, key=str.lower) and shown() != everything
    press(".board thead button", 2)
    values = [float(value) for value in shown(2)]
    assert values == sorted(values, reverse=True)
    press(".board thead button", 2)
    assert [float(value) for value in shown(2)] == sorted(values)
    press(".board thead button", 8)
    assert shown(8)[-1] == "", "what was not measured comes last"

    def fill(control: str, value: str) -> None:
        page.run(f"(() => {{ const c = document.getElementById('{control}'); c.value = {value!r};"
                 " c.dispatchEvent(new Event('input')); })()")  # fmt: skip

    fill("words", "hub")
    assert shown() == ["from the hub"] and "1 of 6" in page.run("document.getElementById('shown').textContent")
    fill("words", "")
    fill("kind", "monolith")
    assert sorted(shown()) == ["baseline (one transformer)", "monolith"]
    fill("kind", "")
    assert len(shown()) == 6

    press(".board thead button", 0)
    at = shown().index("mine <b>bold</b>")
    press(".raw-button", at)
    page.wait("document.querySelector('dialog.raw').open")
    text = page.run("document.querySelector('dialog.raw').innerText")
    assert "mine <b>bold</b>" in text and "d" * 64 in text and "Scored files (40)" in text and "Situations (2)" in text
    assert page.run("document.querySelector('dialog.raw a').getAttribute('href')").startswith("results/lib/")
    assert (results.parent / page.run("document.querySelector('dialog.raw a').getAttribute('href')")).is_file()
    page.run("document.querySelectorAll('dialog.raw summary').forEach(s => s.click())")
    assert page.overflow() == 0
    press("dialog.raw [data-close]")
    page.wait("!document.querySelector('dialog.raw').open")
    assert page.problems() == []
    page.close()
