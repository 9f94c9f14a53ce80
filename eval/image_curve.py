"""Builds and measures the decomposition curve of the image track: root, classes, parts, features, plain code.

Each cut is built for the same draws of classes, with as many trained numbers in all (those that the features have with
their usual channels; the other cuts and the control are fitted to it, `vision.sizes`) and the same budget of steps or
minutes. A draw is one example: its numerator is the photographs told right, its denominator all of them, so that
intervals are over draws of classes, not over photographs. The control at the cut of features is a random ontology: the
same table, its rows dealt out to other classes.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from eval.decomposition import FORMAT
from ontology.environment import describe
from ontology.fit import Budget
from ontology.io import write_json
from ontology.progress import Progress
from vision.build import Plan, Recipe
from vision.model import Constructed
from vision.score import score
from vision.study import Study, permuted

CUTS = {"root": "root", "classes": "classes", "parts": "parts", "features": "leaves", "plain": "plain"}
CONTROL = "random ontology"
WORDS = {
    "root": "one net for all classes", "classes": "a net for each class", "parts": "a net for each part",
    "features": "a net for each feature of a part", "plain": "plain code for each feature, no nets",
    CONTROL: "nets for features that are dealt out to classes at random",
}  # fmt: skip
LINE = "told right"


def run(
    data: str, classes: str, draws: int, budget: Budget, out: Path, command: str, raw_path: Path,
    progress: Progress | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Build and measure every cut for every draw, draw by draw; writes `raw_path` after each and returns it.

    Finished builds are not made again.

    Raises:
        ConstructibleError: the photographs or their ontology cannot be used.
    """
    progress = progress or Progress()
    study = Study(data, out, classes, range(draws), budget, progress)
    raw = _start(study, command)
    counted: dict[tuple[str, str], list[float]] = {}
    for seed, names in study.draws:
        for cut in (*CUTS, CONTROL):
            progress.note(f"draw {seed}: {cut}")
            model, trained, nets = _model(study, cut, seed, names)
            figures = score(model, study.validation).as_json()
            place = ("features", cut) if cut == CONTROL else (cut, "")
            counted.setdefault(place, []).append(round(figures["accuracy"] * figures["photographs"]))
            kept = len(model.bank.nodes) if isinstance(model, Constructed) else 1
            taken_out = {"kept": kept, "kept_parameters": model.parameters} if nets else {}
            raw["builds"].append(
                {"cut": cut, "seed": seed, "parameters": trained, "nets": nets, **taken_out,
                 **{key: figures[key] for key in ("accuracy", "macro_f1", "balanced_one_vs_rest")}}
            )  # fmt: skip
        raw["examples"]["names"].append(", ".join(names))
        raw["examples"]["clusters"].append(f"draw {seed}")
        raw["examples"]["sizes"].append(figures["photographs"])
        # One run of a line is all draws under one training seed: draws are the examples.
        raw["runs"] = [
            {"line": LINE, "cut": cut, "control": control, "seed": 0, "values": list(values)}
            for (cut, control), values in counted.items()
        ]
        write_json(raw_path, raw)
    return raw


def _model(study: Study, cut: str, seed: int, names: tuple[str, ...]) -> tuple[Any, int, int]:
    """A model, and what was trained for it: numbers, and nets, those that were left out afterwards included."""
    usual = Recipe(classes=names, seed=seed)
    if cut == "features":
        plan = Plan(study.images, study.library, usual)
        return study.model(f"{cut}-{seed}", usual), plan.trained_parameters(), len(plan.truth)
    if cut == "plain":
        return study.model(f"{cut}-{seed}", replace(usual, cut=cut)), 0, 0
    wanted = Plan(study.images, study.library, usual).trained_parameters()
    recipe = replace(usual, cut=CUTS.get(cut, usual.cut), in_all=wanted)
    right = study.library
    if cut == CONTROL:
        study.library = permuted(right, study.images.classes, seed)
    try:
        model, plan = study.model(f"{cut.replace(' ', '-')}-{seed}", recipe), Plan(study.images, study.library, recipe)
        if cut == "root":
            return model, model.parameters, 1
        return model, plan.trained_parameters(), len(plan.truth)
    finally:
        study.library = right


def _start(study: Study, command: str) -> dict[str, Any]:
    steps, minutes = study.budget.steps, study.budget.minutes
    amount = f"{steps} steps" if steps is not None else f"{minutes:g} minutes"
    method = [
        "Where does it cost to take one network apart? The same photographs and the same number of trained numbers in "
        "all, within 1 % for every draw (channels are searched for, the control's as well), cut at classes, at parts, "
        f"at features of parts, and at last as plain code without nets. Every cut has {amount}"
        + (" (equal steps, not seconds)." if steps is not None else ", from raw files to the last artefact."),
        f"{len(study.draws)} draws of classes of `{Path(study.data).name}`; one training seed for each draw. Nodes "
        "that answer the opposite of their question after training are left out of the model; the others are kept.",
    ]
    return {
        "format": FORMAT, "track": "images", "command": command, "environment": describe(), "budget": amount,
        "data": {"name": Path(study.data).name, "draws": {str(seed): list(names) for seed, names in study.draws}},
        "method": method, "metric": {"name": "of photographs", "better": "higher", "percent": True, "digits": 3},
        "unit": "draws of classes", "cluster_name": "draws of classes", "seed_name": "training seed for each draw",
        "kept_name": "", "cuts": list(CUTS), "words": WORDS, "examples": {"names": [], "clusters": [], "sizes": []},
        "builds": [], "runs": [],
    }  # fmt: skip
