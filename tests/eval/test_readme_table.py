"""The README's table is made of the figures that are filed."""

from __future__ import annotations

import pytest

from eval.readme import BEGIN, END, RESULTS, place_table, table
from ontology.errors import ConstructibleError
from ontology.io import read_json
from tests.support import ROOT


def test_the_table_in_the_readme_is_that_of_the_filed_results() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert place_table(readme, table(read_json(ROOT / RESULTS))) == readme


def test_the_filed_run_met_what_was_asked() -> None:
    results = read_json(ROOT / RESULTS)
    rows = {row["name"]: row for row in results["leaderboard"]}
    constructed, baseline = rows["constructed"], rows["baseline (one transformer)"]
    assert results["comparison"]["high"] <= 0.75
    assert constructed["accuracy"] > baseline["accuracy"]
    assert max(constructed["seconds"], baseline["seconds"]) < 190
    assert constructed["peak_rss_bytes"] < 4 * 2**30
    assert 0.7 < constructed["parameters"] / baseline["parameters"] < 1.4


def test_a_readme_without_its_place_is_refused() -> None:
    assert place_table(f"a\n{BEGIN}\nold\n{END}\nb", "new") == f"a\n{BEGIN}\nnew\n{END}\nb"
    with pytest.raises(ConstructibleError, match="Fix:"):
        place_table("no marks", "new")
