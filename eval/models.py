"""The models that can be measured, behind one interface: ours at any cut, and Hugging Face models.

A model is named `[NAME=][KIND:]FOLDER`. KIND is a way to open a folder of ours (`nets-only`, `shuffled-router`);
without one the folder says what it is. A FOLDER that holds `{seed}` stands for one folder per training seed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cgpt.corpus import SourceFile
from cgpt.mixer import NET
from cgpt.model import FORMAT, ConstructedLM, MonolithLM, load
from cgpt.score import FileScore
from eval.budgets import Budget, measured_budget
from ontology.errors import ConstructibleError, UsageError
from ontology.io import read_json, sha256_file, sha256_json
from ontology.registry import Registry

if TYPE_CHECKING:
    from cgpt.dynamic import DynamicLM, DynamicMonolith

KINDS = Registry(
    "kind of model",
    group="constructible.models",
    entries={
        "classifier": "eval.vision_models:open_classifier",
        "hugging-face": "eval.hugging_face:open_hugging_face",
        "images": "eval.vision_models:open_ours",
        "nets-only": "eval.models:open_nets_only",
        "shuffled-router": "eval.controls:open_shuffled_router",
    },
)
_WRITTEN_LATER = frozenset({"metrics.jsonl", "environment.json", "ledger.json", "fit.json", "README.md", ".lock"})
"""Files of a model folder that say how it was made, not what it computes."""
RANDOM_MARK = "Random questions, seed"
"""What a router that `eval.controls.random_router` wrote says of itself."""


@dataclass(frozen=True)
class Spec:
    """A model as named on the command line: `name` in tables, `kind` or "", `folder`, and its training `seed`."""

    name: str
    kind: str
    folder: Path
    seed: int | None = None


class EvalModel:
    """What tasks need of a model.

    Attributes:
        name: in tables.
        folder: where it lies.
        control: what is random about it; "" for a model that is meant.
        abilities: of "score", "complete", "distribution", "explain", "nets", "dynamic", "classify", "replay-images",
            "imitate".
        concepts: names that `FileScore.concept` counts through.
    """

    name: str
    folder: Path
    seed: int | None = None
    kind: str = ""
    control: str = ""
    abilities: frozenset[str] = frozenset()
    concepts: tuple[str, ...] = ()

    def score_file(self, file: SourceFile) -> FileScore:
        """Bits of every token of a file and of its end, each from what stands to its left."""
        raise NotImplementedError

    def complete(self, prompt: bytes, max_tokens: int, stop: bytes = b"", whole: bool = False) -> bytes:
        """Greedy completion, cut before the first `stop` where one is given; `whole` says that a word at the prompt's
        end is over, so that the first token cannot carry it on."""
        raise NotImplementedError

    def opaque_parameters(self, score: FileScore) -> np.ndarray:
        """float64[n + 1]: trained numbers that acted on each decision of a scored file."""
        raise NotImplementedError

    @property
    def parameters(self) -> int:
        """Trained numbers in nets."""
        raise NotImplementedError

    @property
    def table_entries(self) -> int:
        """Entries of tables, never mixed into `parameters`."""
        return 0

    @cached_property
    def fingerprint(self) -> str:
        """Hash of what decides the model's answers: its kind and the files of its folder."""
        files = {
            path.relative_to(self.folder).as_posix(): sha256_file(path)
            for path in sorted(self.folder.rglob("*"))
            if path.is_file()
            and path.name not in _WRITTEN_LATER
            and not any(part.startswith(".") for part in path.relative_to(self.folder).parts)
        }
        return sha256_json([self.kind, files])

    @cached_property
    def budget(self) -> Budget:
        """What the model cost, as measured."""
        return measured_budget(self.folder, self.parameters, self.table_entries)

    @cached_property
    def training_files(self) -> frozenset[str] | None:
        """Fingerprints of the files it was trained on; None where they are not known."""
        path = self.folder / "training_files.json"
        return frozenset(read_json(path)["files"]) if path.is_file() else None


class Ours(EvalModel):
    """A model of the code track."""

    def __init__(self, name: str, model: ConstructedLM | MonolithLM) -> None:
        self.name, self.model, self.folder = name, model, model.folder
        self.concepts = model.concepts
        self.control = "random router" if RANDOM_MARK in model.router.source else ""
        self.abilities = frozenset({"score", "complete", "distribution"})
        if isinstance(model, MonolithLM) or (model.folder / "dynamic.json").is_file():
            self.abilities |= {"dynamic"}
        if isinstance(model, ConstructedLM):
            self.abilities |= {"explain"} | ({"nets"} if model.nets is not None else set())

    def score_file(self, file: SourceFile) -> FileScore:
        """See EvalModel."""
        return self.model.score_file(file.data, file.path, file.project)

    def learning(self) -> DynamicLM | DynamicMonolith:
        """The model in the dynamic setting, from the state it was built in; what it learns leaves this one alone."""
        from cgpt.dynamic import dynamic

        # A monolith changes its own weights.
        return dynamic(deepcopy(self.model) if isinstance(self.model, MonolithLM) else self.model)

    def complete(self, prompt: bytes, max_tokens: int, stop: bytes = b"", whole: bool = False) -> bytes:
        """See EvalModel."""
        from cgpt.complete import steps

        if whole and in_word(prompt[-1:]):
            texts = self._after_word(prompt, max_tokens)
        else:
            texts = (step.text for step in steps(self.model, prompt, max_tokens))
        made = b""
        for text in texts:
            made += text
            if stop and stop in made:
                return made.partition(stop)[0]
        return made

    def _after_word(self, prompt: bytes, max_tokens: int) -> Iterator[bytes]:
        """The most probable tokens after a prompt whose last word is not predicted again."""
        tokens = self.model.tokenizer.token_bytes
        view = self.model.view(self.model.tokenizer.encode(prompt))
        for number in range(max_tokens):
            p = self.model.next_distribution(view)
            if number == 0:
                p = np.where([in_word(text[:1]) for text in tokens], 0.0, p)
            token = int(p.argmax())
            if not tokens[token]:
                return
            yield tokens[token]
            view.extend(np.array([token], dtype=np.uint16))

    def opaque_parameters(self, score: FileScore) -> np.ndarray:
        """See EvalModel: a net's own and the shared ones where nets sit, all of a monolith's, none in tables."""
        if isinstance(self.model, MonolithLM):
            return np.full(len(score.bits), float(self.model.parameters))
        nets = self.model.nets
        if nets is None:
            return np.zeros(len(score.bits))
        shared = sum(nets.shared_parameters.values())
        acted = [0.0 if m < 0 else float(shared + nets.own_parameters(m)) for m in self.model.net_of.tolist()]
        return np.array(acted)[score.concept]

    @property
    def parameters(self) -> int:
        """See EvalModel."""
        return self.model.parameters

    @property
    def table_entries(self) -> int:
        """See EvalModel."""
        return self.model.table_entries


def in_word(letter: bytes) -> bool:
    """Whether a byte can stand inside an identifier."""
    return letter.isalnum() or letter == b"_" or letter >= b"\x80"


def parse_spec(text: str, seed: int | None = None) -> Spec:
    """Read `[NAME=][KIND:]FOLDER`; `{seed}` in the folder is replaced. Without a NAME the folder's own is taken, with
    its parent's where it is only a seed."""
    match = re.fullmatch(r"(?:([^/=:]+)=)?(?:([\w-]+):)?(.+)", text)
    if match is None:
        raise UsageError(f"{text!r} names no model.", fix="write [NAME=][KIND:]FOLDER")
    name, kind, folder = match[1] or "", match[2] or "", match[3]
    if kind and kind not in KINDS.names():
        KINDS.target(kind)  # raises, with the nearest known kind
    if "{seed}" in folder and seed is None:
        raise UsageError(f"{text!r} stands for several training seeds.", fix="say how many with --seeds")
    filled = folder if seed is None else folder.replace("{seed}", str(seed))
    plain = re.sub(r"[-_./]*\{seed\}$", "", folder.rstrip("/")) or folder
    shown = Path(plain).resolve().name
    return Spec(
        name or (f"{kind}:{shown}" if kind else shown), kind, Path(filled), seed if "{seed}" in folder else None
    )


def open_model(spec: Spec) -> EvalModel:
    """Open a model.

    Raises:
        UsageError: an unknown kind.
        ConstructibleError: the folder holds no model that is known here.
    """
    if not spec.folder.is_dir():
        raise UsageError("no such folder.", fix="give the folder of a model", file=spec.folder)
    opener: Callable[[str, Path], EvalModel] = KINDS.load(spec.kind) if spec.kind else _opener(spec.folder)
    model = opener(spec.name, spec.folder)
    model.kind = spec.kind
    model.seed = spec.seed
    return model


def folder_name(name: str) -> str:
    """The folder that holds the results of a model of this name."""
    return re.sub(r"[^\w.+-]+", "-", name).strip("-.")


def open_specs(texts: Sequence[str], seeds: int | None = None) -> list[Spec]:
    """All models named, one per training seed where a name holds `{seed}`.

    Raises:
        UsageError: two models would have the same name and seed, or names that make the same folder of results.
    """
    specs = [
        parse_spec(text, seed)
        for text in texts
        for seed in (range(seeds) if seeds and "{seed}" in text else (None,))
    ]  # fmt: skip
    seen: set[tuple[str, int | None]] = set()
    for spec in specs:
        one = folder_name(spec.name), spec.seed
        if one in seen:
            raise UsageError(f"two models are called {spec.name!r}, or nearly so.", fix="name them: NAME=FOLDER")
        seen.add(one)
    return specs


def open_nets_only(name: str, folder: Path) -> EvalModel:
    """A constructed model's neural part alone: the mixer believes nothing but the net in charge."""
    model = load(folder)
    if not isinstance(model, ConstructedLM) or model.nets is None:
        raise UsageError("this model has no nets to be taken alone.", fix="give a cut with nets", file=folder)
    by_concept = np.full_like(model.mixer.by_concept, -np.inf)
    by_concept[:, NET] = 0.0
    model.mixer = replace(model.mixer, by_concept=by_concept)
    opened = Ours(name, model)
    opened.abilities -= {"explain", "dynamic"}
    return opened


def _open_ours(name: str, folder: Path) -> EvalModel:
    return Ours(name, load(folder))


def _opener(folder: Path) -> Callable[[str, Path], EvalModel]:
    config: Any = read_json(folder / "config.json") if (folder / "config.json").is_file() else None
    if isinstance(config, dict) and config.get("format") == FORMAT:
        return _open_ours
    if isinstance(config, dict) and str(config.get("format", "")).startswith("constructible-vision/"):
        return KINDS.load("images")
    if isinstance(config, dict) and "model_type" in config:
        made_for = " ".join(config.get("architectures") or [])
        return KINDS.load("classifier" if made_for.endswith("ForImageClassification") else "hugging-face")
    raise ConstructibleError(
        "this folder holds neither a model of ours nor a Hugging Face model.",
        fix="give a folder that `constructible cgpt build` finished, or one with a transformers config.json",
        file=folder,
    )  # fmt: skip
