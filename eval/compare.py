"""Two models on the same examples: paired differences with intervals, and every reason why the pair is not a fair one.

Objections are of two kinds. Some make the figures themselves incomparable (other bytes, missing examples, a leaked test
file): such a pair is never compared. Others say that the budgets differ (data, seconds or FLOPs, parameters, machine):
such a pair is refused as well, and compared only by a person who asks for it, under the list of what is unequal.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from eval.budgets import Budget
from eval.records import Results, read_results
from eval.runner import MANY_CLUSTERS
from eval.tasks.base import Metric
from ontology.errors import CheckFailed, ConstructibleError, UsageError
from ontology.stats import Comparison, benjamini_hochberg, paired_difference

Clock = Literal["seconds", "flops"]
TOLERANCE = 0.1
"""Seconds, FLOPs and parameters may differ by this share of the smaller one."""


@dataclass(frozen=True)
class Objection:
    """One reason why a pair is not equal: its `kind`, whether the figures are `invalid` beside each other, and what
    differs by how much."""

    kind: str
    invalid: bool
    text: str


@dataclass(frozen=True)
class Side:
    """One model on one task: its results, one per training seed."""

    name: str
    results: tuple[Results, ...]

    @property
    def header(self) -> dict[str, Any]:
        """Of the first seed."""
        return self.results[0].header

    @property
    def budgets(self) -> list[Budget]:
        """What each seed's model cost."""
        return [Budget.from_json(one.header["budget"]) for one in self.results]


@dataclass(frozen=True)
class Difference:
    """A minus B in one figure, for the whole (`part` "") or a situation; `q_value` is the p-value adjusted for all
    figures that the comparison looks at (Benjamini and Hochberg)."""

    task: str
    part: str
    metric: Metric
    a: float
    b: float
    comparison: Comparison
    q_value: float

    @property
    def verdict(self) -> str:
        """In words, with what could have been found where nothing was."""
        c, show = self.comparison, self.metric.show
        if not np.isfinite(c.p_value):
            return "one cluster: nothing to say about chance"
        if self.q_value <= 0.05 and c.significant:
            if self.metric.better == "neither":
                return "different"
            return "A better" if (c.estimate < 0) == (self.metric.better == "lower") else "B better"
        return f"no difference found (one of ±{show(c.minimum_detectable)} would be, 4 times in 5)"


@dataclass(frozen=True)
class Compared:
    """The outcome: objections, and differences where there are any to show."""

    a: str
    b: str
    tasks: list[str]
    objections: list[Objection]
    differences: list[Difference]
    parts: list[Difference]
    clustered_by: str
    tolerance: float
    clock: Clock

    @property
    def equal(self) -> bool:
        """Whether the two may be called an equal-budget pair."""
        return not self.objections

    def as_json(self) -> dict[str, Any]:
        """Everything, with plain values."""
        return {
            "a": self.a, "b": self.b, "tasks": self.tasks, "equal_budget": self.equal,
            "objections": [asdict(one) for one in self.objections], "clustered_by": self.clustered_by,
            "tolerance": self.tolerance, "clock": self.clock,
            "differences": [_row(one) for one in self.differences], "parts": [_row(one) for one in self.parts],
        }  # fmt: skip


def _row(one: Difference) -> dict[str, Any]:
    c = one.comparison
    return {
        "task": one.task, "part": one.part, "metric": one.metric.name, "a": one.a, "b": one.b,
        **c.as_dict("difference"), "p_value": c.p_value if np.isfinite(c.p_value) else None, "q_value": one.q_value,
        "minimum_detectable": c.minimum_detectable if np.isfinite(c.minimum_detectable) else None,
        "clusters": c.n_clusters, "verdict": one.verdict,
    }  # fmt: skip


def read_side(path: Path, task: str | None = None) -> dict[str, Side]:
    """The tasks of one model: a results file, or a folder `eval run` made for it (with `seed-N` folders or without).

    Raises:
        UsageError: there are no results.
    """
    if path.is_file():
        found = [path]
    else:
        found = sorted(path.glob("*.parquet")) or sorted(path.glob("seed-*/*.parquet"), key=_seed)
    sides: dict[str, list[Results]] = {}
    for file in found:
        if task is None or file.stem == task:
            results = read_results(file)
            sides.setdefault(results.header["task"], []).append(results)
    if not sides:
        raise UsageError("no results here.", fix="give what `eval run` wrote: OUT/MODEL or a .parquet in it", file=path)
    return {name: Side(rows[0].header["model"]["name"], tuple(rows)) for name, rows in sides.items()}


def _seed(path: Path) -> tuple[int, str]:
    number = path.parent.name.removeprefix("seed-")
    return (int(number) if number.isdigit() else -1, path.name)


def compare(
    a: Path, b: Path, *, task: str | None = None, unequal: bool = False, clock: Clock = "seconds",
    tolerance: float = TOLERANCE,
) -> Compared:  # fmt: skip
    """Compare two models' results on every task that both have.

    Args:
        a, b: see `read_side`.
        task: this one only.
        unequal: go on where budgets differ; never where the figures themselves are incomparable.
        clock: whether the work of a budget is its seconds or its counted FLOPs.
        tolerance: share by which seconds (or FLOPs) and parameters may differ.

    Raises:
        UsageError: the two have no task in common.
        CheckFailed: the pair is refused; the message has every reason.
    """
    sides_a, sides_b = read_side(a, task), read_side(b, task)
    common = [name for name in sides_a if name in sides_b]
    if not common:
        fix = "run both models through the same tasks"
        raise UsageError(f"no task in common: {', '.join(sides_a)} and {', '.join(sides_b)}.", fix=fix)
    objections: dict[tuple[str, str], Objection] = {}
    for name in common:
        for one in objections_to(sides_a[name], sides_b[name], clock, tolerance):
            objections.setdefault((one.kind, one.text), one)
    found = list(objections.values())
    if refusal(found, unequal):
        raise CheckFailed(
            "not an equal-budget pair: " + "; ".join(f"{one.kind}: {one.text}" for one in found) + ".",
            fix="measure both alike" + ("" if any(o.invalid for o in found) else ", or ask for it with --unequal"),
        )
    whole, parts, clustered = [], [], "example"
    for name in common:
        pairs, clustered = differences(name, sides_a[name], sides_b[name])
        whole += [pair for pair in pairs if pair[1] == ""]
        parts += [pair for pair in pairs if pair[1] != ""]
    first = next(iter(sides_a.values())), next(iter(sides_b.values()))
    return Compared(
        first[0].name, first[1].name, common, found, adjusted(whole), adjusted(parts), clustered, tolerance, clock
    )


def refusal(objections: Sequence[Objection], unequal: bool) -> bool:
    """Whether the pair may not be compared."""
    return any(one.invalid for one in objections) or (bool(objections) and not unequal)


def objections_to(a: Side, b: Side, clock: Clock = "seconds", tolerance: float = TOLERANCE) -> list[Objection]:
    """Every reason why two results are not those of an equal-budget pair."""
    return [*_about_figures(a, b), *_about_budgets(a, b, clock, tolerance)]


def _about_figures(a: Side, b: Side) -> list[Objection]:
    found: list[Objection] = []

    def object_to(kind: str, text: str) -> None:
        found.append(Objection(kind, True, text))

    versions = [{one.header["task_version"] for one in side.results} for side in (a, b)]
    if versions[0] != versions[1] or len(versions[0]) > 1:
        shown = [" and ".join(map(str, sorted(found))) for found in versions]
        object_to("task version", f"{a.name} was measured with version {shown[0]} of {a.header['task']}, "
                  f"{b.name} with version {shown[1]}")  # fmt: skip
    if len(a.results) != len(b.results):
        object_to("training seeds", f"{a.name} has {len(a.results)}, {b.name} has {len(b.results)}")
    bytes_of = [[dict(zip(one.examples, one.sha256, strict=True)) for one in side.results] for side in (a, b)]
    everything = [hashes for side in bytes_of for hashes in side]
    ids = [set(hashes) for hashes in everything]
    union, shared = set().union(*ids), set.intersection(*ids)
    if union - shared:
        object_to("missing examples", f"{len(union - shared)} of {len(union)} were not measured on both sides, "
                  f"such as {min(union - shared)}")  # fmt: skip
    differ = sorted(i for i in shared if len({hashes[i] for hashes in everything}) > 1)
    if differ:
        object_to("different test bytes", f"{len(differ)} of {len(shared)} examples, such as {differ[0]}")
    for side in (a, b):
        leaked = sorted({name for one in side.results for name in one.header["leaked"] or []})
        if leaked:
            object_to("leaked test file", f"{side.name} was trained on {len(leaked)} of the files it is tested on, "
                      f"such as {leaked[0]}")  # fmt: skip
        for one in side.results[:1]:
            if {"bytes", "bytes_said"} <= one.values.keys():
                raw, said = float(one.values["bytes"].sum()), float(one.values["bytes_said"].sum())
                if raw != said:
                    text = f"{side.name}'s tokens stand for {said:,.0f} of {raw:,.0f} bytes; its bits are for less text"
                    object_to("bytes of the tokenizer", text)
    if any(metric.measured_on_machine for metric in a.results[0].metrics):
        places = [_place(one.header["environment"]) for side in (a, b) for one in side.results]
        if len(set(places)) > 1:
            object_to("measured on different machines", " and ".join(sorted(set(places))))
    return found


def _about_budgets(a: Side, b: Side, clock: Clock, tolerance: float) -> list[Objection]:
    found: list[Objection] = []
    budgets = (a.budgets, b.budgets)

    def object_to(kind: str, text: str) -> None:
        found.append(Objection(kind, False, text))

    data = [{(one.data_hash, one.data_bytes) for one in side} for side in budgets]
    unknown = [side.name for side, rows in zip((a, b), data, strict=True) if any(h is None for h, _ in rows)]
    if unknown:
        object_to("training data unknown", f"nothing says what {' and '.join(unknown)} was built from")
    elif data[0] != data[1]:
        unit = "files" if any(size is None for rows in data for _, size in rows) else "bytes"
        sizes = [float(max(getattr(one, f"data_{unit}") or 0 for one in rows)) for rows in budgets]
        same = f"the same number of {unit}, other files"
        more = same if sizes[0] == sizes[1] else _by(a, b, sizes[0], sizes[1], unit)
        object_to("training data", more)
    unlisted = [s.name for s in (a, b) if any(one.header["leaked"] is None for one in s.results)]
    if unlisted:
        object_to("training files not listed", f"{' and '.join(unlisted)} may know the test files; nothing can tell")
    work = ("seconds", "s", "seconds") if clock == "seconds" else ("FLOPs", "FLOPs", "train_flops")
    for kind, unit, attribute in (work, ("parameters", "", "parameters")):
        means = [[getattr(one, attribute) for one in rows] for rows in budgets]
        missing = [side.name for side, rows in zip((a, b), means, strict=True) if None in rows]
        if missing:
            object_to(f"{kind} not measured", " and ".join(missing))
            continue
        first, second = (float(np.mean(rows)) for rows in means)
        if abs(first - second) > tolerance * min(first, second):
            object_to(kind, _by(a, b, first, second, unit))
    for kind, attribute in (("machine", "cpu"), ("threads", "threads")):
        values = [{getattr(one, attribute) for one in rows} for rows in budgets]
        if clock == "seconds" and values[0] != values[1] and None not in values[0] | values[1]:
            shown = [", ".join(map(str, sorted(v, key=str))) for v in values]
            object_to(kind, f"{a.name} was built on {shown[0]}, {b.name} on {shown[1]}")
    return found


def _by(a: Side, b: Side, first: float, second: float, unit: str) -> str:
    more, less = (a, b) if first > second else (b, a)
    high, low = max(first, second), min(first, second)
    share = f"{100 * (high / low - 1):.0f} % more" if low else "all against none"
    return f"{more.name} has {high:,.0f}{' ' + unit if unit else ''}, {less.name} {low:,.0f} ({share})"


def _place(environment: dict[str, Any]) -> str:
    return f"{environment.get('cpu')}, {environment.get('threads')} threads"


Pair = tuple[str, str, Metric, float, float, Comparison]
"""Task, situation ("" for the whole), metric, figure of A, figure of B, A minus B."""


def differences(task: str, a: Side, b: Side) -> tuple[list[Pair], str]:
    """(A minus B in every figure of the whole and of each situation, what was resampled)."""
    first = a.results[0]
    order = first.examples
    clusters = dict(zip(first.examples, first.clusters, strict=True))
    labels = [clusters[name] for name in order]
    by = "project" if len(set(labels)) >= MANY_CLUSTERS else "example"
    parts = sorted({part for side in (a, b) for one in side.results for part in one.parts})
    found = []
    for metric in first.metrics:
        for part in ["", *parts]:
            columns = [_columns(side, metric, part, order) for side in (a, b)]
            if any(top is None for top, _ in columns):
                continue
            (top_a, bottom_a), (top_b, bottom_b) = columns
            known = np.all(np.isfinite(np.concatenate([top_a, bottom_a, top_b, bottom_b])), axis=0)
            if not all(x[:, known].sum(1).all() for x in (bottom_a, bottom_b)):
                continue  # a situation that one of them never met
            seeds = len(top_a) > 1
            given = [(x[:, known] if seeds else x[0, known]) for x in (top_a, top_b, bottom_a, bottom_b)]
            kept = [label for label, keep in zip(labels, known, strict=True) if keep] if by == "project" else None
            options: dict[str, Any] = {"seeds": seeds, "replications": 2000 if part == "" else 500}
            a_top, b_top, a_bottom, b_bottom = given
            result = paired_difference(a_top, b_top, a_bottom, b_bottom, kept, **options)
            value = [float((t[:, known].sum(1) / d[:, known].sum(1)).mean()) for t, d in columns]
            found.append((task, part, metric, value[0], value[1], result))
    return found, by


def _columns(side: Side, metric: Metric, part: str, order: list[str]) -> tuple[Any, Any]:
    """(numerators [S, n], denominators [S, n]) in a common order of examples; (None, None) where there are none."""
    tops, bottoms = [], []
    for one in side.results:
        at = {name: i for i, name in enumerate(one.examples)}
        rows = np.array([at[name] for name in order])
        zeros = {name: np.zeros(len(order)) for name in one.values}
        source = one.values if part == "" else one.parts.get(part, zeros)
        bottom = one.values if metric.whole_bottom else source
        if metric.top not in source or metric.bottom not in bottom:
            return None, None
        tops.append(source[metric.top][rows])
        bottoms.append(bottom[metric.bottom][rows])
    if part != "" and not np.isfinite(np.concatenate(tops)).any():
        return None, None
    return np.array(tops), np.array(bottoms)


def adjusted(pairs: Sequence[Pair]) -> list[Difference]:
    """Differences with q-values adjusted for all of them."""
    p = np.array([pair[5].p_value for pair in pairs], dtype=np.float64)
    finite = np.isfinite(p)
    q = np.ones(len(p))
    if finite.any():
        q[finite] = benjamini_hochberg(p[finite])[1]
    return [Difference(*pair, q_value=float(value)) for pair, value in zip(pairs, q, strict=True)]


def figure_of(compared: Compared, task: str, metric: str) -> Difference:
    """One difference of the whole; raises ConstructibleError where there is none."""
    for one in compared.differences:
        if one.task == task and one.metric.name == metric:
            return one
    raise ConstructibleError(f"the comparison has no {metric!r} of {task!r}.", fix="run that task on both models")
