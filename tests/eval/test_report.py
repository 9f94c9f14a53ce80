"""The report as a page and the leaderboard as text: structure, escaping, and a real browser."""

from __future__ import annotations

import io
import json
import re

import pytest
from click.testing import CliRunner
from rich.console import Console

from cgpt.page import asset
from eval.cli import eval_
from eval.leaderboard import Row, print_table, row_dicts, to_markdown
from eval.report import _PAGE, render_report
from tests.browser import DESKTOP, PHONE, Browser, browser  # noqa: F401 - a fixture
from tests.cgpt.test_explain_page import ATTACKS, Elements, tiny_record
from tests.eval.sample_report import ROUTER, sample_record, sample_report, sample_text


@pytest.fixture(scope="module")
def report() -> dict:
    return sample_report(sample_record(sample_text()[:6000]))


@pytest.fixture(scope="module")
def page_text(report) -> str:
    return render_report(report)


def test_page_is_one_file_that_loads_nothing(page_text):
    for tag, attributes in Elements(page_text).found:
        assert tag not in ("link", "iframe", "img", "base", "object")
        assert "src" not in attributes and (attributes.get("href") or "#").startswith("#"), (tag, attributes)


def test_every_section_is_there_and_linked(page_text, report):
    elements = Elements(page_text).found
    ids = [attributes["id"] for tag, attributes in elements if tag == "section" and "id" in attributes]
    assert ids == ["result", "waterfall", "explained", "viewer", "router", "mixer", "completion", "run"]
    links = [attributes["href"] for tag, attributes in elements if tag == "a"]
    assert set(links) == {f"#{name}" for name in ids if name != "viewer"}
    assert len(set(ids)) == len(ids)
    text = re.sub(r"<[^>]+>", " ", page_text.split("<main>")[1].split('<script type="application/json"')[0])
    for row in report["leaderboard"]:
        assert f"{row['bits_per_byte']:.3f}" in text and f"{100 * row['accuracy']:.1f} %" in text
    assert f"{report['comparison']['ratio']:.3f}" in text


def test_waterfall_adds_up(page_text, report):
    n_bytes = sum(row["bytes"] for row in report["waterfall"])
    saved = [float(x) for x in re.findall(r'<tr data-saved="([-\d.]+)"', page_text)]
    ours, theirs = (sum(r[key] for r in report["waterfall"]) / n_bytes for key in ("constructed_bits", "baseline_bits"))
    assert len(saved) == len(report["waterfall"]) and saved == sorted(saved, reverse=True)
    assert sum(saved) == pytest.approx(theirs - ours, abs=1e-4)
    assert f'data-from="{theirs:.6f}"' in page_text


def test_router_shows_counts_and_lines_never_taken(report):
    hits = {"6": 1200, "8": 3}  # keys are text after a round trip through JSON
    page = render_report({**report, "router": {"source": ROUTER, "hits": hits}, "explain": None})
    rows = re.findall(r'<div class="row( never)?"[^>]*><span class="hits">([^<]*)</span><span class="no">(\d+)', page)
    assert len(rows) == ROUTER.count("\n")
    by_line = {int(number): (never, text) for never, text, number in rows}
    assert by_line[6] == ("", "1.2\u2009k") and by_line[8] == ("", "3")
    assert by_line[9] == (" never", "never") and by_line[5] == ("", "")


def test_parts_that_are_missing_are_left_out():
    page = render_report({"title": "Small", "leaderboard": [{"name": "one", "bits_per_byte": None, "accuracy": None}]})
    assert [a["id"] for t, a in Elements(page).found if t == "section"] == ["result"]
    render_report({})


def test_nothing_in_a_report_breaks_out_of_the_page():
    def built(texts: list[str]) -> list[str]:
        joined = "".join(texts)
        rows = [
            {"name": joined, "bits_per_byte": 1.0, "accuracy": 0.5, "parameters": 1, "seconds": 1.0, "note": joined}
        ]
        page = render_report(
            {
                "title": joined, "commit": joined, "command": joined, "created": joined,
                "environment": {joined: joined},
                "leaderboard": rows, "comparison": {"ratio": 0.5, "low": 0.4, "high": 0.6, "text": joined},
                "waterfall": [{"concept": joined, "question": joined, "group": joined, "positions": 1, "bytes": 1,
                               "constructed_bits": 1.0, "baseline_bits": 2.0}],
                "router": {"source": "a", "hits": {1: 1}},
                "mixer": [{"concept": joined, "positions": 1, "weights": {joined: 1.0}}],
                "explain": tiny_record(texts), "completion": {"prompt": joined, "completion": joined},
                "skipped": [[joined, joined]], "notes": [joined],
            }
        )  # fmt: skip
        page.encode("utf-8")
        return [tag for tag, _ in Elements(page).found]

    assert built(ATTACKS) == built(["a"] * len(ATTACKS))
    hostile = "\n".join(ATTACKS)
    page = render_report({"router": {"source": hostile, "hits": {}}})
    assert {tag for tag, _ in Elements(page.split("<main>")[1].split("</main>")[0]).found} <= {
        "section", "h2", "p", "div", "span", "code",
    }  # fmt: skip


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("size", [PHONE, DESKTOP, (820, 1180)])
def test_report_in_a_browser(browser: Browser, page_text, size, dark):  # noqa: F811
    page = browser.open(page_text, size, dark=dark)
    assert page.overflow() == 0
    (page.tap if size[0] < 600 else page.click)(".v-code [data-i='120']")
    page.wait("document.querySelector('.v-code .on[data-i=\"120\"]') !== null")
    panel = page.run("document.querySelector('.v-panel').innerText")
    for heading in ("Concept in charge", "Why this concept", "Who said so", "What it expected"):
        assert heading.lower() in panel.lower()
    assert page.overflow() == 0
    paper = page.run("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", paper)[:3])) < 150) == dark
    assert page.problems() == []
    page.close()


def test_tables_sort_and_the_steps_follow(browser: Browser, page_text, report):  # noqa: F811
    page = browser.open(page_text)

    def firsts(table: str) -> list[str]:
        return page.run(f"[...document.querySelectorAll('.{table} tbody th')].map(e => e.dataset.sort)")

    def end() -> float:
        """Where the last step of the waterfall arrives, in percent of the scale."""
        return page.run(
            "(() => { const steps = [...document.querySelectorAll('.waterfall .step')], s = steps.at(-1).style;"
            " const up = steps.at(-1).classList.contains('up');"
            " const [from, size] = ['--from', '--size'].map((name) => parseFloat(s.getPropertyValue(name)));"
            " return up ? from + size : from; })()"
        )

    arrived = end()
    page.click(".waterfall thead button", 0)
    assert firsts("waterfall") == sorted(firsts("waterfall"))
    assert page.run("document.querySelector('.waterfall th').getAttribute('aria-sort')") == "ascending"
    page.click(".waterfall thead button", 1)
    positions = {row["concept"]: row["positions"] for row in report["waterfall"]}
    shown = [positions[name] for name in firsts("waterfall")]
    assert shown == sorted(positions.values(), reverse=True)
    if all(row["baseline_bits"] > row["constructed_bits"] for row in report["waterfall"]):
        assert end() == pytest.approx(arrived, abs=0.1)
    page.click(".leaderboard thead button", 1)
    assert firsts("leaderboard") == ["baseline", "constructed"]
    page.click(".mixer thead button", 0)
    assert firsts("mixer") == sorted(firsts("mixer"))
    assert page.problems() == []
    page.close()


def test_styles_of_the_report_leave_the_viewer_alone():
    report_css, viewer_js = asset("report.css", _PAGE), asset("panel.js") + asset("viewer.js")
    # What a rule of the report starts with is a class of its own, unless it says where in the viewer it applies.
    heads = {
        re.split(r"[ .:>]", rule.strip().lstrip("."))[0] for rule in re.findall(r"^\s*(\.[^{]+)\{", report_css, re.M)
    }
    used = {name for names in re.findall(r'class(?:Name)?[:=] "([^"]+)"', viewer_js) for name in names.split()}
    assert heads and used and not (heads & used)


# The leaderboard as text.

ROWS = [
    Row("baseline", 1.7, 0.25, 5_300_000, 180.0, note="a | b [red]"),
    Row("constructed", 1.07, 0.5, 2_000_000, 181.0, 1.0, 1.1, 0.49, 0.51, 18_000_000, 2**30),
]


def test_rows_are_sorted_and_complete():
    rows = row_dicts(ROWS)
    assert [row["name"] for row in rows] == ["constructed", "baseline"]
    assert {"name", "bits_per_byte", "accuracy", "parameters", "seconds", "bits_per_byte_low"} <= rows[0].keys()
    assert row_dicts(json.loads(json.dumps(rows))) == rows
    with pytest.raises(TypeError, match="bits_per_bite"):
        row_dicts([{**rows[0], "bits_per_bite": 1.0}])


def test_markdown_table():
    lines = to_markdown(ROWS).splitlines()
    assert len(lines) == 4 and len({re.sub(r"\\\|", "", line).count("|") for line in lines}) == 1
    assert "1.070 [1.000, 1.100]" in lines[2] and "50.0 % [49.0, 51.0]" in lines[2] and "1,024" in lines[2]
    assert "a \\| b [red]" in lines[3]


def test_printed_table_takes_text_as_text():
    out = io.StringIO()
    print_table(ROWS, Console(file=out, width=80))
    lines = out.getvalue().splitlines()
    assert len(lines) == 4 and max(map(len, lines)) <= 80 and "baseline: a | b [red]" in out.getvalue()
    assert (
        "1.070 ± 0.050" in out.getvalue()
        and "50.0 ± 1.0 %" in out.getvalue()
        and out.getvalue().index("constructed") < out.getvalue().index("baseline")
    )


def test_quickstart_command_refuses_nonsense():
    result = CliRunner().invoke(eval_, ["quickstart", "--minutes", "0"])
    assert result.exit_code == 2 and "--minutes" in result.output


def test_quickstart_command_prints_rows(monkeypatch, tmp_path, report):
    import sys
    import types

    called = {}

    def run_quickstart(**arguments):
        called.update(arguments)
        return report

    module = types.ModuleType("eval.quickstart")
    module.__dict__["run_quickstart"] = run_quickstart
    monkeypatch.setitem(sys.modules, "eval.quickstart", module)
    result = CliRunner().invoke(eval_, ["quickstart", "--minutes", "0.5", "--out", str(tmp_path), "--json"])
    assert result.exit_code == 0, result.output
    assert [row["name"] for row in json.loads(result.output)] == ["constructed", "baseline"]
    assert called == {"out": tmp_path, "minutes": 0.5}
    text = CliRunner().invoke(eval_, ["quickstart", "--out", str(tmp_path)]).output
    assert "constructed" in text and str(tmp_path / "report.html") in text.replace("\n", "")
