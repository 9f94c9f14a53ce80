"""Runs models through tasks: each (model, task, example) once, in any number of attempts.

Results lie in `OUT/MODEL[/seed-N]/TASK.parquet`. A result belongs to a key of everything it depends on: the model's
files, the task's version and options, the examples' bytes. The same command again measures only what is missing.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from eval.models import EvalModel, Spec, open_model
from eval.records import FORMAT, Results, Shards, read_header, read_results, rows_of, write_rows
from eval.tasks.base import Example, Metric, Options, Task
from eval.tasks.language import first_by_hash
from ontology.environment import describe
from ontology.errors import ConstructibleError, UsageError
from ontology.io import make_folder, sha256_json
from ontology.progress import Progress
from ontology.stats import bootstrap_ratio

FLUSH_SECONDS = 10.0
MANY_CLUSTERS = 10
"""From this many projects on intervals are over projects, below over files (and the header says which)."""


def run(
    specs: Sequence[Spec], tasks: Sequence[Task], options: Options, out: Path, *, command: str = "",
    progress: Progress | None = None,
) -> list[Path]:  # fmt: skip
    """Measure every model on every task; returns the results files, in order.

    Raises:
        UsageError: a model cannot do what a task needs (found before anything is measured).
        ConstructibleError: a model or a task's data cannot be read.
    """
    progress = progress or Progress()
    loaded = {task.name: _examples(task, options) for task in tasks}
    paths = []
    for spec in specs:
        model = open_model(spec)
        for task in tasks:
            if missing := sorted(task.needs - model.abilities):
                raise UsageError(
                    f"{model.name!r} cannot do what the task {task.name!r} needs ({', '.join(missing)}).",
                    fix="leave out the task or the model", file=spec.folder,
                )  # fmt: skip
        for task in tasks:
            paths.append(_run_one(model, task, loaded[task.name], options, out, command, progress))
    return paths


def result_path(out: Path, name: str, seed: int | None, task: str) -> Path:
    """Where the results of a model on a task lie."""
    folder = out / re.sub(r"[^\w.+-]+", "-", name).strip("-.")
    return (folder if seed is None else folder / f"seed-{seed}") / f"{task}.parquet"


def _examples(task: Task, options: Options) -> list[Example]:
    examples = first_by_hash(task.load(options), options.limit, task.name)
    if not examples:
        raise ConstructibleError(f"the task {task.name!r} has no examples here.", fix="give other data")
    if len({example.id for example in examples}) < len(examples):
        raise ConstructibleError(f"the task {task.name!r} gives two examples one name.", fix="repair its `load`")
    return examples


def _run_one(
    model: EvalModel, task: Task, examples: list[Example], options: Options, out: Path, command: str, progress: Progress
) -> Path:
    path = result_path(out, model.name, model.seed, task.name)
    examples_hash = sha256_json([[example.id, example.sha256] for example in examples])
    # Not the number of examples: more of the same task resume from fewer.
    environment = describe()
    timed = any(metric.measured_on_machine for metric in task.metrics)
    place = [environment["cpu"], environment["threads"]] if timed else None
    key = sha256_json([model.fingerprint, task.name, task.version, task.columns, place])
    label = f"{model.name}{'' if model.seed is None else f' seed {model.seed}'}: {task.name}"
    shards = Shards(path.with_suffix(".rows"), task, key)
    if path.is_file():
        header = read_header(path)
        if header["key"] == key and header["examples_hash"] == examples_hash:
            progress.note(f"{label}: done already")
            return path
        if header["key"] == key:
            shards.add(_stored_rows(path, task))
        else:
            progress.note(f"{label}: model or task changed since; measured again")
    wanted = {example.id: example for example in examples}
    # A row counts only for the bytes it was measured on.
    shards.rows = [
        row for row in shards.rows if row["example"] in wanted and row["sha256"] == wanted[row["example"]].sha256
    ]
    left = [example for example in examples if example.id not in shards.done]
    if len(left) < len(examples):
        progress.note(f"{label}: {len(examples) - len(left)} of {len(examples)} examples are measured already")
    make_folder(path.parent)
    started = flushed = time.monotonic()
    with progress.task(label, total=float(len(left)), unit="examples") as bar:
        for example in left:
            shards.add(rows_of(example, task.measure(model, example), task))
            bar.advance()
            if time.monotonic() - flushed > FLUSH_SECONDS:
                shards.flush()
                flushed = time.monotonic()
    order = {example.id: i for i, example in enumerate(examples)}
    rows = sorted(shards.rows, key=lambda row: (order[row["example"]], row["part"]))
    leaked = None
    if model.training_files is not None:
        leaked = [example.id for example in examples if example.fingerprint in model.training_files]
    header = {
        "format": FORMAT, "key": key, "task": task.name, "task_version": task.version, "question": task.question,
        "metrics": [asdict(metric) for metric in task.metrics], "options": task.options(options),
        "model": {"name": model.name, "kind": model.kind, "seed": model.seed, "fingerprint": model.fingerprint,
                  "control": model.control},
        "budget": model.budget.as_json(), "examples": len(examples), "examples_hash": examples_hash,
        "leaked": leaked, "command": command, "environment": environment,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "measured_seconds": round(time.monotonic() - started, 3), "measured_examples": len(left),
    }  # fmt: skip
    write_rows(path, rows, task, header)
    header |= summary(read_results(path))
    write_rows(path, rows, task, header)
    shards.drop()
    return path


def _stored_rows(path: Path, task: Task) -> list[dict[str, Any]]:
    import pyarrow.parquet as pq

    return pq.read_table(path).to_pylist()


def summary(results: Results) -> dict[str, Any]:
    """The figures of a results file with their intervals: what its header holds under `clustered_by`, `figures` and
    `parts`."""
    by = "project" if len(set(results.clusters)) >= MANY_CLUSTERS else "example"
    clusters = results.clusters if by == "project" else None
    figures, parts = {}, {}
    for metric in results.metrics:
        figures[metric.name] = _figure(metric, results.values, results.values, clusters, 2000)
    for name, columns in sorted(results.parts.items()):
        rows = {
            metric.name: _figure(metric, columns, results.values if metric.whole_bottom else columns, clusters, 500)
            for metric in results.metrics
        }
        parts[name] = {key: row for key, row in rows.items() if row["value"] is not None}
    return {"clustered_by": by, "figures": figures, "parts": parts}


def _figure(metric: Metric, top: Any, bottom: Any, clusters: Any, replications: int) -> dict[str, float | None]:
    if metric.top not in top or metric.bottom not in bottom:
        return {"value": None, "low": None, "high": None}
    num, den = top[metric.top], bottom[metric.bottom]
    known = np.isfinite(num) & np.isfinite(den)
    if not known.any() or float(den[known].sum()) == 0.0:
        return {"value": None, "low": None, "high": None}
    kept = None if clusters is None else [label for label, keep in zip(clusters, known, strict=True) if keep]
    interval = bootstrap_ratio(num[known], den[known], kept, replications=replications)
    ends = (interval.estimate, interval.low, interval.high)
    return {
        name: float(end) if math.isfinite(end) else None
        for name, end in zip(("value", "low", "high"), ends, strict=True)
    }
