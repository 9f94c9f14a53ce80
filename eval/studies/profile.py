"""Where the time of real builds goes: `python -m eval.studies.profile DATA [--code CORPUS] [--steps N]`.

DATA is a folder with `code/` and `tiny_imagenet/`. A code model (the 40 MB sample's size) and an image model are built
for a fixed number of steps, with the package's kernels and with the plain torch backend (CONSTRUCTIBLE_KERNELS=torch):
the work is the same, so seconds compare. Each is built twice, once for the seconds of its jobs and once under cProfile
for the parts; library time (numpy, torch, numba) counts for the project's function that asked for it. Builds run one
after the other in processes of their own, after one warm-up build that compiles the kernels; needs an idle machine.
`--before FOLDER` times the checkout of an earlier commit as well, by the same commands: what became of a whole build
since, whatever the reason. Writes docs/experiments/profile.json and profile.md.
"""

from __future__ import annotations

import argparse
import json
import os
import pstats
import shutil
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ontology.environment import describe
from ontology.errors import ConstructibleError
from ontology.io import make_folder, write_json, write_text
from ontology.main import exit_code
from ontology.progress import Progress

RESULTS = Path("docs/experiments/profile.json")
ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("kernels", "ontology", "cgpt", "vision")
BACKENDS = {"package kernels": None, "plain torch": "torch"}
SHOWN = 15
AUTOGRAD = "torch: backward pass of its own operations"

Function = tuple[str, int, str]  # file, line, name: as in pstats


def part_of(function: Function) -> str | None:
    """The part of the project that a function is, such as "kernels/numba_cnn.py run", or None for a library's."""
    file, _, name = function
    if "run_backward" in name:
        return AUTOGRAD
    path = Path(file)
    if path.suffix != ".py" or not path.is_absolute():
        return None
    try:
        inside = path.resolve().relative_to(ROOT)
    except ValueError:
        return None
    return f"{inside} {name}" if inside.parts[0] in PACKAGES else None


def shares(stats: Mapping[Function, tuple[int, int, float, float, Mapping[Function, tuple[int, int, float, float]]]]
           ) -> dict[str, float]:  # fmt: skip
    """Seconds of each part: own time, and the libraries' time split over those who called them, by time spent there."""
    found: dict[str, float] = defaultdict(float)
    callers = {
        function: {caller: edge[3] for caller, edge in row[4].items() if caller != function and edge[3] > 0}
        for function, row in stats.items()
    }
    waiting = {function: row[2] for function, row in stats.items() if row[2] > 0}
    for _ in range(60):  # deeper than libraries' stacks; what still waits then went in circles
        following: dict[Function, float] = defaultdict(float)
        for function, seconds in waiting.items():
            part, above = part_of(function), callers.get(function, {})
            if part is not None:
                found[part] += seconds
            elif not above:
                found["start, imports, other"] += seconds
            else:
                total = sum(above.values())
                for caller, spent in above.items():
                    following[caller] += seconds * spent / total
        waiting = {function: seconds for function, seconds in following.items() if seconds > 1e-9}
        if not waiting:
            break
    found["start, imports, other"] += sum(waiting.values())
    return dict(found)


def _build(
    arguments: Sequence[str], backend: str | None, profile: Path | None = None, root: Path = ROOT
) -> dict[str, Any]:
    """Run a build command of the checkout `root`; its JSON answer and the wall seconds of the process."""
    environment = {k: v for k, v in os.environ.items() if k != "CONSTRUCTIBLE_KERNELS"}
    if backend is not None:
        environment["CONSTRUCTIBLE_KERNELS"] = backend
    how = [] if profile is None else ["-m", "cProfile", "-o", str(profile)]
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, *how, "-m", "ontology.main", *arguments, "--json"],
        capture_output=True, text=True, env=environment, cwd=root,
    )  # fmt: skip
    if done.returncode:
        raise ConstructibleError(
            f"the build {' '.join(arguments[:2])} ended with {done.returncode}: {done.stderr.strip()[-300:]}",
            fix="run the command alone to see what it says",
        )
    said = json.loads(done.stdout)
    return {"process_seconds": time.perf_counter() - started, "seconds": said["seconds"], "jobs": said["jobs"]}


def run(
    commands: Mapping[str, Sequence[str]], out: Path, results: Path = RESULTS, before: Path | None = None
) -> dict[str, Any]:
    """Build and profile each track's command (without --out) with both backends; write and return the figures.

    `before` is a checkout of an earlier commit, whose builds are timed only.
    """
    progress, found = Progress(), {}
    out = make_folder(out).resolve()
    earlier = "" if before is None else f"commit {_commit(before)}"
    for track, command in commands.items():
        for name, backend in BACKENDS.items():
            folder, file = out / f"{track}-{backend or 'package'}", out / f"{track}-{backend or 'package'}.pstats"
            rows = {}
            for phase, profile in (("warm-up", None), ("timed", None), ("profiled", file)):
                progress.note(f"{track}, {name}: {phase}")
                shutil.rmtree(folder, ignore_errors=True)  # this study's own folder: every build starts from nothing
                rows[phase] = _build([*command, "--out", str(folder)], backend, profile)
            stats: Any = pstats.Stats(str(file))
            parts = shares(stats.stats)
            found.setdefault(track, {})[name] = {
                **rows["timed"], "profiled_seconds": rows["profiled"]["process_seconds"],
                "parts": dict(sorted(parts.items(), key=lambda row: -row[1])),
            }  # fmt: skip
        if before is not None:
            for phase in ("warm-up", "timed"):
                progress.note(f"{track}, {earlier}: {phase}")
                folder = out / f"{track}-before"
                shutil.rmtree(folder, ignore_errors=True)
                rows[phase] = _build([*command, "--out", str(folder)], None, None, before)
            found[track][earlier] = rows["timed"]
    result = {
        "format": "constructible-profile/1", "created": time.strftime("%Y-%m-%d"), "environment": describe(),
        "commands": {track: _shown(command) for track, command in commands.items()}, "tracks": found,
    }  # fmt: skip
    write_json(results, result)
    write_text(results.with_suffix(".md"), page(result))
    return result


def _commit(checkout: Path) -> str:
    asked = ["git", "-C", str(checkout), "rev-parse", "--short=12", "HEAD"]
    return subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()


def _shown(command: Sequence[str]) -> str:
    return " ".join(Path(word).name if os.path.isabs(word) else word for word in command)


def page(result: dict[str, Any]) -> str:
    """The figures as Markdown."""
    git = result["environment"].get("git") or {}
    lines = [
        "# Where the time of a build goes", "",
        f"`python -m eval.studies.profile DATA` at commit `{str(git.get('commit'))[:12]}`, {result['created']}. The",
        "same steps with the package's kernels and with the plain torch backend (`CONSTRUCTIBLE_KERNELS=torch`); one",
        "build each for the seconds (nothing attached), one under cProfile for the shares, whose own cost is in them.",
        "A library's time counts for the function of the project that called it. One run: a few per cent are noise.",
        "In brackets how often the package's seconds go into a figure. A column of an earlier commit is that commit's",
        "own build by the same command: its nets may read less, so it compares whole builds and not the same work.",
    ]  # fmt: skip
    for track, unordered in result["tracks"].items():
        by_backend = {name: unordered[name] for name in sorted(unordered, key=lambda name: name not in BACKENDS)}
        lines += ["", f"## {track}", "", f"`constructible {result['commands'][track]}`", "",
                  "| | " + " | ".join(by_backend) + " |", "| --- |" + " ---: |" * len(by_backend)]  # fmt: skip
        totals = [row["seconds"] for row in by_backend.values()]
        lines.append(_line("seconds of the build", totals))
        jobs = [_grouped(row["jobs"]) for row in by_backend.values()]
        lines += [_line(f"job {job}", [j.get(job, 0.0) for j in jobs]) for job in _largest(jobs)]
        for name, row in by_backend.items():
            if "parts" not in row:
                continue
            whole = sum(row["parts"].values())
            packages: dict[str, float] = defaultdict(float)
            for part, seconds in row["parts"].items():
                packages[part.split("/")[0] if "/" in part.split(" ")[0] else part] += seconds
            lines += ["", f"### Share of the time, {name}", "", "| part | share |", "| --- | ---: |"]
            ordered = sorted(packages.items(), key=lambda item: -item[1])
            lines += [f"| **{part}** | {seconds / whole:.1%} |" for part, seconds in ordered]
            largest = sorted(row["parts"].items(), key=lambda item: -item[1])[:SHOWN]
            lines += [f"| `{part}` | {seconds / whole:.1%} |" for part, seconds in largest if "/" in part]
    return "\n".join(lines) + "\n"


def _grouped(jobs: Mapping[str, float]) -> dict[str, float]:
    """Nodes are trained together, and each one's job has its share of the seconds: here as one."""
    found: dict[str, float] = defaultdict(float)
    for job, seconds in jobs.items():
        found["nodes" if job.startswith("node-") else job] += seconds
    return dict(found)


def _largest(jobs: Sequence[Mapping[str, float]], most: int = 8) -> list[str]:
    names = {name: max(j.get(name, 0.0) for j in jobs) for j in jobs for name in j}
    return sorted(names, key=lambda name: -names[name])[:most]


def _line(name: str, values: Sequence[float]) -> str:
    first, *others = values
    cells = [f"{value:.1f} ({value / first:.2f})" if first > 0 else f"{value:.1f}" for value in others]
    return f"| {name} | " + " | ".join([f"{first:.1f}", *cells]) + " |"


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--code", type=Path, help="corpus of the code model (default: DATA/code/train.parquet)")
    parser.add_argument("--limit-mb", default="40", help="of the corpus")
    parser.add_argument("--steps", default="400", help="of the code model's nets and of the image model's nodes")
    parser.add_argument("--classes", default="random:5")
    parser.add_argument("--tracks", default="cgpt,vision")
    parser.add_argument("--before", type=Path, help="checkout of an earlier commit, to time as well")
    parser.add_argument("--out", type=Path, default=Path("runs/profile"))
    options = parser.parse_args()
    code = str(options.code or options.data / "code" / "train.parquet")
    commands = {
        "cgpt": ["cgpt", "build", code, "--limit-mb", options.limit_mb, "--steps", options.steps],
        "vision": ["vision", "build", str(options.data / "tiny_imagenet"), "--classes", options.classes,
                   "--steps", options.steps],
    }  # fmt: skip
    chosen = {track: commands[track] for track in options.tracks.split(",")}
    result = run(chosen, options.out, before=options.before)
    print(json.dumps({t: {n: r["seconds"] for n, r in rows.items()} for t, rows in result["tracks"].items()}))


if __name__ == "__main__":
    sys.exit(exit_code(main))
