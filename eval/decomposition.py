"""The decomposition curve from its raw results: points, what each step costs, what controls say, the answer in words.

Raw results are one JSON file, the same form for both tracks: figures are ratios of sums over examples (bits by bytes
over files; photographs told right by photographs over draws of classes), for each cut and training seed.

    format, track, command, environment, budget, data
    metric: {name, better, digits, percent}     unit: what an example is
    cuts: [name, ...] from the root down         words: {cut or control: what it is}
    also: [[cut, finer cut], ...] steps to show besides those between neighbours and from the root
    examples: {names, clusters, sizes}           sizes: the denominators
    builds: [{cut, seed, parameters, nets, ...}] `kept` and `kept_parameters` where some nets were taken out
    kept_name: what these nets are called in the table, with a space after it (default: specialists)
    runs: [{line, cut, control, seed, values}]   values: the numerators; `control` "" for a cut of the curve
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from eval.plots import Point, Series, line_plot
from eval.runner import MANY_CLUSTERS
from eval.tasks.base import Metric
from ontology.errors import ConstructibleError
from ontology.io import read_json, write_text
from ontology.stats import Comparison, Interval, adjusted_p, bootstrap_ratio, paired_difference

FORMAT = "constructible-decomposition/1"
PARAMETERS_WITHIN = 0.01
"""Neural parameters in all may differ by this share between cuts before the page says so."""
DRAWS = 2000


@dataclass(frozen=True)
class Step:
    """From one cut (or the model that is meant) to the next (or a control): `loss` above 0 is worse."""

    upper: str
    lower: str
    loss: Comparison
    q_value: float

    @property
    def told(self) -> bool:
        """Whether the difference is told from none, with all steps and controls of its line looked at."""
        return self.q_value <= 0.05 and self.loss.significant


@dataclass(frozen=True)
class Line:
    """One line of the figure: `points` by cut from the root down, `steps` between neighbours, `in_all` from the root to
    each cut further down (and others asked for), `controls` against the cut they belong to, `seeds` measured, and the
    share of bootstrap draws in which the largest step is the largest."""

    name: str
    metric: Metric
    points: dict[str, Interval]
    steps: list[Step]
    in_all: list[Step]
    control_points: dict[str, Interval]
    controls: list[Step]
    worst: Step | None
    worst_share: float
    seeds: list[int]

    @property
    def words(self) -> str:
        """The answer in one or two sentences."""
        if self.worst is None:
            return f"{self.name}: one cut only, no step to speak of."
        place = f"from {self.worst.upper} to {self.worst.lower}"
        size = f"{shown(self.metric, self.worst.loss)} {self.metric.name}"
        if self.worst.loss.estimate <= 0:
            return f"{self.name}: no step loses; the smallest gain is {place}, {size}."
        share = ""
        if len(self.steps) > 1:  # the only step is the largest one whatever is drawn
            share = f"; it is the largest step in {self.worst_share:.0%} of the bootstrap draws"
        if not self.worst.told:
            return f"{self.name}: the largest loss is {place}, {size}{share}; {doubt(self.metric, self.worst)}."
        return f"{self.name}: the largest loss is {place}, {size}{share}."


def shown(metric: Metric, interval: Interval) -> str:
    """A figure with its interval."""
    ends = interval.as_dict("x")
    return metric.show(interval.estimate, ends["x_low"], ends["x_high"])


def doubt(metric: Metric, step: Step) -> str:
    """Why a difference is not told from none."""
    if not np.isfinite(step.loss.p_value):
        return "one alone says nothing of chance"
    if not np.isfinite(step.loss.minimum_detectable):
        return "so few that happen to agree say nothing of chance"
    if step.loss.significant:
        return f"with all comparisons of its line counted it is not told from none (q {step.q_value:.3f})"
    least = metric.show(step.loss.minimum_detectable)
    return f"not told from none (the smallest difference that would be found is {least})"


def read_raw(path: str | Path) -> dict[str, Any]:
    """Raw results; raises ConstructibleError for a file of another make."""
    raw = read_json(path)
    if not is_raw(raw):
        raise ConstructibleError(
            f"not raw results of a decomposition curve ({FORMAT}).", fix="give what `eval curve-code` wrote", file=path
        )
    return raw


def is_raw(raw: Any) -> bool:
    """Whether this is such a file's content."""
    return isinstance(raw, dict) and raw.get("format") == FORMAT


def lines(raw: Mapping[str, Any]) -> list[Line]:
    """The lines of the figure, in the order of the runs.

    Only seeds count that all measured cuts of a line have: of a curve half measured what is whole is shown.
    """
    names = dict.fromkeys(run["line"] for run in raw["runs"])
    return [one for name in names if (one := _line(raw, name)).points]


def _line(raw: Mapping[str, Any], name: str) -> Line:
    metric = Metric(**raw["metric"], top="", bottom="")
    sign = 1.0 if metric.better == "lower" else -1.0
    size = np.array(raw["examples"]["sizes"], dtype=np.float64)
    labels = raw["examples"]["clusters"]
    clusters = labels if len(set(labels)) >= MANY_CLUSTERS else None
    values: dict[tuple[str, str], dict[int, list[float]]] = {}
    for run in raw["runs"]:
        if run["line"] == name:
            values.setdefault((run["cut"], run["control"]), {})[run["seed"]] = run["values"]
    cuts_there = [set(found) for (_, control), found in values.items() if not control]
    seeds = sorted(set.intersection(*cuts_there)) if cuts_there else []
    tables = {
        key: np.array([found[s] for s in seeds]) for key, found in values.items() if seeds and set(seeds) <= set(found)
    }
    many = len(seeds) > 1

    def point(table: np.ndarray) -> Interval:
        found = bootstrap_ratio(table if many else table[0], size, clusters, seeds=many)
        # With five draws a symmetric interval of a share may reach past what a share can be.
        return replace(found, low=max(found.low, 0.0), high=min(found.high, 1.0)) if metric.percent else found

    def loss(lower: np.ndarray, upper: np.ndarray) -> Comparison:
        a, b = (lower, upper) if sign > 0 else (upper, lower)
        pair = (a, b) if many else (a[0], b[0])
        return paired_difference(*pair, size, clusters=clusters, seeds=many)

    cuts = [cut for cut in raw["cuts"] if (cut, "") in tables]
    steps = [(a, b, loss(tables[b, ""], tables[a, ""])) for a, b in zip(cuts, cuts[1:], strict=False)]
    beside = {
        control: (cut, loss(table, tables[cut, ""]), point(table))
        for (cut, control), table in tables.items()
        if control and (cut, "") in tables
    }
    others = [(cuts[0], b) for b in cuts[2:]]
    others += [(a, b) for a, b in raw.get("also", []) if a in cuts and b in cuts and cuts.index(b) > cuts.index(a) + 1]
    far = [(a, b, loss(tables[b, ""], tables[a, ""])) for a, b in dict.fromkeys(others)]
    rows = [*steps, *far, *((cut, control, comparison) for control, (cut, comparison, _) in beside.items())]
    q = adjusted_p([row[2].p_value for row in rows])
    every = [Step(row[0], row[1], row[2], float(q[i])) for i, row in enumerate(rows)]
    made, controls = every[: len(steps)], every[len(steps) + len(far) :]
    worst = max(made, key=lambda step: step.loss.estimate, default=None)
    share = (
        _largest_share([sign * tables[cut, ""] for cut in cuts], size, clusters, made.index(worst)) if worst else 0.0
    )
    return Line(
        name, metric, {cut: point(tables[cut, ""]) for cut in cuts}, made, every[len(steps) : len(steps) + len(far)],
        {control: row[2] for control, row in beside.items()}, controls, worst, share, seeds,
    )  # fmt: skip


def _largest_share(
    tables: Sequence[np.ndarray], size: np.ndarray, clusters: Sequence[str] | None, step: int
) -> float:  # fmt: skip
    """Share of draws, of clusters and of seeds, in which this step loses most."""
    labels = np.arange(len(size)) if clusters is None else np.unique(np.asarray(clusters), return_inverse=True)[1]
    groups, rng = int(labels.max()) + 1, np.random.default_rng(0)
    sums = np.array([[np.bincount(labels, row, groups) for row in table] for table in tables])  # [cuts, S, G]
    n_seeds = sums.shape[1]
    drawn = rng.multinomial(groups, np.full(groups, 1 / groups), DRAWS).astype(np.float64)
    seeds = rng.multinomial(n_seeds, np.full(n_seeds, 1 / n_seeds), DRAWS) / n_seeds
    top = np.einsum("csg,ds,dg->dc", sums, seeds, drawn)
    figures = top / (drawn @ np.bincount(labels, size, groups))[:, None]
    return float((np.diff(figures, axis=1).argmax(1) == step).mean())


def warnings(raw: Mapping[str, Any]) -> list[str]:
    """What is not equal, or not there."""
    found = []
    sizes: dict[str, list[int]] = {}
    for build in raw["builds"]:
        if build["parameters"]:
            sizes.setdefault(build["cut"], []).append(build["parameters"])
    means = {cut: float(np.mean(values)) for cut, values in sizes.items()}
    if means and max(means.values()) > (1 + PARAMETERS_WITHIN) * min(means.values()):
        text = ", ".join(f"{cut} {mean:,.0f}" for cut, mean in means.items())
        found.append(f"neural parameters differ by more than {PARAMETERS_WITHIN:.0%}: {text}")
    done = {(run["cut"], run["control"]) for run in raw["runs"]}
    found += [f"the cut {cut!r} was not measured" for cut in raw["cuts"] if (cut, "") not in done]
    return found


def figure(found: Sequence[Line], title: str = "Decomposition curve") -> str:
    """The lines and their controls as one SVG."""
    order = list(dict.fromkeys(cut for line in found for cut in line.points))
    series = []
    for i, line in enumerate(found):
        points = [_point(order.index(cut), one, cut) for cut, one in line.points.items()]
        series.append(Series(line.name, points, dashed=i > 0))
    controls: dict[str, list[Point]] = {}
    for line in found:
        for place, step in enumerate(line.controls):
            if step.upper in order:
                x = order.index(step.upper) + 0.12 + 0.04 * (place % 2)
                controls.setdefault(step.lower, []).append(_point(x, line.control_points[step.lower], ""))
    series += [Series(name, points, joined=False) for name, points in controls.items()]
    return line_plot(series, "cut, from the root down", found[0].metric.name, title=title) if found else ""


def _point(x: float, one: Interval, label: str) -> Point:
    ends = one.as_dict("x")
    return Point(float(x), one.estimate, ends["x_low"], ends["x_high"], label)


def as_json(found: Sequence[Line], raw: Mapping[str, Any]) -> dict[str, Any]:
    """Everything worked out, for machines."""
    return {
        "track": raw["track"], "warnings": warnings(raw),
        "lines": [
            {
                "name": line.name, "answer": line.words,
                "points": {cut: one.as_dict("value") for cut, one in line.points.items()},
                "controls": {name: one.as_dict("value") for name, one in line.control_points.items()},
                "steps": [
                    {"from": s.upper, "to": s.lower, **s.loss.as_dict("loss"), "q_value": s.q_value,
                     "minimum_detectable": s.loss.minimum_detectable}
                    for s in (*line.steps, *line.in_all, *line.controls)
                ],
            }
            for line in found
        ],
    }  # fmt: skip


def control_words(line: Line, step: Step) -> str:
    """What a control, or a cut against the root, says, in one sentence."""
    text = f"{line.name}: {step.lower} against {step.upper}, {shown(line.metric, step.loss)} {line.metric.name}"
    if step.told:
        return f"{text} {'worse' if step.loss.estimate > 0 else 'better'}."
    return f"{text}; {doubt(line.metric, step)}."


def page(raw: Mapping[str, Any], figure_name: str, raw_name: str) -> str:
    """The Markdown page."""
    found = lines(raw)
    builds: dict[str, list[Mapping[str, Any]]] = {}
    for build in raw["builds"]:
        builds.setdefault(build["cut"], []).append(build)
    git = raw["environment"].get("git") or {}
    dirty = " with uncommitted changes" if git.get("changed") else ""
    seeds = max((line.seeds for line in found), key=len, default=[])
    text = f"# Decomposition curve: {raw['track']}\n\n"
    text += "".join(f"{paragraph}\n\n" for paragraph in raw["method"])
    text += (
        f"`{raw['command']}`, commit `{str(git.get('commit'))[:12]}`{dirty}; {len(seeds)} {raw['seed_name']}, "
        f"{len(raw['examples']['names'])} {raw['unit']}. Intervals are 95 %, over {raw['cluster_name']}"
        f"{' and training seeds' if len(seeds) > 1 else ''}; steps are paired. "
        f"Raw results: [{raw_name}]({raw_name}).\n\n"
    )
    text += f"![The curve]({figure_name})\n\n## The answer\n\n"
    text += "".join(f"- {line.words}\n" for line in found)
    text += "".join(f"- {control_words(line, step)}\n" for line in found for step in (*line.in_all, *line.controls))
    text += "".join(f"- Not equal or missing: {warning}.\n" for warning in warnings(raw))
    heads = ["cut", "what it is", "nets", "parameters", *(line.name for line in found)]
    text += f"\n## Figures\n\n{found[0].metric.name if found else ''}, {raw['metric']['better']} is better.\n\n"
    text += "| " + " | ".join(heads) + " |\n| --- | --- | ---: | ---: |" + " ---: |" * len(found) + "\n"
    controls = dict.fromkeys(step.lower for line in found for step in line.controls)
    for name in [*raw["cuts"], *controls]:
        rows = builds.get(name, [])
        if not rows and not any(name in line.points for line in found):
            continue
        nets = f"{np.mean([row['nets'] for row in rows]):,.0f}" if rows else "0"
        parameters = f"{np.mean([row['parameters'] for row in rows]):,.0f}" if rows else "0"
        if any(row.get("kept", row["nets"]) != row["nets"] for row in rows):
            what = raw.get("kept_name", "specialists ")
            nets += f", of which {np.mean([row['kept'] for row in rows]):,.0f} {what}kept"
            parameters += f", {np.mean([row['kept_parameters'] for row in rows]):,.0f} kept"
        cells = []
        for line in found:
            one = line.points.get(name) or line.control_points.get(name)
            cells.append("" if one is None else shown(line.metric, one))
        text += "| " + " | ".join([name, raw["words"].get(name, ""), nets, parameters, *cells]) + " |\n"
    text += "\n## Steps\n\nA positive figure is a loss; q is the p-value adjusted for all rows of its line.\n\n"
    text += "| line | from | to | loss | q | smallest that would be found |\n| --- | --- | --- | ---: | ---: | ---: |\n"
    for line in found:
        for step in (*line.steps, *line.in_all, *line.controls):
            cells = [line.name, step.upper, step.lower, shown(line.metric, step.loss), f"{step.q_value:.3f}",
                     line.metric.show(step.loss.minimum_detectable)]  # fmt: skip
            text += "| " + " | ".join(cells) + " |\n"
    return text


def write_pages(path: Path, folder: Path) -> list[Path]:
    """Write the page and the figure of a raw results file into a folder, named after it."""
    raw = read_raw(path)
    svg = write_text(folder / f"{path.stem}.svg", figure(lines(raw), f"Decomposition curve: {raw['track']}"))
    try:
        raw_name = Path("..", path.resolve().relative_to(folder.resolve().parent)).as_posix()
    except ValueError:
        raw_name = path.name
    return [write_text(folder / f"{path.stem}.md", page(raw, svg.name, raw_name)), svg]
