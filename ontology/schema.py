"""The ontology file: concepts with one question each, read from YAML and checked with file, line and fix."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, StringConstraints, ValidationError

from ontology.errors import ConstructibleError, did_you_mean

ModuleKind = Literal["plain", "table", "net"]
_Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
_Identifier = Annotated[str, StringConstraints(pattern=r"^[A-Za-z][A-Za-z0-9_]*$")]


Lines = dict[tuple[str | int, ...], int]  # place in a YAML file -> 1-based line
_COLLECTION_TAGS = ("tag:yaml.org,2002:map", "tag:yaml.org,2002:seq")
RESERVED = ("root", "leaves", "plain")  # cuts have these names


class OntologyError(ConstructibleError):
    """An ontology file that is not valid; `others` holds further problems found in the same file."""

    others: list[ConstructibleError]


class Concept(BaseModel):
    """One node: a question a person can read, and what may answer it.

    Attributes:
        children: concepts that refine this one, by name.
        reads: names of the inputs its module may see; it is handed those and nothing else.
        module: what answers it where the cut lies here.
        max_params: most parameters its own net may have.
        tests: examples that a track interprets, strings or mappings.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: _Identifier
    question: _Text
    children: tuple[_Identifier, ...] = ()
    reads: tuple[_Text, ...] = ()
    module: ModuleKind = "net"
    max_params: Annotated[int, Field(gt=0)] | None = None
    tests: tuple[str | dict[str, Any], ...] = ()


class Ontology(BaseModel):
    """A graph of concepts with one root; `file` and `line` lead back to the YAML."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: _Text
    version: int | str = 1
    root: _Identifier
    description: str = ""
    concepts: Annotated[tuple[Concept, ...], Field(min_length=1)]

    _file: str = PrivateAttr(default="<ontology>")
    _lines: dict[tuple[str | int, ...], int] = PrivateAttr(default_factory=dict)
    _index: dict[str, int] = PrivateAttr(default_factory=dict)

    def model_post_init(self, context: Any) -> None:
        self._index = {concept.name: i for i, concept in enumerate(self.concepts)}

    @classmethod
    def load(cls, path: str | Path) -> Ontology:
        """Read and check an ontology file.

        Raises:
            OntologyError: the first problem, with file, line and fix; `others` holds the rest.
        """
        path = Path(path)
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise ConstructibleError("not UTF-8 text.", fix="save the ontology as UTF-8", file=path) from error
        except OSError as error:
            raise ConstructibleError(f"cannot be read ({error.strerror}).", fix="check the path", file=path) from error
        return cls.parse(text, file=path)

    @classmethod
    def parse(cls, text: str, file: str | Path = "<ontology>") -> Ontology:
        """Check an ontology given as YAML text; see `load`."""
        ontology, problems = _read(text, str(file))
        if not problems and ontology is not None:
            from ontology.graph import problems as graph_problems

            problems = graph_problems(ontology)
        if problems or ontology is None:
            first = problems[0]
            error = OntologyError(first.message, fix=first.fix, file=first.file, line=first.line)
            error.others = problems[1:]
            raise error
        return ontology

    @property
    def file(self) -> str:
        """The file it was read from."""
        return self._file

    @property
    def names(self) -> tuple[str, ...]:
        """All concepts' names in file order."""
        return tuple(concept.name for concept in self.concepts)

    def __getitem__(self, name: str) -> Concept:
        """Return a concept by name; raise ConstructibleError with the nearest name where there is none."""
        if name not in self._index:
            raise ConstructibleError(
                f"no concept {name!r}." + did_you_mean(name, list(self._index)),
                fix="use a declared concept",
                file=self._file,
            )
        return self.concepts[self._index[name]]

    def __contains__(self, name: object) -> bool:
        return name in self._index

    def line(self, name: str, *place: str | int) -> int | None:
        """Return the 1-based line of a concept or of a place in it, for example `line("dot", "tests", 0)`."""
        if name not in self._index:
            return None
        key: tuple[str | int, ...] = ("concepts", self._index[name], *place)
        while key and key not in self._lines:
            key = key[:-1]
        return self._lines.get(key)


def parse_yaml(text: str, file: str, *, start: str) -> tuple[dict[str, Any], Lines]:
    """Parse YAML of plain mappings, lists and scalars; return the value and the 1-based line of each place in it.

    Args:
        start: what the file starts with, told to a user whose file is no mapping.

    Raises:
        OntologyError: not YAML, no mapping, a key twice, an anchor, a tag, or nested too deeply.
    """
    lines: Lines = {}
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        if not isinstance(node, yaml.MappingNode):
            line = 1 if node is None else node.start_mark.line + 1
            raise OntologyError("not an ontology.", fix=f"start with {start}", file=file, line=line)
        return _plain(node, (), lines, set(), file, yaml.SafeLoader("")), lines
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        line = mark.line + 1 if mark is not None else None
        raise OntologyError(f"not valid YAML: {problem}.", fix="correct this line", file=file, line=line) from error
    except RecursionError as error:
        raise OntologyError("nested too deeply.", fix=f"keep to {start} with plain lists", file=file) from error


def _read(text: str, file: str) -> tuple[Ontology | None, list[ConstructibleError]]:
    """Parse YAML into an ontology whose names resolve; return it with every problem found."""
    try:
        value, lines = parse_yaml(text, file, start="`name:`, `root:` and `concepts:`")
    except OntologyError as error:
        return None, [error]
    try:
        ontology = Ontology.model_validate(value)
    except ValidationError as error:
        return None, [_explain(item, value, lines, file) for item in error.errors()]
    ontology._file, ontology._lines = file, lines
    return ontology, _resolve(ontology)


def _plain(
    node: yaml.Node, place: tuple[str | int, ...], lines: Lines, seen: set[int], file: str, loader: yaml.SafeLoader
) -> Any:
    """Turn a YAML node into plain values and note the line of each place."""
    line = node.start_mark.line + 1
    lines.setdefault(place, line)
    if id(node) in seen:
        raise OntologyError(
            "an anchor is used twice.", fix="write the value out: no `&` and `*` here", file=file, line=line
        )
    seen.add(id(node))
    if isinstance(node, yaml.CollectionNode) and node.tag not in _COLLECTION_TAGS:
        raise OntologyError(f"the tag {node.tag!r} is not allowed.", fix="remove it", file=file, line=line)
    if isinstance(node, yaml.MappingNode):
        mapping: dict[str, Any] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode):
                raise OntologyError("a key is not a plain word.", fix="write `key: value`", file=file, line=line)
            key = key_node.value
            if key in mapping:
                raise OntologyError(f"the key {key!r} appears twice.", fix="remove one", file=file, line=line)
            lines[*place, key] = line
            mapping[key] = _plain(value_node, (*place, key), lines, seen, file, loader)
        return mapping
    if isinstance(node, yaml.SequenceNode):
        return [_plain(item, (*place, i), lines, seen, file, loader) for i, item in enumerate(node.value)]
    try:
        return loader.construct_object(node)
    except (yaml.YAMLError, ValueError) as error:
        reason = getattr(error, "problem", None) or str(error)
        raise OntologyError(
            f"this value is not allowed: {reason}.", fix="write plain text", file=file, line=line
        ) from error


def _explain(item: Any, value: Any, lines: dict[tuple[str | int, ...], int], file: str) -> OntologyError:
    """Turn one pydantic error into a sentence with its line and fix."""
    place = tuple(part for part in item["loc"] if isinstance(part, int | str))
    at = place
    while at and at not in lines:
        at = at[:-1]
    line = lines.get(at)
    owner = "the ontology"
    if len(place) >= 2 and place[0] == "concepts" and isinstance(place[1], int):
        concept = value["concepts"][place[1]] if isinstance(value.get("concepts"), list) else None
        name = concept.get("name") if isinstance(concept, dict) else None
        owner = f"the concept {name!r}" if name else f"concept number {place[1] + 1}"
    key = place[-1] if place else ""
    model: type[BaseModel] = Concept if len(place) >= 3 else Ontology
    if item["type"] == "extra_forbidden":
        message = f"unknown key {key!r} in {owner}." + did_you_mean(str(key), list(model.model_fields))
        return OntologyError(message, fix="correct or remove this key", file=file, line=line)
    if item["type"] == "missing":
        fix = 'add `question: "Which ...?"`' if key == "question" else f"add `{key}: ...`"
        return OntologyError(f"{owner} has no {key!r}.", fix=fix, file=file, line=line)
    if item["type"] == "string_pattern_mismatch":
        return OntologyError(
            f"{item['input']!r} is not a name.",
            fix="use letters, digits and underscores, a letter first",
            file=file,
            line=line,
        )
    if item["type"] == "string_too_short":
        return OntologyError(f"{owner} has an empty {key!r}.", fix="write it out", file=file, line=line)
    where = ".".join(str(part) for part in place[2:] if not str(part).startswith("dict[")) or str(key)
    reason = item["msg"][:1].lower() + item["msg"][1:]
    return OntologyError(
        f"{where!r} of {owner}: {reason} (found {item['input']!r}).", fix="correct this value", file=file, line=line
    )


def _resolve(ontology: Ontology) -> list[ConstructibleError]:
    """Check what the types cannot: names that appear twice or lead nowhere, questions that ask nothing."""
    problems: list[ConstructibleError] = []

    def problem(message: str, fix: str, *place: str | int) -> None:
        line = None
        key = tuple(place)
        while line is None and key:
            line, key = ontology._lines.get(key), key[:-1]
        problems.append(OntologyError(message, fix=fix, file=ontology._file, line=line))

    first: dict[str, int] = {}
    for i, concept in enumerate(ontology.concepts):
        if concept.name in first:
            line = ontology._lines.get(("concepts", first[concept.name]))
            problem(
                f"the concept {concept.name!r} is already declared on line {line}.",
                "rename or remove one",
                "concepts",
                i,
                "name",
            )
        first.setdefault(concept.name, i)
        if concept.name in RESERVED:
            problem(f"{concept.name!r} is the name of a cut.", "choose another name", "concepts", i, "name")
        if not concept.question.rstrip().endswith("?"):
            problem(
                f"the question of {concept.name!r} does not end in a question mark.", "ask one question",
                "concepts", i, "question",
            )  # fmt: skip
        for kind, names in (("child", concept.children), ("read", concept.reads)):
            place = "children" if kind == "child" else "reads"
            for j, name in enumerate(names):
                if name in names[:j]:
                    problem(f"{concept.name!r} names the {kind} {name!r} twice.", "remove one", "concepts", i, place, j)
    for i, concept in enumerate(ontology.concepts):
        for j, name in enumerate(concept.children):
            if name not in first:
                problem(
                    f"{concept.name!r} has the unknown child {name!r}." + did_you_mean(name, list(first)),
                    "declare the child or correct its name", "concepts", i, "children", j,
                )  # fmt: skip
    if ontology.root not in first:
        hint = did_you_mean(ontology.root, list(first))
        problem(f"the root {ontology.root!r} is not a declared concept.{hint}", "name a declared concept", "root")
    return problems
