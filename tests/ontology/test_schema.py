"""Ontology files: what is wrong is reported with file, line and fix."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from ontology.errors import ConstructibleError
from ontology.schema import Concept, Ontology, OntologyError

GOOD = """name: toy
version: 1
root: top
concepts:
  - name: top
    question: What is it?
    children: [left, right]
  - name: left
    question: Is it left?
    reads: [x, y]
    module: table
    max_params: 10
  - name: right
    question: Is it right?
    tests:
      - "a | b"
      - {text: c, answer: 1}
"""


def test_a_good_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "o.yaml").write_text(GOOD, encoding="utf-8")
    ontology = Ontology.load(tmp_path / "o.yaml")
    assert ontology.names == ("top", "left", "right")
    assert ontology["left"].reads == ("x", "y") and ontology["left"].module == "table"
    assert ontology["top"].module == "net" and "left" in ontology and "middle" not in ontology
    assert ontology["right"].tests == ("a | b", {"text": "c", "answer": 1})
    assert ontology.file == str(tmp_path / "o.yaml")
    assert (ontology.line("left"), ontology.line("left", "reads"), ontology.line("right", "tests", 1)) == (8, 10, 17)
    with pytest.raises(ConstructibleError, match="Did you mean 'left'"):
        ontology["lefft"]


BROKEN = [
    ("reads: [x, y]", "raeds: [x, y]", 10, "unknown key 'raeds' in the concept 'left'. Did you mean 'reads'?"),
    ("version: 1", "versoin: 1", 2, "unknown key 'versoin' in the ontology. Did you mean 'version'?"),
    ("children: [left, right]", "children: [left, right, lefft]", 7, "unknown child 'lefft'. Did you mean 'left'?"),
    ("children: [left, right]", "children: [left, right, left]", 7, "names the child 'left' twice"),
    ("children: [left, right]", "children: left", 7, "'children' of the concept 'top'"),
    ("children: [left, right]", "children: [left]", 13, "'right' cannot be reached from the root 'top'"),
    ("question: Is it left?", "", 8, "the concept 'left' has no 'question'"),
    ("question: Is it left?", 'question: ""', 9, "empty 'question'"),
    ("question: Is it left?", "question:", 9, "'question' of the concept 'left'"),
    ("question: Is it left?", "question: It is left.", 9, "does not end in a question mark"),
    ("question: Is it left?", "question: 5", 9, "valid string"),
    ("question: Is it left?", "question: A?\n    question: B?", 10, "the key 'question' appears twice"),
    ("- name: left\n    question", "- question", 8, "concept number 2 has no 'name'"),
    ("name: right", "name: left", 13, "the concept 'left' is already declared on line 8"),
    ("name: right", "name: to the right", 13, "'to the right' is not a name"),
    ("name: right", "name: leaves", 13, "'leaves' is the name of a cut"),
    ("name: right", "name: _right", 13, "'_right' is not a name"),
    ("root: top", "root: tops", 3, "the root 'tops' is not a declared concept. Did you mean 'top'?"),
    ("root: top", "root: left", 5, "cannot be reached"),
    ("root: top\n", "", 1, "the ontology has no 'root'"),
    ("root: top", "root: [top", 4, "not valid YAML"),
    ("module: table", "module: tabel", 11, "'module' of the concept 'left'"),
    ("max_params: 10", "max_params: many", 12, "valid integer"),
    ("max_params: 10", "max_params: 0", 12, "greater than 0"),
    ("max_params: 10", "max_params: 10.5", 12, "'max_params' of the concept 'left'"),
    ("reads: [x, y]", "reads: [x, x]", 10, "names the read 'x' twice"),
    ("reads: [x, y]", "reads: [x, 2020-99-99]", 10, "not allowed"),
    ("reads: [x, y]", "reads: &a [x, *a]", 10, "not valid YAML|anchor"),
    ("reads: [x, y]", "reads: [&a x, *a]", 10, "an anchor is used twice"),
    ("reads: [x, y]", "reads: !!python/object/apply:os.system [ls]", 10, "not allowed|not valid YAML|valid"),
    ("reads: [x, y]", "? [a]\n    : b", 10, "a key is not a plain word"),
    ("- {text: c, answer: 1}", "- 5", 17, "'tests.1"),
    ("    max_params: 10", "    children: [top]", 7, "the concepts form a circle: top -> left -> top"),
    ("    max_params: 10", "    children: [left]", 12, "the concepts form a circle: left -> left"),
    ("concepts:", "concepts: []\nother:", 4, "concepts"),
    (GOOD, "", 1, "not an ontology"),
    (GOOD, "- a\n- b\n", 1, "not an ontology"),
    (GOOD, "just text", 1, "not an ontology"),
    (GOOD, "a: 1\n\tb: c", 2, "not valid YAML"),
]


@pytest.mark.parametrize(("old", "new", "line", "message"), BROKEN, ids=range(len(BROKEN)))
def test_a_mistake_is_reported_with_line_and_fix(old: str, new: str, line: int, message: str) -> None:
    assert old in GOOD
    with pytest.raises(OntologyError, match=message.replace("?", r"\?").replace("[", r"\[")) as caught:
        Ontology.parse(GOOD.replace(old, new, 1), file="o.yaml")
    assert (caught.value.file, caught.value.line) == ("o.yaml", line)
    assert caught.value.fix and "\n" not in str(caught.value)


def test_every_problem_is_kept() -> None:
    text = GOOD.replace("[left, right]", "[left, wrong]").replace("Is it left?", "It is left")
    with pytest.raises(OntologyError) as caught:
        Ontology.parse(text)
    assert len(caught.value.others) == 1


def test_deep_nesting_is_an_error_not_a_crash() -> None:
    with pytest.raises(OntologyError):
        Ontology.parse("a: " + "[" * 3000 + "]" * 3000)


def test_a_file_that_cannot_be_read_says_so(tmp_path: Path) -> None:
    with pytest.raises(ConstructibleError, match="cannot be read"):
        Ontology.load(tmp_path / "missing.yaml")
    (tmp_path / "latin.yaml").write_bytes(b"name: \xe4\n")
    with pytest.raises(ConstructibleError, match="not UTF-8"):
        Ontology.load(tmp_path / "latin.yaml")


_names = st.from_regex(r"[A-Za-z][A-Za-z0-9_]{0,8}", fullmatch=True)


@settings(max_examples=60, deadline=None)
@given(st.lists(_names, min_size=1, max_size=12, unique=True), st.randoms(use_true_random=False))
def test_any_tree_survives_being_written_and_read(names: list[str], random) -> None:
    children: dict[str, list[str]] = {name: [] for name in names}
    for i, name in enumerate(names[1:], 1):
        children[random.choice(names[:i])].append(name)
    concepts = [{"name": n, "question": f"Is it {n}?", "children": children[n]} for n in names]
    value = {"name": "any", "root": names[0], "concepts": concepts}
    ontology = Ontology.parse(yaml.safe_dump(value, sort_keys=False))
    expected = tuple(Concept(name=n, question=f"Is it {n}?", children=tuple(children[n])) for n in names)
    assert ontology.concepts == expected


@settings(max_examples=150, deadline=None)
@given(st.text(alphabet="name: rotquescpl[]{}-&*!'\"\n \t?0#|>%@", max_size=80))
def test_any_text_is_read_or_refused_in_one_line(text: str) -> None:
    try:
        Ontology.parse(text, file="o.yaml")
    except OntologyError as error:
        assert error.file == "o.yaml" and "\n" not in str(error)
