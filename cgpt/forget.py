"""Forgetting: a model as if some of its files had never been in the corpus.

All of the corpus is in the model's folder (the match index is its tokens), so nothing else is needed: the files that
stay are decoded, and the model is built again from them by the same plan as any build. What a build would make
differently only because of the order of events is **kept**: always the tokenizer, which learned its pieces from all
files, and the nets where they are not to be retrained. The match index, the tables and the lists of files come out bit
for bit as a build without those files makes them with that tokenizer; the mixer's weights, the smoothing constants and
all else that is measured on held-out files are measured again.

The result is made in a folder beside the model's files and takes their place at the end; a process that is killed
continues with the same command.
"""

from __future__ import annotations

import fnmatch
import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from cgpt.build import Kept, Recipe, build, mark_of
from cgpt.corpus import Corpus, SourceFile
from cgpt.model import ConstructedLM, read_config
from cgpt.nets import SHARED_NAMES, NetShape
from ontology.errors import ConstructibleError, UsageError, did_you_mean
from ontology.fit import Budget
from ontology.io import explain_os_errors, make_folder, read_json, write_json
from ontology.progress import Progress

STAGING, READY = ".forget", "ready.json"


@dataclass(frozen=True)
class Forgotten:
    """What was forgotten and what that took.

    Attributes:
        files: `path`, `project` and `licence` of each file forgotten now.
        nets_that_saw: {net: positions of it in forgotten files that it was trained on}, files forgotten earlier
            without retraining not counted.
        shared: the modules that all nets share, where any net saw them: they saw them too.
        retrained: whether the nets were trained again, without the files.
        still_in_nets: forgotten files that the nets still carry; `--retrain` removes them.
    """

    files: list[dict[str, str]]
    nets_that_saw: dict[str, int]
    shared: list[str]
    retrained: bool
    still_in_nets: int


def forget(
    folder: str | Path,
    names: Sequence[str],
    retrain: bool = False,
    budget: Budget | None = None,
    progress: Progress | None = None,
) -> Forgotten:
    """Forget sources in a model's folder, in place.

    Args:
        names: each a file's path, a project, `project: path` as evidence has it, or a pattern with * and ?. May be
            empty where `retrain` removes what earlier calls left in the nets.
        retrain: train the nets again if any of them saw one of the files.
        budget: of that training; what the model was built with by default.

    Raises:
        UsageError: no source has such a name, or nothing would be left.
        ConstructibleError: it is no finished model, or a folder cannot be written.
    """
    folder, progress = Path(folder), progress or Progress()
    staging = folder / STAGING
    if (staging / READY).is_file():
        progress.note("an earlier `forget` was stopped while files took their places; finishing that")
        done = _take_places(folder)
        names = [name for name in names if not any(_means(name, row["path"], row["project"]) for row in done.files)]
        if not names and not (retrain and done.still_in_nets):
            return done
    if read_config(folder)["cut"] == "root":
        raise UsageError("a monolith cannot forget.", fix="build it again without the files", file=folder)
    model = ConstructedLM(folder)
    corpus = corpus_of(model)
    chosen = chosen_files(corpus.files, names)
    gone = {mark_of(file) for file in chosen}
    stay = corpus.select(lambda file: mark_of(file) not in gone, corpus.name)
    if not stay.files:
        raise UsageError("no file would be left.", fix="delete the model's folder instead", file=folder)
    seen, held_out = _seen(model)
    marks = {mark_of(file) for file in stay.files}
    carried = [mark for mark in seen if mark not in marks]
    if not chosen and not (retrain and carried):
        raise UsageError("nothing to forget.", fix="name a file, a project or a pattern", file=folder)
    saw = _nets_that_saw(model, [file for file in chosen if mark_of(file) in seen])
    rest = tuple(sorted(mark for mark in held_out if mark in marks))
    # Without any file that the nets did not see there is nothing to fit the mixer on: others are held out, nets anew.
    none_left = bool(held_out) and not rest
    retrained = retrain and model.nets is not None and (bool(carried) or none_left)
    kept = Kept(folder / "tokenizer.json")
    if model.nets is not None and not retrained:
        if none_left:
            raise ConstructibleError(
                "the mixer has no file left that the nets did not see.", fix="add --retrain", file=folder
            )
        kept = replace(kept, nets=folder / "nets.safetensors", seen_by_nets=tuple(sorted(seen)), held_out=rest)
    recipe = _recipe(model, kept)
    make_folder(staging)
    build(stay, staging, budget or _budget(model, retrained), recipe, progress=progress)
    result = Forgotten(
        files=[{"path": file.path, "project": file.project, "licence": file.licence} for file in chosen],
        nets_that_saw=saw,
        shared=sorted(SHARED_NAMES.values()) if saw else [],
        retrained=retrained,
        still_in_nets=0 if retrained else len(carried),
    )
    made = set(read_json(staging / "fit.json")["files"])
    stale = sorted(set(read_json(folder / "fit.json")["files"]) - made) if (folder / "fit.json").is_file() else []
    write_json(staging / READY, {"result": asdict(result), "stale": stale})
    return _take_places(folder)


def corpus_of(model: ConstructedLM) -> Corpus:
    """The files a model was built from, decoded from its match index; token 0 stands before, between and after them."""
    tokens, borders = model.index.tokens, np.flatnonzero(model.index.tokens == 0)
    files = [
        SourceFile(source.path, model.tokenizer.decode(tokens[begin + 1 : end]), source.project, source.licence)
        for source, begin, end in zip(model.sources, borders[:-1], borders[1:], strict=True)
    ]
    return Corpus(files, [], str(model.config["corpus"]["name"]))


def chosen_files(files: Sequence[SourceFile], names: Sequence[str]) -> list[SourceFile]:
    """The files that the names mean, in the order of the corpus; raises UsageError for a name that means none."""
    chosen: set[int] = set()
    for name in names:
        found = {i for i, file in enumerate(files) if _means(name, file.path, file.project)}
        if not found:
            known = sorted({file.project for file in files} | {file.path for file in files})
            hint = did_you_mean(name, known)
            hint = hint if "Did you mean" in hint else ""
            raise UsageError(f"the model has no source {name!r}.{hint}", fix="see the paths in sources.json")
        chosen |= found
    return [files[i] for i in sorted(chosen)]


def _means(name: str, path: str, project: str) -> bool:
    return name in (path, project, f"{project}: {path}") or fnmatch.fnmatchcase(path, name)


def _seen(model: ConstructedLM) -> tuple[set[str], set[str]]:
    """Marks of the files that the nets, and the mixer, learned from."""
    mixer = set(read_json(model.folder / "held_out.json")["files"])
    return (set(read_json(model.folder / "seen_by_nets.json")["files"]) if model.nets is not None else set()), mixer


def _nets_that_saw(model: ConstructedLM, files: Sequence[SourceFile]) -> dict[str, int]:
    """Positions of each net in files that it learned from, most first."""
    if model.nets is None:
        return {}
    positions = np.zeros(len(model.nets.concepts) + 1, dtype=np.int64)
    for file in files:
        view = model.view(model.tokenizer.encode(file.data))
        positions += np.bincount(model.net_of[model.concepts_at(view)], minlength=len(positions))
    order = np.argsort(-positions[:-1], kind="stable")
    return {model.nets.concepts[m]: int(positions[m]) for m in order if positions[m]}


def _recipe(model: ConstructedLM, kept: Kept) -> Recipe:
    """How the model was built."""
    config, shape = model.config, NetShape()
    if "shape" in config:
        shape = NetShape(**config["shape"])
    elif model.nets is not None:
        sizes = {"d_in": model.nets.w1.shape[1], "hidden": model.nets.w1.shape[2], "d_out": model.nets.output.shape[1]}
        shape = replace(shape, **sizes)
    return Recipe(
        cut=config["cut"], seed=config["seed"], vocab_size=config["vocab_size"], shape=shape,
        specialists=config["specialists"],
        ontology=model.folder / "ontology.yaml", router=model.folder / "router.py", kept=kept,
    )  # fmt: skip


def _budget(model: ConstructedLM, needed: bool) -> Budget:
    """What the model's nets were trained with."""
    budget = Budget(**model.config.get("budget", {}))
    if needed and budget == Budget():
        raise UsageError("the model does not say how long its nets were trained.", fix="give --steps or --minutes")
    return budget


def _take_places(folder: Path) -> Forgotten:
    """Put the finished files of the staging folder in the place of the model's; config.json leaves first, comes last.

    The folder's own store goes: it has the forgotten text.
    """
    staging = folder / STAGING
    ready = read_json(staging / READY)
    with explain_os_errors(folder):
        shutil.rmtree(staging / ".store", ignore_errors=True)
        shutil.rmtree(folder / ".store", ignore_errors=True)
        if (staging / "config.json").exists():
            (folder / "config.json").unlink(missing_ok=True)
        for name in ready["stale"]:
            (folder / name).unlink(missing_ok=True)
        moved = sorted(path for path in staging.iterdir() if path.name not in (READY, ".lock", "config.json"))
        for path in [*moved, staging / "config.json"]:
            if path.exists():
                os.replace(path, folder / path.name)
        shutil.rmtree(staging)
    return Forgotten(**ready["result"])
