"""Studies: the table they print, and the permuted ontology that the controls use."""

from __future__ import annotations

import json

from ontology.stats import paired_difference
from tests.vision.small import SmallWorld
from vision.comparisons import comparison, in_words
from vision.runs import leaderboard
from vision.study import permuted, table


def test_a_permuted_table_deals_out_the_same_hands(world: SmallWorld):
    labels = world.train.classes
    other = permuted(world.library, labels, seed=3)
    before, after = (library.table(labels)[1] for library in (world.library, other))
    assert sorted(map(tuple, before.tolist())) == sorted(map(tuple, after.tolist()))
    assert (before != after).any(1).mean() > 0.5


def test_a_comparison_without_an_interval_is_said_without_it():
    level = paired_difference([1.0, 1.0], [1.0, 1.0], [1.0, 1.0], None, ["one", "one"])
    made = json.loads(json.dumps(comparison("leaves", "root", level, "photographs"), allow_nan=False))
    assert in_words(made).startswith("leaves - root: +0.0 points") and "nan" not in in_words(made)
    row = {"cut": "leaves", "accuracy": 1.0, "accuracy_low": None, "accuracy_high": None, "macro_f1": 1.0,
           "balanced_one_vs_rest": 1.0, "parameters": 10, "constants": 2, "seconds": 1.0}  # fmt: skip
    board = {"classes": ["a", "b"], "data": "few", "seed": 0, "steps": 3, "minutes": None, "environment": {},
             "rows": [row], "differences": [made]}  # fmt: skip
    assert "| leaves | 100.0% |  |" in leaderboard(board)


def test_the_table_leaves_out_what_no_row_has():
    row = {"accuracy": 0.8, "photographs": 50, "balanced_one_vs_rest": 0.7, "parameters": 1234, "concept_auroc": None,
           "right_polarity": None}  # fmt: skip
    text = table({"study": "cuts", "rows": {"root": [row, row | {"accuracy": 0.6}], "leaves": [row]}})
    assert "concept auroc" not in text and "| root | 70.0% |" in text and "1,234" in text
    assert text.count("\n") == 4
    # Two draws far apart: Student's interval is wider than shares can be.
    text = table({"study": "cuts", "rows": {"root": [row, row | {"accuracy": 0.2}]}})
    assert "| 0.0% to 100.0% |" in text
