"""Constructed models, monoliths and tables, built and measured at each budget and seed, with leaderboard and report.
Hours; the same command resumes.

    constructible eval bench --minutes 3 --seeds 3

Per budget and training seed: the constructed model at each cut asked for, the monolith with as many parameters as the
constructed one with the cut at the leaves, and the tables alone; each build in a process of its own, so that its peak
memory is its own. Then every task on every model that can do it, into the folder of raw results.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from eval.models import Spec, open_model
from eval.runner import run
from eval.tasks import Options, Task, load_tasks
from ontology.errors import ConstructibleError
from ontology.progress import Progress

TASKS = ("bits", "pairs", "deletion", "intervention", "replay", "memory")


@dataclass(frozen=True)
class Plan:
    """What to build and measure.

    Attributes:
        train, test: corpora, as for `cgpt build` and `eval run --data`.
        minutes: budgets, one after another; a number of steps instead with `steps`.
        cuts: of the constructed models; root and plain are always built.
        seeds: training seeds, from 0.
        tasks: names; a model is put through those that it can do.
        models, results: folders for what is built and for raw results.
        benchmarks: folder of published benchmarks; adds the task `lines`.
        limit: examples per task.
    """

    train: str = "stdlib:train"
    test: str = "stdlib:held-out"
    minutes: tuple[float, ...] = (3.0,)
    steps: int | None = None
    cuts: tuple[str, ...] = ("leaves",)
    seeds: int = 1
    tasks: tuple[str, ...] = TASKS
    models: Path = Path("runs/bench")
    results: Path = Path("docs/results/bench")
    benchmarks: Path | None = None
    limit: int | None = None


def bench(plan: Plan, command: str, progress: Progress | None = None) -> list[Path]:
    """Build and measure all of a plan; returns the results files.

    Raises:
        ConstructibleError: a build failed; its message is above, and the same call resumes.
    """
    progress = progress or Progress()
    specs: list[Spec] = []
    budgets = [f"{plan.steps} steps"] if plan.steps is not None else [f"{minutes:g} min" for minutes in plan.minutes]
    for number, budget in enumerate(budgets):
        amount = ["--steps", str(plan.steps)] if plan.steps is not None else ["--minutes", f"{plan.minutes[number]:g}"]
        for seed in range(plan.seeds):
            parameters = 0
            # The leaves first: the monolith gets as many parameters as they turned out to have.
            for cut in dict.fromkeys(("leaves", *plan.cuts, "plain", "root")):
                folder = plan.models / budget.replace(" ", "") / cut.replace(",", "+") / f"seed-{seed}"
                size = ["--parameters", str(parameters)] if cut == "root" else []
                _build(folder, plan, ["--cut", cut, "--seed", str(seed), *amount, *size])
                spec = Spec(f"{_name(cut)}, {budget}", "", folder, seed)
                if cut == "leaves":
                    parameters = open_model(spec).parameters
                specs.append(spec)
                if cut not in ("plain", "root"):
                    specs.append(Spec(f"nets of {_name(cut)}, {budget}", "nets-only", folder, seed))
    options = Options(plan.test, plan.train, plan.benchmarks, plan.limit)
    tasks = load_tasks(",".join([*plan.tasks, *(["lines"] if plan.benchmarks else [])]))
    paths = []
    for spec in specs:
        able = _able(tasks, spec)
        paths += run([spec], able, options, plan.results, command=command, progress=progress)
    return paths


def _able(tasks: Sequence[Task], spec: Spec) -> list[Task]:
    abilities = open_model(spec).abilities
    # The nets alone are measured for the curve only: what they write or explain is not what anybody would use.
    return [task for task in tasks if task.needs <= abilities and (not spec.kind or task.name == "bits")]


def _name(cut: str) -> str:
    return {"leaves": "constructed", "plain": "constructed, no nets", "root": "monolith"}.get(cut, f"cut {cut}")


def _build(folder: Path, plan: Plan, options: list[str]) -> None:
    command = [sys.executable, "-m", "ontology.main", "cgpt", "build", plan.train, "--out", str(folder)]
    # One store per seed and budget: a job that two cuts share is done once and counts with its seconds for both.
    command += ["--store", str(plan.models / ".store"), *options]
    done = subprocess.run(command, stdout=subprocess.DEVNULL, check=False)
    if done.returncode:
        raise ConstructibleError(
            f"the build of {folder} stopped with exit code {done.returncode}; its message is above.",
            fix="repair that, then run the same command again: it resumes",
        )
