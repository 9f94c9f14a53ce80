"""Runs models through tasks: each (model, task, example) once, in any number of attempts.

Results lie in `OUT/MODEL[/seed-N]/TASK.parquet`. A result belongs to a key of everything it depends on: the model's
files, the code that answers and measures, the task's version and options, the examples' bytes. The same command again
measures only what is missing.

Before anything is measured each test file is looked for in each model's training, whole and in parts
(`eval.copies`); parts need the corpus, so `--train` (a corpus of the standard library is found by itself).
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from eval.copies import Known
from eval.identity import ANSWERS, MEASURES, meaning
from eval.models import EvalModel, Spec, folder_name, open_model
from eval.records import FORMAT, Results, Shards, read_header, read_results, rows_of, write_rows
from eval.tasks.base import Example, Metric, Options, Task, place_free
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
    progress: Progress | None = None, without_known: bool = False,
) -> list[Path]:  # fmt: skip
    """Measure every model on every task; returns the results files, in order.

    Args:
        without_known: leave out, for all models alike, examples that one of the models was trained on, whole or in
            parts.

    Raises:
        UsageError: a model cannot do what a task needs (found before anything is measured), or the corpus given is not
            the one that a model was built from.
        ConstructibleError: a model or a task's data cannot be read.
    """
    progress = progress or Progress()
    loaded = {task.name: _examples(task, options, progress) for task in tasks}
    if without_known:
        loaded = _without_known(loaded, specs, options, progress)
    for spec in specs:  # all of them before the first is measured, which may take hours
        _require_abilities(open_model(spec), tasks)
    paths = []
    for spec in specs:
        model = open_model(spec)
        for task in tasks:
            paths.append(_run_one(model, task, loaded[task.name], options, out, command, progress))
    return paths


def _require_abilities(model: EvalModel, tasks: Sequence[Task]) -> None:
    for task in tasks:
        if missing := sorted(task.needs - model.abilities):
            raise UsageError(
                f"{model.name!r} cannot do what the task {task.name!r} needs ({', '.join(missing)}).",
                fix="leave out the task or the model", file=model.folder,
            )  # fmt: skip


def result_path(out: Path, name: str, seed: int | None, task: str) -> Path:
    """Where the results of a model on a task lie."""
    folder = out / folder_name(name)
    return (folder if seed is None else folder / f"seed-{seed}") / f"{task}.parquet"


def _examples(task: Task, options: Options, progress: Progress) -> list[Example]:
    found = task.load(options)
    if len({example.id for example in found}) < len(found):
        raise ConstructibleError(f"the task {task.name!r} gives two examples one name.", fix="repair its `load`")
    once = _each_once(found)
    if len(once) < len(found):
        progress.note(f"{task.name}: {len(found) - len(once)} files that are there twice are counted once")
    examples = first_by_hash(once, options.limit, task.name)
    if not examples:
        raise ConstructibleError(f"the task {task.name!r} has no examples here.", fix="give other data")
    return examples


def _each_once(examples: Sequence[Example]) -> list[Example]:
    """The first of examples that are one file (layout aside): a copy would make intervals too narrow."""
    seen: set[str] = set()
    kept = []
    for example in examples:
        if not example.fingerprint or example.fingerprint not in seen:
            kept.append(example)
            seen.add(example.fingerprint)
    return kept


def copied_examples(model: EvalModel, examples: Sequence[Example], options: Options) -> dict[str, float] | None:
    """Examples with a test file of which parts stand in the model's training: {id: share of its lines}.

    None where nobody can tell: the model does not list its training files, or its corpus is not at hand.

    Raises:
        UsageError: the corpus given with `--train` lacks files that the model was built from.
    """
    if not any(example.texts for example in examples):
        return {}
    known = _known_to(model, options.train)
    if known is None:
        return None
    found = {}
    for example in examples:
        worst = max(
            (shared.share for text in example.texts.values() if (shared := known.shared(text)).copied), default=0.0
        )
        if worst:
            found[example.id] = round(worst, 3)
    return found


_KNOWN: dict[str, Known] = {}


def _known_to(model: EvalModel, train: str | None) -> Known | None:
    from cgpt.corpus import read_corpus
    from ontology.io import read_json

    files = model.training_files
    if files is None:
        return None
    inferred = train is None
    if train is None:
        config = model.folder / "config.json"
        name = str((read_json(config).get("corpus") or {}).get("name") or "") if config.is_file() else ""
        if name.partition(":")[0] != "stdlib":
            return None
        train = name
    corpus: str = train
    key = sha256_json([corpus, sorted(files)])
    if key not in _KNOWN:
        mine = [file for file in read_corpus(corpus).files if file.fingerprint in files]
        if missing := len(files - {file.fingerprint for file in mine}):
            if inferred:  # the library of another Python: nobody said that it was this one
                return None
            raise UsageError(
                f"{model.name!r} was not built from the corpus given with --train: {missing} of its {len(files)} "
                "files are not there.", fix="give the corpus it was built from", file=train,
            )  # fmt: skip
        _KNOWN.clear()  # one corpus at a time: its fingerprints take eight bytes a line
        _KNOWN[key] = Known(mine)
    return _KNOWN[key]


def _leaked(model: EvalModel, examples: Sequence[Example]) -> list[str] | None:
    files = model.training_files
    return None if files is None else [example.id for example in examples if example.known_to(files)]


def _without_known(
    loaded: dict[str, list[Example]], specs: Sequence[Spec], options: Options, progress: Progress
) -> dict[str, list[Example]]:
    known: dict[str, set[str]] = {name: set() for name in loaded}
    for spec in specs:
        model = open_model(spec)
        for name, examples in loaded.items():
            copied = copied_examples(model, examples, options)
            known[name] |= {*(_leaked(model, examples) or []), *(copied or {})}
    kept = {name: [one for one in examples if one.id not in known[name]] for name, examples in loaded.items()}
    for name, examples in kept.items():
        if not examples:
            raise ConstructibleError(f"the models know all examples of the task {name!r}.", fix="give other data")
        if known[name]:
            progress.note(f"{name}: {len(known[name])} examples that a model knows are left out")
    return kept


def _run_one(
    model: EvalModel, task: Task, examples: list[Example], options: Options, out: Path, command: str, progress: Progress
) -> Path:
    path = result_path(out, model.name, model.seed, task.name)
    examples_hash = sha256_json([[example.id, example.sha256] for example in examples])
    # Not the number of examples: more of the same task resume from fewer.
    environment = describe()
    timed = any(metric.measured_on_machine for metric in task.metrics)
    place = [environment["cpu"], environment["threads"]] if timed else None
    code = meaning(*ANSWERS, *MEASURES, task.measure.__module__, task.load.__module__)
    key = sha256_json([model.fingerprint, task.name, task.version, task.columns, place, code])
    label = f"{model.name}{'' if model.seed is None else f' seed {model.seed}'}: {task.name}"
    shards = Shards(path.with_suffix(".rows"), task, key)
    copied = copied_examples(model, examples, options)
    if path.is_file():
        header = read_header(path)
        told = header.get("copied") is not None or copied is None
        # Figures come last: without them the run was stopped while it worked them out.
        if header["key"] == key and header["examples_hash"] == examples_hash and told and "figures" in header:
            progress.note(f"{label}: done already")
            return path
        if header["key"] == key:
            known = shards.done  # a run that was stopped has taken them over already
            shards.add([row for row in _stored_rows(path, task) if row["example"] not in known])
        else:
            progress.note(f"{label}: model, task or code changed since; measured again")
    wanted = {example.id: example for example in examples}
    # A row counts only for the bytes it was measured on.
    shards.keep(lambda row: row["example"] in wanted and row["sha256"] == wanted[row["example"]].sha256)
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
    header = {
        "format": FORMAT, "key": key, "task": task.name, "task_version": task.version, "question": task.question,
        "metrics": [asdict(metric) for metric in task.metrics], "options": task.options(options),
        "model": {"name": model.name, "kind": model.kind, "seed": model.seed, "fingerprint": model.fingerprint,
                  "control": model.control, "classes": list(getattr(model, "classes", ())) or None},
        "budget": model.budget.as_json(), "examples": len(examples), "examples_hash": examples_hash,
        "leaked": _leaked(model, examples), "copied": copied, "code": code, "command": place_free(command),
        "environment": environment,
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
