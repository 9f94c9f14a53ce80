"""Builds a model folder: the plan of jobs from photographs to the last artefact.

    primitives -> node, node, node ... -> rules -> model          (constructed, any cut but root)
    primitives -> plain code per concept -> rules -> model        (plain cut: no nets)
    monolith -> model                                             (root cut)

Each node is a job of its own in one group: all that are still to be done are trained together, and a node that an
earlier build left in the store is used again, with its original seconds.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import yaml

from ontology.environment import Ledger, threads
from ontology.errors import ConstructibleError, UsageError, did_you_mean
from ontology.fit import Budget, Fitted, Job, JobContext, fit, train
from ontology.graph import Cut, cut
from ontology.io import read_json, save_tensors, sha256_json, write_json, write_text
from ontology.progress import Progress
from ontology.schema import Ontology
from ontology.store import Store, code_hash
from vision.bank import CHANNELS, GRID, primitives
from vision.concepts import CUTS, SCALES, Library, concept_name, to_ontology
from vision.data import ImageSet, require
from vision.model import FORMAT
from vision.monolith import MonolithTrainer, RowsOf, channels_for, width_for
from vision.nodes import MAX_PARAMS, NodeBank, NodeShape, Pooling
from vision.plain import PlainShape, fit_plain, load_node, readings
from vision.rules import MAX_TERMS, RuleSet, accuracy, fit_rules, harden, some_others
from vision.sizes import leaf_channels, upper_shape
from vision.train_nodes import AnyNode, NodePlan, NodeTrainer, calibrated

HELD_OUT = 0.2
"""Share of each class's photographs that no node learns from: they calibrate nodes and fit rules."""
MIN_PHOTOGRAPHS = 10
TRAINING_FILES = "training_files.json"
_PLAIN_CODE = ("vision.bank", "vision.bank_kernel", "vision.nodes", "vision.plain", "vision.train_nodes")
NODE_CODE = ("vision.bank", "vision.bank_kernel", "vision.nodes", "vision.train_nodes", "kernels.cnn", "kernels.adam")


@dataclass(frozen=True)
class Recipe:
    """Everything that decides a build but its photographs and budget.

    Attributes:
        classes: what the model tells apart.
        cut: `root`, `classes`, `parts`, `leaves`, `plain` (no nets), a depth, or concepts' names; see ontology.graph.
        hidden: channels of a node at the leaves; nodes above them get as many as make equal parameters in total.
        mode: whether rules see probabilities ("soft") or 0 and 1 ("hard").
        others: learn from photographs of the other classes of the data as well.
        shared: nodes learn for all classes of the data alike, so that models of other classes find them in the store;
            otherwise three quarters of what they learn from are of the model's own classes.
        parameters: of the monolith; None takes what the nodes of the leaf cut have together.
        in_all: trained numbers of all nets together, whatever the cut, as near as whole channels allow
            (`vision.sizes`); None leaves `hidden` and `parameters` as they are, and upper cuts go by four channels.
    """

    classes: tuple[str, ...]
    cut: str = "leaves"
    seed: int = 0
    hidden: tuple[int, int] = (16, 16)
    pooling: Pooling = "average"
    mode: Literal["soft", "hard"] = "soft"
    max_terms: int = MAX_TERMS
    others: bool = True
    shared: bool = False
    parameters: int | None = None
    in_all: int | None = None


def choose_classes(asked: str, available: Sequence[str], seed: int) -> tuple[str, ...]:
    """Return the classes that `a,b,c`, `random:5` or `all` stands for; a draw depends on the seed alone.

    Raises:
        UsageError: an unknown class, fewer than two, or a draw of more than there are.
    """
    if asked == "all":
        if len(available) < 2:
            raise UsageError(f"the data have {len(available)} class(es).", fix="a model tells at least two apart")
        return tuple(available)
    if asked.startswith("random:"):
        number = asked.removeprefix("random:")
        if not number.isdigit() or not 2 <= int(number) <= len(available):
            raise UsageError(f"{asked!r} is no draw of classes.", fix=f"use random:2 to random:{len(available)}")
        drawn = np.random.default_rng(seed).choice(len(available), int(number), replace=False)
        return tuple(sorted(sorted(available)[i] for i in drawn))
    names = [name.strip() for name in asked.split(",") if name.strip()]
    for name in names:
        if name not in available:
            hint = did_you_mean(name, list(available))
            raise UsageError(f"there is no class {name!r}.{hint if len(hint) < 300 else ''}", fix="name its classes")
    if len(set(names)) < 2:
        raise UsageError("a model tells at least two classes apart.", fix="name two or more")
    return tuple(dict.fromkeys(names))


def build(
    images: ImageSet,
    library: Library,
    out: str | Path,
    budget: Budget,
    recipe: Recipe,
    *,
    store: Store | None = None,
    progress: Progress | None = None,
    ledger: Ledger | None = None,
) -> Fitted:
    """Build a model into the folder `out`; the same call again resumes.

    Raises:
        ConstructibleError: too few photographs, a class that the library does not know, or a cut that is none.
    """
    require(images, MIN_PHOTOGRAPHS, recipe.classes)
    return fit(Plan(images, library, recipe).jobs(), out, store, budget, progress, ledger)


def split_rows(
    labels: npt.NDArray[np.int64], seed: int, share: float = HELD_OUT
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return rows to learn from and rows held out, sorted; of each class the same share, at least one of each."""
    learn, held = [], []
    for label in np.unique(labels):
        rows = np.random.default_rng((seed, int(label))).permutation(np.flatnonzero(labels == label))
        border = min(len(rows) - 1, max(1, round(share * len(rows)))) if len(rows) > 1 else 0
        held.append(rows[:border])
        learn.append(rows[border:])
    return np.sort(np.concatenate(learn)), np.sort(np.concatenate(held))


class Plan:
    """The jobs of one build and what they share.

    Attributes:
        truth: for each member of the cut its column over all classes of the data, int8 [classes].
    """

    def __init__(self, images: ImageSet, library: Library, recipe: Recipe) -> None:
        self.recipe, self.library = recipe, library
        unknown = [name for name in images.classes if not library.has(name)]
        if missing := [name for name in recipe.classes if name in unknown]:
            raise ConstructibleError(
                f"the ontology {library.name!r} does not describe the class {missing[0]!r}.",
                fix="add it to an ontology of your own (--ontology FILE; see docs/vision.md)",
            )
        self.images = images
        self.known = tuple(name for name in images.classes if name not in unknown)
        if not recipe.others:
            self.known = tuple(name for name in images.classes if name in recipe.classes)
        self.rows = images.rows_of_classes(self.known)
        renumber = np.full(len(images.classes), -1, dtype=np.int64)
        renumber[[images.classes.index(name) for name in self.known]] = np.arange(len(self.known))
        self.labels = renumber[images.labels[self.rows]]
        self.own = [self.known.index(name) for name in recipe.classes]
        self.favoured: list[int] = [] if recipe.shared else self.own
        self._concepts = {label: concept_name(library.entry(label).name) for label in self.known}
        self.ontology: Ontology = to_ontology(library, recipe.classes)
        self.cut: Cut = cut(self.ontology, CUTS.get(recipe.cut, recipe.cut))
        self.is_root = self.cut.concepts == (self.ontology.root,)
        self.learn, self.held = split_rows(self.labels, recipe.seed)
        # What nodes are calibrated and rules fitted on: all held out of the own classes, a few of each other class.
        self.fitted = self.held[some_others(self.labels[self.held], self.own)]
        # A shared node must come out the same whichever model asks for it first.
        self.calibrated = self.held if recipe.shared or not self.cut.nets else self.fitted
        self.truth: dict[str, npt.NDArray[np.int8]] = {}
        if not self.is_root:
            for name in self.cut.concepts:
                column = self._truth(name)
                if {0, 1} <= set(column.tolist()):
                    self.truth[name] = column
            lonely = [n for n in recipe.classes if not any(t[self.known.index(n)] == 1 for t in self.truth.values())]
            if lonely:
                raise ConstructibleError(
                    f"no concept of this cut speaks for the class {lonely[0]!r} and against another.",
                    fix="describe it by more features, or use another cut",
                )
        self.hidden = recipe.hidden
        if recipe.in_all is not None and self.cut.nets and any(name in library.features for name in self.truth):
            self.hidden = leaf_channels(recipe.hidden, self._leaves_with, recipe.in_all)

    def _truth(self, name: str) -> npt.NDArray[np.int8]:
        """What a concept is true of, over the classes of the data."""
        features, table = self.library.table(self.known)
        if name in self.library.features:
            minimum = 3 if len(self.known) >= 12 else 1
            column = table[:, features.index(name)] if name in features else np.zeros(len(self.known), np.int8)
            few = min((column == 1).sum(), (column == 0).sum()) < minimum
            return np.full(len(self.known), -1, np.int8) if few else column
        by_concept = {self._concepts[label]: i for i, label in enumerate(self.known)}
        if name in by_concept:
            column = np.zeros(len(self.known), np.int8)
            column[by_concept[name]] = 1
            return column
        # A part: true where all its features are, false where one is missing, its own class above all.
        below = [features.index(child) for child in self.ontology[name].children if child in features]
        part = table[:, below]
        column = np.where((part == 1).all(1), 1, np.where((part == 0).any(1), 0, -1)).astype(np.int8)
        owner = next(c for c in self.recipe.classes if name in self.ontology[self._concepts[c]].children)
        column[self.known.index(owner)] = 1
        return column

    def shape(self, name: str) -> NodeShape:
        """The net of a member of the cut."""
        recipe = self.recipe
        if name in self.library.features:
            return self._of_scale(self._scale(name), self.hidden)
        below = [self.library.features[f] for f in self.ontology.names if f in self.library.features]
        is_class = name in {self._concepts[label] for label in recipe.classes}
        scale = 1.0 if is_class else max(
            [self.library.features[c].scale for c in self.ontology[name].children] or [f.scale for f in below]
        )  # fmt: skip
        if recipe.in_all is not None:
            return upper_shape(scale, recipe.in_all / len(self.truth), recipe.pooling)
        target = self.leaf_parameters() / max(1, len(self.cut.concepts))
        widths = [(w, w + w // 2) for w in range(4, 257, 4)]
        return min(
            (NodeShape(scale, w, recipe.pooling, capped=False) for w in widths),
            key=lambda s: abs(s.parameters - target),
        )

    def _scale(self, name: str) -> float:
        """What a member of the cut may see; more where a concept of the leaves has no feature (a bare class)."""
        return self.library.features[name].scale if name in self.library.features else 1.0

    def leaf_parameters(self) -> int:
        """Trained numbers of the leaf cut: what every other cut is given as well."""
        recipe = self.recipe
        features, table = self.library.table(self.known)
        own = [self.known.index(name) for name in recipe.classes]
        used = [f for f, column in zip(features, table.T, strict=True)
                if (column[own] == 1).any() and {0, 1} <= set(self._truth(f).tolist())]  # fmt: skip
        return sum(self._of_scale(self._scale(name), self.hidden).parameters for name in used)

    def trained_parameters(self) -> int:
        """Trained numbers of the members of this cut, those that may be left out afterwards included."""
        return sum(self.shape(name).parameters for name in self.truth) if self.cut.nets else 0

    def _leaves_with(self, hidden: tuple[int, int]) -> int | None:
        """Trained numbers of the leaves of this cut with these channels; None where one would be too large."""
        scales = Counter(self.library.features[name].scale for name in self.truth if name in self.library.features)
        each = {scale: self._of_scale(scale, hidden, capped=False).parameters for scale in scales}
        return sum(n * each[scale] for scale, n in scales.items()) if max(each.values()) <= MAX_PARAMS else None

    def _of_scale(self, scale: float, hidden: tuple[int, int], capped: bool = True) -> NodeShape:
        """The net of a feature: those of one cell, mostly colours, need and get half the channels."""
        first, second = hidden
        if scale == min(SCALES):
            first, second = max(1, first // 2), max(1, second // 2)
        return NodeShape(scale, (first, second), self.recipe.pooling, capped)

    def jobs(self) -> list[Job]:
        """The plan."""
        photographs = {"photographs": self.images.data_hash, "classes": list(self.known)}
        data = {**photographs, "seed": self.recipe.seed}
        if self.is_root:
            width, last = self._monolith_channels()
            monolith = Job(
                "monolith", {**data, "own": list(self.recipe.classes), "width": width, "last": last,
                             "code": code_hash("vision.monolith")},
                self.run_monolith, kind="net", place="monolith",
            )  # fmt: skip
            return [monolith, self._model_job(("monolith",))]
        bank = Job(
            "primitives", {**photographs, "code": code_hash("vision.bank", "vision.bank_kernel")}, self.run_primitives,
            kind="data", place=None, reserve_seconds=10 + 0.002 * len(self.rows),
        )  # fmt: skip
        # One object: the engine wants all members of a group to share it.
        run_nodes = self.run_nodes if self.cut.nets else self.run_plain
        code = code_hash(*(NODE_CODE if self.cut.nets else _PLAIN_CODE))
        rows = sha256_json([self.learn.tolist(), self.calibrated.tolist()])
        data_of_nodes = {**data, "rows": rows, "code": code}
        nodes = [
            Job(f"node-{name}", {**data_of_nodes, "spec": self._spec(name)}, run_nodes, ("primitives",),
                kind="net" if self.cut.nets else "plain", place=f"nodes/{name}", group="nodes")
            for name in self.truth
        ]  # fmt: skip
        rules = Job(
            "rules",
            {**data, "own": list(self.recipe.classes), "concepts": list(self.truth), "mode": self.recipe.mode,
             "max_terms": self.recipe.max_terms, "code": code_hash("vision.rules", "vision.build")},
            self.run_rules, ("primitives", *(job.name for job in nodes)), reserve_seconds=self._rules_reserve,
        )  # fmt: skip
        return [bank, *nodes, rules, self._model_job(("rules",))]

    def _rules_reserve(self, took: Mapping[str, float]) -> float:
        """Seconds: the nodes look at a fifth of the photographs once; the primitives have looked at all."""
        return 3 + 0.2 * took.get("primitives", 10 + 0.002 * len(self.rows))

    def _spec(self, name: str) -> dict[str, Any]:
        if not self.cut.nets:
            return {"name": name, "truth": self.truth[name].tolist(), "scale": self._scale(name),
                    "question": self.ontology[name].question}  # fmt: skip
        shape = self.shape(name)
        return {"name": name, "truth": self.truth[name].tolist(), "scale": shape.scale, "hidden": list(shape.hidden),
                "pooling": shape.pooling, "favoured": [self.known[c] for c in self.favoured]}  # fmt: skip

    def _model_job(self, depends: tuple[str, ...]) -> Job:
        parts = {"config": self._config(), "library": sha256_json(library_dict(self.library)),
                 "code": code_hash("vision.build")}  # fmt: skip
        return Job("model", parts, self.run_model, depends, kind="data", reserve_seconds=1)

    def _config(self) -> dict[str, Any]:
        recipe = self.recipe
        return {
            "format": FORMAT, "cut": "root" if self.is_root else self.cut.spec, "classes": list(recipe.classes),
            "seed": recipe.seed, "mode": recipe.mode, "max_terms": recipe.max_terms, "others": recipe.others,
            "shared": recipe.shared,
            "size": self.images.size, "pooling": recipe.pooling,
            "hidden": list(recipe.hidden), "trained_on": list(self.known),
            **({} if recipe.in_all is None else {"in_all": recipe.in_all}),
            "photographs": {"name": self.images.name, "hash": self.images.data_hash, "used": len(self.rows),
                            "skipped": len(self.images.skipped)},
        }  # fmt: skip

    # The jobs, in order.

    def run_primitives(self, context: JobContext) -> None:
        """Compute the plain-code maps of all photographs once."""
        out = np.memmap(
            context.folder / "primitives.u8", np.uint8, "w+", shape=(len(self.rows), len(CHANNELS), GRID, GRID)
        )
        with context.progress.task("primitives", total=float(len(self.rows)), unit="photographs") as task:
            for begin in range(0, len(self.rows), 500):
                part = self.rows[begin : begin + 500]
                out[begin : begin + 500] = primitives(self.images.pixels[part])
                task.advance(len(part))
        out.flush()

    def _primitives(self, context: JobContext) -> npt.NDArray[np.uint8]:
        path = context.inputs["primitives"] / "primitives.u8"
        return np.memmap(path, np.uint8, "r", shape=(len(self.rows), len(CHANNELS), GRID, GRID))

    def run_nodes(self, context: JobContext) -> None:
        """Train the nodes that are still to be done, then calibrate each on photographs it did not see."""
        import torch

        torch.set_num_threads(threads())
        maps = self._primitives(context)
        names = [name.removeprefix("node-") for name in context.members]
        plans = [NodePlan(name, self.shape(name), self.truth[name]) for name in names]
        trainer = NodeTrainer(plans, maps, self.labels, self.learn, seed=self.recipe.seed, own=self.favoured)
        train(trainer, context)
        nodes = trainer.finish()
        table = np.stack([plan.truth for plan in plans], axis=1)
        rows = self.calibrated
        good, bad = calibrated(nodes, table, NodeBank(nodes).pooled(maps[rows]), self.labels[rows])
        self._keep(context, good, bad)

    def run_plain(self, context: JobContext) -> None:
        """Write each concept as plain code over the primitives, then calibrate it as a net would be."""
        maps = self._primitives(context)
        names = [name.removeprefix("node-") for name in context.members]
        table = np.stack([self.truth[name] for name in names], axis=1)
        questions = {name: self.ontology[name].question for name in names}
        with context.progress.task("plain code"):
            read, shapes = readings(maps, self.learn), [PlainShape(self._scale(name)) for name in names]
            nodes = fit_plain(names, shapes, table, read, self.labels[self.learn], questions)
            pooled = NodeBank(nodes).pooled(maps[self.calibrated])
        good, bad = calibrated(nodes, table, pooled, self.labels[self.calibrated])
        self._keep(context, good, bad)

    def _keep(self, context: JobContext, good: Sequence[AnyNode], bad: Sequence[AnyNode]) -> None:
        """Save nodes that answer their question; say which do not."""
        for node in good:
            about = {"classes": list(self.known), "truth": self.truth[node.name].tolist()}
            node.save(context.members[f"node-{node.name}"].folder, about)
        for node in bad:
            context.progress.note(f"{node.name}: answers the opposite of its question; left out")
            write_json(context.members[f"node-{node.name}"].folder / "rejected.json", {"why": "negative polarity"})

    def run_rules(self, context: JobContext) -> None:
        """Score the held-out photographs, fit the rules on them, keep those of the own classes as evidence."""
        folders = {name: context.inputs[f"node-{name}"] for name in self.truth}
        names = [name for name, folder in folders.items() if (folder / "node.json").exists()]
        if not names:
            raise ConstructibleError("no node answers its own question.", fix="train longer, or use more photographs")
        bank = NodeBank([load_node(folders[name]) for name in names])
        labels = self.labels[self.fitted]
        with context.progress.task("rules"):
            scores = bank.scores(self._primitives(context)[self.fitted])
            truth = np.stack([self.truth[name] for name in names], axis=1)[self.own]
            seen = harden(scores) if self.recipe.mode == "hard" else scores
            rules = fit_rules(
                seen, labels, self.own, truth, names, self.recipe.classes, max_terms=self.recipe.max_terms
            )
        rules.save(context.folder / "rules")
        self._check_replay(rules, seen, names)
        mine = np.isin(labels, self.own)
        own_labels = np.array([self.own.index(label) for label in labels[mine]], dtype=np.int64)
        context.log(accuracy_where_fitted=accuracy(rules.values(seen[mine], names), own_labels))
        rows = self.rows[self.fitted[mine]]
        pixels = np.array(self.images.pixels[rows])
        save_tensors(
            context.folder / "evidence.safetensors",
            {"pixels": pixels, "scores": scores[mine].astype(np.float32), "labels": own_labels},
        )
        write_json(context.folder / "evidence.json", {"paths": [self.images.paths[row] for row in rows]})
        features = self.library.features
        said = [
            {
                "name": name, "question": self.ontology[name].question,
                "kind": features[name].kind if name in features else "class",
                "scale": node.shape.scale, "parameters": node.shape.parameters,
                "true_of": [c for c, t in zip(self.known, self.truth[name], strict=True) if t == 1],
                "unclear_of": [c for c, t in zip(self.known, self.truth[name], strict=True) if t == -1],
            }
            for name, node in zip(names, bank.nodes, strict=True)
        ]  # fmt: skip
        write_json(
            context.folder / "concepts.json", {"concepts": said, "left_out": sorted(set(self.truth) - set(names))}
        )

    def _check_replay(self, rules: RuleSet, scores: npt.NDArray[np.float64], names: Sequence[str]) -> None:
        """Rules are what stands in the files: the first rows, one by one, give the same bits as all together."""
        together = rules.values(scores[:20], names)
        for row, values in zip(scores[:20], together, strict=True):
            said = dict(zip(names, row.tolist(), strict=True))
            if [rule.value(said) for rule in rules.rules] != values.tolist():
                raise ConstructibleError("a rule does not replay bit for bit.", fix="report this")

    def run_monolith(self, context: JobContext) -> None:
        """Train one network on the same photographs."""
        import torch

        torch.set_num_threads(threads())
        width, last = self._monolith_channels()
        pixels = RowsOf(self.images.pixels, self.rows)
        trainer = MonolithTrainer(
            pixels, self.labels, np.arange(len(self.rows)), self.own, width=width, last=last, seed=self.recipe.seed  # type: ignore[arg-type]
        )  # fmt: skip
        train(trainer, context)
        trainer.finish(self.recipe.classes).save(context.folder)

    def _monolith_channels(self) -> tuple[int, int | None]:
        """Width of the monolith, and its last stage where that is not four times as wide."""
        if self.recipe.in_all is not None:
            return channels_for(self.recipe.in_all, len(self.own))
        return width_for(self.recipe.parameters or self.leaf_parameters()), None

    def run_model(self, context: JobContext) -> None:
        """Write what makes the folder a model: configuration, ontology, and a page about it."""
        write_json(context.folder / "config.json", self._config())
        if self.images.fingerprints:
            used = sorted(self.images.fingerprints[row] for row in self.rows)
            write_json(context.folder / TRAINING_FILES, {"files": used, "corpus": self.images.data_hash})
        write_text(
            context.folder / "ontology.yaml", yaml.safe_dump(library_dict(self.library), sort_keys=False, width=110)
        )
        kept = 0 if self.is_root else len(read_json(context.inputs["rules"] / "concepts.json")["concepts"])
        write_text(context.folder / "README.md", _readme(self._config(), kept))


def plan_of(config: Mapping[str, Any], images: ImageSet, library: Library) -> Plan:
    """The plan that a model was built by, from its configuration.

    Raises:
        ConstructibleError: the photographs are not those it was built from.
    """
    if images.data_hash != config["photographs"]["hash"]:
        raise ConstructibleError(
            f"{images.name}: not the photographs that the model was built from.", fix="give the same data and --limit"
        )
    recipe = Recipe(
        classes=tuple(config["classes"]), cut=config["cut"], seed=config["seed"], hidden=tuple(config["hidden"]),
        pooling=config["pooling"], mode=config["mode"], max_terms=config["max_terms"], others=config["others"],
        shared=config.get("shared", False), in_all=config.get("in_all"),
    )  # fmt: skip
    return Plan(images, library, recipe)


def library_dict(library: Library) -> dict[str, Any]:
    """A library as its file says it, what it extends included."""
    features = [f.model_dump(mode="json", exclude_defaults=True) for f in library.features.values()]
    classes = [c.model_dump(mode="json", exclude_defaults=True) for c in library.classes.values()]
    return {"name": library.name, "version": library.version, "features": features, "classes": classes}


def _readme(config: dict[str, Any], n_nodes: int) -> str:
    photographs = config["photographs"]
    root = config["cut"] == "root"
    kind = "monolithic baseline" if root else f"constructed image recogniser, cut `{config['cut']}`, {n_nodes} nodes"
    files = (
        "- `monolith/`: the network." if root else
        "- `rules/`: one readable rule per class. `nodes/`: one folder per concept. `concepts.json`: their questions.\n"
        "- `evidence.safetensors`: the held-out photographs that the rules were fitted on (your data: share with care)."
    )  # fmt: skip
    return f"""# A {kind}

Tells apart: {", ".join(config["classes"])}. Built from `{photographs["name"]}` ({photographs["used"]} photographs,
{photographs["skipped"]} left out), {config["size"]} pixels, seed {config["seed"]}.

{files}
- `ontology.yaml`: concepts and classes. `training_files.json`: fingerprints of the photographs it was built from.
- `config.json`, `environment.json`, `ledger.json`, `metrics.jsonl`: how and where it was built, seconds by job.

    constructible vision score DIR DATA
    constructible vision predict DIR photo.jpg --explain --html explained.html
"""
