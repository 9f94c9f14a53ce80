"""Two models on the same examples: paired differences with intervals, unless `eval.objections` finds the pair unfair.

A figure that is counted in a model's own tokens is compared only where both cut every file into as many.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from eval.objections import TOLERANCE, Clock, Objection, Side, objections_to, refusal
from eval.records import Results, read_results
from eval.runner import MANY_CLUSTERS
from eval.tasks.base import Metric
from ontology.errors import CheckFailed, ConstructibleError, UsageError
from ontology.stats import Comparison, adjusted_p, paired_difference


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
        if not np.isfinite(c.minimum_detectable):
            return "no difference found; so few that happen to agree say nothing of chance"
        return f"no difference found (one of ±{show(c.minimum_detectable)} would be, 4 times in 5)"


@dataclass(frozen=True)
class Compared:
    """The outcome: objections, and differences where there are any to show.

    Attributes:
        clustered_by: what intervals resample, "example" or "project", by task.
    """

    a: str
    b: str
    tasks: list[str]
    objections: list[Objection]
    differences: list[Difference]
    parts: list[Difference]
    clustered_by: dict[str, str]
    projects: int
    left_out: list[str]
    tolerance: float
    clock: Clock

    @property
    def equal(self) -> bool:
        """Whether the two may be called an equal-budget pair."""
        return not self.objections

    def as_json(self) -> dict[str, Any]:
        """Everything, with plain values."""
        units = set(self.clustered_by.values())
        return {
            "a": self.a, "b": self.b, "tasks": self.tasks, "equal_budget": self.equal,
            "objections": [asdict(one) for one in self.objections],
            "clustered_by": units.pop() if len(units) == 1 else "mixed", "clustered_by_task": self.clustered_by,
            "projects": self.projects, "left_out": self.left_out,
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
        alone, seeds = sorted(path.glob("*.parquet")), sorted(path.glob("seed-*/*.parquet"), key=_seed)
        if both := sorted({file.stem for file in alone} & {file.stem for file in seeds}):
            raise UsageError(
                f"results of one run and of several seeds lie here for {both[0]!r}; which of them are meant?",
                fix="give the file, or move one of them away", file=path,
            )  # fmt: skip
        found = [*alone, *seeds]
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
    whole, parts, clustered, left_out = [], [], {}, []
    for name in common:
        left_out += [f"{name}, {metric}" for metric in incomparable(sides_a[name], sides_b[name])]
        pairs, clustered[name] = differences(name, sides_a[name], sides_b[name])
        whole += [pair for pair in pairs if pair[1] == ""]
        parts += [pair for pair in pairs if pair[1] != ""]
    first = sides_a[common[0]], sides_b[common[0]]
    return Compared(
        first[0].name, first[1].name, common, found, adjusted(whole), adjusted(parts), clustered,
        len(set(first[0].results[0].clusters)), left_out, tolerance, clock,
    )  # fmt: skip


def incomparable(a: Side, b: Side) -> list[str]:
    """Figures in units of the models' own that are not the same: accuracy over unlike tokens, say."""
    found = []
    for metric in a.results[0].metrics:
        own_units = metric.own_units or (metric.bottom == "tokens" and metric.name in _OWN_UNITS)
        if not own_units:
            continue
        order = a.results[0].examples
        columns = [_columns(side, metric, "", order)[1] for side in (a, b)]
        if metric.top == "bytes" or any(column is None for column in columns):
            continue
        if not np.array_equal(columns[0][:1], columns[1][:1], equal_nan=True):
            found.append(metric.name)
    return found


_OWN_UNITS = ("next-token accuracy",)
"""In results that were written before metrics said so themselves."""
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
    found, unlike = [], incomparable(a, b)
    for metric in first.metrics:
        if metric.name in unlike:
            continue
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
    q = adjusted_p([pair[5].p_value for pair in pairs])
    return [Difference(*pair, q_value=float(value)) for pair, value in zip(pairs, q, strict=True)]


def figure_of(compared: Compared, task: str, metric: str) -> Difference:
    """One difference of the whole; raises ConstructibleError where there is none."""
    for one in compared.differences:
        if one.task == task and one.metric.name == metric:
            return one
    raise ConstructibleError(f"the comparison has no {metric!r} of {task!r}.", fix="run that task on both models")
