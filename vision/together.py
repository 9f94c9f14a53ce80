"""Together or apart: does a composition that a person can review force each node to its task, or do nodes that are
trained through it adapt to each other's mistakes?

Three ways to train the same nodes, for equal steps on the same photographs:

- **apart**: each node by its own loss, from its column of the table (what `build` does);
- **together**: no node has a loss of its own. A fixed plain-code composition makes class scores of all concept
  probabilities, ten times the mean of those that the table calls true of the class less the mean of those it calls
  false, and only the cross entropy of the classes is learned from;
- **both**: the sum of the two losses.

Rules are then fitted in the same way on each, and judged: accuracy, polarity, transfer to classes never seen, and what
happens when all nodes, or every second one, are replaced by nodes of another seed under the same rules. Nodes that mean
what they are called can be replaced; nodes that only fit each other cannot.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from ontology.fit import Job, JobContext, fit
from ontology.io import read_json, write_json
from ontology.stats import benjamini_hochberg
from ontology.store import code_hash
from vision import fidelity_metrics as fm
from vision.build import NODE_CODE, Plan, Recipe
from vision.data import ImageSet
from vision.growth import budget_for_each, collect
from vision.rules import accuracy, fit_rules
from vision.train_nodes import NodePlan, NodeTrainer
from vision.twins import TwinGroup, load_twins, train_twins, usable, without

if TYPE_CHECKING:
    from vision.study import Study

Way = Literal["apart", "together", "both"]
WAYS: tuple[Way, ...] = ("apart", "together", "both")
SHARPNESS = 10.0
RUNS = ("a", "b", "unseen")
"""Two seeds on all classes, and one that never sees half of them."""
_CODE = (*NODE_CODE, "vision.together", "vision.twins", "vision.rules", "vision.fidelity_metrics")


def composition(table: npt.NDArray[np.int8], dtype: npt.DTypeLike = np.float32) -> npt.NDArray[Any]:
    """The fixed plain code as a matrix: class scores [n, classes] = concept probabilities [n, k] @ this [k, classes].

    Args:
        table: 1 true, 0 false, -1 unclear, int8 [classes, k].
    """
    yes, no = (table == 1).astype(dtype), (table == 0).astype(dtype)
    yes /= np.maximum(1, yes.sum(1, keepdims=True))
    no /= np.maximum(1, no.sum(1, keepdims=True))
    return SHARPNESS * (yes - no).T


class JointTrainer(NodeTrainer):
    """Trains nodes through the fixed composition; otherwise as `NodeTrainer` does, picture for picture.

    Args:
        own_loss: add each node's own loss as well.
    """

    def __init__(self, *arguments: Any, own_loss: bool = False, **options: Any) -> None:
        super().__init__(*arguments, **options)
        import torch

        table = np.stack([plan.truth for plan in self.plans], axis=1)[self._classes]
        self.own_loss, self._composition = own_loss, torch.from_numpy(composition(table))

    def step(self, index: int) -> float:
        """Make step `index`; return the mean loss of a picture in nats."""
        import torch
        import torch.nn.functional as F

        inputs, shown = self.shown(index)
        with torch.enable_grad():
            leaves = [[p.detach().requires_grad_() for p in params] for params in self._params]
            parts = []
            for (shape, columns), own in zip(self._groups, leaves, strict=True):
                parts.append((columns, self.logits(inputs, own, shape)))
            order = np.argsort(np.concatenate([columns for columns, _ in parts]))
            logits = torch.cat([part for _, part in parts], 1)[:, order]
            values, loss = torch.sigmoid(logits) @ self._composition, torch.zeros(())
            for places, share in shown:
                loss = loss + (F.cross_entropy(values, torch.from_numpy(places), reduction="none") * share).mean()
                if self.own_loss:
                    losses = F.binary_cross_entropy_with_logits(logits, self._truth[places], reduction="none")
                    loss = loss + (losses * self._weights[places] * share[:, None]).mean(0).sum()
            gradients = list(torch.autograd.grad(loss, [p for own in leaves for p in own]))
        self.update([[gradients.pop(0) for _ in own] for own in leaves])
        return float(loss.detach())


class TogetherPlan:
    """The jobs of the study for one draw of classes: each way three times, then the figures.

    Args:
        plan: the plan of the model, cut `leaves`.
        validation: photographs to judge on.
        masks: where a part really is, by concept, where that is known.
    """

    def __init__(
        self, plan: Plan, validation: ImageSet, masks: dict[str, npt.NDArray[np.bool_]] | None = None
    ) -> None:  # fmt: skip
        self.plan, self.validation, self.masks = plan, validation, masks or {}
        self.names = list(plan.truth)
        self.table = np.stack([plan.truth[name] for name in self.names], axis=1)
        self.unseen = fm.class_folds(self.table, 2, plan.recipe.seed)[0]
        self.labels = validation.labels_in(plan.known)
        self.target = validation.labels_in(plan.recipe.classes)

    def group(self, run: str) -> TwinGroup:
        """The nodes of one run."""
        made = []
        for name in self.names:
            column = self.plan.truth[name]
            column = without(column, self.unseen) if run == "unseen" else column
            seed_name = f"{name} from another seed" if run == "b" else name
            made.append(NodePlan(f"{name}@{run}", self.plan.shape(name), column, seed_name))
        return TwinGroup(usable(made), tuple(self.unseen) if run == "unseen" else ())

    def jobs(self) -> list[Job]:
        """The plan; the same share of a budget of minutes for every training."""
        data = {"validation": self.validation.data_hash, "seed": self.plan.recipe.seed, "masks": sorted(self.masks),
                "own": list(self.plan.recipe.classes), "code": code_hash(*_CODE)}  # fmt: skip
        trainings = [
            self.group(run).job(f"{way}-{run}", data, self.run_twins, len(self.names)) for way in WAYS for run in RUNS
        ]
        judged = Job("together", data, self.run_judge, tuple(job.name for job in trainings), reserve_seconds=60)
        return [self.plan.jobs()[0], *trainings, judged]

    def run_twins(self, context: JobContext) -> None:
        """Train the nodes of one way and run."""
        plan = self.plan
        way, run = context.name.split("-")
        maps, group = plan._primitives(context), self.group(run)
        # Another seed draws other pictures as well, not only other first weights.
        options: dict[str, Any] = {"seed": plan.recipe.seed + (1_000_003 if run == "b" else 0), "own": plan.favoured}
        given = group.twins, maps, plan.labels, group.rows(plan)
        if way == "apart":
            trainer = NodeTrainer(*given, **options)
        else:
            trainer = JointTrainer(*given, **options, own_loss=way == "both")
        train_twins(context, plan, group, maps, self.validation.pixels, trainer, keep_nodes=run == "a")

    def run_judge(self, context: JobContext) -> None:
        """Take the figures of each way."""
        with context.progress.task("together"):
            rows = [{"label": way, **self.judge(way, context)} for way in WAYS]
        own = [int(c) for c in self.target[self.target >= 0]]
        write_json(context.folder / "together.json", {"rows": rows, "target": own})

    def judge(self, way: Way, context: JobContext) -> dict[str, Any]:
        """The figures of one way."""
        plan, own = self.plan, self.target >= 0
        runs = {run: load_twins(context.inputs[f"{way}-{run}"]) for run in RUNS}
        held = plan.labels[plan.held]
        rules = fit_rules(runs["a"].scores(self.names, "a", "held"), held, plan.own, self.table[plan.own], self.names,
                          plan.recipe.classes, max_terms=plan.recipe.max_terms)  # fmt: skip
        target = self.target[own]
        first, other = (runs[run].scores(self.names, run, "validation")[own] for run in ("a", "b"))
        mixed = np.where(np.arange(len(self.names)) % 2 == 0, first, other)
        values = [rules.values(scores, self.names) for scores in (first, other, mixed)]
        right = [accuracy(found, target) for found in values]
        polarity = [
            fm.polarity(runs["a"].evidence(name, "a", "validation"), self.labels, self.table[:, i])
            for i, name in enumerate(self.names)
        ]
        # A node that answers the opposite of its question says one half of everything, so that rules pass it over.
        inverted = float(np.mean([runs["a"].slope[runs["a"].column[f"{name}@a"]] <= 0 for name in self.names]))
        moved = [
            fm.held_out_transfer([runs["unseen"].evidence(name, "unseen", "validation")], self.labels,
                                 self.table[:, i], [self.unseen], seed=plan.recipe.seed)
            for i, name in enumerate(self.names) if f"{name}@unseen" in runs["unseen"].column
        ]  # fmt: skip
        known = [m for m in moved if not np.isnan(m.auroc)]
        passed = benjamini_hochberg([m.p_value for m in known])[0] if known else np.zeros(0)
        return {
            "accuracy": right[0], "photographs": int(own.sum()),
            "right": (values[0].argmax(1) == target).astype(int).tolist(),
            "swap_drop": right[0] - right[1], "mixed_drop": right[0] - right[2],
            "concept_auroc": float(np.nanmean(polarity)), "right_polarity": float(np.mean(np.array(polarity) > 0.5)),
            "left_out": inverted, "transfer_auroc": float(np.mean([m.auroc for m in known])) if known else None,
            "transferring": float(np.mean(passed)) if known else None,
            "parameters": sum(plan.shape(name).parameters for name in self.names), **self.places(way, context),
        }  # fmt: skip

    def places(self, way: Way, context: JobContext) -> dict[str, float]:
        """Pointing and energy inside the exact masks, over the concepts that have them."""
        from vision.bank import primitives
        from vision.nodes import NodeBank
        from vision.plain import load_node

        rows = []
        for name in self.names:
            masks = self.masks.get(name)
            has = fm.spread(np.flatnonzero(masks.any((1, 2))), 200) if masks is not None else []
            if masks is not None and len(has) >= 5:
                node = load_node(context.inputs[f"{way}-a"] / "nodes" / f"{name}@a")
                maps = NodeBank([node]).maps(primitives(np.array(self.validation.pixels[has])))[:, 0]
                rows.append((fm.pointing(maps, masks[has])[0], fm.energy(maps, masks[has])[0]))
        return dict(zip(("pointing", "energy_inside"), np.mean(rows, axis=0).tolist(), strict=True)) if rows else {}


def together(study: Study) -> dict[str, list[dict[str, Any]]]:
    """Nodes trained apart, together through a fixed composition, or both."""
    from vision.fidelity import find_masks

    results = []
    masks = find_masks(study.data, study.validation)
    for seed, classes in study.draws:
        made = TogetherPlan(
            Plan(study.images, study.library, Recipe(classes=classes, seed=seed)), study.validation, masks
        )
        jobs: Sequence[Job] = made.jobs()
        out = study.out / f"together-{seed}"
        fit(jobs, out, study.store, budget_for_each(study.budget, jobs), study.progress)
        results.append(read_json(out / "together.json"))
    rows, difference = collect(results)
    study.differences = [difference("together", "apart"), difference("both", "apart")]
    return rows
