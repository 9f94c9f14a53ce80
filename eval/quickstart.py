"""The quick start: a constructed code model against its monolith on this interpreter's own library.

Both get the same files, tokens and seconds and about the same number of trained parameters; both are scored on packages
that neither has seen. A third row is the constructed model without its nets: how much of the result is counting.
"""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from cgpt import lexer
from cgpt.complete import complete
from cgpt.corpus import Corpus, read_corpus
from cgpt.explain import explain
from cgpt.model import ConstructedLM, MonolithLM, load
from cgpt.score import Score, score_files
from eval.leaderboard import row_dicts
from eval.report import render_report
from ontology.environment import describe
from ontology.errors import ConstructibleError
from ontology.graph import paths
from ontology.io import make_folder, read_json, write_json, write_text
from ontology.progress import Progress
from ontology.stats import bootstrap_ratio, paired_difference, paired_ratio

TRAIN, HELD_OUT = "stdlib:train", "stdlib:held-out"
EXPLAINED_FILE = "shlex.py"
EXPLAINED_TOKENS = 2500
PROMPT = b'''import json
import os


def read_settings(path, default=None):
    """Read settings from a JSON file."""
    if not os.path.exists(path):
        return default
    with open(path, encoding="utf-8") as f:
        return json.lo'''


@dataclass(frozen=True)
class _Entrant:
    """One row of the table: a model folder, its score and what it cost."""

    name: str
    model: ConstructedLM | MonolithLM
    score: Score
    seconds: float
    peak_rss_bytes: int
    note: str


def run_quickstart(out: Path, minutes: float) -> dict[str, Any]:
    """Build, score and report into the folder `out`; returns the report (see eval.report.render_report).

    Writes `leaderboard.json`, `results.json`, `report.html` and the models `constructed`, `baseline` and `tables`. The
    same call again resumes and re-uses what is done.

    Args:
        minutes: budget of the constructed model and of the monolith, each, from raw files to the last artefact.
    """
    progress = Progress()
    store = make_folder(out) / ".store"
    train, held_out = read_corpus(TRAIN), read_corpus(HELD_OUT)
    progress.note(
        f"training on {len(train.files)} files ({train.total_bytes / 1e6:.1f} MB), scored on {len(held_out.files)} "
        f"files of other packages ({held_out.total_bytes / 1e6:.1f} MB); {minutes:g} minutes for each model"
    )
    entrants: list[_Entrant] = []

    def enter(name: str, folder: str, note: str, *options: str) -> ConstructedLM | MonolithLM:
        progress.note(f"== {name}")
        _build(out / folder, store, minutes, options)
        model = load(out / folder)
        with progress.task(f"score {folder}", total=float(held_out.total_bytes), unit="bytes") as task:
            score = score_files(model, held_out.files, task.advance)
        seconds = float(read_json(out / folder / "ledger.json")["seconds"])
        peak = int(read_json(out / folder / "environment.json")["peak_rss_bytes"])
        entrants.append(_Entrant(name, model, score, seconds, peak, note))
        return model

    constructed = enter(
        "constructed", "constructed",
        "45 situations, a net for each; counts of the corpus and the file; names in scope",
    )  # fmt: skip
    assert isinstance(constructed, ConstructedLM)
    enter(
        "baseline (one transformer)", "baseline", "QK-norm, SwiGLU, Muon; no counts, no cache: a bare monolith",
        "--cut", "root", "--parameters", str(constructed.parameters),
    )  # fmt: skip
    enter(
        "constructed, no nets", "tables", "the same without nets: what counting alone gives", "--cut", "plain",
    )  # fmt: skip
    progress.note("explaining a file and writing the report")
    report = _report(entrants, train, held_out, minutes)
    write_json(out / "leaderboard.json", row_dicts(report["leaderboard"]))
    kept = ("commit", "command", "created", "environment", "leaderboard", "comparison", "waterfall")
    write_json(out / "results.json", {name: report[name] for name in kept} | {"files": len(held_out.files)})
    write_text(out / "report.html", render_report(report))
    return report


def _build(folder: Path, store: Path, minutes: float, options: tuple[str, ...]) -> None:
    """Build in a process of its own, so that its peak memory is its own; its progress goes to our stderr."""
    command = [sys.executable, "-m", "ontology.main", "cgpt", "build", TRAIN, "--out", str(folder)]
    command += ["--store", str(store), "--minutes", f"{minutes:g}", *options]
    done = subprocess.run(command, stdout=subprocess.DEVNULL, check=False)
    if done.returncode:
        raise ConstructibleError(
            f"the build of {folder} stopped with exit code {done.returncode}; its message is above.",
            fix="repair that, then run the same command again: it resumes",
        )


def _report(entrants: list[_Entrant], train: Corpus, held_out: Corpus, minutes: float) -> dict[str, Any]:
    first, second, tables = entrants
    model = first.model
    assert isinstance(model, ConstructedLM)
    environment = describe()
    git = environment.get("git") or {}
    explained = next(file for file in held_out.files if Path(file.path).name == EXPLAINED_FILE)
    made = complete(model, PROMPT, max_tokens=24)
    ratio = paired_ratio(first.score.bits, second.score.bits, first.score.n_bytes)
    difference = paired_difference(first.score.n_correct, second.score.n_correct, first.score.n_tokens)
    return {
        "title": "A constructed model of Python code",
        "commit": git["commit"] + ("+" if git.get("changed") else "") if git.get("commit") else "–",
        "command": f"constructible eval quickstart --minutes {minutes:g}",
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "environment": environment,
        "leaderboard": [_row(entrant) for entrant in entrants],
        "comparison": {
            "ratio": ratio.estimate, "low": ratio.low, "high": ratio.high,
            "text": "Constructed / baseline in bits per byte, same files and seconds:",
            "accuracy_difference": difference.estimate,
        },
        "waterfall": _waterfall(first, second),
        "router": {"source": model.router.source, "hits": _router_hits(model, held_out)},
        "mixer": [
            {"concept": row["concept"], "positions": row["positions"], "weights": row["weights"]}
            for row in model.mixer.table()
        ],
        "explain": explain(model, explained.data, explained.path, EXPLAINED_TOKENS),
        "completion": {"prompt": PROMPT.decode(), "completion": made.text.decode("utf-8", "replace")},
        "skipped": [*train.skipped, *held_out.skipped],
        "notes": [
            "The baseline is a bare transformer: it has neither counts of the corpus nor a cache of the file, and a "
            f"large part of the difference comes from these. Without any net the constructed model reaches "
            f"{tables.score.bits_per_byte:.3f} bits per byte.",
            "One seed; intervals are over the scored files only and say nothing about other seeds.",
            "Training and scored packages are both the standard library: other code is less like it.",
        ],
    }  # fmt: skip


def _row(entrant: _Entrant) -> dict[str, Any]:
    score = entrant.score
    return {
        "name": entrant.name,
        **bootstrap_ratio(score.bits, score.n_bytes).as_dict("bits_per_byte"),
        **bootstrap_ratio(score.n_correct, score.n_tokens).as_dict("accuracy"),
        "parameters": entrant.model.parameters,
        "table_entries": entrant.model.table_entries,
        "bytes_per_token": float(score.n_bytes.sum() / score.n_tokens.sum()),
        "seconds": entrant.seconds,
        "peak_rss_bytes": entrant.peak_rss_bytes,
        "note": entrant.note,
    }


def _waterfall(first: _Entrant, second: _Entrant) -> list[dict[str, Any]]:
    """Bits of both models by the situation that the same router puts in charge."""
    ontology = first.model.ontology
    ours, theirs = first.score.per_concept(), second.score.per_concept()
    return [
        {
            "concept": name,
            "question": ontology[name].question,
            "group": paths(ontology, name)[0][1] if len(paths(ontology, name)[0]) > 2 else name,
            "positions": row["tokens"],
            "bytes": row["bytes"],
            "constructed_bits": row["bits"],
            "baseline_bits": theirs[name]["bits"],
        }
        for name, row in sorted(ours.items(), key=lambda item: -item[1]["bits"])
    ]


def _router_hits(model: ConstructedLM, corpus: Corpus) -> dict[int, int]:
    """How often each line of the router was taken on the scored files."""
    fields = []
    for file in corpus.files:
        view = model.view(model.tokenizer.encode(file.data))
        fields.append(view.fields[: view.n + 1])
    return model.router.line_hits(np.concatenate(fields) if fields else np.zeros((0, len(lexer.FIELDS)), np.uint8))
