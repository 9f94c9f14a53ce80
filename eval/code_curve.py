"""Builds and measures the decomposition curve of the code track; what is done is not done again.

    root              one net, every read, nobody routes
    few situations    a net for each group of situations
    all situations    a net for each situation
    answer kinds      situations split by the kind of the answer (`eval.answer_kinds`)
    specialists       all situations, split by what the data show in one read (`cgpt.specialists`)
    plain             no nets

All cuts have the same tokens, training positions, steps (or seconds) and, within 1 %, trained numbers: the hidden
width falls as the number of nets grows. Their tables are one and the same, the mixer beside them is fitted anew for
each. Three controls stand beside: a transformer of as many numbers at the root, a random grouping of the same
situations into as many groups, and nets under a router of random questions (the mixer keeps the real situations).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from cgpt import lexer, specialists
from cgpt.baseline import Baseline, BaselineConfig, BaselineTrainer
from cgpt.build import NET_CODE, Recipe, build
from cgpt.corpus import Corpus, read_corpus, sample_by_hash
from cgpt.data import TokenizedCorpus, held_out_files, training_rows, views
from cgpt.model import HERE, ConstructedLM, load
from cgpt.nets import Examples, Nets, NetShape, NetTrainer, declared_reads
from cgpt.reads import N_READS, READS
from eval.answer_kinds import KindNets, KindTrainer, Split
from eval.controls import random_router
from eval.decomposition import FORMAT, PARAMETERS_WITHIN
from eval.identity import meaning
from eval.joined import JoinedLM, Neural, RoutedNets, Transformer, fit_joined
from eval.runner import MANY_CLUSTERS
from ontology.environment import describe, threads
from ontology.fit import Budget
from ontology.graph import cut as cut_of
from ontology.graph import reads_under
from ontology.io import make_folder, read_json, sha256_file, sha256_json, write_json
from ontology.progress import Progress
from ontology.routers import Router
from ontology.schema import Ontology
from ontology.store import Store, code_hash

CUTS = ("root", "few situations", "all situations", "answer kinds", "specialists", "plain")
CONTROLS = {"transformer": "root", "random grouping": "few situations", "random router": "all situations"}
WORDS = {
    "root": "one net with every read, unrouted", "few situations": "a net for each group of situations",
    "all situations": "a net for each situation",
    "answer kinds": "in each situation a net for the answer's kind and one for each kind", "plain": "no nets",
    "specialists": "a net for each situation, split where the data say so; those that earn nothing are taken out",
    "transformer": "a GPT with as many trained numbers",
    "random grouping": "the situations dealt out to as many groups at random, all reads of the group",
    "random router": "as many nets under random questions, every read",
}  # fmt: skip
LINES = ("neural part alone", "with tables and caches")
_SPECS = {"root": "python", "few situations": "1", "all situations": "leaves", "specialists": "leaves"}
_NET_CODE = (*NET_CODE, "cgpt.baseline", "eval.answer_kinds", "eval.controls")
# Scoring is cheap beside training: any change of what the package means scores anew, a new module included.
_SCORE_CODE = ("cgpt", "kernels", "eval.joined", "eval.answer_kinds")


@dataclass(frozen=True)
class Settings:
    """What the curve is measured on, and how long each net trains.

    Attributes:
        train, test: corpora as for `cgpt build`; a sample of so many bytes of each is taken (None: all).
        steps: of `shape.batch_rows` positions each; or `minutes` from raw files to the last training step.
        shape: of the nets at the cut of all situations; the other cuts get another hidden width.
    """

    train: str
    test: str
    out: Path
    steps: int | None = 1000
    minutes: float | None = None
    seeds: int = 3
    train_bytes: int | None = None
    test_bytes: int | None = None
    vocab_size: int | None = None
    shape: NetShape = NetShape()
    only: tuple[str, ...] = ()


@dataclass(frozen=True)
class Arrangement:
    """Which nets there are: their `names` and `reads`, which situation is answered by which (`net_of`), by whose
    questions (`router`)."""

    names: tuple[str, ...]
    reads: tuple[tuple[str, ...], ...]
    net_of: np.ndarray
    router: Router


class Prepared:
    """What all cuts share: tables, tokens, and every training position."""

    def __init__(self, settings: Settings, progress: Progress) -> None:
        self.settings, self.progress = settings, progress
        started = time.monotonic()
        self.train = _sample(settings.train, settings.train_bytes)
        self.test = _sample(settings.test, settings.test_bytes)
        folder = settings.out / "tables"
        store = Store(settings.out / ".store")
        # Steps only say that no clock stops it: nothing is trained here.
        recipe = Recipe(cut="plain", vocab_size=settings.vocab_size)
        building = time.monotonic()
        fitted = build(self.train, folder, Budget(steps=1), recipe, store=store, progress=progress)
        building = time.monotonic() - building
        opened = load(folder)
        assert isinstance(opened, ConstructedLM)
        self.plain = opened
        ids, offsets = opened.tokenizer.encode_many([file.data for file in self.train.files])
        self.tokens = TokenizedCorpus(ids, offsets, held_out_files(self.train.files))
        self.tokens_path = settings.out / "tokens.safetensors"
        self.tokens.save(self.tokens_path)
        self.files = np.flatnonzero(~self.tokens.held_out).tolist()
        self.ontology = Ontology.load(HERE / "ontology.yaml")
        self._read_positions()
        # Tables from the store count as when they were made, so that a study that goes on trains as long as before.
        self.seconds = time.monotonic() - started - building + fitted.total_seconds

    def _read_positions(self) -> None:
        total = int((np.diff(self.tokens.offsets)[self.files] + 1).sum())
        self.reads = np.zeros((total, N_READS), np.uint16)
        self.fields = np.zeros((total, len(lexer.FIELDS)), np.uint8)
        self.targets, at = np.zeros(total, np.uint16), 0
        with self.progress.task("reads"):
            for view in views(self.tokens, self.files, self.plain.alphabet):
                end = at + view.n + 1
                self.reads[at:end], self.fields[at:end] = view.reads[: view.n + 1], view.fields[: view.n + 1]
                self.targets[at:end] = view.history[1 : view.n + 2]
                at = end

    @property
    def vocab_size(self) -> int:
        """Tokens."""
        return self.plain.tokenizer.vocab_size

    @cached_property
    def situation(self) -> np.ndarray:
        """int32[N]: situation at each training position."""
        return self.plain.router.route(self.fields)

    def arrangement(self, cut: str, seed: int) -> Arrangement:
        """The nets of a cut, or of a control, that answer with every token."""
        router, concepts = self.plain.router, self.plain.router.concepts
        if cut == "random router":
            text = random_router(concepts, lexer.FIELDS, self.fields[:: max(1, len(self.fields) // 50_000)], seed)
            router = Router.parse(text, lexer.FIELDS)
            names = tuple(router.concepts)
            return Arrangement(names, (READS,) * len(names), np.arange(len(names)), router)
        found = cut_of(self.ontology, _SPECS["few situations" if cut == "random grouping" else cut])
        members, owner = list(found.concepts), found.owner
        net_of = np.array([members.index(owner[name]) for name in concepts])
        if cut == "random grouping":
            net_of = np.random.default_rng((seed, 7)).permutation(net_of)
            reads = [
                tuple({r: None for i in np.flatnonzero(net_of == m) for r in self.ontology[concepts[i]].reads})
                for m in range(len(members))
            ]
            return Arrangement(tuple(f"group {m + 1}" for m in range(len(members))), tuple(reads), net_of, router)
        return Arrangement(
            tuple(members), tuple(tuple(reads_under(self.ontology, name)) for name in members), net_of, router
        )

    @cached_property
    def split(self) -> Split:
        """The situations split by answer kind."""
        concepts = self.plain.router.concepts
        reads = [reads_under(self.ontology, name) for name in concepts]
        return Split.of(self.plain.tokenizer.kinds, concepts, reads, self.situation, self.targets)

    def trainer(self, cut: str, shape: NetShape, seed: int, few: bool = False) -> NetTrainer:
        """A fresh trainer; with `few` of a handful of positions, to see its size."""
        rows = slice(0, 1000) if few else slice(None)
        if cut == "answer kinds":
            situation, targets = self.situation[rows], self.targets[rows]
            examples, asked = self.split.examples(self.reads[rows], situation, targets)
            return KindTrainer(self.split, examples, asked, len(targets), shape, seed)
        made = self.arrangement(cut, seed)
        module = made.net_of[made.router.route(self.fields[rows])].astype(np.int16)
        examples = Examples(self.reads[rows], module, self.targets[rows])
        grown = self.grown if cut == "specialists" else None
        return NetTrainer(made.names, declared_reads(made.reads), examples, self.vocab_size, shape, seed, grown)

    @cached_property
    def grown(self) -> specialists.Split:
        """Which values of which read have a specialist."""
        made = self.arrangement("specialists", 0)
        examples = Examples(self.reads, made.net_of[self.situation].astype(np.int16), self.targets)
        return specialists.grow(examples, declared_reads(made.reads), self.vocab_size)

    def what_earns(self, nets: Nets) -> Nets:
        """Without the specialists that earn nothing on the files that the mixer learns from."""
        files, net_of = self.tokens.mixer_files(), self.arrangement("specialists", 0).net_of
        reads, concept, targets = training_rows(self.tokens, files, self.plain.alphabet, self.plain.router)
        earned = specialists.earnings(nets, net_of[concept], reads, targets)
        return specialists.prune(nets, self.grown, earned)[0]

    @cached_property
    def wanted(self) -> int:
        """Trained numbers that every cut is to have: those of all situations at the shape given."""
        return self.trainer("all situations", self.settings.shape, 0, few=True).finish().parameters

    def shape_of(self, cut: str, seed: int) -> NetShape:
        """The hidden width (and, where one unit of it is too coarse, the width of a read) for the wanted size."""
        base = self.settings.shape
        best, least = base, float("inf")
        for d_in in sorted(range(max(4, base.d_in - 6), base.d_in + 7), key=lambda d: abs(d - base.d_in)):
            # Linear in the hidden width.
            sizes = [
                self.trainer(cut, replace(base, d_in=d_in, hidden=hidden), seed, few=True).finish().parameters
                for hidden in (8, 16)
            ]
            slope = (sizes[1] - sizes[0]) / 8
            hidden = max(2, round((self.wanted - sizes[0]) / slope + 8))
            distance = abs(sizes[0] + slope * (hidden - 8) - self.wanted) / self.wanted
            if distance < least:
                best, least = replace(base, d_in=d_in, hidden=hidden), distance
            if least <= PARAMETERS_WITHIN / 3:
                break
        return best

    def positions_hash(self) -> str:
        """What the nets learn from."""
        return sha256_json([self.train.data_hash, self.vocab_size, len(self.targets)])


def _sample(spec: str, limit: int | None) -> Corpus:
    corpus = read_corpus(spec)
    return corpus if limit is None or corpus.total_bytes <= limit else sample_by_hash(corpus, limit)


def run(settings: Settings, command: str, raw_path: Path, progress: Progress | None = None) -> dict[str, Any]:
    """Build and measure what is missing, seed by seed; writes `raw_path` after every (cut, seed) and returns it.

    Raises:
        ConstructibleError: a corpus cannot be read.
    """
    progress = progress or Progress()
    make_folder(settings.out)
    shared = Prepared(settings, progress)
    raw = _start(shared, command)
    names = [cut for cut in (*CUTS, *CONTROLS) if not settings.only or cut in settings.only]
    raw["cuts"] = [cut for cut in CUTS if cut in names]
    for seed in range(settings.seeds):
        for name in names:
            cut, control = (CONTROLS[name], name) if name in CONTROLS else (name, "")
            if name == "plain":
                values = {LINES[1]: _plain(shared)}
            else:
                facts, values = _unit(shared, name, seed)
                raw["builds"].append({"cut": name, "seed": seed, **facts})
            raw["runs"] += [
                {"line": line, "cut": cut, "control": control, "seed": seed, "values": row}
                for line, row in values.items()
            ]
            write_json(raw_path, raw)
    return raw


def _start(shared: Prepared, command: str) -> dict[str, Any]:
    settings, files = shared.settings, shared.test.files
    amount = f"{settings.steps} steps" if settings.minutes is None else f"{settings.minutes:g} minutes"
    equal = (
        f"Every cut trains for {settings.steps} steps of {settings.shape.batch_rows} positions; the transformer sees "
        "as many. Equal are steps and parameters, not seconds."
        if settings.minutes is None
        else f"Every cut has {settings.minutes:g} minutes, tables and reads included, on the same machine."
    )
    corpora = [
        {"name": Path(corpus.name.split(" ")[0]).name, "hash": corpus.data_hash, "files": len(corpus.files),
         "bytes": corpus.total_bytes, "asked_bytes": limit}
        for corpus, limit in ((shared.train, settings.train_bytes), (shared.test, settings.test_bytes))
    ]  # fmt: skip
    method = [
        "Where does it cost to take one net apart? The same training positions, the same reads, the same number of "
        "trained numbers within 1 % (the hidden width falls as the number of nets grows), cut at finer and finer "
        "concepts. The neural part is scored alone, and joined with the same tables and caches through a mixer of the "
        "same form, fitted to it.",
        f"{equal} Trained on {corpora[0]['bytes']:,} bytes ({corpora[0]['files']} files) of `{corpora[0]['name']}`, "
        f"scored on {corpora[1]['bytes']:,} bytes ({corpora[1]['files']} files) of `{corpora[1]['name']}`, projects "
        "that no cut has seen. A budget this small says nothing about a larger one.",
    ]
    return {
        "format": FORMAT, "track": "code", "command": command, "environment": describe(), "budget": amount,
        "data": {"train": corpora[0], "test": corpora[1]}, "method": method,
        "metric": {"name": "bits per byte", "better": "lower", "percent": False, "digits": 4}, "unit": "files",
        "cluster_name": "projects" if len({f.project for f in files}) >= MANY_CLUSTERS else "files",
        "seed_name": "training seeds", "cuts": list(CUTS), "words": WORDS,
        # A refinement of all situations, not of answer kinds.
        "also": [["all situations", "specialists"]],
        "shape": asdict(settings.shape), "wanted_parameters": shared.wanted,
        "examples": {"names": [file.path for file in files], "clusters": [file.project for file in files],
                     "sizes": [len(file.data) for file in files]},
        "builds": [], "runs": [],
    }  # fmt: skip


def _plain(shared: Prepared) -> list[float]:
    """Bits of each file from the tables alone, whatever the seed."""
    path = shared.settings.out / "units" / "plain.json"
    key = sha256_json([shared.train.data_hash, shared.vocab_size, shared.test.data_hash, meaning(*_SCORE_CODE)])
    stored = read_json(path) if path.exists() else {}
    if stored.get("key") != key:
        with shared.progress.task("plain: score"):
            values = [round(float(shared.plain.score_file(file.data).bits.sum()), 3) for file in shared.test.files]
        stored = {"key": key, "values": values}
        write_json(make_folder(path.parent) / path.name, stored)
    return stored["values"]


def _unit(shared: Prepared, name: str, seed: int) -> tuple[dict[str, Any], dict[str, list[float]]]:
    """One cut (or control) under one seed, trained, fitted, scored and kept: (facts, bits of each file by line)."""
    settings = shared.settings
    folder = make_folder(settings.out / "units" / f"{name.replace(' ', '-')}-{seed}")
    amount = [settings.steps, settings.minutes]
    named = [sha256_file(HERE / name) for name in ("ontology.yaml", "router.py")]
    key = sha256_json([shared.positions_hash(), amount, asdict(settings.shape), code_hash(*_NET_CODE), named])
    judged = sha256_json([key, shared.test.data_hash, meaning(*_SCORE_CODE)])
    stored = read_json(folder / "result.json") if (folder / "result.json").exists() else {}
    if stored.get("key") != judged:
        trained = read_json(folder / "trained.json") if (folder / "trained.json").exists() else {}
        if trained.get("key") != key:
            trained = {"key": key, "facts": _train(shared, name, seed, folder)}
            write_json(folder / "trained.json", trained)
        neural = _open(shared, name, seed, folder)
        with shared.progress.task(f"{name} seed {seed}: mixer"):
            joined = JoinedLM(shared.plain, neural, fit_joined(shared.tokens_path, shared.plain, neural))
        values: dict[str, list[float]] = {line: [] for line in LINES}
        with shared.progress.task(f"{name} seed {seed}: score", total=float(shared.test.total_bytes)) as task:
            for file in shared.test.files:
                both, alone = joined.score_both(file.data)
                for line, score in zip(LINES, (alone, both), strict=True):
                    values[line].append(round(float(score.bits.sum()), 3))
                task.advance(len(file.data))
        stored = {"key": judged, "facts": trained["facts"], "values": values}
        write_json(folder / "result.json", stored)
    return stored["facts"], stored["values"]


def _train(shared: Prepared, name: str, seed: int, folder: Path) -> dict[str, Any]:
    settings, label = shared.settings, f"{name} seed {seed}"
    left = None if settings.minutes is None else max(1.0, 60.0 * settings.minutes - shared.seconds)
    steps, started = settings.steps if settings.minutes is None else None, time.monotonic()
    if name == "transformer":
        config = _transformer_of(shared.wanted, shared.vocab_size, seed)
        ids = np.concatenate([shared.tokens.file(i) for i in shared.files])
        offsets = np.concatenate([[0], np.cumsum(np.diff(shared.tokens.offsets)[shared.files])])
        trainer = BaselineTrainer(config, ids, offsets, threads=threads())
        if steps is not None:
            steps = max(1, round(steps * settings.shape.batch_rows / trainer.rows_per_step))
        done = _loop(trainer.set_progress, trainer.step, steps, left, label, shared.progress)
        trainer.model().save(folder / "transformer")
        return {"parameters": trainer.model().parameters, "nets": 1, "hidden": config.hidden_size, "steps": done,
                "positions": done * trainer.rows_per_step, "seconds": round(time.monotonic() - started, 1)}  # fmt: skip
    shape = shared.shape_of(name, seed)
    routed = shared.trainer(name, shape, seed)
    if left is not None:  # splitting situations is part of the cut, and of its minutes
        left = max(1.0, left - (time.monotonic() - started))
    done = _loop(routed.set_progress, routed.step, steps, left, label, shared.progress)
    nets = routed.finish()
    facts = {"parameters": nets.parameters, "nets": len(nets.concepts) + len(nets.special_net)}
    if name == "specialists":
        nets = shared.what_earns(nets)
        facts |= {"kept": len(nets.special_net), "kept_parameters": nets.parameters}
    if isinstance(routed, KindTrainer):
        KindNets(routed.split, nets).save(folder / "nets.safetensors")
    else:
        nets.save(folder / "nets.safetensors")
    off = abs(facts["parameters"] / shared.wanted - 1)
    shared.progress.note(f"{label}: {facts['nets']} nets of width {shape.hidden}, {facts['parameters']:,} parameters "
                         f"({off:.2%} off)")  # fmt: skip
    return {**facts, "hidden": shape.hidden, "d_in": shape.d_in, "steps": done, "positions": done * shape.batch_rows,
            "seconds": round(time.monotonic() - started, 1)}  # fmt: skip


def _transformer_of(parameters: int, vocab_size: int, seed: int) -> BaselineConfig:
    """The usual shape, its feed-forward width changed until the size fits."""
    config = BaselineConfig.of_size(parameters, vocab_size, seed=seed)
    unit = 3 * config.hidden_size * config.layers
    wider = config.intermediate_size + round((parameters - config.parameters) / unit)
    return replace(config, intermediate_size=max(16, wider))


def _loop(
    set_progress: Callable[[float], None], step: Callable[[int], float], steps: int | None, seconds: float | None,
    label: str, progress: Progress,
) -> int:  # fmt: skip
    """Train to the end of the budget; returns the steps made."""
    started, index = time.monotonic(), 0
    with progress.task(label, total=float(steps) if steps is not None else seconds) as task:
        while True:
            used = time.monotonic() - started
            fraction = index / steps if steps is not None else used / (seconds or 1.0)
            if fraction >= 1.0:
                return index
            set_progress(fraction)
            step(index)
            index += 1
            task.advance(1.0 if steps is not None else time.monotonic() - started - used)


def _open(shared: Prepared, name: str, seed: int, folder: Path) -> Neural:
    if name == "transformer":
        return Transformer(Baseline.load(folder / "transformer"))
    if name == "answer kinds":
        situations = np.arange(len(shared.plain.router.concepts))
        nets: Any = KindNets.load(folder / "nets.safetensors")
        return RoutedNets(nets, shared.plain.router, situations)
    made = shared.arrangement(name, seed)
    return RoutedNets(Nets.load(folder / "nets.safetensors"), made.router, made.net_of)
