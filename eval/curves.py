"""The decomposition curve over a folder of results: quality against the depth of the cut.

It rests on the same examples for all models of the folder, and differences between neighbours are paired. Quality
against data and work is in `eval.scale`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from eval.compare import Difference, Pair, Side, adjusted, differences, read_side
from eval.plots import Point, Series, line_plot
from eval.runner import MANY_CLUSTERS
from ontology.errors import ConstructibleError, UsageError
from ontology.stats import bootstrap_ratio

TASK, METRIC = "bits", "bits per byte"
REPLICATIONS = 1000
_SAME = 1.1
"""Neural parameters in all may differ by this factor between cuts before the curve says so."""


@dataclass(frozen=True)
class CutPoint:
    """One cut: its `name` as given, the results of its seeds, and its figure."""

    cut: str
    side: Side
    value: float
    low: float | None
    high: float | None
    parameters: float


@dataclass(frozen=True)
class Curve:
    """Cuts from the root down, what each step costs (a positive difference is bits lost), and what controls cost
    against the model with the same cut."""

    name: str
    points: list[CutPoint]
    steps: list[Difference]
    warnings: list[str]
    controls: list[Difference]

    @property
    def worst(self) -> Difference | None:
        """The step that loses most; None where there is none."""
        return max(self.steps, key=lambda step: step.comparison.estimate, default=None)

    @property
    def words(self) -> str:
        """The answer in one sentence."""
        if self.worst is None:
            return f"{self.name}: one cut only, no step to speak of."
        c = self.worst.comparison
        show = self.worst.metric.show
        ends = c.as_dict("x")
        place = f"{self.worst.part} ({show(c.estimate, ends['x_low'], ends['x_high'])} {METRIC})"
        if c.estimate <= 0:
            return f"{self.name}: no step loses; the smallest gain is {place}."
        if not (self.worst.q_value <= 0.05 and c.significant):
            return f"{self.name}: the largest step, {place}, is not told from none; {self.worst.verdict}."
        return f"{self.name}: the largest drop is from {place}."


def all_sides(run: Path) -> list[Side]:
    """The models of a folder that `eval run` wrote, on the task of bits per byte.

    Raises:
        UsageError: there are none.
    """
    folders = sorted({path.parent for path in run.rglob(f"{TASK}.parquet")})
    folders = sorted({folder.parent if folder.name.startswith("seed-") else folder for folder in folders})
    if not folders:
        raise UsageError(f"no results of the task {TASK!r} here.", fix="give the OUT folder of `eval run`", file=run)
    return [read_side(folder, TASK)[TASK] for folder in folders]


def decomposition(run: Path) -> list[Curve]:
    """One curve for the models as they are and one for their nets alone, over the cuts found in a folder.

    Raises:
        UsageError: no model says at which cut it was built.
        ConstructibleError: the models were not scored on the same bytes.
    """
    curves = []
    sides = all_sides(run)
    for kind, name in (("", "with tables and caches"), ("nets-only", "neural part alone")):
        chosen: dict[str, Side] = {}
        controls = [side for side in sides if side.header["model"].get("control")]
        for side in sides:
            cut = side.header["budget"]["cut"]
            # A transformer at the root is neural part and whole alike.
            if (
                side not in controls
                and cut is not None
                and (side.header["model"]["kind"] == kind or (kind and cut == "root"))
            ):
                if cut in chosen:
                    raise UsageError(
                        f"{chosen[cut].name!r} and {side.name!r} are both at the cut {cut!r}.",
                        fix="one model (of any number of seeds) for each cut", file=run,
                    )  # fmt: skip
                chosen[cut] = side
        if chosen and not (kind and set(chosen) == {"root"}):
            line = [chosen[cut] for cut in sorted(chosen, key=_depth)]
            # A control is the whole model with one thing random: it belongs beside the first curve.
            curves.append(_curve(name, line, [] if kind else controls, run))
    if not curves:
        raise UsageError("no model here says at which cut it was built.", fix="build with --cut", file=run)
    return curves


def _depth(cut: str) -> tuple[float, str]:
    fixed = {"root": 0.0, "leaves": 1e6, "plain": 2e6}
    return fixed.get(cut, float(cut) if cut.isdigit() else 1e5), cut


def _curve(name: str, sides: Sequence[Side], controls: Sequence[Side], run: Path) -> Curve:
    _same_bytes([*sides, *controls], run)
    points, pairs, warnings = [], [], []
    for side in sides:
        bits, size, clusters = _matrix(side, sides[0].results[0].examples)
        seeds = len(bits) > 1
        interval = bootstrap_ratio(bits if seeds else bits[0], size, clusters, seeds=seeds)
        ends = interval.as_dict("x")
        parameters = float(np.mean([budget.parameters or 0 for budget in side.budgets]))
        cut = side.header["budget"]["cut"]
        points.append(CutPoint(cut, side, interval.estimate, ends["x_low"], ends["x_high"], parameters))
    for upper, lower in zip(points, points[1:], strict=False):
        if len(upper.side.results) != len(lower.side.results):
            raise ConstructibleError(
                f"{upper.side.name} has {len(upper.side.results)} seeds, {lower.side.name} {len(lower.side.results)}.",
                fix="measure as many of each", file=run,
            )  # fmt: skip
        whole = _whole(lower.side, upper.side)
        pairs.append((whole[0], f"{upper.cut} to {lower.cut}", *whole[2:]))
    with_nets = [point for point in points if point.cut != "plain"]
    sizes = [point.parameters for point in with_nets]
    if sizes and min(sizes) > 0 and max(sizes) > _SAME * min(sizes):
        text = ", ".join(f"{point.cut} {point.parameters:,.0f}" for point in with_nets)
        warnings.append(f"neural parameters are not equal across the cuts: {text}")
    data = {budget.data_hash for point in points for budget in point.side.budgets}
    if len(data) > 1:
        warnings.append("the cuts were not built from the same corpus")
    seconds = [budget.seconds for point in with_nets for budget in point.side.budgets if budget.seconds]
    if seconds and max(seconds) > _SAME * min(seconds):
        warnings.append(f"seconds are not equal across the cuts with nets: {min(seconds):.0f} to {max(seconds):.0f}")
    beside = []
    for control in controls:
        meant = [point.side for point in points if point.cut == control.header["budget"]["cut"]]
        for side in meant:
            if len(side.results) == len(control.results):
                whole = _whole(control, side)
                label = f"{control.header['model']['control']} at {side.header['budget']['cut']}"
                beside.append((whole[0], label, *whole[2:]))
    return Curve(name, points, adjusted(pairs), warnings, adjusted(beside))


def _whole(a: Side, b: Side) -> Pair:
    """A minus B in bits per byte, all situations together."""
    found, _ = differences(TASK, a, b)
    return next(row for row in found if row[1] == "" and row[2].name == METRIC)


def _same_bytes(sides: Sequence[Side], run: Path) -> None:
    first = dict(zip(sides[0].results[0].examples, sides[0].results[0].sha256, strict=True))
    for side in sides:
        for one in side.results:
            if dict(zip(one.examples, one.sha256, strict=True)) != first:
                raise ConstructibleError(
                    f"{side.name} was not scored on the same files as {sides[0].name}.",
                    fix="run both with the same --data and --limit", file=run,
                )  # fmt: skip


def _matrix(side: Side, order: list[str]) -> tuple[np.ndarray, np.ndarray, list[str] | None]:
    """(bits [S, n], bytes [n], clusters [n] or None) in a common order of files."""
    rows = []
    for one in side.results:
        at = {name: i for i, name in enumerate(one.examples)}
        rows.append(one.values["bits"][[at[name] for name in order]])
    first = side.results[0]
    at = {name: i for i, name in enumerate(first.examples)}
    index = [at[name] for name in order]
    labels = [first.clusters[i] for i in index]
    return np.array(rows), first.values["bytes"][index], labels if len(set(labels)) >= MANY_CLUSTERS else None


def control_words(one: Difference) -> str:
    """What a control says, in one sentence."""
    ends = one.comparison.as_dict("x")
    cost = one.metric.show(one.comparison.estimate, ends["x_low"], ends["x_high"])
    told = one.q_value <= 0.05 and one.comparison.significant
    return f"{one.part}: {cost} {METRIC} against the model that is meant" + ("" if told else f"; {one.verdict}")


def curve_plot(curves: Sequence[Curve]) -> str:
    """The curves as one SVG."""
    cuts = sorted({point.cut for curve in curves for point in curve.points}, key=_depth)
    series = [
        Series(
            curve.name,
            [Point(float(cuts.index(p.cut)), p.value, p.low, p.high, p.cut) for p in curve.points],
            dashed=i > 0,
        )
        for i, curve in enumerate(curves)
    ]
    return line_plot(series, "cut", METRIC, title="Decomposition curve")
