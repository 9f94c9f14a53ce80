"""Do nodes do what they are named for, over several draws of classes? `vision.fidelity` judges one model; this study
builds one for each draw, trains its twins for as long, and gives the figures with intervals over draws."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ontology.fit import fit
from ontology.io import read_json
from ontology.stats import bootstrap_ratio
from vision.build import Plan, Recipe
from vision.fidelity import FidelityPlan, find_masks
from vision.growth import budget_for_each, collect
from vision.model import Constructed

if TYPE_CHECKING:
    from vision.study import Study

BUILT = "as built"
WAYS = (BUILT, "faithful nodes alone", "0/1 scores", "nodes of another seed", "nodes that saw none of its classes")
"""Rows, in their order; what they are: `vision.fidelity._Judge.answers`."""
MEANS = (
    "right_polarity", "faithful_share", "rule_weight_on_faithful", "random_concepts_passing", "transfer_auroc",
    "picture_statistics", "class_memoriser", "memory", "nis", "nis_of_truth", "ois",
)  # fmt: skip


def fidelity(study: Study) -> dict[str, list[dict[str, Any]]]:
    """Judge the nodes of a model of each draw; compare it with what it is with other nodes, photograph by photograph.

    Twins get as many steps as the model's nodes; where the budget is in minutes, as many minutes for as many nodes.
    """
    masks = find_masks(study.data, study.validation)
    results = []
    for seed, classes in study.draws:
        recipe = Recipe(classes=classes, seed=seed)
        model = study.model(f"leaves-{seed}", recipe)
        assert isinstance(model, Constructed)
        plan = FidelityPlan(model, Plan(study.images, study.library, recipe), study.validation, masks)
        out = study.out / f"fidelity-{seed}"
        jobs = plan.jobs()
        fit(jobs, out, study.store, budget_for_each(study.budget, jobs), study.progress)
        results.append(of_draw(read_json(out / "fidelity.json"), model.parameters))
        study.means = means([made["rows"][0] for made in results])
        rows, difference = collect(results)
        study.differences = [difference(way, BUILT) for way in WAYS[1:] if whole(way, results)]
        study.keep(rows)
    return rows


def of_draw(judged: Mapping[str, Any], parameters: int) -> dict[str, Any]:
    """The rows of one draw, as `vision.growth.collect` takes them.

    Args:
        judged: what `vision.fidelity.judge` wrote.
        parameters: trained numbers of the model.
    """
    summary, nodes = judged["summary"], judged["nodes"].values()
    memory = [row["memory"] for row in nodes if row["memory"] is not None]
    figures = {
        "right_polarity": summary["positive_polarity_share"], "faithful_share": summary["faithful_share"],
        "rule_weight_on_faithful": summary["rule_weight_on_faithful"],
        "random_concepts_passing": judged["random_concepts_that_pass"] / max(1, len(judged["random_concepts"])),
        "transfer_auroc": summary["mean_transfer_auroc"], **summary["mean_controls"],
        "memory": float(np.mean(memory)) if memory else None, "parameters": parameters,
        **{key: judged["leakage"][key] for key in ("nis", "nis_of_truth", "ois")},
    }  # fmt: skip
    rows = [
        {"label": way, "accuracy": float(np.mean(judged["right"][way])), "photographs": len(judged["target"]),
         "right": judged["right"][way], **(figures if way == BUILT else {})}
        for way in WAYS if way in judged["right"]
    ]  # fmt: skip
    return {"rows": rows, "target": judged["target"]}


def whole(way: str, results: Sequence[Mapping[str, Any]]) -> bool:
    """Whether every draw has a row: one without any faithful node has none of these alone."""
    return all(way in (row["label"] for row in made["rows"]) for made in results)


def means(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Mean of each figure over draws, with its interval; figures that a draw lacks are left out."""
    made = []
    for figure in MEANS:
        values = [row[figure] for row in rows]
        if None not in values:
            ends = bootstrap_ratio(values, np.ones(len(values))).as_dict("mean")
            if figure != "memory":  # all others are shares and areas, which an interval of few draws may leave
                ends = {name: None if end is None else min(1.0, max(0.0, end)) for name, end in ends.items()}
            made.append({"figure": figure, "draws": len(values), **ends})
    return made
