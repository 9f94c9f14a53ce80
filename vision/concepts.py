"""The concept library of the image track: features with one question each, classes made of parts that show them.

A file is YAML. `features:` lists what a small net may learn to see, `classes:` says for each label of a data set which
parts it has and which features these show:

    features:
      - {name: orange, question: "Is there a patch of orange?", kind: colour, scale: 0.1}
    classes:
      - name: goldfish
        wnid: n01443537
        is_a: [fish, vertebrate, animal]
        parts: {body: [orange, fish_body], tail: [fin]}
        whole: [shiny]
        context: [under_water]
        unclear: [round_outline]

A feature is true of a class that lists it anywhere, false of any other class, and neither where it is `unclear`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import numpy as np
from jaxtyping import Int8
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from ontology.errors import ConstructibleError, UsageError, did_you_mean
from ontology.schema import RESERVED, Concept, Lines, Ontology, OntologyError, parse_yaml
from vision.nodes import MAX_PARAMS

Kind = Literal["colour", "texture", "shape", "part", "context"]
KINDS: tuple[str, ...] = get_args(Kind)
SCALES = (0.1, 0.2, 0.35, 0.6, 1.0)  # receptive field as a fraction of the picture's side
DATASETS = ("tiny_imagenet", "imagenette224")
ONTOLOGIES = Path(__file__).parent / "ontologies"
CUTS = {"root": "root", "classes": "1", "parts": "2", "leaves": "leaves", "plain": "plain"}  # names -> engine's specs
TRUE, FALSE, UNCLEAR = 1, 0, -1
_ROOT = "image"
_START = "`name:`, `features:` and `classes:`"


def _known_scale(value: float) -> float:
    if value not in SCALES:
        raise ValueError("a scale is one of " + ", ".join(map(str, SCALES)))
    return value


_Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
_Identifier = Annotated[str, StringConstraints(pattern=r"^[A-Za-z][A-Za-z0-9_]*$")]
_Scale = Annotated[float, AfterValidator(_known_scale)]


class Feature(BaseModel):
    """Something visible in a picture, answered by one small net.

    Attributes:
        question: a yes/no question about the picture.
        kind: colour, texture, shape, part or context.
        scale: receptive field needed to answer, as a fraction of the picture's side.
        draft: not reviewed by a person yet.
        phrases: what it was drafted from.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: _Identifier
    question: _Text
    kind: Kind
    scale: _Scale
    draft: bool = False
    phrases: tuple[_Text, ...] = ()


class ClassEntry(BaseModel):
    """One class of a data set and what it shows.

    Attributes:
        name: its label in the data set.
        wnid: its WordNet id, another label by which it is found.
        title: what people call it, where the label says something else.
        is_a: WordNet's chain of what it is, nearest first.
        parts: features shown by each part.
        whole: features of the object as a whole.
        context: features of the place where it is photographed.
        unclear: features that some of its photographs show and some do not: no example in either direction.
        draft: not reviewed by a person yet.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: _Text
    wnid: Annotated[str, StringConstraints(pattern=r"^n[0-9]{8}$")] | None = None
    title: _Text = ""
    is_a: tuple[_Text, ...] = ()
    parts: dict[_Identifier, Annotated[tuple[_Identifier, ...], Field(min_length=1)]] = {}
    whole: tuple[_Identifier, ...] = ()
    context: tuple[_Identifier, ...] = ()
    unclear: tuple[_Identifier, ...] = ()
    draft: bool = False

    @property
    def human_name(self) -> str:
        """What people call it."""
        return self.title or self.name

    @property
    def groups(self) -> dict[str, tuple[str, ...]]:
        """The features of each part, of the whole and of the scene; groups without features are left out."""
        groups = dict(self.parts)
        if self.whole:
            groups["whole"] = self.whole
        if self.context:
            groups["scene"] = self.context
        return groups

    @property
    def features(self) -> tuple[str, ...]:
        """Every feature that is true of it, once each, in the order of the file."""
        return tuple(dict.fromkeys(name for names in self.groups.values() for name in names))


class _File(BaseModel):
    """What one file says; names may lead to the file it extends."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: _Text
    version: int | str = 1
    description: str = ""
    extends: _Text | None = None
    features: tuple[Feature, ...] = ()
    classes: tuple[ClassEntry, ...] = ()


class Library:
    """Features and classes by name. Files of one format extend each other: a later entry replaces an earlier one.

    Attributes:
        features: by name, in file order.
        classes: by the data set's label, in file order.
    """

    def __init__(
        self,
        features: Iterable[Feature] = (),
        classes: Iterable[ClassEntry] = (),
        *,
        name: str = "concepts",
        version: int | str = 1,
        description: str = "",
        lines: Mapping[tuple[str | int, ...], tuple[str, int]] | None = None,
    ) -> None:
        self.name, self.version, self.description = name, version, description
        self.features: dict[str, Feature] = {feature.name: feature for feature in features}
        self.classes: dict[str, ClassEntry] = {entry.name: entry for entry in classes}
        self._lines = dict(lines or {})
        self._by_wnid = {entry.wnid: entry.name for entry in self.classes.values() if entry.wnid}

    @classmethod
    def load(cls, path: str | Path) -> Library:
        """Read and check a file together with what it extends.

        Raises:
            OntologyError: the first problem, with file, line and fix; `others` holds the rest.
        """
        return _finish(*_load(Path(path), ()))

    @classmethod
    def parse(cls, text: str, file: str | Path = "<concepts>") -> Library:
        """Check a library given as YAML text; see `load`."""
        return _finish(*_parse(text, Path(file), ()))

    @cached_property
    def table_names(self) -> tuple[str, ...]:
        """The features that some class lists, in file order: the columns of `table`."""
        used = {name for entry in self.classes.values() for name in entry.features}
        return tuple(name for name in self.features if name in used)

    def has(self, label: str) -> bool:
        """Whether a class is found by this label or WordNet id."""
        return label in self.classes or label in self._by_wnid

    def entry(self, label: str) -> ClassEntry:
        """Return a class by its label or its WordNet id.

        Raises:
            UsageError: no such class, with the nearest one.
        """
        found = self.classes.get(label) or self.classes.get(self._by_wnid.get(label, ""))
        if found is None:
            raise UsageError(
                f"the library {self.name!r} has no class {label!r}." + nearest(label, self.classes),
                fix="use a declared class, or declare it in a file of your own (docs/vision_ontology.md)",
            )
        return found

    def table(
        self, classes: Sequence[str] | None = None, *, minimum: int = 0
    ) -> tuple[tuple[str, ...], Int8[np.ndarray, "classes features"]]:
        """Return which feature is true (1), false (0) or unclear (-1) of which class.

        Args:
            classes: labels or WordNet ids, one row each (default: all, in file order).
            minimum: leave out features that are true, or false, of fewer of these classes than this.

        Returns:
            The names of the columns and the table, int8 [classes, features].
        """
        entries = [self.entry(label) for label in (self.classes if classes is None else classes)]
        column = {name: i for i, name in enumerate(self.table_names)}
        table = np.full((len(entries), len(column)), FALSE, dtype=np.int8)
        for row, entry in zip(table, entries, strict=True):
            row[[column[name] for name in entry.unclear if name in column]] = UNCLEAR
            row[[column[name] for name in entry.features]] = TRUE
        keep = ((table == TRUE).sum(axis=0) >= minimum) & ((table == FALSE).sum(axis=0) >= minimum)
        names = tuple(name for name, kept in zip(self.table_names, keep, strict=True) if kept)
        return names, np.ascontiguousarray(table[:, keep])

    def merge(self, other: Library) -> Library:
        """Return this library with the features and classes of another added; those of the same name are replaced."""
        features, classes = self.features | other.features, self.classes | other.classes
        kept = {
            place: at
            for place, at in self._lines.items()
            if place[1] not in (other.features if place[0] == "features" else other.classes)
        }
        return Library(
            features.values(), classes.values(), name=other.name, version=other.version,
            description=other.description, lines=kept | other._lines,
        )  # fmt: skip

    def place(self, section: str, name: str, *rest: str | int) -> tuple[str | None, int | None]:
        """Return file and line of a feature or class (`section` is "features" or "classes"), or of a place in it."""
        key: tuple[str | int, ...] = (section, name, *rest)
        while key and key not in self._lines:
            key = key[:-1]
        return self._lines.get(key, (None, None))


def load_library(path: str | Path | None = None, dataset: str = "tiny_imagenet") -> Library:
    """Read a library: a file of your own (with what it `extends`), or the curated one of a data set.

    Raises:
        UsageError: no curated library has this name.
        OntologyError: the file is not valid.
    """
    if path is not None:
        return Library.load(path)
    if dataset not in DATASETS:
        raise UsageError(
            f"there is no curated ontology {dataset!r}." + did_you_mean(dataset, list(DATASETS)),
            fix="use one of these, or give a file of your own",
        )
    return Library.load(ONTOLOGIES / f"{dataset}.yaml")


def concept_name(label: str) -> str:
    """Turn a label into the name of a concept: letters, digits and underscores, a letter first."""
    name = re.sub(r"[^A-Za-z0-9]+", "_", label).strip("_") or "class"
    return name if name[0].isalpha() else f"class_{name}"


def to_ontology(library: Library, classes: Sequence[str] | None = None) -> Ontology:
    """Return the graph image -> classes -> parts -> features as an ontology of the engine.

    Each class stands at depth 1, each of its parts (`goldfish_tail`; also `goldfish_whole` and `goldfish_scene`) at
    depth 2, the features, shared between classes, are the leaves: `CUTS` names the cuts.

    Args:
        classes: labels or WordNet ids (default: all).

    Raises:
        ConstructibleError: two concepts would have one name.
    """
    entries = [library.entry(label) for label in (library.classes if classes is None else classes)]
    if not entries:
        raise UsageError("an ontology needs a class.", fix="name one or more")
    used = {name for entry in entries for name in entry.features}
    upper: list[Concept] = []
    for entry in entries:
        name, title = concept_name(entry.name), entry.human_name
        groups = {f"{name}_{part}": (part, names) for part, names in entry.groups.items()}
        upper.append(Concept(name=name, question=f"Is this {_a(title)}?", children=tuple(groups)))
        for child, (part, names) in groups.items():
            said = part.replace("_", " ")
            question = {
                "whole": f"Does it look like {_a(title)} as a whole?",
                "scene": f"Is this a place where {_a(title)} is photographed?",
            }.get(part, f"Does it show the {said} of {_a(title)}?")
            upper.append(Concept(name=child, question=question, children=tuple(dict.fromkeys(names))))
    leaves = [
        Concept(name=name, question=feature.question, reads=("pixels",), max_params=MAX_PARAMS)
        for name, feature in library.features.items()
        if name in used
    ]
    root = Concept(
        name=_ROOT,
        question="What is in this picture?",
        children=tuple(concept_name(entry.name) for entry in entries),
    )
    concepts = (root, *upper, *leaves)
    seen: set[str] = set()
    for concept in concepts:
        if concept.name in seen or concept.name in RESERVED:
            raise ConstructibleError(
                f"two concepts of {library.name!r} would be called {concept.name!r}.",
                fix="rename the feature, the part or the class of this name",
            )
        seen.add(concept.name)
    return Ontology(
        name=library.name, version=library.version, root=_ROOT, description=library.description, concepts=concepts
    )


def _a(title: str) -> str:
    return f"{'an' if title[:1].lower() in 'aeiou' else 'a'} {title}"


def nearest(name: str, known: Iterable[str]) -> str:
    """Return " Did you mean ...?" for the nearest name; all names where they are few and none is near."""
    names = list(known)
    return did_you_mean(name, names) if len(names) <= 12 else did_you_mean(name, names).split(" Known:")[0]


def _load(path: Path, chain: tuple[Path, ...]) -> tuple[Library | None, list[ConstructibleError]]:
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ConstructibleError("not UTF-8 text.", fix="save the file as UTF-8", file=path) from error
    except OSError as error:
        raise ConstructibleError(f"cannot be read ({error.strerror}).", fix="check the path", file=path) from error
    return _parse(text, path, chain)


def _parse(text: str, path: Path, chain: tuple[Path, ...]) -> tuple[Library | None, list[ConstructibleError]]:
    """Parse one file onto what it extends; return the library with every problem found."""
    file = str(path)
    try:
        value, lines = parse_yaml(text, file, start=_START)
    except OntologyError as error:
        return None, [error]
    try:
        read = _File.model_validate(value)
    except ValidationError as error:
        # A misspelt key first: it is why another one is missing.
        items = sorted(error.errors(), key=lambda item: item["type"] != "extra_forbidden")
        return None, [_explain(item, value, lines, file) for item in items]
    base = Library()
    if read.extends is not None:
        below = ONTOLOGIES / f"{read.extends}.yaml"
        if not re.fullmatch(r"\w+", read.extends) or not below.exists():
            below = path.parent / read.extends
        if below.resolve() in (*chain, path.resolve()):
            line = lines.get(("extends",))
            return None, [OntologyError("extends itself.", fix="remove this line", file=file, line=line)]
        if not below.exists():
            shipped = sorted(each.stem for each in ONTOLOGIES.glob("*.yaml"))
            message = f"extends {read.extends!r}, which is neither a file nor a curated ontology."
            message += did_you_mean(read.extends, shipped)
            return None, [OntologyError(message, fix="correct it", file=file, line=lines.get(("extends",)))]
        found, problems = _load(below, (*chain, path.resolve()))
        if found is None or problems:
            return None, problems
        base = found
    own = Library(
        read.features, read.classes, name=read.name, version=read.version, description=read.description,
        lines=dict(_named_lines(read, lines, file)),
    )  # fmt: skip
    return base.merge(own), [*_twice(read, lines, file), *_unresolved(base.merge(own), own)]


def _finish(library: Library | None, problems: list[ConstructibleError]) -> Library:
    if problems or library is None:
        first = problems[0]
        error = OntologyError(first.message, fix=first.fix, file=first.file, line=first.line)
        error.others = problems[1:]
        raise error
    return library


def _named_lines(read: _File, lines: Lines, file: str) -> Iterator[tuple[tuple[str | int, ...], tuple[str, int]]]:
    """Turn places by number (`features`, 3) into places by name (`features`, "orange")."""
    names = {"features": [each.name for each in read.features], "classes": [each.name for each in read.classes]}
    for place, line in lines.items():
        if len(place) >= 2 and place[0] in names and isinstance(place[1], int):
            yield (place[0], names[place[0]][place[1]], *place[2:]), (file, line)


def _twice(read: _File, lines: Lines, file: str) -> Iterator[ConstructibleError]:
    for section, items in (("features", read.features), ("classes", read.classes)):
        first: dict[str, int] = {}
        for i, item in enumerate(items):
            if item.name in first:
                before = lines.get((section, first[item.name]))
                yield OntologyError(
                    f"{item.name!r} is already declared on line {before}.", fix="rename or remove one",
                    file=file, line=lines.get((section, i)),
                )  # fmt: skip
            first.setdefault(item.name, i)


def _unresolved(library: Library, own: Library) -> Iterator[ConstructibleError]:
    """Names of features that lead nowhere, and features that a class lists as both true and unclear."""
    for label, entry in own.classes.items():
        places: list[tuple[tuple[str, ...], tuple[str, ...]]] = [(("parts", p), n) for p, n in entry.parts.items()]
        places += [((key,), getattr(entry, key)) for key in ("whole", "context", "unclear")]
        for place, names in places:
            for j, name in enumerate(names):
                file, line = library.place("classes", label, *place, j)
                if name not in library.features:
                    yield OntologyError(
                        f"the class {label!r} lists the unknown feature {name!r}." + nearest(name, library.features),
                        fix="declare the feature or correct its name", file=file, line=line,
                    )  # fmt: skip
                elif name in names[:j] or (place == ("unclear",) and name in entry.features):
                    why = "twice in one list" if name in names[:j] else "as true and as unclear"
                    yield OntologyError(
                        f"the class {label!r} lists the feature {name!r} {why}.", fix="remove one", file=file, line=line
                    )


def _explain(item: Any, value: Any, lines: Lines, file: str) -> OntologyError:
    """Turn one pydantic error into a sentence with its line and fix."""
    place = tuple(part for part in item["loc"] if isinstance(part, int | str))
    at = place
    while at and at not in lines:
        at = at[:-1]
    line = lines.get(at)
    owner, model = "the file", _File
    if len(place) >= 2 and place[0] in ("features", "classes") and isinstance(place[1], int):
        kind, model = ("feature", Feature) if place[0] == "features" else ("class", ClassEntry)
        entry = value[place[0]][place[1]] if isinstance(value.get(place[0]), list) else None
        name = entry.get("name") if isinstance(entry, dict) else None
        owner = f"the {kind} {name!r}" if name else f"{kind} number {place[1] + 1}"
    key = place[-1] if place else ""
    if item["type"] == "extra_forbidden":
        message = f"unknown key {key!r} in {owner}." + did_you_mean(str(key), list(model.model_fields))
        return OntologyError(message, fix="correct or remove this key", file=file, line=line)
    if item["type"] == "missing":
        fixes = {
            "question": 'add `question: "Is there ...?"`',
            "scale": f"add `scale:` with one of {', '.join(map(str, SCALES))}",
            "kind": f"add `kind:` with one of {', '.join(KINDS)}",
        }
        fix = fixes.get(str(key), f"add `{key}: ...`")
        return OntologyError(f"{owner} has no {key!r}.", fix=fix, file=file, line=line)
    if item["type"] == "string_pattern_mismatch":
        fix = "write n and eight digits" if key == "wnid" else "use letters, digits and underscores, a letter first"
        what = "WordNet id" if key == "wnid" else "name"
        return OntologyError(f"{item['input']!r} is not a {what}.", fix=fix, file=file, line=line)
    if item["type"] == "string_too_short":
        return OntologyError(f"{owner} has an empty {key!r}.", fix="write it out", file=file, line=line)
    where = ".".join(str(part) for part in place[2:]) or str(key)
    reason = item["msg"].removeprefix("Value error, ")
    reason = reason[:1].lower() + reason[1:]
    return OntologyError(
        f"{where!r} of {owner}: {reason} (found {item['input']!r}).", fix="correct this value", file=file, line=line
    )
