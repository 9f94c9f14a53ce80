"""Judges the nodes of a model: each against its own question, against random concepts, and against plain controls.

Twins of every node are trained on the photographs of the build, within the budget given: without the classes of a fold
(transfer to unseen classes), without the model's own classes (a new class by rule alone), from another seed (the swap
test), and for permuted columns of the table (random concepts). Then the figures of `fidelity_metrics` are taken.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ontology.fit import Budget, Fitted, Job, JobContext, fit
from ontology.io import load_tensors, write_json
from ontology.progress import Progress
from ontology.stats import benjamini_hochberg
from ontology.store import Store, code_hash
from vision import fidelity_metrics as fm
from vision.bank import in_blocks, primitives
from vision.build import NODE_CODE, Plan
from vision.data import PART_WORLD, ImageSet
from vision.leakage import leakage
from vision.model import Constructed
from vision.nodes import NodeBank
from vision.overlap import overlap
from vision.rules import fit_rules, harden
from vision.train_nodes import NodePlan
from vision.twins import TwinGroup, Twins, load_twins, train_twins, usable, without

FORMAT = "constructible-fidelity/1"
FOLDS = 2
CONTROLS = 12
FALSE_DISCOVERY = 0.05


class FidelityPlan:
    """The jobs that judge one model.

    Args:
        model: a model of the leaf cut (or another cut with nodes).
        plan: the plan it was built by.
        validation: photographs that neither nodes nor rules have seen.
        masks: where a part really is, by concept, bool [n, side, side]; boxes of the photographs where there are none.
    """

    def __init__(
        self, model: Constructed, plan: Plan, validation: ImageSet,
        masks: Mapping[str, npt.NDArray[np.bool_]] | None = None,
    ) -> None:  # fmt: skip
        self.model, self.plan, self.validation, self.masks = model, plan, validation, dict(masks or {})
        self.names = list(model.bank.names)
        self.table = np.stack([plan.truth[name] for name in self.names], axis=1)
        seed = plan.recipe.seed
        self.folds = fm.class_folds(self.table, FOLDS, seed)
        rng = np.random.default_rng((seed, 77))
        picks = rng.choice(len(self.names), min(CONTROLS, len(self.names)), replace=False)
        self.controls = {f"random_{k}": rng.permutation(self.table[:, i]) for k, i in enumerate(picks)}
        self.control_shape = {f"random_{k}": plan.shape(self.names[i]) for k, i in enumerate(picks)}
        self.labels = validation.labels_in(plan.known)

    def groups(self) -> dict[str, TwinGroup]:
        """Everything that is trained, by purpose: the number of a fold, "new" or "swap"; names are CONCEPT@PURPOSE."""
        own = {name: self.plan.truth[name] for name in self.names}
        shapes = {name: self.plan.shape(name) for name in own} | self.control_shape
        made: dict[str, tuple[list[NodePlan], list[int]]] = {}
        for f, fold in enumerate(self.folds):
            columns = {name: without(column, fold) for name, column in (own | self.controls).items()}
            made[str(f)] = [NodePlan(f"{name}@{f}", shapes[name], c) for name, c in columns.items()], list(fold)
        new = [NodePlan(f"{name}@new", shapes[name], without(c, self.plan.own)) for name, c in own.items()]
        made["new"] = new, self.plan.own
        made["swap"] = [NodePlan(f"{name}@swap", shapes[name], c, f"{name} from another seed")
                        for name, c in own.items()], []  # fmt: skip
        found = {purpose: TwinGroup(usable(twins), tuple(unseen)) for purpose, (twins, unseen) in made.items()}
        return {purpose: group for purpose, group in found.items() if group.twins}

    def jobs(self) -> list[Job]:
        """The plan."""
        bank, nodes = self.plan.jobs()[0], [f"node-{name}" for name in self.names]
        judges = ("fidelity", "fidelity_metrics", "leakage", "overlap", "rules", "twins")
        code = code_hash(*NODE_CODE, *(f"vision.{name}" for name in judges))
        model = {"nodes": nodes, "rules": [rule.source for rule in self.model.rules.rules],
                 "calibration": [[n.slope, n.offset] for n in self.model.bank.nodes]}  # fmt: skip
        data = {"validation": self.validation.data_hash, "code": code}
        taught = {**data, "seed": self.plan.recipe.seed, "favoured": self.plan.favoured}
        twins = [
            group.job(f"twins-{purpose}", taught, self.run_twins, len(self.names))
            for purpose, group in self.groups().items()
        ]
        judged = Job("fidelity", {**model, **data, "places": self._places_hash()}, self.run_judge,
                     ("primitives", *(job.name for job in twins)), reserve_seconds=60)  # fmt: skip
        return [bank, *twins, judged]

    def _places_hash(self) -> str:
        """What says whether it has changed where things are."""
        digest = hashlib.sha256(np.ascontiguousarray(self.validation.boxes).tobytes())
        for name in sorted(self.masks):
            digest.update(name.encode() + np.packbits(self.masks[name]).tobytes())
        return digest.hexdigest()

    def run_twins(self, context: JobContext) -> None:
        """Train the twins of one purpose, calibrate them, keep what they say of the photographs."""
        group = self.groups()[context.name.removeprefix("twins-")]
        train_twins(context, self.plan, group, self.plan._primitives(context), self.validation.pixels)

    def run_judge(self, context: JobContext) -> None:
        """Take all figures and write `fidelity.json`."""
        twins = load_twins(*(context.inputs[f"twins-{purpose}"] for purpose in self.groups()))
        with context.progress.task("fidelity"):
            judged = _Judge(self, twins, self.plan._primitives(context)).all()
        write_json(context.folder / "fidelity.json", judged)


class _Judge:
    """The figures, one method each."""

    def __init__(self, plan: FidelityPlan, twins: Twins, maps: npt.NDArray[np.uint8]) -> None:
        self.p, self.twins, self.maps = plan, twins, maps
        self.model, self.names = plan.model, plan.names
        self.pixels, self.labels = plan.validation.pixels, plan.labels
        self.primitives = np.concatenate(list(in_blocks(self.pixels)))
        self.pooled = self.model.bank.pooled(self.primitives)
        self.scores = self.model.bank.calibrate(self.pooled)
        self.target = plan.validation.labels_in(plan.plan.recipe.classes)

    def all(self) -> dict[str, Any]:
        """Everything, as JSON values."""
        per_node = {name: self.node(i, name) for i, name in enumerate(self.names)}
        controls = {name: asdict(self.transfer(name, column)) for name, column in self.p.controls.items()}
        passed, _ = benjamini_hochberg([row["transfer"]["p_value"] for row in per_node.values()], FALSE_DISCOVERY)
        known = [row["auroc"] for row in controls.values() if not np.isnan(row["auroc"])]
        base = float(np.mean(known)) if known else 0.5
        for row, ok in zip(per_node.values(), passed, strict=True):
            row["selectivity"] = row["transfer"]["auroc"] - base
            row["faithful"] = bool(ok and row["selectivity"] > 0 and row["polarity"] > 0.5)
            if np.isnan(row["transfer"]["auroc"]):
                row["why_not"] = "too few classes to leave some out"
        faithful = [name for name in self.names if per_node[name]["faithful"]]
        target = self.target[self.target >= 0]
        right = {
            way: (values.argmax(1) == target).astype(int).tolist() for way, values in self.answers(faithful).items()
        }
        everything, _ = benjamini_hochberg(
            [*(r["transfer"]["p_value"] for r in per_node.values()), *(r["p_value"] for r in controls.values())],
            FALSE_DISCOVERY,
        )
        return as_json_values(
            {
                "format": FORMAT, "nodes": per_node, "random_concepts": controls,
                "random_concepts_that_pass": int(everything[len(per_node) :].sum()),
                "random_concepts_mean_auroc": base, "folds": [[self.p.plan.known[c] for c in f] for f in self.p.folds],
                "leakage": leakage(self.scores, self.labels, self.p.table, self.names).as_json(),
                "overlap": self.overlap(), "summary": self.summary(per_node, faithful, right),
                "right": right, "target": target.tolist(),
            }
        )  # fmt: skip

    def transfer(self, name: str, column: npt.NDArray[np.int8]) -> fm.Transfer:
        """Twins on the classes they never saw."""
        scores, folds = [], []
        for f, fold in enumerate(self.p.folds):
            if f"{name}@{f}" in self.twins.column:
                scores.append(self.twins.evidence(name, str(f), "validation"))
                folds.append(fold)
        return fm.held_out_transfer(scores, self.labels, column, folds, seed=self.p.plan.recipe.seed)

    def node(self, i: int, name: str) -> dict[str, Any]:
        """One node's card, in numbers."""
        truth = self.p.table[:, i]
        own = {
            "polarity": fm.polarity(self.pooled[:, i], self.labels, truth),
            "transfer": asdict(self.transfer(name, truth)),
            "controls": self.plain_controls(truth),
            "true_of": [c for c, t in zip(self.p.plan.known, truth, strict=True) if t == 1],
        }
        own["memory"] = own["polarity"] - own["transfer"]["auroc"]  # how much better it is on classes it has seen
        return own | self.place(i, name, truth)

    def overlap(self) -> dict[str, Any]:
        """What nodes carry beside their own concept, against nodes trained for permuted columns."""
        random = [i for name, i in self.twins.column.items() if name.split("@")[0] in self.p.controls]
        return overlap(
            self.pooled, self.labels, self.p.table, self.names, self.twins.pooled["validation"][:, random]
        ).as_json()

    def plain_controls(self, truth: npt.NDArray[np.int8]) -> dict[str, float]:
        """The colour-histogram control and the class memoriser, on the same held-out classes."""
        features = np.concatenate([self.primitives.mean((2, 3)), self.primitives.std((2, 3))], axis=1)
        rows = np.sort(self.p.plan.learn[:: max(1, len(self.p.plan.learn) // 4000)])
        taught = self.maps[rows]
        learned = np.concatenate([taught.mean((2, 3)), taught.std((2, 3))], axis=1)
        both = np.concatenate([learned, features])
        labels = np.concatenate([self.p.plan.labels[rows], self.labels])
        train = np.arange(len(both)) < len(learned)
        out = {}
        for key, through in (("picture_statistics", False), ("class_memoriser", True)):
            scores = [
                fm.ridge_transfer(both, labels, train, truth, fold, through_classes=through)[len(learned) :]
                for fold in self.p.folds
                if {0, 1} <= set(without(truth, fold).tolist())
            ]
            folds = [fold for fold in self.p.folds if {0, 1} <= set(without(truth, fold).tolist())]
            out[key] = fm.held_out_transfer(scores, self.labels, truth, folds).auroc
        return out

    def place(self, i: int, name: str, truth: npt.NDArray[np.int8]) -> dict[str, Any]:
        """Pointing, energy and locality, where it is known where the thing is."""
        has = (truth[np.maximum(self.labels, 0)] == 1) & (self.labels >= 0)
        boxes = self.p.validation.boxes
        masks = self.p.masks.get(name)
        if masks is not None:
            has &= masks.any((1, 2))
        else:
            has &= ~np.isnan(boxes).any(1)
        rows = fm.spread(np.flatnonzero(has), 400)
        if len(rows) < 5 or self.model.concepts[name]["kind"] == "context":
            return {"place": None}
        known = masks[rows] if masks is not None else fm.box_masks(boxes[rows], self.pixels.shape[1])
        maps = NodeBank([self.model.bank.nodes[i]]).maps(self.primitives[rows])[:, 0]
        hits, centre = fm.pointing(maps, known)
        inside, area = fm.energy(maps, known)
        bank = NodeBank([self.model.bank.nodes[i]])
        # A photograph's box is hidden as a whole; a mask is widened by a cell, so that its outline does not remain.
        hide = known if masks is None else _widen(known, self.pixels.shape[1] // 16)
        few = fm.spread(np.arange(len(rows)), 150)
        some, hide = rows[few], hide[few]
        original = self.pooled[some, i]
        without = bank.pooled(primitives(_hidden(self.pixels[some], hide)))[:, 0]
        alone = bank.pooled(primitives(_hidden(self.pixels[some], ~hide)))[:, 0]
        return {
            "place": {
                "truth": "mask" if masks is not None else "box", "pictures": len(rows), "pointing": hits,
                "pointing_centre": centre, "energy_inside": inside, "area": area,
                "locality": fm.locality(original, without, alone),
            }
        }  # fmt: skip

    def answers(self, faithful: Sequence[str]) -> dict[str, npt.NDArray[np.float64]]:
        """Class scores of the photographs of the model's classes: as built, and with one thing changed each time.

        Rules are fitted anew where other nodes are read: "faithful nodes alone", missing where there are none, and
        "nodes that saw none of its classes", which is new classes by rule alone, missing where the data have no other
        classes. They stay where the nodes are replaced ("nodes of another seed") or rounded ("0/1 scores").
        """
        own = self.target >= 0
        scores, rules = self.scores[own], self.model.rules
        held = self.model.bank.scores(self.maps[self.p.plan.held])
        made = {
            "as built": self.model.values_of(scores),
            "soft scores": rules.values(scores, self.names),
            "0/1 scores": rules.values(harden(scores), self.names),
            "nodes of another seed": self.model.values_of(self.twins.scores(self.names, "swap", "validation")[own]),
        }
        if self.twins.has("new"):
            unseen = [self.twins.scores(self.names, "new", part) for part in ("held", "validation")]
            made["nodes that saw none of its classes"] = self.refit(unseen[0], unseen[1][own], self.names)
        return made | ({"faithful nodes alone": self.refit(held, scores, faithful)} if faithful else {})

    def summary(
        self, per_node: Mapping[str, Mapping[str, Any]], faithful: Sequence[str], right: Mapping[str, list[int]]
    ) -> dict[str, Any]:
        """What is said of the whole model.

        Args:
            right: for each of `answers` whether each photograph is named rightly.
        """
        own = self.target >= 0
        weight = {name: sum(abs(r.influence.get(name, 0.0)) for r in self.model.rules.rules) for name in self.names}
        total = sum(weight.values())
        share = {way: float(np.mean(found)) for way, found in right.items()}
        return {
            "nodes": len(self.names), "faithful": faithful, "faithful_share": len(faithful) / len(self.names),
            "rule_weight_on_faithful": sum(weight[n] for n in faithful) / total if total else 0.0,
            "positive_polarity_share": float(np.mean([row["polarity"] > 0.5 for row in per_node.values()])),
            "mean_transfer_auroc": _mean(row["transfer"]["auroc"] for row in per_node.values()),
            "mean_controls": {key: _mean(row["controls"][key] for row in per_node.values())
                              for key in ("picture_statistics", "class_memoriser")},
            "accuracy": share["as built"],
            "accuracy_faithful_only": share.get("faithful nodes alone"),
            "accuracy_swapped_nodes": share["nodes of another seed"],
            "swap_drop": share["as built"] - share["nodes of another seed"],
            "accuracy_new_classes_by_rule_alone": share.get("nodes that saw none of its classes"),
            "hard_minus_soft": share["0/1 scores"] - share["soft scores"],
            "interventions": self.interventions(self.scores[own], self.target[own]),
        }  # fmt: skip

    def refit(
        self, held: npt.NDArray[np.float64], scores: npt.NDArray[np.float64], names: Sequence[str]
    ) -> npt.NDArray[np.float64]:
        """Class scores by rules that are fitted anew on some nodes' scores alone: fitted on `held`, of `scores`, both
        [n, all nodes]."""
        columns = [self.names.index(name) for name in names]
        recipe, plan = self.p.plan.recipe, self.p.plan
        if recipe.mode == "hard":
            held, scores = harden(held), harden(scores)
        truth = self.p.table[plan.own][:, columns]
        rules = fit_rules(held[:, columns], plan.labels[plan.held], plan.own, truth, names, recipe.classes,
                          max_terms=recipe.max_terms)  # fmt: skip
        return rules.values(scores[:, columns], names)

    def interventions(self, scores: npt.NDArray[np.float64], target: npt.NDArray[np.int64]) -> dict[str, list[float]]:
        """Accuracy after correcting concepts of each picture by the table, in random and in the least helpful order."""
        table = self.p.table[self.p.plan.own].astype(np.float64)
        table[table < 0] = np.nan
        truth = table[target]
        known = [np.flatnonzero(~np.isnan(row)) for row in truth]
        rng = np.random.default_rng(self.p.plan.recipe.seed)
        randomly = [rng.permutation(row).tolist() for row in known]
        # Least helpful first: those that are nearly right already.
        wrong = np.abs(np.nan_to_num(truth, nan=0.5) - scores)
        worst = [row[np.argsort(wrong[i][row])].tolist() for i, row in enumerate(known)]
        return {
            "random": fm.intervention_curve(self.model.values_of, scores, truth, target, randomly),
            "least_helpful_first": fm.intervention_curve(self.model.values_of, scores, truth, target, worst),
        }


def judge(
    model: Constructed,
    plan: Plan,
    validation: ImageSet,
    out: str | Path,
    budget: Budget,
    *,
    masks: Mapping[str, npt.NDArray[np.bool_]] | None = None,
    store: Store | None = None,
    progress: Progress | None = None,
) -> Fitted:
    """Judge a model's nodes; writes `fidelity.json` into `out`. The same call again resumes."""
    return fit(FidelityPlan(model, plan, validation, masks).jobs(), out, store, budget, progress)


def find_masks(source: str, validation: ImageSet) -> dict[str, npt.NDArray[np.bool_]]:
    """The exact masks of a part world's validation pictures, as large as these: `masks.safetensors` beside the data, or
    drawn again; empty for photographs, and for pictures of the other split."""
    from vision.part_world import PARTS, draw_set, mask_array

    if validation.split != "validation":
        return {}
    path = Path(source) / "masks.safetensors"
    if path.is_file():
        packed = load_tensors(path)
        found = {name: np.unpackbits(np.asarray(bits), axis=2).astype(np.bool_) for name, bits in packed.items()}
    elif match := PART_WORLD.fullmatch(source):
        per_class = len(validation) // len(validation.classes)
        drawings = draw_set("validation", per_class, seed=int(match[1] or 0))
        found = {name: mask_array(drawings, name) for name in PARTS}
    else:
        return {}
    if any(len(mask) != len(validation) or validation.size % mask.shape[1] for mask in found.values()):
        return {}
    larger = {name: validation.size // mask.shape[1] for name, mask in found.items()}
    return {name: mask.repeat(larger[name], axis=1).repeat(larger[name], axis=2) for name, mask in found.items()}


def _hidden(pixels: npt.NDArray[np.uint8], masks: npt.NDArray[np.bool_]) -> npt.NDArray[np.uint8]:
    """Pictures with what a mask covers painted over by the mean colour of the rest."""
    out = np.array(pixels)
    for picture, mask in zip(out, masks, strict=True):
        if mask.any() and not mask.all():
            picture[mask] = picture[~mask].mean(0).astype(np.uint8)
    return out


def _widen(masks: npt.NDArray[np.bool_], by: int) -> npt.NDArray[np.bool_]:
    """Masks [n, side, side] widened by some pixels in the four directions."""
    side = masks.shape[1]
    padded = np.pad(masks, ((0, 0), (by, by), (by, by)))
    out = masks.copy()
    for shift in range(2 * by + 1):
        out |= padded[:, shift : shift + side, by : by + side] | padded[:, by : by + side, shift : shift + side]
    return out


def _mean(values: Any) -> float:
    known = [value for value in values if value is not None and not np.isnan(value)]
    return float(np.mean(known)) if known else float("nan")


def as_json_values(value: Any) -> Any:
    """JSON has no nan: None instead; four decimals."""
    if isinstance(value, Mapping):
        return {key: as_json_values(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [as_json_values(item) for item in value]
    if isinstance(value, float | np.floating):
        return None if np.isnan(value) else round(float(value), 4)
    return value
