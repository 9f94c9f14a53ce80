"""Check a concept library beyond its form: can each feature be seen, told from the others, and learned?"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from difflib import SequenceMatcher, get_close_matches
from pathlib import Path
from typing import Any

import numpy as np

from ontology.errors import ConstructibleError, UsageError, did_you_mean
from ontology.schema import OntologyError
from vision.concepts import FALSE, ONTOLOGIES, TRUE, UNCLEAR, Library
from vision.visual_words import same_words, why_not_visible

MINIMUM = 3  # classes of which a feature must be true, and of which it must be false, to be learned as itself
_ALIKE = 0.92  # names whose letters agree this much are one name misspelt
_YES_NO = re.compile(r"(is|are|was|were|does|do|has|have|can|could|will|did)\b.*\?$", re.IGNORECASE | re.DOTALL)


@dataclass(frozen=True)
class Finding:
    """One thing found, with its place and fix; one that is no `problem` is a note."""

    message: str
    fix: str
    file: str | None
    line: int | None
    problem: bool = True

    def __str__(self) -> str:
        text = str(ConstructibleError(self.message, fix=self.fix, file=self.file, line=self.line))
        return text if self.problem else f"note: {text}"


@dataclass
class Report:
    """What a check found; it passed if there is no problem. `facts` are counts of what was looked at."""

    facts: dict[str, Any] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)

    @property
    def problems(self) -> list[Finding]:
        """The findings that must be repaired."""
        return [finding for finding in self.findings if finding.problem]

    def summary(self) -> str:
        """Return the facts as one line."""
        if not self.facts:
            return "nothing else was checked"
        return (
            "{classes} classes, {features} features ({true_per_class:.1f} true of a class, a feature true of "
            "{least_true} to {most_true} classes), {unclear} of {cells} answers unclear, {drafts} drafts"
        ).format(**self.facts)

    def to_json(self) -> dict[str, Any]:
        """Return JSON values."""
        return {
            "passed": not self.problems, "facts": self.facts, "findings": [asdict(each) for each in self.findings]
        }  # fmt: skip


def check(path: str | Path, *, minimum: int | None = None, data: str | Path | None = None) -> Report:
    """Check a library file, or a curated library by its data set's name.

    Args:
        minimum: classes of which each feature must be true, and of which it must be false (default: 3; 1 where there
            are fewer than 6 classes).
        data: a Parquet file or an image folder; classes that it does not have are reported.
    """
    report = Report()
    curated = ONTOLOGIES / f"{path}.yaml"
    if not curated.exists() and not Path(path).exists():
        known = sorted(each.stem for each in ONTOLOGIES.glob("*.yaml"))
        message = f"{str(path)!r} is neither a file nor a curated library." + did_you_mean(str(path), known)
        raise UsageError(message, fix="check the path or the name")
    try:
        library = Library.load(curated if curated.exists() and not Path(path).exists() else path)
    except OntologyError as error:
        found = (error, *error.others)
        report.findings = [Finding(each.message, each.fix, str(each.file or path), each.line) for each in found]
        return report
    labels = _labels(Path(data)) if data is not None else None
    names, table = library.table()
    few = len(library.classes) < 2 * MINIMUM
    least = minimum if minimum is not None else (min(1, len(library.classes) - 1) if few else MINIMUM)
    report.findings = [
        *_visible(library), *_alike(library), *_classes(library, labels), *_placed(library),
        *_told_apart(library, table), *_learnable(library, names, table, least, str(path)),
        *_separable(library, names, table, few),
    ]  # fmt: skip
    if few and minimum is None and library.classes:
        message = f"{len(library.classes)} classes cannot make a feature true of {MINIMUM} and false of {MINIMUM}."
        fix = "learn the features from more classes before claiming that a node answers its question"
        report.findings.append(Finding(message, fix, str(path), None, problem=False))
    true = (table == TRUE).sum(axis=0)
    report.facts = {
        "classes": len(library.classes), "features": len(names if library.classes else library.features),
        "true_per_class": float((table == TRUE).sum(axis=1).mean()) if table.size else 0.0,
        "least_true": int(true.min()) if true.size else 0, "most_true": int(true.max()) if true.size else 0,
        "unclear": int((table == UNCLEAR).sum()), "cells": int(table.size),
        "drafts": sum(each.draft for each in (*library.features.values(), *library.classes.values())),
    }  # fmt: skip
    return report


def _visible(library: Library) -> Iterator[Finding]:
    """Features that no photograph shows, and questions that a yes or no does not answer."""
    for name, feature in library.features.items():
        file, line = library.place("features", name)
        for what, text in (("name", name), ("question", feature.question)):
            reason = why_not_visible(text)
            if reason is not None:
                yield Finding(
                    f"the feature {name!r} cannot be seen in a photograph: its {what} {reason}.",
                    "say what it looks like, or remove it", file, line,
                )  # fmt: skip
                break
        if not _YES_NO.fullmatch(feature.question.strip()):
            yield Finding(
                f"the question of {name!r} is no yes/no question ({feature.question!r}).",
                'ask "Is there ...?" or the like', *library.place("features", name, "question"),
            )  # fmt: skip


def _alike(library: Library) -> Iterator[Finding]:
    """Features that say the same: equal words, nearly equal names, equal questions."""
    names = list(library.features)
    words = {name: same_words(name) for name in names}
    asked = {name: re.sub(r"\W+", " ", library.features[name].question.casefold()).strip() for name in names}
    for i, name in enumerate(names):
        for other in names[:i]:
            if words[name] == words[other]:
                reason = "their names say the same"
            elif asked[name] == asked[other]:
                reason = "they ask the same question"
            elif SequenceMatcher(None, name, other).ratio() >= _ALIKE:
                reason = "their names differ by a letter or two"
            else:
                continue
            yield Finding(
                f"the features {other!r} and {name!r} look like one: {reason}.", "keep one of them",
                *library.place("features", name),
            )  # fmt: skip


def _classes(library: Library, labels: set[str] | None) -> Iterator[Finding]:
    """Classes that the data do not have, that list nothing, or that nothing tells from another."""
    first: dict[frozenset[str], str] = {}
    ids: dict[str, str] = {}
    for label, entry in library.classes.items():
        file, line = library.place("classes", label)
        if entry.wnid in ids:
            both = f"the classes {ids[entry.wnid]!r} and {label!r}"
            yield Finding(f"{both} have one WordNet id, {entry.wnid}.", "correct one of them", file, line)
        if entry.wnid is not None:
            ids.setdefault(entry.wnid, label)
        if labels is not None and label not in labels and entry.wnid not in labels:
            near = get_close_matches(label, sorted(labels), n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            yield Finding(f"the data have no class {label!r}.{hint}", "correct the label or remove it", file, line)
        features = frozenset(entry.features)
        if not features:
            yield Finding(f"the class {label!r} lists no feature.", "say what it shows", file, line)
        elif features in first:
            yield Finding(
                f"the classes {first[features]!r} and {label!r} list the same features: no rule can tell them apart.",
                "add what one shows and the other does not", file, line,
            )  # fmt: skip
        first.setdefault(features, label)


def _told_apart(library: Library, table: np.ndarray) -> Iterator[Finding]:
    """Classes of which nothing is surely shown by one and surely not by the other, for all that is unclear."""
    labels = list(library.classes)
    true, false = (table == TRUE).astype(np.int32), (table == FALSE).astype(np.int32)
    apart = true @ false.T
    alike = (apart + apart.T == 0) & true.any(axis=1)[:, None] & true.any(axis=1)[None, :]
    for i, label in enumerate(labels):
        others = [
            labels[j]
            for j in np.flatnonzero(alike[i])
            if j < i and set(library.classes[labels[j]].features) != set(library.classes[label].features)
        ]
        if others:
            said = ", ".join(map(repr, others))
            yield Finding(
                f"nothing is surely shown by {label!r} and surely not by {said}, or the other way round.",
                "list less as unclear, or add what one shows", *library.place("classes", label),
            )  # fmt: skip


def _placed(library: Library) -> Iterator[Finding]:
    """Surroundings belong under `context`, so that a reader sees which features are not of the object."""
    for label, entry in library.classes.items():
        for group, names in entry.groups.items():
            for j, name in enumerate(names):
                if library.features[name].kind == "context" and group != "scene":
                    keys = ("whole", j) if group == "whole" else ("parts", group, j)
                    yield Finding(
                        f"the class {label!r} lists the surroundings {name!r} under {group!r}.",
                        "move it to `context`", *library.place("classes", label, *keys),
                    )  # fmt: skip


def _learnable(library: Library, names: tuple[str, ...], table: np.ndarray, least: int, path: str) -> Iterator[Finding]:
    """Features that too few classes have, or too few lack: a net would learn the class instead."""
    true, false = (table == TRUE).sum(axis=0), (table == FALSE).sum(axis=0)
    for name, has, lacks in zip(names, true, false, strict=True):
        for count, what, fix in ((has, "true", "list it for more classes"), (lacks, "false", "make it narrower")):
            if count < least:
                yield Finding(
                    f"the feature {name!r} is {what} of {count} classes, fewer than {least}: a net would learn these "
                    f"classes instead of it.", f"{fix}, or remove it", *library.place("features", name),
                )  # fmt: skip
    for name in library.features:
        file, line = library.place("features", name)
        if library.classes and name not in names and file == path:
            yield Finding(f"no class lists the feature {name!r}.", "list it for a class or remove it", file, line)


def _separable(library: Library, names: tuple[str, ...], table: np.ndarray, few: bool) -> Iterator[Finding]:
    """Features with the same column: the table cannot say which of them a net has learned."""
    groups: dict[bytes, list[str]] = {}
    for name, column in zip(names, table.T, strict=True):
        groups.setdefault(column.tobytes(), []).append(name)
    for group in groups.values():
        if len(group) > 1:
            said = ", ".join(map(repr, group[:-1])) + f" and {group[-1]!r}"
            yield Finding(
                f"the features {said} are true of the same classes: the table cannot tell which of them a net learned.",
                "add a class that has only one of them", *library.place("features", group[-1]), problem=not few,
            )  # fmt: skip


def _labels(path: Path) -> set[str]:
    """The labels of a data set, as `build` reads them; an empty folder names a class, too."""
    from vision.data import pictures

    labels = {item.label for item in pictures(str(path), "train", names_only=True) if item.label}
    if not labels:
        raise ConstructibleError("has no labels.", fix="give a column `name` or `label`, or subfolders", file=path)
    return labels
