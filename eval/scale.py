"""Quality against data, work, parameters, seconds, FLOPs: power laws with intervals, and where a curve turns back up.

Raw results are one JSON file (`collect` makes it of a folder that `eval run` filled): for each model its measured
budget and its bits on every file. A *sweep* is a set of models in which one thing was changed on purpose (a subfolder
of the folder); a law is fitted within a sweep only, and says what else moved with its axis.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from eval.plots import Point, Series, line_plot
from eval.runner import MANY_CLUSTERS
from eval.tasks.base import place_free
from ontology.errors import ConstructibleError, UsageError
from ontology.io import read_json, write_json
from ontology.stats import Comparison, adjusted_p, bootstrap_ratio, paired_difference, paired_ratio

FORMAT = "constructible-scale/1"
METRIC = "bits per byte"
REPLICATIONS = 1000
MOVED = 1.1
"""An axis has moved where its largest value is so many times its smallest."""
AXES = {
    "training bytes": "data_bytes", "parameters": "parameters", "training positions": "train_rows",
    "seconds": "seconds", "training FLOPs": "train_flops",
}  # fmt: skip
_KEPT = ("seconds", "peak_rss_bytes", "parameters", "table_entries", "data_hash", "data_bytes", "data_files",
         "train_rows", "train_flops", "cpu", "threads", "commit", "cut", "seed")  # fmt: skip


@dataclass(frozen=True)
class Sized:
    """Models of one kind and size: `sizes` by axis (None: not measured), bits float64[S, n], one row per seed."""

    kind: str
    name: str
    sizes: dict[str, float | None]
    bits: np.ndarray


@dataclass(frozen=True)
class PowerLaw:
    """value = factor * x ** -exponent over models of one kind.

    Attributes:
        sweep, kind, axis: which models, against what.
        x, values, lows, highs: the sizes, and the figures with their intervals (None: one file).
        exponent, low, high: with its 95 % interval over files, and over training seeds where there are several.
        factor, residual: of the law; the largest relative distance of a model from it.
        turns: places where a larger x is worse, beyond chance.
        beside: other axes that moved with this one.
        seeds: trainings of each size.
    """

    sweep: str
    kind: str
    axis: str
    x: list[float]
    values: list[float]
    lows: list[float | None]
    highs: list[float | None]
    exponent: float
    low: float
    high: float
    factor: float
    residual: float
    turns: list[str]
    beside: list[str]
    seeds: int


def kind_of(header: Mapping[str, Any]) -> str:
    """The line a model belongs to, from a results header."""
    kind = header["model"]["kind"]
    cut = {"root": "monolith", "plain": "no nets", None: "other"}.get(header["budget"]["cut"], "constructed")
    return f"{cut}, {kind}" if kind else cut


def collect(run: Path, method: Sequence[str] = (), axes: Sequence[str] = ()) -> dict[str, Any]:
    """Raw results of a folder that `eval run` filled, or of one whose subfolders (sweeps) it filled.

    Args:
        run: the folder.
        method: paragraphs for the page, how the models were made.
        axes: the only ones that laws are fitted along (default: all that moved); seconds of a machine that does other
            work as well, say, are no axis.

    Raises:
        UsageError: there are no results of the task `bits`.
        ConstructibleError: the models were not scored on the same bytes.
    """
    from eval.records import read_results

    paths = sorted(run.rglob("bits.parquet"))
    if not paths:
        raise UsageError("no results of the task 'bits' here.", fix="give the OUT folder of `eval run`", file=run)
    models, first = [], None
    environment: dict[str, Any] = {}
    commands: list[str] = []
    for path in paths:
        results = read_results(path)
        header = results.header
        if header["model"].get("control"):
            continue
        held = dict(zip(results.examples, results.sha256, strict=True))
        if first is None:
            first, environment = results, header["environment"]
        elif held != dict(zip(first.examples, first.sha256, strict=True)):
            raise ConstructibleError(
                f"{path.parent.name} was not scored on the same files as {first.path.parent.name}.",
                fix="run all with the same --data and --limit", file=run,
            )  # fmt: skip
        at = {name: i for i, name in enumerate(results.examples)}
        folder = path.parent.parent if path.parent.name.startswith("seed-") else path.parent
        sweep = folder.parent.relative_to(run).as_posix() if folder.parent.is_relative_to(run) else "."
        bits = results.values["bits"][[at[name] for name in first.examples]]
        budget = {key: header["budget"].get(key) for key in _KEPT}
        models.append(
            {"sweep": "" if sweep == "." else sweep, "name": header["model"]["name"], "kind": kind_of(header),
             "seed": header["model"]["seed"] or 0, "budget": budget, "bits": [round(float(b), 2) for b in bits]}
        )  # fmt: skip
        # The models are listed with their figures; the command says how they were measured.
        commands.append(re.sub(r"(eval run) .*? (?=--tasks)", r"\1 MODEL... ", place_free(header["command"])))
    if first is None:
        raise UsageError("all models here are controls.", fix="measure models that are meant", file=run)
    return {
        "format": FORMAT, "method": list(method), "axes": list(axes) or list(AXES),
        "commands": sorted(set(commands)), "environment": environment,
        "examples": {"names": first.examples, "clusters": first.clusters,
                     "sizes": [int(size) for size in first.values["bytes"]]},
        "models": models,
    }  # fmt: skip


def take_along(found: Mapping[str, Any], earlier: Mapping[str, Any], file: Path | None = None) -> dict[str, Any]:
    """`found` with the sweeps of earlier raw results that it does not have, and how and where these were measured.

    Raises:
        ConstructibleError: they were not scored on the same files.
    """
    if found["examples"] != earlier["examples"]:
        raise ConstructibleError(
            "the earlier results were not scored on the same files.", fix="run all with the same --data and --limit",
            file=file,
        )  # fmt: skip
    there = {model["sweep"] for model in found["models"]}
    taken = [model for model in earlier["models"] if model["sweep"] not in there]
    if not taken:
        return dict(found)
    about = {"sweeps": sorted({model["sweep"] for model in taken}), "environment": earlier["environment"],
             "method": earlier["method"], "commands": earlier["commands"]}  # fmt: skip
    return {**found, "models": [*found["models"], *taken], "earlier": [*earlier.get("earlier", []), about]}


def is_raw(raw: Any) -> bool:
    """Whether this is what `collect` gave."""
    return isinstance(raw, dict) and raw.get("format") == FORMAT


def read_raw(path: Path) -> dict[str, Any]:
    """Raw results from a file, or collected from a folder; raises ConstructibleError for a file of another make."""
    if path.is_dir():
        return collect(path)
    raw = read_json(path)
    if not is_raw(raw):
        raise ConstructibleError(f"not raw results of {FORMAT}.", fix="give what `eval scale --raw` wrote", file=path)
    return raw


def sized(raw: Mapping[str, Any]) -> dict[tuple[str, str], list[Sized]]:
    """Models by sweep and kind, each with the training seeds that all of its line have."""
    lines: dict[tuple[str, str], dict[str, dict[int, Any]]] = {}
    for model in raw["models"]:
        by_name = lines.setdefault((model["sweep"], model["kind"]), {})
        by_name.setdefault(model["name"], {})[model["seed"]] = model
    found = {}
    for place, by_name in lines.items():
        seeds = sorted(set.intersection(*(set(models) for models in by_name.values())))
        if not seeds:
            continue
        found[place] = [
            Sized(
                place[1], name,
                {axis: _mean([models[seed]["budget"].get(key) for seed in seeds]) for axis, key in AXES.items()},
                np.array([models[seed]["bits"] for seed in seeds], dtype=np.float64),
            )
            for name, models in by_name.items()
        ]  # fmt: skip
    return found


def _mean(values: Sequence[float | None]) -> float | None:
    known = [float(value) for value in values if value is not None]
    return float(np.mean(known)) if len(known) == len(values) else None


def _clusters(raw: Mapping[str, Any]) -> list[str] | None:
    labels = raw["examples"]["clusters"]
    return labels if len(set(labels)) >= MANY_CLUSTERS else None


def scaling(run: Path | Mapping[str, Any]) -> list[PowerLaw]:
    """Power laws of bits per byte by sweep, kind of model and axis, where at least three sizes were measured.

    Raises:
        UsageError: there is no result, or nowhere three sizes.
        ConstructibleError: the models were not scored on the same bytes.
    """
    raw = read_raw(run) if isinstance(run, Path) else run
    found = []
    for (sweep, kind), members in sorted(sized(raw).items()):
        moved = [axis for axis in AXES if _moves(members, axis)]
        for axis in (axis for axis in moved if axis in raw["axes"]):
            at = sorted(members, key=lambda one: one.sizes[axis] or 0.0)
            if len({one.sizes[axis] for one in at}) >= 3:
                found.append(_fit(raw, sweep, kind, axis, at, [other for other in moved if other != axis]))
    if not found:
        file = run if isinstance(run, Path) else None
        raise UsageError("nowhere three sizes of one kind of model.", fix="measure more budgets", file=file)
    return found


def _moves(members: Sequence[Sized], axis: str) -> bool:
    values = [one.sizes[axis] for one in members]
    known = [value for value in values if value]
    return len(known) == len(values) and max(known) > MOVED * min(known)


def _fit(
    raw: Mapping[str, Any], sweep: str, kind: str, axis: str, at: Sequence[Sized], beside: list[str]
) -> PowerLaw:  # fmt: skip
    size, clusters = np.array(raw["examples"]["sizes"], dtype=np.float64), _clusters(raw)
    x = np.array([one.sizes[axis] for one in at], dtype=np.float64)
    bits = np.stack([one.bits for one in at])
    many = bits.shape[1] > 1
    exponent, low, high, factor, residual = power_law(x, bits, size, clusters)
    points = [
        bootstrap_ratio(one.bits if many else one.bits[0], size, clusters, seeds=many).as_dict("x") for one in at
    ]  # fmt: skip
    pairs: list[tuple[str, Comparison]] = []
    for (x_a, a), (x_b, b) in zip(zip(x, at, strict=True), list(zip(x, at, strict=True))[1:], strict=False):
        if x_a < x_b:
            two = (b.bits, a.bits) if many else (b.bits[0], a.bits[0])
            pairs.append((f"{x_a:.3g} to {x_b:.3g}", paired_difference(*two, size, clusters=clusters, seeds=many)))
    turns = [
        f"{name}: {one.estimate:.3f} worse"
        for (name, one), q in zip(pairs, adjusted_p([pair[1].p_value for pair in pairs]), strict=True)
        if one.estimate > 0 and one.significant and q <= 0.05
    ]
    return PowerLaw(
        sweep, kind, axis, x.tolist(), (bits.mean(1).sum(1) / size.sum()).tolist(), [one["x_low"] for one in points],
        [one["x_high"] for one in points], exponent, low, high, factor, residual, turns, beside, bits.shape[1],
    )  # fmt: skip


def power_law(
    x: np.ndarray, bits: np.ndarray, size: np.ndarray, clusters: Sequence[Any] | None = None, seed: int = 0
) -> tuple[float, float, float, float, float]:
    """Fit sum(bits) / sum(size) = factor * x ** -exponent by least squares in logarithms.

    Args:
        x: float64[m] above 0, at least two different values.
        bits: float64[m, n] of m models on n files, or [m, S, n] with S training seeds of each.
        size: float64[n] bytes of the files.
        clusters: [n] labels that are drawn together; None draws files.
        seed: of the bootstrap.

    Returns:
        exponent, low, high (95 %: bootstrap over clusters that all models share; with several seeds a term for the
        scatter of training is added, s / sqrt(S) times Student's t with S - 1 degrees of freedom, s between the
        exponents of single seeds; with one seed it knows nothing of that scatter), factor, and the largest relative
        distance of a model from the line.

    Raises:
        ValueError: fewer than two different x, or one that is not above 0.
    """
    if (x <= 0).any() or len(np.unique(x)) < 2:
        raise ValueError("a power law needs two different sizes above 0")
    each = bits[:, None] if bits.ndim == 2 else bits
    rows = each.mean(1)
    labels = np.arange(len(size)) if clusters is None else np.unique(np.asarray(clusters), return_inverse=True)[1]
    groups = int(labels.max()) + 1
    rng = np.random.default_rng(seed)
    sums = np.stack([np.bincount(labels, row, groups) for row in (*rows, size)], axis=1)
    draws = rng.multinomial(groups, np.full(groups, 1 / groups), REPLICATIONS) @ sums
    logs = np.log(np.concatenate([sums.sum(0)[None], draws]))
    y = logs[:, :-1] - logs[:, -1:]
    centred = np.log(x) - np.log(x).mean()
    slope = y @ centred / (centred @ centred)
    spread = slope[1:].copy()
    if each.shape[1] > 1:
        single = np.log(each.sum(2) / size.sum()).T @ centred / (centred @ centred)
        spread += rng.standard_t(len(single) - 1, REPLICATIONS) * single.std(ddof=1) / math.sqrt(len(single))
    low, high = np.quantile(-spread, [0.025, 0.975])
    fitted = y[0].mean() + slope[0] * centred
    factor = math.exp(y[0].mean() - slope[0] * np.log(x).mean())
    return float(-slope[0]), float(low), float(high), factor, float(np.abs(np.expm1(y[0] - fitted)).max())


@dataclass(frozen=True)
class Gap:
    """Constructed against monolith where both have about the same x: the ratio of their bits per byte."""

    sweep: str
    axis: str
    x: float
    ratio: Comparison


def gaps(raw: Mapping[str, Any]) -> list[Gap]:
    """The ratio constructed / monolith at every size that both were built at, within a tenth."""
    size, clusters = np.array(raw["examples"]["sizes"], dtype=np.float64), _clusters(raw)
    lines, found = sized(raw), []
    for sweep in sorted({sweep for sweep, _ in lines}):
        ours, theirs = lines.get((sweep, "constructed"), []), lines.get((sweep, "monolith"), [])
        for axis in raw["axes"]:
            if not ours or not _moves(ours, axis):
                continue
            for one in sorted(ours, key=lambda row: row.sizes[axis] or 0.0):
                x = one.sizes[axis] or 0.0
                like = [two for two in theirs if (y := two.sizes[axis]) and abs(math.log(y / x)) < math.log(MOVED)]
                if not like:
                    continue
                best = min(like, key=lambda two: abs(math.log((two.sizes[axis] or 1.0) / x)))
                if len(best.bits) == len(one.bits):
                    many = len(one.bits) > 1
                    pair = (one.bits, best.bits) if many else (one.bits[0], best.bits[0])
                    found.append(Gap(sweep, axis, x, paired_ratio(*pair, size, clusters=clusters, seeds=many)))
    return found


def scale_plots(laws: Sequence[PowerLaw]) -> list[tuple[str, str]]:
    """(name, SVG) for every sweep and axis, with the lines of all kinds of models together."""
    plots = []
    for sweep, axis in dict.fromkeys((law.sweep, law.axis) for law in laws):
        chosen = [law for law in laws if (law.sweep, law.axis) == (sweep, axis)]
        series = [
            Series(law.kind, [Point(*row) for row in zip(law.x, law.values, law.lows, law.highs, strict=True)])
            for law in chosen
        ]
        name = f"{sweep} {axis}".strip()
        title = f"Bits per byte against {axis}" + (f", {sweep}" if sweep else "")
        plots.append((name, line_plot(series, axis, METRIC, log_x=True, log_y=True, title=title)))
    return plots


def law_words(law: PowerLaw) -> str:
    """A law in one sentence."""
    beside = f"; {', '.join(law.beside)} moved with it" if law.beside else ""
    turn = "turns back at " + "; ".join(law.turns) if law.turns else "no turn back beyond chance"
    where = f"{law.sweep}: " if law.sweep else ""
    return (
        f"{where}{law.kind}, {law.axis}: exponent {law.exponent:.3f} [{law.low:.3f}, {law.high:.3f}] over "
        f"{len(law.x)} sizes of {law.seeds} seed{'s' if law.seeds > 1 else ''}, at most {law.residual:.1%} off the "
        f"line{beside}; {turn}"
    )


def save(raw: Mapping[str, Any], path: Path) -> Path:
    """Write raw results."""
    return write_json(path, raw)
