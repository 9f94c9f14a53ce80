"""Concept libraries: what is wrong is told with its place, the table says what the file says, cuts work."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ontology.errors import ConstructibleError, UsageError
from ontology.graph import cut, depths, problems
from ontology.schema import OntologyError
from tests.support import ROOT, data_path
from vision.concept_checks import check
from vision.concepts import (
    CUTS,
    DATASETS,
    ONTOLOGIES,
    ClassEntry,
    Feature,
    Library,
    load_library,
    to_ontology,
)
from vision.nodes import MAX_PARAMS

GOOD = """name: toy
features:
  - {name: red, question: "Is there red?", kind: colour, scale: 0.1}
  - name: wheel
    question: Is there a wheel?
    kind: part
    scale: 0.35
  - {name: street, question: "Is there a street?", kind: context, scale: 0.6}
classes:
  - name: bus
    wnid: n00000001
    is_a: [vehicle]
    parts:
      side: [red]
      base: [wheel, red]
    context: [street]
  - name: hand cart
    title: cart
    whole: [wheel]
    unclear: [red, street]
"""


def test_a_good_file_is_read() -> None:
    library = Library.parse(GOOD, file="toy.yaml")
    bus = library.classes["bus"]
    assert list(library.features) == ["red", "wheel", "street"] and bus.features == ("red", "wheel", "street")
    assert library.entry("n00000001") is bus and library.entry("bus") is bus and library.has("hand cart")
    assert library.classes["hand cart"].human_name == "cart"
    assert library.place("features", "wheel") == ("toy.yaml", 4)
    assert library.place("classes", "bus", "parts", "base", 1) == ("toy.yaml", 15)
    assert library.place("classes", "nothing") == (None, None)
    with pytest.raises(UsageError, match="no class 'hand car'. Did you mean 'hand cart'"):
        library.entry("hand car")


def test_the_table_holds_true_false_and_unclear() -> None:
    library = Library.parse(GOOD)
    names, table = library.table()
    assert names == ("red", "wheel", "street") and table.dtype == np.int8
    assert table.tolist() == [[1, 1, 1], [-1, 1, -1]]
    assert library.table(["hand cart", "n00000001"])[1].tolist() == [[-1, 1, -1], [1, 1, 1]]
    assert library.table(["bus"], minimum=1)[0] == ()
    with pytest.raises(UsageError, match="no class 'tram'"):
        library.table(["tram"])


BROKEN = [
    ("scale: 0.35", "sclae: 0.35", 7, "unknown key 'sclae' in the feature 'wheel'. Did you mean 'scale'?"),
    ("    scale: 0.35\n", "", 4, "the feature 'wheel' has no 'scale'"),
    ("scale: 0.35", "scale: 0.3", 7, "a scale is one of 0.1, 0.2, 0.35, 0.6, 1.0"),
    ("scale: 0.35", "scale: wide", 7, "'scale' of the feature 'wheel'"),
    ("kind: part", "kind: thing", 6, "'kind' of the feature 'wheel'"),
    ("    question: Is there a wheel?\n", "", 4, "the feature 'wheel' has no 'question'"),
    ("name: wheel", "name: a wheel", 4, "'a wheel' is not a name"),
    ("name: wheel", "name: red", 4, "'red' is already declared on line 3"),
    ("side: [red]", "side: [rde]", 14, "the class 'bus' lists the unknown feature 'rde'. Did you mean 'red'?"),
    ("side: [red]", "side: []", 14, "'parts.side' of the class 'bus'"),
    ("[wheel, red]", "[red, red]", 15, "the class 'bus' lists the feature 'red' twice in one list"),
    ("unclear: [red, street]", "unclear: [red, wheel]", 20, "lists the feature 'wheel' as true and as unclear"),
    ("wnid: n00000001", "wnid: n1", 11, "'n1' is not a WordNet id"),
    ("name: hand cart", "name: bus", 17, "'bus' is already declared on line 10"),
    ("title: cart", "titel: cart", 18, "unknown key 'titel' in the class 'hand cart'. Did you mean 'title'?"),
    ("name: toy", "name: toy\nextends: nothing", 2, "extends 'nothing', which is neither a file nor a curated"),
    ("name: toy", "", 2, "the file has no 'name'"),
    ("classes:", "classes: {}\nother:", 10, "unknown key 'other' in the file"),
    (GOOD, "- a\n", 1, "not an ontology"),
]


@pytest.mark.parametrize(("old", "new", "line", "message"), BROKEN, ids=range(len(BROKEN)))
def test_a_mistake_is_reported_with_line_and_fix(old: str, new: str, line: int, message: str) -> None:
    assert old in GOOD
    with pytest.raises(OntologyError) as caught:
        Library.parse(GOOD.replace(old, new, 1), file="toy.yaml")
    assert message in caught.value.message
    assert (caught.value.file, caught.value.line) == ("toy.yaml", line)
    assert caught.value.fix and "\n" not in str(caught.value)


@settings(max_examples=150, deadline=None)
@given(st.text(alphabet="name:featursclikdpxhow[]{}-&*!'\"\n \t?0.#|>%@", max_size=80))
def test_any_text_is_read_or_refused_in_one_line(text: str) -> None:
    try:
        Library.parse(text, file="o.yaml")
    except OntologyError as error:
        assert "\n" not in str(error)


def test_every_problem_is_kept() -> None:
    with pytest.raises(OntologyError) as caught:
        Library.parse(GOOD.replace("[wheel, red]", "[whel, rde]"))
    assert len(caught.value.others) == 1


def test_a_file_extends_and_replaces(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text(GOOD, encoding="utf-8")
    (tmp_path / "own.yaml").write_text(
        """name: own
extends: base.yaml
features:
  - {name: wheel, question: Is there one wheel?, kind: part, scale: 0.6}
classes:
  - {name: bus, whole: [wheel]}
  - {name: tram, context: [street]}
""".replace("Is there one wheel?", '"Is there one wheel?"'),
        encoding="utf-8",
    )
    library = load_library(tmp_path / "own.yaml")
    assert library.name == "own" and list(library.classes) == ["bus", "hand cart", "tram"]
    assert library.classes["bus"].features == ("wheel",) and library.features["wheel"].scale == 0.6
    assert library.place("classes", "bus") == (str(tmp_path / "own.yaml"), 6)
    assert library.place("classes", "hand cart") == (str(tmp_path / "base.yaml"), 17)
    assert library.place("classes", "bus", "parts", "side", 0) == (str(tmp_path / "own.yaml"), 6)
    again = Library.load(tmp_path / "base.yaml").merge(library)
    assert again.features == library.features and again.classes == library.classes


def test_files_that_extend_each_other_and_missing_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("name: a\nextends: b.yaml\n", encoding="utf-8")
    (tmp_path / "b.yaml").write_text("name: b\nextends: a.yaml\n", encoding="utf-8")
    with pytest.raises(OntologyError, match=r"b\.yaml:2: extends itself"):
        Library.load(tmp_path / "a.yaml")
    with pytest.raises(ConstructibleError, match="cannot be read"):
        Library.load(tmp_path / "missing.yaml")
    with pytest.raises(UsageError, match="no curated ontology 'tiny_imagenets'. Did you mean 'tiny_imagenet'"):
        load_library(dataset="tiny_imagenets")


def test_the_graph_has_classes_parts_and_shared_features() -> None:
    graph = to_ontology(Library.parse(GOOD))
    assert graph["bus"].children == ("bus_side", "bus_base", "bus_scene")
    assert graph["hand_cart"].children == ("hand_cart_whole",) and graph["hand_cart"].question == "Is this a cart?"
    assert "wheel" in graph["bus_base"].children and "wheel" in graph["hand_cart_whole"].children
    assert graph["wheel"].question == "Is there a wheel?" and graph["wheel"].max_params == MAX_PARAMS
    assert cut(graph, CUTS["parts"]).owners["wheel"] == ("bus_base", "hand_cart_whole")
    assert to_ontology(Library.parse(GOOD), ["hand cart"]).names == ("image", "hand_cart", "hand_cart_whole", "wheel")
    with pytest.raises(ConstructibleError, match="two concepts of 'toy' would be called 'red'"):
        to_ontology(Library.parse(GOOD.replace("name: hand cart", "name: red")))
    with pytest.raises(UsageError, match="needs a class"):
        to_ontology(Library.parse(GOOD), [])


_names = st.lists(st.from_regex(r"[a-z]{3,8}", fullmatch=True), min_size=2, max_size=8, unique=True)


@settings(max_examples=60, deadline=None)
@given(_names, _names, st.randoms(use_true_random=False))
def test_any_library_gives_a_sound_graph_and_table(features: list[str], classes: list[str], random) -> None:
    listed = [Feature(name=f"f_{n}", question=f"Is it {n}?", kind="part", scale=0.2) for n in features]
    entries = []
    for label in classes:
        chosen = random.sample(listed, random.randint(1, len(listed)))
        split = random.randint(0, len(chosen))
        parts = {"p": tuple(f.name for f in chosen[:split])} if split else {}
        entries.append(ClassEntry(name=label, parts=parts, whole=tuple(f.name for f in chosen[split:])))
    library = Library(listed, entries)
    graph = to_ontology(library)
    assert problems(graph) == []
    depth = depths(graph)
    names, table = library.table()
    assert {name for name, level in depth.items() if level == 3} == set(names)
    assert all(depth[label] == 1 for label in classes)
    for row, entry in zip(table, entries, strict=True):
        assert {name for name, cell in zip(names, row, strict=True) if cell == 1} == set(entry.features)
    for spec in CUTS.values():
        cut(graph, spec)


@pytest.mark.parametrize("dataset", DATASETS)
def test_the_curated_libraries_pass_their_check(dataset: str) -> None:
    report = check(dataset)
    assert [str(problem) for problem in report.problems] == []
    graph = to_ontology(load_library(dataset=dataset))
    assert problems(graph) == []
    assert [len(cut(graph, spec).concepts) > 0 for spec in CUTS.values()] == [True] * len(CUTS)


def test_the_curated_classes_are_rich_enough_to_learn_from() -> None:
    library = load_library()
    names, table = library.table()
    assert len(library.classes) == 80 and 100 <= len(names) <= 140
    assert (table == 1).sum(axis=1).min() >= 4 and 6 <= (table == 1).sum(axis=1).mean() <= 12
    assert (table == -1).mean() < 0.15
    assert all(entry.is_a and entry.wnid for entry in library.classes.values())
    assert len(load_library(dataset="imagenette224").classes) == 5


@pytest.mark.parametrize("dataset", DATASETS)
def test_the_curated_classes_are_those_of_the_data(dataset: str) -> None:
    import pyarrow.parquet as pq

    table = pq.read_table(data_path(dataset, "train.parquet"), columns=["name", "wnid"])
    labels = set(zip(table["name"].to_pylist(), table["wnid"].to_pylist(), strict=True))
    assert {(entry.name, entry.wnid) for entry in load_library(dataset=dataset).classes.values()} == labels


FEATURES = [
    ("shiny", "Does it shine?", "texture"), ("round_shape", "Is it round?", "shape"),
    ("tail", "Is there a tail?", "part"),
    ("grass", "Is there grass?", "context"), ("red", "Is there red?", "colour"), ("blue", "Is there blue?", "colour"),
]  # fmt: skip


def library_text(classes: dict[str, list[str]], extra: str = "") -> str:
    rows = [f'  - {{name: {n}, question: "{q}", kind: {k}, scale: 0.2}}\n' for n, q, k in FEATURES]
    lists = [
        f"  - {{name: {label}, whole: [{', '.join(f for f in names if f != 'grass')}]"
        + (", context: [grass]}\n" if "grass" in names else "}\n")
        for label, names in classes.items()
    ]
    return "name: t\nfeatures:\n" + "".join(rows) + extra + "classes:\n" + "".join(lists)


BALANCED = {
    "a": ["shiny", "round_shape", "tail"], "b": ["shiny", "round_shape", "grass"], "c": ["shiny", "red", "blue"],
    "d": ["round_shape", "tail", "grass", "red"], "e": ["tail", "red", "blue"], "f": ["grass", "blue"],
}  # fmt: skip


def findings(tmp_path: Path, text: str, **options) -> list[str]:
    (tmp_path / "t.yaml").write_text(text, encoding="utf-8")
    return [str(problem) for problem in check(tmp_path / "t.yaml", **options).problems]


def test_a_balanced_library_passes(tmp_path: Path) -> None:
    assert findings(tmp_path, library_text(BALANCED)) == []


NOT_SEEN = [
    ("loud", "Is it loud?", "is a sound"), ("smell", "Does it smell sweet?", "is a smell or a taste"),
    ("used_for_digging", "Is it used for digging?", "says what it is for"),
    ("hunter", "Does it hunt at night?", "is behaviour"),
    ("power", "Is it powerful?", "is an opinion"), ("big", "Is it large?", "is a size"),
    ("weight", "Is it heavy?", "is felt"), ("native_to_asia", "Is it native to Asia?", "where or when"),
    ("any_colour", "Can it be any colour?", "leaves open"), ("engine", "Is there an engine?", "hidden inside"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "question", "reason"), NOT_SEEN)
def test_what_no_photograph_shows_is_rejected(tmp_path: Path, name: str, question: str, reason: str) -> None:
    classes = {label: [*names, "odd"] if label in "acf" else names for label, names in BALANCED.items()}
    extra = f'  - {{name: odd, question: "{question}", kind: part, scale: 0.2}}\n'
    (found,) = findings(tmp_path, library_text(classes, extra))
    assert reason in found and "t.yaml:9: the feature 'odd' cannot be seen in a photograph" in found
    extra = extra.replace("name: odd", f"name: {name}").replace(question, "Is it there?")
    text = library_text({label: [name if n == "odd" else n for n in names] for label, names in classes.items()}, extra)
    assert any("its name" in each and reason in each for each in findings(tmp_path, text))


def test_duplicates_are_found(tmp_path: Path) -> None:
    for name, question, message in (
        ("reds", "Is there any crimson?", "'red' and 'reds' look like one: their names say the same"),
        ("glossy", "Is it polished?", "'shiny' and 'glossy' look like one: their names say the same"),
        ("circular", "Is it a circle?", "'round_shape' and 'circular' look like one: their names say the same"),
        ("lawn", "Is there  grass ?", "'grass' and 'lawn' look like one: they ask the same question"),
        ("round_shpe", "Is it a disc?", "'round_shape' and 'round_shpe' look like one: their names differ"),
    ):
        classes = {label: [*names, name] if label in "ade" else names for label, names in BALANCED.items()}
        extra = f'  - {{name: {name}, question: "{question}", kind: part, scale: 0.2}}\n'
        assert any(message in each for each in findings(tmp_path, library_text(classes, extra))), name


def test_features_that_cannot_be_learned_or_told_apart_are_found(tmp_path: Path) -> None:
    two = BALANCED | {"c": ["shiny", "red"]}
    (found,) = findings(tmp_path, library_text(two))
    assert "the feature 'blue' is true of 2 classes, fewer than 3" in found and found.startswith(str(tmp_path))
    assert findings(tmp_path, library_text(two), minimum=2) == []
    everywhere = {label: list(dict.fromkeys([*names, "red"])) for label, names in BALANCED.items()}
    assert any("'red' is false of 0 classes" in each for each in findings(tmp_path, library_text(everywhere)))
    same = {label: [n for n in names if n != "blue"] + ["blue"] * ("red" in names) for label, names in BALANCED.items()}
    assert any(
        "'red' and 'blue' are true of the same classes" in each for each in findings(tmp_path, library_text(same))
    )
    twins = BALANCED | {"g": BALANCED["a"]}
    assert any("'a' and 'g' list the same features" in each for each in findings(tmp_path, library_text(twins)))
    vague = library_text(BALANCED) + "  - {name: g, whole: [shiny, round_shape], unclear: [tail, red]}\n"
    (found,) = findings(tmp_path, vague)
    assert "t.yaml:16: nothing is surely shown by 'g' and surely not by 'a', or the other way round" in found


def test_misplaced_empty_and_unasked_are_found(tmp_path: Path) -> None:
    text = library_text(BALANCED)
    moved = text.replace("whole: [blue], context: [grass]", "whole: [blue, grass]")
    (found,) = findings(tmp_path, moved)
    assert "t.yaml:15: the class 'f' lists the surroundings 'grass' under 'whole'" in found
    (found,) = findings(tmp_path, text + "  - {name: z}\n")
    assert "the class 'z' lists no feature" in found
    twice = text.replace("name: a,", "name: a, wnid: n00000001,").replace("name: b,", "name: b, wnid: n00000001,")
    (found,) = findings(tmp_path, twice)
    assert "t.yaml:11: the classes 'a' and 'b' have one WordNet id" in found
    (found,) = findings(tmp_path, text.replace("Is it round?", "How round is it?"))
    assert "the question of 'round_shape' is no yes/no question" in found
    unused = '  - {name: dots, question: "Are there dots?", kind: texture, scale: 0.2}\n'
    (found,) = findings(tmp_path, library_text(BALANCED, unused))
    assert "no class lists the feature 'dots'" in found


def test_unknown_classes_are_found(tmp_path: Path) -> None:
    folder = tmp_path / "images"
    for label in "abcdeg":
        (folder / label).mkdir(parents=True)
    (found,) = findings(tmp_path, library_text(BALANCED), data=folder)
    assert "the data have no class 'f'" in found
    with pytest.raises(UsageError, match="no such data"):
        findings(tmp_path, library_text(BALANCED), data=tmp_path / "nothing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="holds no folders of classes"):
        findings(tmp_path, library_text(BALANCED), data=tmp_path / "empty")
    # What `build` reads is what is checked: the classes of the side to learn from.
    (tmp_path / "split").mkdir()
    folder.rename(tmp_path / "split" / "train")
    (tmp_path / "split" / "val" / "f").mkdir(parents=True)
    (found,) = findings(tmp_path, library_text(BALANCED), data=tmp_path / "split")
    assert "the data have no class 'f'" in found


def test_a_missing_scale_fails_the_check_with_its_line(tmp_path: Path) -> None:
    text = library_text(BALANCED).replace(", kind: part, scale: 0.2", ", kind: part", 1)
    (found,) = findings(tmp_path, text)
    assert found.startswith(
        f"{tmp_path / 't.yaml'}:5: the feature 'tail' has no 'scale'. Fix: add `scale:` with one of"
    )


def test_the_example_of_the_documentation_passes(tmp_path: Path) -> None:
    text = (ROOT / "docs" / "vision_ontology.md").read_text(encoding="utf-8").split("```yaml\n")[1].split("```")[0]
    assert findings(tmp_path, text) == []
    library = load_library(tmp_path / "t.yaml")
    assert len(library.classes) == 81 and library.features["horizon"].scale == 0.6


def test_one_class_alone_has_nothing_to_be_told_from(tmp_path: Path) -> None:
    assert findings(tmp_path, library_text({"a": [name for name, _, _ in FEATURES]})) == []


def test_the_curated_files_are_found_by_name() -> None:
    assert {path.stem for path in ONTOLOGIES.glob("*.yaml")} == {*DATASETS, "features"}
    assert check("features").problems == []
