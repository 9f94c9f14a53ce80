"""Studies: the table they print, and the permuted ontology that the controls use."""

from __future__ import annotations

from tests.vision.small import SmallWorld
from vision.study import permuted, table


def test_a_permuted_table_deals_out_the_same_hands(world: SmallWorld):
    labels = world.train.classes
    other = permuted(world.library, labels, seed=3)
    before, after = (library.table(labels)[1] for library in (world.library, other))
    assert sorted(map(tuple, before.tolist())) == sorted(map(tuple, after.tolist()))
    assert (before != after).any(1).mean() > 0.5


def test_the_table_leaves_out_what_no_row_has():
    row = {"accuracy": 0.8, "photographs": 50, "balanced_one_vs_rest": 0.7, "parameters": 1234, "concept_auroc": None,
           "right_polarity": None}  # fmt: skip
    text = table({"study": "cuts", "rows": {"root": [row, row | {"accuracy": 0.6}], "leaves": [row]}})
    assert "concept auroc" not in text and "| root | 70.0% |" in text and "1,234" in text
    assert text.count("\n") == 4
    # Two draws far apart: Student's interval is wider than shares can be.
    text = table({"study": "cuts", "rows": {"root": [row, row | {"accuracy": 0.2}]}})
    assert "| 0.0% to 100.0% |" in text
