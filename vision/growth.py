"""Growth: classes that come later. What is a new class worth by a rule alone, with no net retrained? And by how many
photographs does it have to be shown?

The constructed model's nodes learned from other classes; a rule over their scores is fitted to the few photographs of
the new ones. Its rival is given the same: a monolith that learns from the other classes and these few photographs
together, and, for those who have no other classes, a monolith that learns from the few alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ontology.environment import threads
from ontology.fit import Budget, Job, JobContext, fit, train
from ontology.io import read_json, write_json
from ontology.stats import paired_difference, paired_ratio
from ontology.store import code_hash
from vision.build import NODE_CODE, Plan, Recipe
from vision.comparisons import comparison
from vision.data import ImageSet
from vision.model import log_odds
from vision.monolith import Monolith, MonolithTrainer, RowsOf, width_for
from vision.rules import RuleSet, fit_rules
from vision.score import class_figures
from vision.train_nodes import NodePlan
from vision.twins import TwinGroup, Twins, load_twins, train_twins, usable, without

if TYPE_CHECKING:
    from vision.study import Study

SHOTS = (5, 20, 100)
_CODE = (*NODE_CODE, "vision.growth", "vision.twins", "vision.monolith", "vision.rules", "vision.score")


class GrowthPlan:
    """The jobs of the study for one draw of classes.

    Twins of every node: `all` learns from all classes, `one` never saw the last class of the draw, `none` none of them.

    Args:
        plan: the plan of the model (cut `leaves` or `plain`).
        validation: photographs to judge on.
        shots: photographs of each class that a newcomer is shown.
    """

    def __init__(self, plan: Plan, validation: ImageSet, shots: Sequence[int] = SHOTS) -> None:
        self.plan, self.validation = plan, validation
        self.names = list(plan.truth)
        self.table = np.stack([plan.truth[name] for name in self.names], axis=1)
        rng = np.random.default_rng((plan.recipe.seed, 21))
        own = [rng.permutation(plan.learn[plan.labels[plan.learn] == c]) for c in plan.own]
        fewest = min(len(rows) for rows in own)
        self.shots = sorted({min(n, fewest) for n in shots})
        self.pool = np.concatenate([rows[: self.shots[-1]] for rows in own])
        self.first = {n: np.concatenate([rows[:n] for rows in own]) for n in self.shots}
        self.target = validation.labels_in(plan.recipe.classes)
        self.width = width_for(plan.recipe.parameters or plan.leaf_parameters())

    def groups(self) -> dict[str, TwinGroup]:
        """The nodes that are trained, by what they see."""
        plan, own = self.plan, self.plan.own
        made = {}
        for purpose, unseen in (("all", []), ("one", own[-1:]), ("none", own)):
            twins = [
                NodePlan(f"{name}@{purpose}", plan.shape(name), without(plan.truth[name], unseen), seed_name=name)
                for name in self.names
            ]
            if found := usable(twins):
                made[purpose] = TwinGroup(found, tuple(unseen))
        return made

    def jobs(self) -> list[Job]:
        """The plan; every model gets the same share of a budget of minutes."""
        bank = self.plan.jobs()[0]
        data = {"validation": self.validation.data_hash, "photographs": self.plan.images.data_hash,
                "own": list(self.plan.recipe.classes), "known": list(self.plan.known),
                "seed": self.plan.recipe.seed, "shots": self.shots,
                "code": code_hash(*_CODE)}  # fmt: skip
        twins = [
            group.job(f"nodes-{purpose}", data, self.run_twins, len(self.names))
            for purpose, group in self.groups().items()
        ]
        nets = [
            Job(f"{kind}-{n}", {**data, "width": self.width}, self.run_monolith, kind="net", place=f"{kind}-{n}")
            for kind, n in self.monoliths
        ]
        trained = [*twins, *nets]
        judged = Job("growth", data, self.run_judge, tuple(job.name for job in trained), reserve_seconds=60)
        return [bank, *trained, judged]

    @property
    def monoliths(self) -> list[tuple[str, int]]:
        """Kind and photographs of each class of every monolith; 0 for all there are."""
        return [("monolith", 0), *((kind, n) for kind in ("monolith", "alone") for n in self.shots)]

    def run_twins(self, context: JobContext) -> None:
        """Train the nodes that see the same."""
        group = self.groups()[context.name.removeprefix("nodes-")]
        maps = self.plan._primitives(context)
        train_twins(context, self.plan, group, maps, self.validation.pixels, parts={"shots": self.pool})

    def run_monolith(self, context: JobContext) -> None:
        """Train one network: on the other classes and so many photographs of each of its own, or on those alone."""
        import torch

        torch.set_num_threads(threads())
        kind, number = context.name.split("-")
        plan = self.plan
        rows = self.first[int(number)] if number != "0" else np.arange(len(plan.rows))
        if kind == "monolith" and number != "0":
            rows = np.sort(np.concatenate([rows, np.flatnonzero(~np.isin(plan.labels, plan.own))]))
        pixels = RowsOf(plan.images.pixels, plan.rows)
        trainer = MonolithTrainer(
            pixels, plan.labels, rows, plan.own, width=self.width, seed=plan.recipe.seed  # type: ignore[arg-type]
        )  # fmt: skip
        train(trainer, context)
        trainer.finish(plan.recipe.classes).save(context.folder)

    def run_judge(self, context: JobContext) -> None:
        """Fit the rules and take the figures."""
        twins = load_twins(*(context.inputs[f"nodes-{purpose}"] for purpose in self.groups()))
        with context.progress.task("growth"):
            rows = self.by_rule(twins)
            for kind, n in self.monoliths:
                net = Monolith.load(context.inputs[f"{kind}-{n}"])
                label = f"monolith, {'all' if n == 0 else n} shown" + (" and no other class" if kind == "alone" else "")
                rows[label] = self.figures(log_odds(net.values(self.validation.pixels))) | {
                    "parameters": net.parameters
                }
        own = [int(c) for c in self.target[self.target >= 0]]
        made = [{"label": label, **row} for label, row in rows.items()]
        write_json(context.folder / "growth.json", {"rows": made, "target": own})

    def by_rule(self, twins: Twins) -> dict[str, dict[str, Any]]:
        """All that rules reach, with nodes that saw all, all but one, or none of the classes."""
        plan, held = self.plan, self.plan.labels[self.plan.held]
        scores = {(p, part): twins.scores(self.names, p, part)
                  for p in ("all", "one", "none") for part in ("held", "validation", "shots")}  # fmt: skip
        retrained = self.rules(scores["all", "held"], held)
        before = self.rules(scores["one", "held"], held, plan.own[:-1])
        after = self.rules(scores["one", "held"], held)
        added = RuleSet([*before.rules, after.rules[-1]])
        said = {
            "retrained": (retrained, "all"),
            "one new class, its rule added": (added, "one"),
            "one new class, all rules fitted again": (after, "one"),
        }
        # Where the data have no other classes, there are no nodes that never saw the model's own.
        others_known = twins.has("none")
        if others_known:
            said["all classes new, rules alone"] = self.rules(scores["none", "held"], held), "none"
        rows = {label: self.figures(r.values(scores[p, "validation"], self.names)) for label, (r, p) in said.items()}
        others = np.flatnonzero(~np.isin(held, plan.own))
        pool = plan.labels[self.pool]
        for n in self.shots if others_known else ():
            # Photographs of other classes are held out ones; nodes have seen none of the shown.
            shown = np.flatnonzero(np.isin(self.pool, self.first[n]))
            taught = np.concatenate([scores["none", "shots"][shown], scores["none", "held"][others]])
            rules = self.rules(taught, np.concatenate([pool[shown], held[others]]))
            rows[f"rules alone, {n} shown"] = self.figures(rules.values(scores["none", "validation"], self.names))
        for row in rows.values():
            row["parameters"] = sum(self.plan.shape(name).parameters for name in self.names)
            row["share_of_retrained"] = row["accuracy"] / max(1e-9, rows["retrained"]["accuracy"])
        return rows

    def rules(
        self, scores: npt.NDArray[np.float64], labels: npt.NDArray[np.int64], own: Sequence[int] | None = None
    ) -> RuleSet:  # fmt: skip
        """Rules for some of the classes, fitted on these scores."""
        own = self.plan.own if own is None else list(own)
        classes = self.plan.recipe.classes[: len(own)]
        return fit_rules(scores, labels, own, self.table[own], self.names, classes,
                         max_terms=self.plan.recipe.max_terms)  # fmt: skip

    def figures(self, values: npt.NDArray[np.float64]) -> dict[str, Any]:
        """Figures of class scores of the validation photographs."""
        classes = self.plan.recipe.classes
        found = class_figures(values, self.target, self.validation.labels, classes)
        own = self.target >= 0
        right = values[own].argmax(1) == self.target[own]
        row = {key: found[key] for key in ("accuracy", "macro_f1", "balanced_one_vs_rest", "photographs")}
        return row | {
            "new_class_recall": found["per_class"][classes[-1]]["recall"],
            "right": right.astype(int).tolist(),
        }


def growth(study: Study) -> dict[str, list[dict[str, Any]]]:
    """New classes by rule alone, and few photographs of each, against retraining and against the monolith."""
    results = []
    for seed, classes in study.draws:
        plan = GrowthPlan(Plan(study.images, study.library, Recipe(classes=classes, seed=seed)), study.validation)
        jobs = plan.jobs()
        budget = budget_for_each(study.budget, jobs)
        out = study.out / f"growth-{seed}"
        fit(jobs, out, study.store, budget, study.progress)
        results.append(read_json(out / "growth.json"))
    rows, difference = collect(results)
    shown = [label.removeprefix("rules alone, ") for label in rows if label.startswith("rules alone, ")]
    pairs = [("all classes new, rules alone", "retrained"), ("one new class, its rule added", "retrained")]
    for n in shown:
        pairs += [(f"rules alone, {n}", f"monolith, {n}"), (f"rules alone, {n}", f"monolith, {n} and no other class")]
    study.differences = [difference(a, b) for a, b in pairs if a in rows and b in rows]
    return rows


def collect(
    results: Sequence[Mapping[str, Any]],
) -> tuple[dict[str, list[dict[str, Any]]], Callable[[str, str], dict[str, Any]]]:
    """The rows of several draws by label, and a function that compares two of them, photograph by photograph.

    Args:
        results: for each draw `rows`, each with its `label` and whether each photograph was `right`, and `target`.
    """
    rows: dict[str, list[dict[str, Any]]] = {}
    right: dict[str, list[int]] = {}
    for made in results:
        for row in made["rows"]:
            kept = {key: value for key, value in row.items() if key not in ("label", "right")}
            rows.setdefault(row["label"], []).append(kept)
            right.setdefault(row["label"], []).extend(row["right"])
    # A draw's classes share one training, so several draws are resampled whole.
    unit = "draws" if len(results) > 1 else "classes"
    clusters = [draw if unit == "draws" else c for draw, made in enumerate(results) for c in made["target"]]

    def difference(a: str, b: str) -> dict[str, Any]:
        one = [1.0] * len(clusters)
        found = paired_difference(right[a], right[b], one, None, clusters)
        share = paired_ratio(right[a], right[b], one, None, clusters) if sum(right[a]) * sum(right[b]) else None
        return comparison(a, b, found, unit, share)

    return rows, difference


def budget_for_each(budget: Budget, jobs: Sequence[Job]) -> Budget:
    """The budget of one model for each of a plan's trainings."""
    trainings = sum(job.share for job in jobs if job.kind == "net")
    return budget if budget.minutes is None else Budget(minutes=budget.minutes * trainings)
