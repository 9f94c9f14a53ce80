"""Studies that settle a question by measurement: pooling, cuts, controls; `vision.fidelity_study`, `vision.growth`,
`vision.together` and `vision.heads` hold more. Each writes JSON and a table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ontology.environment import describe
from ontology.errors import UsageError
from ontology.fit import Budget
from ontology.io import make_folder, read_json, write_json, write_text
from ontology.progress import Progress
from ontology.stats import bootstrap_ratio, paired_difference
from ontology.store import Store
from vision.build import Recipe, build, choose_classes, split_rows
from vision.cli import find_library
from vision.comparisons import comparison, in_words
from vision.concepts import Library
from vision.data import ImageSet, list_classes, read_images
from vision.fidelity import find_masks
from vision.fidelity_metrics import energy, pointing, spread
from vision.fidelity_study import fidelity
from vision.growth import growth
from vision.heads import heads
from vision.model import Constructed, RootModel, load
from vision.nodes import POOLINGS, NodeBank
from vision.score import score
from vision.together import together

FORMAT = "constructible-vision-study/1"
CHOOSING_SEED = 777


class Study:
    """What the studies share: data, draws of classes, a store so that equal work is done once.

    Args:
        draws: seeds of classes; each figure is given for every one.
        only: the cuts to build (default: all).
        choosing: judge on a fifth of the training photographs, which nothing learns from then, instead of validation
            photographs: for choosing defaults.
        ontology: a file of concepts, instead of the one that knows the data.

    Attributes:
        differences: a study may leave comparisons of two of its rows here, photograph by photograph.
        means: a study may leave means of figures over its draws here, with intervals.
        seconds: of each build by its name, reused work counted as first spent.
    """

    def __init__(
        self, data: str, out: Path, classes: str, draws: Sequence[int], budget: Budget, progress: Progress,
        only: Sequence[str] = (), choosing: bool = False, ontology: Path | None = None,
    ) -> None:  # fmt: skip
        self.data, self.out, self.budget, self.progress = data, make_folder(out), budget, progress
        self.only: tuple[str, ...] = tuple(only)
        self.about: dict[str, Any] = {}
        self.images = read_images(data)
        if choosing:
            kept, judged = split_rows(self.images.labels, CHOOSING_SEED)
            self.images, self.validation = self.images.part(kept), self.images.part(judged)
        else:
            self.validation = read_images(data, "validation")
        self.library: Library = find_library(data, self.images, ontology)
        self.draws = [(seed, choose_classes(classes, list_classes(data), seed)) for seed in draws]
        self.store = Store(out / ".store")
        self.differences: list[dict[str, Any]] = []
        self.means: list[dict[str, Any]] = []
        self.seconds: dict[str, float] = {}

    def model(self, name: str, recipe: Recipe, images: ImageSet | None = None) -> Constructed | RootModel:
        """Build (or find) one model and open it."""
        folder = self.out / name
        fitted = build(images or self.images, self.library, folder, self.budget, recipe, store=self.store,
                       progress=self.progress)  # fmt: skip
        self.seconds[name] = fitted.total_seconds
        return load(folder)

    def keep(self, rows: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
        """Write what there is so far; return it."""
        made = {
            **self.about, "rows": rows, "order": list(rows), "differences": [*self.differences, *differences(rows)],
            "means": self.means,
        }  # fmt: skip
        write_json(self.out / "study.json", made)
        write_text(self.out / "study.md", table(read_json(self.out / "study.json")))
        return made

    def figures(self, opened: Constructed | RootModel) -> dict[str, Any]:
        """Accuracy, one against all, mean concept AUROC, and where maps point."""
        scored = score(opened, self.validation)
        found = scored.as_json()
        areas = [row["auroc"] for row in found["per_concept"].values() if row["auroc"] is not None]
        row = {key: found[key] for key in ("accuracy", "balanced_one_vs_rest", "parameters", "photographs")}
        own = scored.target >= 0
        row["right"] = (scored.values[own].argmax(1) == scored.target[own]).astype(int).tolist()
        row |= {"concept_auroc": float(np.mean(areas)) if areas else None,
                "right_polarity": float(np.mean([a > 0.5 for a in areas])) if areas else None}  # fmt: skip
        return row | (self.places(opened) if isinstance(opened, Constructed) else {})

    def places(self, opened: Constructed) -> dict[str, Any]:
        """Pointing game and energy inside the exact masks, over the concepts that have them (part world only)."""
        from vision.bank import primitives

        masks = find_masks(self.data, self.validation)
        rows = []
        for i, name in enumerate(opened.bank.names):
            if name in masks:
                has = spread(np.flatnonzero(masks[name].any((1, 2))), 200)
                maps = NodeBank([opened.bank.nodes[i]]).maps(primitives(np.array(self.validation.pixels[has])))[:, 0]
                hits, _ = pointing(maps, masks[name][has])
                inside, area = energy(maps, masks[name][has])
                rows.append((hits, inside, area))
        if not rows:
            return {}
        hits, inside, area = np.mean(rows, axis=0).tolist()
        return {"pointing": hits, "energy_inside": inside, "mask_area": area}


def pooling(study: Study) -> dict[str, list[dict[str, Any]]]:
    """The ways of making one number of a map."""
    rows: dict[str, list[dict[str, Any]]] = {}
    for how in POOLINGS:
        for seed, classes in study.draws:
            recipe = Recipe(classes=classes, seed=seed, pooling=how)
            rows.setdefault(how, []).append(study.figures(study.model(f"{how}-{seed}", recipe)))
    return rows


OWN = "-own"
"""Rows of this ending learn from the model's own classes alone."""
COMPARED = ("leaves", "root")
"""The cuts that both comparisons are made of: all classes of the data for both, and the model's own alone for both."""
ROWS = ("root", "leaves", "root-own", "leaves-own", "classes", "parts", "plain")


def cuts(study: Study) -> dict[str, list[dict[str, Any]]]:
    """Nets at the root, at classes, at parts, at features, none at all: where does construction cost?

    Root and leaves are compared twice: both may learn from all classes of the data, or both from their own alone
    (`root-own`, `leaves-own`: what is true of one class alone is a part of that class then, not a shared concept).
    Draws are finished one after another, so that a study that is stopped holds whole draws.
    """
    rows: dict[str, list[dict[str, Any]]] = {}
    for seed, classes in study.draws:
        for row in [row for row in ROWS if not study.only or row in study.only]:
            recipe = Recipe(classes=classes, seed=seed, cut=row.removesuffix(OWN), others=not row.endswith(OWN))
            figures = study.figures(study.model(f"{row}-{seed}", recipe)) | {"seconds": study.seconds[f"{row}-{seed}"]}
            rows.setdefault(row, []).append(figures)
            study.progress.note(f"draw {seed}, {row}: {figures['accuracy']:.1%}")
            study.keep(rows)
    return rows


def differences(rows: dict[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Leaves less root, photograph by photograph, over the draws that both have; with intervals."""
    found = []
    for end in ("", OWN):
        both = list(zip(*(rows.get(f"{cut}{end}", []) for cut in COMPARED), strict=False))
        if both and all("right" in row for pair in both for row in pair):
            a, b = (np.concatenate([np.array(pair[i]["right"], float) for pair in both]) for i in (0, 1))
            draw = np.repeat(np.arange(len(both)), [len(pair[0]["right"]) for pair in both]).tolist()
            unit = "draws" if len(both) > 1 else "photographs"
            made = paired_difference(a, b, np.ones(len(a)), clusters=draw if unit == "draws" else None)
            found.append(comparison(f"leaves{end}", f"root{end}", made, unit))
    return found


def controls(study: Study) -> dict[str, list[dict[str, Any]]]:
    """The table against a permuted one: does it matter what the nodes are told that classes show?"""
    rows: dict[str, list[dict[str, Any]]] = {}
    for seed, classes in study.draws:
        rows.setdefault("table", []).append(
            study.figures(study.model(f"table-{seed}", Recipe(classes=classes, seed=seed)))
        )
        right = study.library
        study.library = permuted(right, study.images.classes, seed)
        try:
            recipe = Recipe(classes=classes, seed=seed)
            found = study.model(f"permuted-{seed}", recipe)
        finally:
            study.library = right
        rows.setdefault("permuted table", []).append(study.figures(found))
        hard = replace(Recipe(classes=classes, seed=seed), mode="hard")
        rows.setdefault("0/1 rules", []).append(study.figures(study.model(f"hard-{seed}", hard)))
    return rows


STUDIES: dict[str, Callable[[Study], dict[str, list[dict[str, Any]]]]] = {
    "pooling": pooling, "cuts": cuts, "controls": controls, "fidelity": fidelity, "growth": growth,
    "together": together, "heads": heads,
}  # fmt: skip


def permuted(library: Library, labels: Sequence[str], seed: int) -> Library:
    """The library with what classes show dealt out anew among the classes of the data."""
    known = [library.entry(name) for name in labels if library.has(name)]
    order = np.random.default_rng((seed, 5)).permutation(len(known))
    dealt = []
    for entry, i in zip(known, order, strict=True):
        other = known[int(i)]
        shown = {"parts": other.parts, "whole": other.whole, "context": other.context, "unclear": other.unclear}
        dealt.append(entry.model_copy(update=shown))
    return Library(library.features.values(), dealt, name=f"{library.name}, permuted")


def run_study(
    which: str, data: str, out: Path, classes: str, draws: Sequence[int], budget: Budget, progress: Progress,
    only: Sequence[str] = (), choosing: bool = False, ontology: Path | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Run one study; writes `study.json` and `study.md` into `out`, also while it runs where it keeps what it has.

    Raises:
        UsageError: `only` names a cut that the study does not have.
    """
    if unknown := [name for name in only if which != "cuts" or name not in ROWS]:
        raise UsageError(f"the study {which} has no cut {unknown[0]!r}.", fix=f"the study cuts has {', '.join(ROWS)}")
    study = Study(data, out, classes, draws, budget, progress, only, choosing, ontology)
    study.about = {
        "format": FORMAT, "study": which, "data": Path(data).name, "steps": budget.steps, "minutes": budget.minutes,
        "judged_on": "training photographs held out" if choosing else "validation",
        "draws": {str(seed): list(names) for seed, names in study.draws}, "environment": describe(),
    }  # fmt: skip
    return study.keep(STUDIES[which](study))


def table(made: dict[str, Any]) -> str:
    """The figures as Markdown: means over draws, with an interval of the accuracy over all photographs and draws."""
    keys = [
        "macro_f1", "balanced_one_vs_rest", "new_class_recall", "share_of_retrained", "swap_drop", "mixed_drop",
        "against_table", "like_the_rules", "concept_auroc", "right_polarity", "transfer_auroc", "transferring",
        "pointing", "energy_inside", "parameters",
    ]  # fmt: skip
    keys = [key for key in keys if any(key in row and row[key] is not None for r in made["rows"].values() for row in r)]
    lines = [
        "| "
        + " | ".join([made["study"], "accuracy", "95 % interval", *(key.replace("_", " ") for key in keys)])
        + " |",
        "| --- |" + " ---: |" * (len(keys) + 2),
    ]
    for name in made.get("order", made["rows"]):
        rows = made["rows"][name]
        right = np.concatenate(
            [np.repeat([1.0, 0.0], [round(r["accuracy"] * r["photographs"]),
                                    r["photographs"] - round(r["accuracy"] * r["photographs"])]) for r in rows]
        )  # fmt: skip
        draw = np.repeat(np.arange(len(rows)), [r["photographs"] for r in rows])
        interval = bootstrap_ratio(right, np.ones(len(right)), draw.tolist() if len(rows) > 1 else None)
        cells = [name, f"{interval.estimate:.1%}", f"{max(0.0, interval.low):.1%} to {min(1.0, interval.high):.1%}"]
        for key in keys:
            known = [row[key] for row in rows if row.get(key) is not None]
            cells.append(
                ""
                if not known
                else f"{np.mean(known):,.0f}"
                if key in ("parameters", "seconds")
                else f"{np.mean(known):.3f}"
            )
        lines.append("| " + " | ".join(cells) + " |")
    lines += [line for d in made.get("differences", ()) for line in ("", in_words(d))]
    lines += [line for m in made.get("means", ()) for line in ("", _mean(m))]
    return "\n".join(lines) + "\n"


def _mean(m: dict[str, Any]) -> str:
    """A mean over draws in words."""
    text = f"{m['figure'].replace('_', ' ')}: {m['mean']:.3f}"
    if m["mean_low"] is not None and m["mean_high"] is not None:
        text += f" ({m['mean_low']:.3f} to {m['mean_high']:.3f}, resampling {m['draws']} draws)"
    return text + "."
