"""The whole image track in one call: models of several cuts on the same photographs, judged, compared and shown."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ontology.environment import Ledger, describe
from ontology.errors import UsageError
from ontology.fit import Budget
from ontology.io import make_folder, write_json, write_text
from ontology.progress import Progress
from ontology.stats import paired_difference
from vision.build import Recipe, build, choose_classes
from vision.cli import find_library, tell_skipped
from vision.cli_judge import run_fidelity
from vision.comparisons import comparison, in_words
from vision.data import ImageSet, list_classes, read_images
from vision.explain import explain_picture, predict_pixels
from vision.explain_page import render, render_page
from vision.model import Constructed, load
from vision.score import score

FORMAT = "constructible-vision-track/1"


def default_data() -> str:
    """The project's photographs where the environment says that there are any, otherwise the part world."""
    folder = Path(os.environ.get("CONSTRUCTIBLE_DATA") or "") / "tiny_imagenet"
    return str(folder) if os.environ.get("CONSTRUCTIBLE_DATA") and folder.is_dir() else "part-world"


def run_track(
    data: str | None, out: Path, classes: str, seed: int, budget: Budget, cuts: Sequence[str], progress: Progress,
    ontology: Path | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Build each cut with the same budget, score, judge the first one's nodes, write all pages; return the figures.

    Raises:
        UsageError: no cut is named.
    """
    if not cuts:
        raise UsageError("no cut is named.", fix="give --cuts leaves,root")
    data = data or default_data()
    make_folder(out)
    chosen = choose_classes(classes, list_classes(data), seed)
    images, validation = read_images(data), read_images(data, "validation")
    tell_skipped(images, progress)
    library = find_library(data, images, ontology)
    progress.note(f"{data}: {', '.join(chosen)}")
    rows, right = [], {}
    for cut in cuts:
        folder = make_folder(out / cut)
        ledger = Ledger(folder / "ledger.json")
        ledger.credit("photographs", "", images.seconds)
        fitted = build(
            images, library, folder, budget, Recipe(classes=chosen, cut=cut, seed=seed), progress=progress,
            ledger=ledger,
        )  # fmt: skip
        opened = load(folder)
        scored = score(opened, validation)
        write_json(folder / "score.json", scored.as_json())
        own = scored.target >= 0
        right[cut] = (scored.values[own].argmax(1) == scored.target[own]).astype(float)
        figures = scored.as_json()
        rows.append(
            {"cut": cut, "seconds": round(fitted.total_seconds, 1), "nodes": len(opened.bank.nodes)
             if isinstance(opened, Constructed) else 0, "constants": figures.get("constants", 0),
             **{key: figures[key] for key in ("accuracy", "accuracy_low", "accuracy_high", "macro_f1",
                                              "balanced_one_vs_rest", "parameters", "photographs")}}
        )  # fmt: skip
    differences = []
    for cut in cuts[1:]:
        compared = paired_difference(right[cuts[0]], right[cut], np.ones(len(right[cut])))
        differences.append(comparison(cuts[0], cut, compared, "photographs"))
    board: dict[str, Any] = {
        "format": FORMAT, "data": Path(data).name if data != "part-world" else data, "classes": list(chosen),
        "seed": seed, "steps": budget.steps, "minutes": budget.minutes, "rows": rows, "differences": differences,
        "environment": describe(),
    }  # fmt: skip
    first = load(out / cuts[0])
    judged: dict[str, Any] = {}
    if isinstance(first, Constructed):
        minutes = None if budget.minutes is None else 2 * budget.minutes
        judged = run_fidelity(out / cuts[0], data, Budget(steps=budget.steps, minutes=minutes), progress)
        board["fidelity"] = judged["summary"]
        write_text(out / "explained.html", _explained(first, validation))
    write_json(out / "leaderboard.json", board)
    write_text(out / "leaderboard.md", leaderboard(board))
    rules = [rule.source for rule in first.rules.rules] if isinstance(first, Constructed) else []
    page = render("report.html", title="The image track", board=board, rows=_cells(board), rules=rules, first=cuts[0],
                  judged=_judged(judged), differences=[in_words(d) for d in differences])  # fmt: skip
    write_text(out / "report.html", page)
    return board


def leaderboard(board: dict[str, Any]) -> str:
    """The figures as Markdown."""
    budget = f"{board['steps']} steps" if board["steps"] is not None else f"{board['minutes']:g} minutes"
    commit = (board["environment"].get("git") or {}).get("commit", "unknown")[:10]
    lines = [
        f"{', '.join(board['classes'])} of `{board['data']}`, seed {board['seed']}, {budget} each, commit {commit}.",
        "",
        "| cut | accuracy | 95 % interval | macro F1 | one against all | parameters | constants | seconds |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]  # fmt: skip
    lines += ["| " + " | ".join(row) + " |" for row in _cells(board)]
    lines += [line for d in board["differences"] for line in ("", in_words(d))]
    if "fidelity" in board:
        said = board["fidelity"]
        lines += ["", f"{len(said['faithful'])} of {said['nodes']} nodes are faithful; they carry "
                  f"{said['rule_weight_on_faithful']:.0%} of the rules' weight."]  # fmt: skip
    return "\n".join(lines) + "\n"


def _cells(board: dict[str, Any]) -> list[list[str]]:
    return [
        [row["cut"], f"{row['accuracy']:.1%}", _between(row["accuracy_low"], row["accuracy_high"]),
         f"{row['macro_f1']:.3f}", f"{row['balanced_one_vs_rest']:.3f}", f"{row['parameters']:,}",
         str(row["constants"]), f"{row['seconds']:.0f}"]
        for row in board["rows"]
    ]  # fmt: skip


def _between(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f"{low:.1%} to {high:.1%}"


def _judged(judged: dict[str, Any]) -> list[tuple[str, str]]:
    from vision.cards import summary_rows

    return summary_rows(judged["summary"]) if judged else []


def _explained(model: Constructed, validation: ImageSet) -> str:
    """A page of the first two photographs of each class."""
    records = []
    for name in model.classes:
        for row in validation.rows_of(name)[:2]:
            said = predict_pixels(model, np.array(validation.pixels[row]), validation.paths[row])
            records.append(explain_picture(model, said))
    return render_page(model, records)
