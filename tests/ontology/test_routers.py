"""Routers: batch form, trace and line hits agree with plain Python; branches are counted."""

from __future__ import annotations

import time
import types

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ontology.errors import ConstructibleError
from ontology.routers import Helper, Router, StateField, uncovered_branches

FIELDS = (
    StateField("last", ("start", "dot", "comma", "name")),
    StateField("in_call", ("no", "yes")),
    StateField("depth", 6),
)
SOURCE = '''"""A router for the tests."""


def route(state):
    """Which concept."""
    deep = state.depth - 1 > 2
    if state.last == "dot":
        if state.in_call and deep:
            return "deep_attribute"
        return "attribute"
    elif state.last in ("comma", "name"):
        kind = "many"
    else:
        kind = "one"
    if kind == "many" and not state.in_call:
        return "list"
    return "other"
'''


def all_rows() -> np.ndarray:
    """Every state there is, [48, 3]."""
    sizes = [field.size for field in FIELDS]
    return np.stack(np.unravel_index(np.arange(np.prod(sizes)), sizes), axis=1).astype(np.uint8)


def plain(source: str, row: np.ndarray, helpers: dict | None = None) -> str:
    """What plain Python makes of a router and one row."""
    space: dict = dict(helpers or {})
    exec(source, space)
    state = types.SimpleNamespace(**{f.name: f.decode(int(code)) for f, code in zip(FIELDS, row, strict=True)})
    return space["route"](state)


def test_batch_form_and_trace_agree_with_plain_python() -> None:
    router = Router.parse(SOURCE, FIELDS)
    assert router.concepts == ("deep_attribute", "attribute", "list", "other")
    rows = all_rows()
    decisions = router.route(rows)
    assert decisions.dtype == np.int32
    for dtype in (np.int64, np.uint64, np.int8):
        assert np.array_equal(router.route(rows.astype(dtype)), decisions)
    for row, decision in zip(rows, decisions, strict=True):
        assert router.concepts[decision] == router.trace(row).concept == plain(SOURCE, row)


def test_trace_names_the_lines_taken_and_those_passed_over() -> None:
    router = Router.parse(SOURCE, FIELDS)
    trace = router.trace(router.row(last="comma", in_call=True))
    assert (trace.concept, trace.lines, trace.passed) == ("other", [6, 11, 12, 17], [7, 15])
    assert router.state(router.row(last="dot", depth=4)) == {"last": "dot", "in_call": False, "depth": 4}


def test_line_hits_count_rows() -> None:
    router = Router.parse(SOURCE, FIELDS)
    rows = np.concatenate([np.tile(router.row(last="dot"), (5, 1)), np.tile(router.row(last="start"), (2, 1))])
    assert router.line_hits(rows) == {6: 7, 7: 5, 8: 0, 9: 0, 10: 5, 11: 0, 12: 0, 14: 2, 15: 0, 16: 0, 17: 2}


def test_uncovered_branches_name_the_outermost_line_once() -> None:
    router = Router.parse(SOURCE, FIELDS)
    missing = uncovered_branches(router, np.stack([router.row(last="start")]))
    assert [(branch.line, branch.text.split(":")[0]) for branch in missing] == [
        (7, "never true"), (11, "never true"), (15, "never true"),
    ]  # fmt: skip
    assert uncovered_branches(router, all_rows()) == []
    assert len(router.branches()) == 8
    without_else = np.stack([router.row(last="dot"), router.row(last="name")])
    texts = [branch.text for branch in uncovered_branches(router, without_else)]
    assert 'never taken: else of line 11, kind = "one"' in texts
    assert any(text.startswith("never false: if kind") for text in texts)


def test_rows_of_other_shape_or_outside_of_the_values_are_refused() -> None:
    router = Router.parse(SOURCE, FIELDS)
    with pytest.raises(ConstructibleError, match="shape"):
        router.route(np.zeros((3, 2), np.uint8))
    with pytest.raises(ConstructibleError, match="integers"):
        router.route(np.zeros((3, 3), np.float32))
    with pytest.raises(ConstructibleError, match="'last' has the code 4"):
        router.route(np.array([[4, 0, 0]]))
    with pytest.raises(ConstructibleError, match="'depth' has the code -1"):
        router.trace(np.array([0, 0, -1]))
    with pytest.raises(ConstructibleError, match="'last' has the code 7"):
        router.state(np.array([7, 0, 0]))
    with pytest.raises(ConstructibleError, match="no field 'lst'"):
        router.row(lst="dot")
    assert router.route(np.zeros((0, 3), np.uint8)).shape == (0,)


def test_helpers_are_called() -> None:
    helpers = {"largest": Helper(max, takes=("number", "number"), variadic=True)}
    source = SOURCE.replace("state.depth - 1 > 2", "largest(state.depth, 1, state.depth - 2) > 3")
    router = Router.parse(source, FIELDS, helpers)
    rows = all_rows()
    expected = [plain(source, row, {"largest": max}) for row in rows]
    assert [router.concepts[i] for i in router.route(rows)] == expected


def test_many_rows_with_many_fields_take_seconds() -> None:
    fields = [StateField(f"f{i}", 12) for i in range(20)]
    lines = [f'    if state.f{i} == {i % 12}:\n        return "c{i}"\n' for i in range(20)]
    router = Router.parse("def route(state):\n" + "".join(lines) + '    return "rest"\n', fields)
    rng = np.random.default_rng(0)
    distinct = rng.integers(0, 12, (5000, 20)).astype(np.uint8)
    rows = distinct[np.minimum(rng.zipf(1.3, 1_000_000), len(distinct)) - 1]
    begun = time.perf_counter()
    decisions = router.route(rows)
    # 10 M rows take about 2 s on one core; the bound leaves room for a busy machine.
    assert time.perf_counter() - begun < 3.0
    for i in rng.integers(0, len(rows), 200):
        assert router.concepts[decisions[i]] == router.trace(rows[i]).concept
    assert sum(router.line_hits(rows[:1000])[line] for line in range(3, 42, 2)) <= 1000


def test_more_states_than_a_lookup_table_holds_are_still_decided_right() -> None:
    """Distinct states beyond the dense limit go through a sort."""
    fields = [StateField(f"f{i}", 250) for i in range(8)]
    conditions = " or ".join(f"state.f{i} == 7" for i in range(8))
    source = f'def route(state):\n    if {conditions}:\n        return "seven"\n    return "none"\n'
    router = Router.parse(source, fields)
    rows = np.random.default_rng(0).integers(0, 250, (20_000, 8)).astype(np.uint8)
    expected = (rows == 7).any(1)
    assert np.array_equal(router.route(rows) == router.concepts.index("seven"), expected)


_conditions = st.sampled_from(
    [
        'state.last == "dot"', 'state.last != "start"', 'state.last in ("comma", "name")', "state.in_call",
        "not state.in_call", "state.depth > 2", "1 < state.depth <= 4", "state.depth % 3 == 0",
        "state.depth * 2 - 3 >= state.depth", "state.in_call == (state.depth < 3)",
    ]
)  # fmt: skip


@st.composite
def _router_source(draw: st.DrawFn) -> str:
    names = iter(range(1000))

    def condition() -> str:
        parts = draw(st.lists(_conditions, min_size=1, max_size=3))
        return f" {draw(st.sampled_from(['and', 'or']))} ".join(f"({part})" for part in parts)

    def block(indent: str, depth: int) -> str:
        text = ""
        for _ in range(draw(st.integers(0, 2)) if depth < 3 else 0):
            text += f"{indent}if {condition()}:\n{block(indent + '    ', depth + 1)}"
            for _ in range(draw(st.integers(0, 2))):
                text += f"{indent}elif {condition()}:\n{block(indent + '    ', depth + 1)}"
        return text + f'{indent}return "c{next(names)}"\n'

    return "def route(state):\n" + block("    ", 0)


@settings(max_examples=60, deadline=None)
@given(_router_source())
def test_any_router_of_the_subset_means_what_plain_python_says(source: str) -> None:
    router = Router.parse(source, FIELDS)
    rows = all_rows()
    decided = [router.concepts[i] for i in router.route(rows)]
    assert decided == [plain(source, row) for row in rows]
    hits = router.line_hits(rows)
    returned = {name: source[: source.index(f'"{name}"')].count("\n") + 1 for name in router.concepts}
    assert {name: hits[line] for name, line in returned.items()} == {n: decided.count(n) for n in router.concepts}
    if not uncovered_branches(router, rows):
        assert set(decided) == set(router.concepts)
