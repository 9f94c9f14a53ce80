"""Two curves over a folder of results: quality against the depth of the cut, and quality against data and work.

Both rest on the same examples for all models of the folder: differences between neighbours are paired, and the exponent
of a power law is refitted for every bootstrap draw of files (or projects), which all models share.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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


# Scaling


@dataclass(frozen=True)
class PowerLaw:
    """value = factor * x ** -exponent over models of one kind: `exponent` with its 95 % interval over files; `turns`
    are places where a larger x is worse, beyond chance."""

    kind: str
    axis: str
    x: list[float]
    values: list[float]
    exponent: float
    low: float
    high: float
    factor: float
    residual: float
    turns: list[str]


AXES: dict[str, Callable[[Side], float | None]] = {
    "training bytes": lambda side: _mean(side, "data_bytes"),
    "parameters": lambda side: _mean(side, "parameters"),
    "seconds": lambda side: _mean(side, "seconds"),
    "training FLOPs": lambda side: _mean(side, "train_flops"),
}


def _mean(side: Side, name: str) -> float | None:
    values = [getattr(budget, name) for budget in side.budgets]
    return None if None in values else float(np.mean(values))


def kind_of(side: Side) -> str:
    """The line a model belongs to."""
    kind = side.header["model"]["kind"]
    cut = {"root": "monolith", "plain": "no nets", None: "other"}.get(side.header["budget"]["cut"], "constructed")
    return f"{cut}, {kind}" if kind else cut


def scaling(run: Path) -> list[PowerLaw]:
    """Power laws of bits per byte by kind of model and axis, where at least three sizes were measured.

    Raises:
        UsageError: there is no result, or nowhere three sizes.
        ConstructibleError: the models were not scored on the same bytes.
    """
    sides = [side for side in all_sides(run) if not side.header["model"].get("control")]
    _same_bytes(sides, run)
    found = []
    for kind in sorted({kind_of(side) for side in sides}):
        members = [side for side in sides if kind_of(side) == kind]
        for axis, size in AXES.items():
            at = sorted(((x, side) for side in members if (x := size(side))), key=lambda pair: pair[0])
            if len({x for x, _ in at}) >= 3:
                found.append(_fit(kind, axis, [x for x, _ in at], [side for _, side in at]))
    if not found:
        raise UsageError("nowhere three sizes of one kind of model.", fix="measure more budgets", file=run)
    return found


def _fit(kind: str, axis: str, x: list[float], sides: list[Side]) -> PowerLaw:
    order = sides[0].results[0].examples
    matrices = [_matrix(side, order) for side in sides]
    bits = np.array([rows.mean(0) for rows, _, _ in matrices])
    exponent, low, high, factor, residual = power_law(np.array(x), bits, matrices[0][1], matrices[0][2])
    pairs = []
    for (x_a, a), (x_b, b) in zip(zip(x, sides, strict=True), list(zip(x, sides, strict=True))[1:], strict=False):
        if x_a < x_b and len(a.results) == len(b.results):
            whole = _whole(b, a)
            pairs.append((whole[0], f"{x_a:.3g} to {x_b:.3g}", *whole[2:]))
    turns = [
        f"{one.part}: {one.metric.show(one.comparison.estimate)} worse"
        for one in adjusted(pairs)
        if one.comparison.estimate > 0 and one.comparison.significant and one.q_value <= 0.05
    ]
    values = (bits.sum(1) / matrices[0][1].sum()).tolist()
    return PowerLaw(kind, axis, x, values, exponent, low, high, factor, residual, turns)


def power_law(
    x: np.ndarray, bits: np.ndarray, size: np.ndarray, clusters: Sequence[Any] | None = None, seed: int = 0
) -> tuple[float, float, float, float, float]:
    """Fit sum(bits) / sum(size) = factor * x ** -exponent by least squares in logarithms.

    Args:
        x: float64[m] above 0, at least two different values.
        bits: float64[m, n] of m models on n files.
        size: float64[n] bytes of the files.
        clusters: [n] labels that are drawn together; None draws files.
        seed: of the bootstrap.

    Returns:
        exponent, low, high (95 %, percentile bootstrap over clusters that all models share; it knows nothing of the
        scatter of training), factor, and the largest relative distance of a model from the line.

    Raises:
        ValueError: fewer than two different x, or one that is not above 0.
    """
    if (x <= 0).any() or len(np.unique(x)) < 2:
        raise ValueError("a power law needs two different sizes above 0")
    labels = np.arange(len(size)) if clusters is None else np.unique(np.asarray(clusters), return_inverse=True)[1]
    groups = int(labels.max()) + 1
    sums = np.stack([np.bincount(labels, row, groups) for row in (*bits, size)], axis=1)
    draws = np.random.default_rng(seed).multinomial(groups, np.full(groups, 1 / groups), REPLICATIONS) @ sums
    logs = np.log(np.concatenate([sums.sum(0)[None], draws]))
    y = logs[:, :-1] - logs[:, -1:]
    centred = np.log(x) - np.log(x).mean()
    slope = y @ centred / (centred @ centred)
    low, high = np.quantile(-slope[1:], [0.025, 0.975])
    fitted = y[0].mean() + slope[0] * centred
    factor = math.exp(y[0].mean() - slope[0] * np.log(x).mean())
    return float(-slope[0]), float(low), float(high), factor, float(np.abs(np.expm1(y[0] - fitted)).max())


def scale_plots(laws: Sequence[PowerLaw]) -> list[tuple[str, str]]:
    """(axis, SVG) with the lines of all kinds of models together."""
    plots = []
    for axis in dict.fromkeys(law.axis for law in laws):
        chosen = [law for law in laws if law.axis == axis]
        series = [Series(law.kind, [Point(x, y) for x, y in zip(law.x, law.values, strict=True)]) for law in chosen]
        plots.append((axis, line_plot(series, axis, METRIC, log_x=True, log_y=True)))
    return plots
