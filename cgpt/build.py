"""Builds a model folder: the plan of jobs from raw files to the last artefact.

    tokenizer -> tokens -> index
                        -> nets  -> mixer -> model          (constructed, any cut)
                        -> monolith -> model                (root cut)

Each job's files are kept in the engine's store under a key of all that they depend on, so that a killed build resumes
and what did not change is not done again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cgpt import fit_mixer, lexer, specialists
from cgpt.corpus import Corpus, SourceFile
from cgpt.data import TokenizedCorpus, choose_files, held_out_files, training_rows
from cgpt.index import CorpusIndex
from cgpt.model import FORMAT, HERE, net_of_concept
from cgpt.nets import Examples, Nets, NetShape, NetTrainer, declared_reads
from cgpt.reads import Alphabet
from cgpt.tokenizer import Tokenizer
from ontology.environment import Ledger, threads
from ontology.errors import ConstructibleError
from ontology.fit import Budget, Fitted, Job, JobContext, fit, train
from ontology.graph import Cut, cut, problems, reads_under
from ontology.io import sha256_file, sha256_json, write_bytes, write_json, write_text
from ontology.progress import Progress
from ontology.routers import Router
from ontology.schema import Ontology
from ontology.store import Store, code_hash

MIN_NET_TOKENS, MAX_NET_TOKENS = 500_000, 30_000_000
NET_ROWS_PER_SECOND = 12_000
"""Decides only how many positions are made ready. Two cores train on more (18,500 to 42,000 were measured), but more
files cost time to read and whole builds did not gain (docs/experiments/tried.md)."""
SMALL_CORPUS_BYTES = 16_000_000
TRAINING_FILES = "training_files.json"
"""Fingerprints of the files a model was built from: whoever scores it can see whether it knows a test file."""
_LEXER_CODE = ("cgpt.lexer", "cgpt.lexer_bytes", "cgpt.lexer_state", "cgpt.lexer_tokens", "cgpt.lexer_tables")
_DATA_CODE = ("cgpt.tokenizer", "cgpt.pieces", *_LEXER_CODE)
READS_CODE = (*_DATA_CODE, "cgpt.data", "cgpt.reads", "cgpt.names", "cgpt.counts")
NET_CODE = ("cgpt.nets", "cgpt.pointers", "cgpt.specialists", *READS_CODE, "kernels")
_MIXER_CODE = ("cgpt.mixer", "cgpt.descent", "cgpt.dynamic", "cgpt.caches", "cgpt.model", "cgpt.index", *READS_CODE)


@dataclass(frozen=True)
class Kept:
    """Parts of a finished model that a build takes over instead of making them; see `cgpt.forget`.

    Attributes:
        tokenizer: its tokenizer.json.
        nets: its nets.safetensors; None trains new ones.
        seen_by_nets: marks (`mark_of`) of the files that those nets learned from.
        held_out: marks of the files that the mixer is to learn from; None chooses them anew.
    """

    tokenizer: Path
    nets: Path | None = None
    seen_by_nets: tuple[str, ...] = ()
    held_out: tuple[str, ...] | None = None

    def checksums(self) -> dict[str, str]:
        """SHA-256 of the parts."""
        parts = {"tokenizer": self.tokenizer} | ({"nets": self.nets} if self.nets else {})
        return {name: sha256_file(path) for name, path in parts.items()}


def net_tokens(budget: Budget, shape: NetShape) -> int:
    """Tokens of which files are chosen for the nets, within bounds: twice what they look at in a budget of steps, twice
    `NET_ROWS_PER_SECOND` for each second of one of minutes.

    More would only take time from training, or memory; a larger corpus gives a random part of its files.
    """
    rows = (budget.steps or 0) * shape.batch_rows
    if budget.seconds is not None:
        rows = int(budget.seconds * NET_ROWS_PER_SECOND)
    return min(MAX_NET_TOKENS, max(MIN_NET_TOKENS, 2 * rows))


def mark_of(file: SourceFile) -> str:
    """16 hex digits that stand for the exact bytes of a file in `seen_by_nets.json` and `held_out.json`."""
    return file.sha256[:16]


@dataclass(frozen=True)
class Recipe:
    """Everything that decides a build but its corpus and budget.

    Attributes:
        cut: `root`, a depth, names, `leaves` or `plain`; see ontology.graph.
        vocab_size: tokens; None takes 4096 below 16 MB of text and 8192 above.
        specialists: at most so many are grown; see cgpt.specialists.
        parameters: about how many trained numbers the monolith has (root cut only).
        ontology, router: files to use instead of the Python ontology that comes with the package.
        kept: parts of another model to take over.
    """

    cut: str = "leaves"
    seed: int = 0
    vocab_size: int | None = None
    shape: NetShape = NetShape()
    specialists: int = specialists.MAX_SPECIALISTS
    parameters: int = 3_000_000
    ontology: Path = HERE / "ontology.yaml"
    router: Path = HERE / "router.py"
    kept: Kept | None = None


def build(
    corpus: Corpus,
    out: str | Path,
    budget: Budget,
    recipe: Recipe | None = None,
    *,
    store: Store | None = None,
    progress: Progress | None = None,
    ledger: Ledger | None = None,
) -> Fitted:
    """Build a model of `corpus` into the folder `out`; the same call again resumes.

    Raises:
        ConstructibleError: ontology, router or cut do not fit together, or a folder cannot be written.
    """
    recipe = recipe or Recipe()
    plan = _Plan(corpus, recipe, budget)
    return fit(plan.jobs(), out, store, budget, progress, ledger)


class _Plan:
    """The jobs of one build and what they share."""

    def __init__(self, corpus: Corpus, recipe: Recipe, budget: Budget) -> None:
        self.corpus, self.recipe, self.budget = corpus, recipe, budget
        self.ontology = Ontology.load(recipe.ontology)
        if found := problems(self.ontology):
            raise found[0]
        self.router = Router.load(recipe.router, lexer.FIELDS)
        unknown = [name for name in self.router.concepts if name not in self.ontology]
        if unknown:
            raise ConstructibleError(
                f"the router returns {unknown[0]!r}, which is no concept.",
                fix="add it to the ontology", file=recipe.router,
            )  # fmt: skip
        self.cut = cut(self.ontology, recipe.cut)
        small = corpus.total_bytes < SMALL_CORPUS_BYTES
        self.vocab_size = recipe.vocab_size or (4096 if small else 8192)
        self.size_mb = corpus.total_bytes / 1e6

    def jobs(self) -> list[Job]:
        """The plan; seconds kept back for later jobs grow with the corpus."""
        data: dict[str, Any] = {"corpus": self.corpus.data_hash}
        if self.recipe.kept is not None:
            kept = self.recipe.kept
            data["kept"] = [kept.checksums(), kept.seen_by_nets, kept.held_out]
        jobs = [
            Job("tokenizer", {**data, "vocab": self.vocab_size, "code": code_hash(*_DATA_CODE)}, self.run_tokenizer,
                kind="data", reserve_seconds=5 + 0.3 * min(self.size_mb, 12)),
            Job("tokens", {**data, "code": code_hash("cgpt.data")}, self.run_tokens, ("tokenizer",), kind="data",
                place=None, reserve_seconds=2 + 0.1 * self.size_mb),
        ]  # fmt: skip
        if self.cut.spec == "root":
            return [*jobs, self._monolith_job(), self._model_job(("tokenizer", "monolith"))]
        index = Job(
            "index", {"code": code_hash("cgpt.index")}, self.run_index, ("tokenizer", "tokens"),
            reserve_seconds=3 + 0.15 * self.size_mb,
        )  # fmt: skip
        spec = self._net_spec() if self.cut.nets else {}
        mixer = Job(
            "mixer",
            {"code": code_hash("cgpt.fit_mixer", *_MIXER_CODE),
             "router": sha256_file(self.recipe.router), "owner": self._owner()},
            self.run_mixer, ("tokenizer", "tokens", "index", *(("nets",) if self.cut.nets else ())),
            reserve_seconds=self._mixer_reserve,
        )  # fmt: skip
        jobs.append(index)
        if self.cut.nets:
            own = self.recipe.kept is None or self.recipe.kept.nets is None
            jobs.append(
                Job("nets", {"spec": spec, "code": code_hash(*NET_CODE)},
                    self.run_nets if own else self.run_kept_nets, ("tokenizer", "tokens"),
                    kind="net" if own else "table", modules=len(self.cut.concepts))
            )  # fmt: skip
        return [*jobs, mixer, self._model_job(tuple(job.name for job in [*jobs, mixer] if job.name != "tokens"))]

    def _mixer_reserve(self, took: Mapping[str, float]) -> float:
        """Seconds: contexts are counted again, of fewer files, which is the shorter part of what the index took."""
        return 4 + min(10.0, 1.5 * self.size_mb) + 0.6 * took.get("index", 0.2 * self.size_mb)

    def _owner(self) -> dict[str, str]:
        """The member of the cut that answers each situation."""
        return dict(self.cut.owner) if self.cut.nets else {}

    def _net_spec(self) -> dict[str, Any]:
        return {
            "concepts": list(self.cut.concepts),
            "reads": [list(reads_under(self.ontology, name)) for name in self.cut.concepts],
            "shape": asdict(self.recipe.shape), "seed": self.recipe.seed, "router": sha256_file(self.recipe.router),
            "owner": self._owner(), "max_tokens": net_tokens(self.budget, self.recipe.shape),
            "specialists": self.recipe.specialists,
        }  # fmt: skip

    def _monolith_job(self) -> Job:
        code = code_hash("cgpt.baseline", "cgpt.transformer", "cgpt.output_loss", "kernels")
        spec = {"parameters": self.recipe.parameters, "seed": self.recipe.seed, "code": code}
        return Job("monolith", spec, self.run_monolith, ("tokenizer", "tokens"), kind="net", place="transformer")

    def _model_job(self, depends: Sequence[str]) -> Job:
        texts = [path.read_text(encoding="utf-8") for path in (self.recipe.ontology, self.recipe.router)]
        parts = {"ontology": sha256_json(texts), "config": self._config(), "code": code_hash("cgpt.build")}
        return Job("model", parts, self.run_model, tuple(depends), kind="data", reserve_seconds=1)

    def _config(self) -> dict[str, Any]:
        return {
            "format": FORMAT, "cut": self.cut.spec, "nets": self.cut.nets and self.cut.spec != "root",
            "owner": self._owner() if self.cut.spec != "root" else {}, "vocab_size": self.vocab_size,
            "specialists": self.recipe.specialists,
            "seed": self.recipe.seed, "shape": asdict(self.recipe.shape), "budget": asdict(self.budget),
            "kept": self.recipe.kept.checksums() if self.recipe.kept else {},
            "corpus": {
                "name": Path(self.corpus.name).resolve().name, "hash": self.corpus.data_hash,
                "files": len(self.corpus.files), "bytes": self.corpus.total_bytes, "skipped": len(self.corpus.skipped),
            },
        }  # fmt: skip

    # The jobs, in order.

    def run_tokenizer(self, context: JobContext) -> None:
        """Train the alphabet on the corpus, or take one over."""
        if self.recipe.kept is not None:
            write_bytes(context.folder / "tokenizer.json", self.recipe.kept.tokenizer.read_bytes())
            return
        with context.progress.task("tokenizer"):
            Tokenizer.train([file.data for file in self.corpus.files], self.vocab_size).save(context.folder)

    def run_tokens(self, context: JobContext) -> None:
        """Encode every file; choose the files that the mixer learns from."""
        tokenizer = Tokenizer.load(context.inputs["tokenizer"])
        with context.progress.task("tokens"):
            ids, offsets = tokenizer.encode_many([file.data for file in self.corpus.files])
        kept = self.recipe.kept
        if kept is not None and kept.held_out is not None:
            held_out = np.array([mark_of(file) in kept.held_out for file in self.corpus.files])
        else:
            held_out = held_out_files(self.corpus.files)
        TokenizedCorpus(ids, offsets, held_out).save(context.folder / "tokens.safetensors")
        rows = [[file.path, file.project, file.licence] for file in self.corpus.files]
        write_json(context.folder / "sources.json", {"columns": ["path", "project", "licence"], "files": rows})

    def run_index(self, context: JobContext) -> None:
        """Sort the contexts of all files, those included that the mixer learns from."""
        corpus, size = self._tokens(context), self._alphabet_size(context)
        with context.progress.task("index"):
            index = CorpusIndex.build(corpus.joined(np.ones(corpus.n_files, dtype=np.bool_)), size)
            index.save(context.folder / "index.safetensors")
        write_text(context.folder / "sources.json", (context.inputs["tokens"] / "sources.json").read_text("utf-8"))

    def run_nets(self, context: JobContext) -> None:
        """Train the networks of the cut together, on files that are not held out."""
        import torch

        torch.set_num_threads(threads())
        corpus = self._tokens(context)
        alphabet = Alphabet.of(Tokenizer.load(context.inputs["tokenizer"]))
        keep = ~corpus.held_out if not corpus.held_out.all() else np.ones(corpus.n_files, dtype=np.bool_)
        files = choose_files(corpus, keep, net_tokens(self.budget, self.recipe.shape), self.recipe.seed)
        with context.progress.task("reads"):
            reads, concept, targets = training_rows(corpus, files, alphabet, self.router)
        owner, members = self.cut.owner, list(self.cut.concepts)
        net_of = np.array([members.index(owner[name]) for name in self.router.concepts], dtype=np.int16)
        spec = self._net_spec()
        examples, declared = Examples(reads, net_of[concept], targets), declared_reads(spec["reads"])
        size = self._alphabet_size(context)
        split = specialists.grow(examples, declared, size, most=self.recipe.specialists)
        trainer = NetTrainer(members, declared, examples, size, self.recipe.shape, self.recipe.seed, split)
        self._check_sizes(trainer.finish())  # before any time is spent on training
        # Looking what specialists earn takes time with the held-out tokens, of which there is a most.
        train(trainer, context, keep_seconds=min(12.0, 2.0 + 0.8 * self.size_mb) if len(split.net) else 0.0)
        nets = trainer.finish()
        if len(split.net) and corpus.held_out.any():
            with context.progress.task("specialists"):
                nets = self._keep_what_earns(context, corpus, alphabet, nets, split, net_of)
        nets.save(context.folder / "nets.safetensors")
        write_json(
            context.folder / "seen_by_nets.json", {"files": sorted(mark_of(self.corpus.files[i]) for i in files)}
        )

    def _keep_what_earns(
        self, context: JobContext, corpus: TokenizedCorpus, alphabet: Alphabet, nets: Nets, split: specialists.Split,
        net_of: np.ndarray,
    ) -> Nets:  # fmt: skip
        """Take out the specialists that earn nothing on the held-out files; write what the others earn."""
        reads, concept, targets = training_rows(corpus, corpus.mixer_files(), alphabet, self.router)
        earned = specialists.earnings(nets, net_of[concept].astype(np.int64), reads, targets)
        tried = len(split.net)
        nets, split, earned = specialists.prune(nets, split, earned)
        path = context.folder / "specialists.json"
        specialists.write_report(path, nets.concepts, split, earned, tried, len(targets), alphabet)
        return nets

    def run_kept_nets(self, context: JobContext) -> None:
        """Take over finished nets and the list of what they learned from."""
        kept = self.recipe.kept
        assert kept is not None and kept.nets is not None
        write_bytes(context.folder / "nets.safetensors", kept.nets.read_bytes())
        write_json(context.folder / "seen_by_nets.json", {"files": sorted(kept.seen_by_nets)})

    def _check_sizes(self, nets: Nets) -> None:
        for m, name in enumerate(nets.concepts):
            limit = self.ontology[name].max_params
            if limit is not None and nets.own_parameters(m) > limit:
                raise ConstructibleError(
                    f"the net of {name!r} has {nets.own_parameters(m)} parameters, over its max_params {limit}.",
                    fix="declare fewer reads, use a smaller shape, or raise max_params", file=self.recipe.ontology,
                    line=self.ontology.line(name),
                )  # fmt: skip

    def run_mixer(self, context: JobContext) -> None:
        """Learn on held-out files how far each expert is to be believed."""
        says = None
        if self.cut.nets:
            nets = Nets.load(context.inputs["nets"] / "nets.safetensors")
            says = fit_mixer.nets_say(nets, net_of_concept(tuple(self.router.concepts), nets, self._owner()))
        alphabet = Alphabet.of(Tokenizer.load(context.inputs["tokenizer"]))
        corpus = self._tokens(context)
        with context.progress.task("mixer"):
            places = [(file.path, file.project) for file in self.corpus.files]
            index = CorpusIndex.load(context.inputs["index"] / "index.safetensors")
            fitted = fit_mixer.fit_mixing(corpus, index, alphabet, self.router, says, places)
        fitted.save(context.folder)
        held_out = sorted(mark_of(self.corpus.files[i]) for i in np.flatnonzero(corpus.held_out))
        write_json(context.folder / "held_out.json", {"files": held_out})

    def run_monolith(self, context: JobContext) -> None:
        """Train one transformer on the same tokens."""
        from cgpt.baseline import BaselineConfig, BaselineTrainer

        corpus = self._tokens(context)
        config = BaselineConfig.of_size(self.recipe.parameters, self._alphabet_size(context), seed=self.recipe.seed)
        trainer = BaselineTrainer(config, np.array(corpus.ids), np.array(corpus.offsets), threads=threads())
        train(trainer, context)
        trainer.model().save(context.folder)

    def run_model(self, context: JobContext) -> None:
        """Write what makes the folder a model: configuration, ontology, router, and a page about it."""
        write_text(context.folder / "ontology.yaml", self.recipe.ontology.read_text(encoding="utf-8"))
        write_text(context.folder / "router.py", self.recipe.router.read_text(encoding="utf-8"))
        if "nets" in context.inputs:  # they may be of an earlier build, with other limits
            self._check_sizes(Nets.load(context.inputs["nets"] / "nets.safetensors"))
        config = self._config() | {"vocab_size": self._alphabet_size(context)}
        write_text(context.folder / "README.md", _readme(config, self.cut))
        fingerprints = sorted({file.fingerprint for file in self.corpus.files})
        write_json(context.folder / TRAINING_FILES, {"files": fingerprints, "corpus": self.corpus.data_hash})
        write_json(context.folder / "config.json", config)

    def _alphabet_size(self, context: JobContext) -> int:
        """Tokens that there are: a small corpus has fewer pieces than were asked for."""
        return Tokenizer.load(context.inputs["tokenizer"]).vocab_size

    def _tokens(self, context: JobContext) -> TokenizedCorpus:
        return TokenizedCorpus.load(context.inputs["tokens"] / "tokens.safetensors")


def _readme(config: dict[str, Any], cut: Cut) -> str:
    corpus = config["corpus"]
    kind = "monolithic baseline" if config["cut"] == "root" else f"constructed code model, cut `{config['cut']}`"
    nets = f"{len(cut.concepts)} nets: {', '.join(cut.concepts)}" if config["nets"] else "no nets of its own"
    kept = ", ".join(config["kept"])
    from_before = f"\nTaken over from a model that was built from more files: {kept}.\n" if kept else ""
    return f"""# A {kind}

Built from `{corpus["name"]}` ({corpus["files"]} files, {corpus["bytes"]:,} bytes, {corpus["skipped"]} left out),
seed {config["seed"]}, {config["vocab_size"]} tokens; {nets}.
{from_before}
- `ontology.yaml`, `router.py`: the concepts and what puts one in charge.
- `tokenizer.json`: the alphabet. `index.safetensors`, `sources.json`: the counted corpus and its files.
- `nets.safetensors`: the networks. `specialists.json`: what those split off by data earn.
- `mixer.json`, `names.json`: how sources are weighed. `dynamic.json`: how far caches of files read before are believed
  beside them (`score --setting dynamic`).
- `config.json`, `environment.json`, `ledger.json`, `metrics.jsonl`: how and where it was built, seconds by job.
- `training_files.json`: fingerprints of the corpus' files; `seen_by_nets.json`, `held_out.json`: which of them the nets
  and the mixer learned from (start of the SHA-256).

    constructible cgpt score DIR file.py
    constructible cgpt explain DIR file.py --html explained.html
    constructible cgpt complete DIR file.py
"""
