"""Contenders at equal budgets (`eval.studies.contenders`) as rows of the leaderboard, comparisons and a figure.

Their raw results, bits file by file, lie in docs/experiments/contenders.json, beside docs/results; those of an earlier
version of the package, or of another day, in contenders_VERSION.json. Ratios are between models of one version.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from eval.leaderboard import Row
from eval.plots import Point, Series, line_plot
from ontology.io import read_json
from ontology.stats import Comparison, adjusted_p, bootstrap_ratio, paired_ratio

RAW = "../experiments/contenders.json"
"""Relative to the folder of raw results; earlier versions have `_VERSION` before the dot."""
KINDS = {
    "constructed": "constructed", "gpt": "monolith", "gpt+tables": "monolith with tables",
    "unrouted": "one net with tables", "random": "random router", "plain": "no nets",
}  # fmt: skip
NAMES = {
    "constructed": "constructed", "gpt": "transformer", "gpt+tables": "transformer with the same tables and caches",
    "unrouted": "one unrouted net with the same tables", "random": "nets under random questions, same tables",
    "plain": "no nets, the same tables",
}  # fmt: skip


@dataclass(frozen=True)
class Contender:
    """One model at one budget: its runs, one per training seed, on the same files in one order."""

    model: str
    minutes: float
    board: str
    runs: tuple[Mapping[str, Any], ...]
    raw: str = RAW

    @property
    def version(self) -> str:
        """What stands in the file's name, "" for the current version."""
        return Path(self.raw).stem.partition("_")[2]

    @property
    def bits(self) -> np.ndarray:
        """float64[S, n]."""
        return np.array([run["bits"] for run in self.runs], dtype=np.float64)

    @property
    def name(self) -> str:
        """As in tables."""
        before = f" ({self.version})" if self.version else ""
        return f"{NAMES.get(self.model, self.model)}, {self.minutes:g} min{before}"

    @property
    def kind(self) -> str:
        """As in `board.Entry`."""
        return KINDS.get(self.model, "other")

    @property
    def size(self) -> np.ndarray:
        """float64[n] bytes of the files."""
        return np.array(self.runs[0]["bytes"], dtype=np.float64)

    def mean(self, name: str) -> Any:
        """Over training seeds; None where one of them lacks it."""
        values = [run.get(name) for run in self.runs]
        return None if None in values else float(np.mean(np.array(values, dtype=np.float64)))


def read(results: Path) -> list[Contender]:
    """What `docs/experiments/contenders*.json` beside a folder of raw results hold; nothing where there is none.

    Rows on other files than the first of their board are left out (they would not be comparable).
    """
    files: dict[str, Any] = {}
    first = results / RAW
    paths = [path for path in (first, *sorted(first.parent.glob(f"{first.stem}_*.json"))) if path.is_file()]
    return [one for path in paths for one in _read(path, f"../{first.parent.name}/{path.name}", files)]


def _read(path: Path, raw: str, files: dict[str, Any]) -> list[Contender]:
    stored = read_json(path)
    groups: dict[tuple[str, float, str], dict[int, Mapping[str, Any]]] = {}
    for run in stored["runs"].values():
        if not {"corpus", "setting", "bits", "path"} <= run.keys():
            continue  # of an earlier version of the study
        board = (
            f"{run['split']}, {len(run['bits'])} files of {len(set(run['project']))} unseen projects, "
            f"trained on {run['corpus']}, {run['setting']}"
        )
        held = list(zip(run["project"], run["path"], run["bytes"], strict=True))
        if files.setdefault(board, held) != held:
            continue
        # Rows of before each said so itself: all that is known is by which code the file was last added to.
        known = {"commit": "", "cpu": None, "last_added_by": _commit(stored)} | dict(run)
        groups.setdefault((board, float(run["minutes"]), run["model"]), {})[int(run["seed"])] = known
    return [
        Contender(model, minutes, board, tuple(run for _, run in sorted(runs.items())), raw)
        for (board, minutes, model), runs in sorted(groups.items())
    ]


def _commit(stored: Mapping[str, Any]) -> str:
    git = stored["environment"].get("git") or {}
    return str(git.get("commit") or "") + ("+" if git.get("changed") else "")


def row_of(one: Contender) -> Row:
    """Figures for a table: means over training seeds, and intervals that hold for others where there are several."""
    first, many = one.runs[0], len(one.runs) > 1
    accuracy = [first.get(f"accuracy{end}") for end in ("", "_low", "_high")]
    bits = bootstrap_ratio(one.bits if many else one.bits[0], one.size, seeds=many).as_dict("b")
    value = bits["b"]
    assert value is not None
    ends = (None, None) if many else (accuracy[1], accuracy[2])
    seeds = f"{len(one.runs)} training seeds" if many else "one training seed"
    by = "" if first.get("commit") else f"; built at or before {str(first['last_added_by'])[:12]}"
    return Row(
        one.name, value, one.mean("accuracy"), round(one.mean("parameters")), one.mean("seconds"), bits["b_low"],
        bits["b_high"], *ends, round(one.mean("table_entries")), None, one.mean("bytes_per_token"),
        seeds + by,
    )  # fmt: skip


def command_of(one: Contender) -> str:
    """What made it."""
    run = one.runs[0]
    split, _, all_files = run["split"].partition(", ")
    words = ["python -m eval.studies.contenders DATA", f"--minutes {one.minutes:g}", f"--split {split}"]
    words += [f"--seeds {len(one.runs)}"] if len(one.runs) > 1 else []
    words += ["--sample"] if run["corpus"] == "40 MB" else []
    words += ["--whole"] if all_files else []
    return " ".join([*words, *(["--dynamic"] if run["setting"] == "dynamic" else [])])


def facts_of(one: Contender) -> dict[str, Any]:
    """What the leaderboard's page opens."""
    projects: dict[str, list[float]] = {}
    mean = one.bits.mean(0)
    for project, bits, size in zip(one.runs[0]["project"], mean.tolist(), one.size.tolist(), strict=True):
        total = projects.setdefault(project, [0.0, 0.0])
        total[0], total[1] = total[0] + bits, total[1] + size
    run = {key: value for key, value in one.runs[0].items() if key not in ("bits", "bytes", "project", "path")}
    return {
        "command": command_of(one), "figures": run,
        "situations": [
            {"situation": name, "bytes": size, "bits per byte": round(bits / size, 4)}
            for name, (bits, size) in sorted(projects.items())
        ],
    }  # fmt: skip


@dataclass(frozen=True)
class Ratio:
    """Constructed / another in bits per byte at one budget, paired by file; `q_value` adjusted for all of them."""

    ours: Contender
    other: Contender
    ratio: Comparison
    q_value: float

    @property
    def told(self) -> bool:
        """Whether it is told from 1, all comparisons looked at."""
        return self.q_value <= 0.05 and self.ratio.significant


def ratios(contenders: list[Contender]) -> list[Ratio]:
    """Constructed against each other model of the same version, board, budget and number of training seeds."""
    pairs = []
    for ours in (one for one in contenders if one.model == "constructed"):
        for other in contenders:
            same = (other.board, other.minutes, other.raw) == (ours.board, ours.minutes, ours.raw)
            same = same and other.model != "constructed"
            if same and len(other.runs) == len(ours.runs):
                many = len(ours.runs) > 1
                two = (ours.bits, other.bits) if many else (ours.bits[0], other.bits[0])
                pairs.append((ours, other, paired_ratio(*two, ours.size, seeds=many)))
    q = adjusted_p([pair[2].p_value for pair in pairs])
    return [Ratio(*pair, q_value=float(value)) for pair, value in zip(pairs, q, strict=True)]


def ratio_words(one: Ratio) -> str:
    """A comparison in one sentence."""
    c = one.ratio
    more = (one.other.mean("parameters") or 0.0) / max(one.ours.mean("parameters") or 1.0, 1.0) - 1
    other = one.other.name + (f" (which has {more:.0%} more parameters)" if more > 0.1 else "")
    text = f"{one.ours.name} / {other}: {c.estimate:.3f} [{c.low:.3f}, {c.high:.3f}] in bits per byte"
    if one.told:
        return f"{text}, {'better' if c.estimate < 1 else 'worse'}"
    least = c.minimum_detectable
    return f"{text}, not told from 1 (q {one.q_value:.3f}; ±{least:.3f} would be found 4 times in 5)"


def unlike(contenders: list[Contender]) -> list[str]:
    """What is not equal between contenders of one board and budget: parameters, seconds, machine, commit."""
    said = []
    for board, minutes, raw in dict.fromkeys((one.board, one.minutes, one.raw) for one in contenders):
        group = [one for one in contenders if (one.board, one.minutes, one.raw) == (board, minutes, raw)]
        version = f", {group[0].version}" if group[0].version else ""
        with_nets = {one.name: one.mean("parameters") for one in group if one.mean("parameters")}
        if with_nets and max(with_nets.values()) > 1.1 * min(with_nets.values()):
            most, least = max(with_nets, key=with_nets.__getitem__), min(with_nets, key=with_nets.__getitem__)
            more = with_nets[most] / with_nets[least] - 1
            said.append(f"{board}: {most} has {more:.0%} more parameters than {least}")
        for what in ("commit", "cpu"):
            values = {str(run[what]) for one in group for run in one.runs if run.get(what)}
            if len(values) > 1:
                said.append(f"{board}, {minutes:g} min{version}: builds of {len(values)} different {what}s")
    return said


def figure(contenders: list[Contender], board: str) -> str:
    """Bits per byte against the seconds of the build, a line for each make of model."""
    series = []
    for version, model in ((version, model) for version in sorted({c.version for c in contenders}) for model in NAMES):
        place = (board, model, version)
        own = [one for one in contenders if (one.board, one.model, one.version) == place]
        own.sort(key=lambda one: one.minutes)
        points = [Point(row.seconds or 0.0, row.bits_per_byte, row.bits_per_byte_low, row.bits_per_byte_high)
                  for row in map(row_of, own) if row.seconds]  # fmt: skip
        if points:
            series.append(Series(KINDS[model] + (f" ({version})" if version else ""), points, dashed=bool(version)))
    return line_plot(series, "seconds of the build", "bits per byte", log_x=True, title=f"Contenders: {board}")
