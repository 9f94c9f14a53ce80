"""Drafts from phrases: shared concepts, what is not visible dropped, a file that can be read, and the commands."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ontology.errors import ConstructibleError, UsageError
from ontology.main import run
from tests.support import data_path
from vision.cli_ontology import ontology
from vision.concepts import Library, load_library
from vision.phrases import Spoken, draft, parse_phrase, read_phrases, read_wordnet, to_yaml
from vision.visual_words import lemma, same_words, why_not_visible

ANIMALS = {
    "robin": ["a red breast", "two wings", "a short beak", "sings loudly", "brown feathers"],
    "owl": ["large eyes", "striped wings", "brown feathers", "a hooked beak", "hunts at night"],
    "crow": ["black feathers", "a black beak", "two wings"],
    "fox": ["red fur", "a long, bushy tail", "pointed ears", "lives in forests"],
    "cat": ["striped or spotted fur", "pointed ears", "a long tail", "round eyes"],
    "bear": ["brown fur", "a short tail", "often weighs 300 kg", "can be dangerous"],
    "zebra": ["black and white stripes", "four legs", "a long tail", "pointed ears", "found in Africa"],
}


def concepts(phrase: str) -> tuple[set[str], set[str], str]:
    read = parse_phrase(phrase)
    assert isinstance(read, Spoken), read
    return {name for _, name in read.true}, {name for _, name in read.unclear}, read.bearer


@pytest.mark.parametrize(
    ("phrase", "true", "unclear", "bearer"),
    [
        ("a long, bushy tail", {"tail", "long_tail", "shaggy_fur"}, set(), "tail"),
        ("black tails", {"tail", "black"}, set(), "tail"),
        ("two large, black eyes", {"round_eyes", "black"}, set(), "round_eyes"),
        ("red, orange, or brown fur", {"fur"}, {"red", "orange", "brown"}, ""),
        ("black or grey", set(), {"black", "grey"}, ""),
        ("black and white fur", {"black", "white", "fur"}, set(), ""),
        ("a bowl with a blue rim", {"dish", "blue", "ring"}, set(), "dish"),
        ("wooden handles", {"handle", "wood"}, set(), "handle"),
        ("scales that shimmer in the light", {"scales"}, set(), ""),
        ("a powerful tail", {"tail"}, set(), "tail"),
        ("pointed ears", {"upright_ears"}, set(), ""),
        ("dark brown body", {"dark_brown"}, set(), "body"),
        ("a bird standing on green grass", {"grass"}, set(), ""),
        ("long, spindly legs", {"long_thin_legs"}, set(), ""),
        ("a gnomon", {"gnomon"}, set(), "gnomon"),
        ("Yellow stripes (usually three)", {"yellow", "stripes"}, set(), ""),
    ],
)
def test_a_phrase_is_read_as_shared_concepts(phrase: str, true: set[str], unclear: set[str], bearer: str) -> None:
    assert concepts(phrase) == (true, unclear, bearer)


@pytest.mark.parametrize(
    ("phrase", "reason"),
    [
        ("makes a loud noise", "is a sound"),
        ("a sweet smell", "is a smell or a taste"),
        ("used to dig holes", "says what it is for"),
        ("hunts at night", "is behaviour"),
        ("can be any color", "leaves open how it looks"),
        ("large size", "is a size, which a picture without a scale does not show"),
        ("native to Australia", "says where or when it comes from"),
        ("a four-limbed mammal", "names nothing that the word lists know as visible"),
        ("a gasoline engine", "is hidden inside"),
        ("no legs", "says what it does not show"),
        ("a body without fur", "says what it does not show"),
        ("", "names nothing that the word lists know as visible"),
    ],
)
def test_what_cannot_be_seen_is_dropped_with_the_reason(phrase: str, reason: str) -> None:
    assert parse_phrase(phrase) == reason


def test_what_a_class_is_names_no_part_of_it() -> None:
    assert concepts("a red trolley") == ({"red", "trolley"}, set(), "trolley")
    assert parse_phrase("a red trolley", ["trolley", "vehicle"]) == Spoken((("colour", "red"),), (), "")


def test_words_lose_their_plural_and_nothing_else() -> None:
    for plural, singular in (
        ("stripes", "stripe"), ("leaves", "leaf"), ("feet", "foot"), ("boxes", "box"), ("berries", "berry"),
        ("potatoes", "potato"), ("grass", "grass"), ("glass", "glass"), ("bus", "bus"), ("lens", "lens"),
    ):  # fmt: skip
        assert lemma(plural) == singular
    assert same_words("striped_fur") == same_words("furry stripes") != same_words("fur")
    assert why_not_visible("heart-shaped leaf") is None and why_not_visible("a beating heart") == "is hidden inside"


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=60))
def test_any_phrase_is_read_or_dropped(phrase: str) -> None:
    read = parse_phrase(phrase)
    assert isinstance(read, str | Spoken)
    if isinstance(read, Spoken):
        assert not set(read.true) & set(read.unclear) and (read.true or read.unclear)


def test_a_draft_shares_concepts_and_survives_being_written_and_read() -> None:
    made = draft(ANIMALS, base=None, minimum=2)
    library = made.library
    assert set(library.classes["fox"].features) >= {"red", "fur", "tail", "long_tail", "upright_ears"}
    assert set(library.classes["cat"].unclear) >= {"stripes"} and "stripes" not in library.classes["cat"].features
    assert library.classes["crow"].parts["beak"] == ("beak", "black")
    assert library.features["beak"].phrases[0] == "a short beak" and library.features["beak"].draft
    assert all(entry.draft for entry in library.classes.values())
    assert "sings loudly" in made.dropped["is a sound"] and "found in Africa" in sum(made.dropped.values(), [])
    again = Library.parse(to_yaml(library, base=None))
    assert again.classes == library.classes and again.features == library.features
    names, table = library.table()
    assert ((table == 1).sum(axis=0) >= 2).all() and "four_legs" not in names


def test_a_draft_takes_the_curated_features_it_speaks_of() -> None:
    made = draft(ANIMALS, minimum=2)
    text = to_yaml(made.library)
    assert "extends: features" in text and "name: fur," not in text
    again = Library.parse(text)
    assert again.features["fur"] == load_library().features["fur"]
    assert {name: entry.features for name, entry in again.classes.items()} == {
        name: entry.features for name, entry in made.library.classes.items()
    }


def test_wordnet_gives_other_names_chains_and_unclear_parts(tmp_path: Path) -> None:
    records = {
        "n00000001": {
            "lemmas": ["European robin", "robin"], "hypernym_chain": ["thrush", "bird", "organism", "entity"],
            "parts": [{"part": "tail feather", "steps_up": 1}, {"part": "tail", "steps_up": 2}],
        },
    }  # fmt: skip
    (tmp_path / "w.json").write_text(json.dumps(records), encoding="utf-8")
    made = draft(ANIMALS, [*ANIMALS, "n00000001"], wordnet=read_wordnet(tmp_path / "w.json"), minimum=2)
    robin = made.library.classes["robin"]
    assert robin.wnid == "n00000001" and robin.is_a == ("thrush", "bird")
    assert "tail" in robin.unclear and "tail" not in made.library.classes["owl"].unclear
    with pytest.raises(ConstructibleError, match="no file of WordNet records"):
        (tmp_path / "w.json").write_text('{"n1": {"lemmas": []}}', encoding="utf-8")
        read_wordnet(tmp_path / "w.json")


def test_classes_are_found_under_other_names() -> None:
    assert draft({"praying mantis": ["green body"]}, ["mantis"]).read_as == {"mantis": "praying mantis"}
    assert draft({"fire salamander": ["yellow spots"]}, ["European fire salamander"]).read_as
    two = {"construction crane": ["steel lattice"], "grey crane": ["grey feathers"]}
    with pytest.raises(UsageError, match="no phrases for 'crane'"):
        draft(two, ["crane"])
    made = draft(two, ["crane=construction crane"])
    assert made.library.classes["crane"].features == ("shiny_metal", "lattice")
    with pytest.raises(UsageError, match="no phrases for 'owll'. Did you mean 'owl'"):
        draft(ANIMALS, ["owll"])


def test_phrases_are_read_from_json_lines_and_matrices(tmp_path: Path) -> None:
    (tmp_path / "p.json").write_text('{"owl": ["large eyes", "large eyes"]}', encoding="utf-8")
    assert read_phrases(tmp_path / "p.json") == {"owl": ["large eyes"]}
    (tmp_path / "p.txt").write_text("# birds\nowl: large eyes; brown feathers\n\ncrow: black\nowl: beak\n", "utf-8")
    assert read_phrases(tmp_path / "p.txt") == {
        "owl": ["large eyes", "brown feathers", "beak"],
        "crow": ["black"],
    }
    (tmp_path / "x_predicate-matrix.txt").write_text("1 0\n0 1\n", encoding="utf-8")
    with pytest.raises(ConstructibleError, match=r"x_classes\.txt"):
        read_phrases(tmp_path / "x_predicate-matrix.txt")
    (tmp_path / "x_classes.txt").write_text("1 polar+bear\n2 owl\n", encoding="utf-8")
    (tmp_path / "x_predicates.txt").write_text("1\twhite\n2\tbrown\n", encoding="utf-8")
    assert read_phrases(tmp_path / "x_predicate-matrix.txt") == {"polar bear": ["white"], "owl": ["brown"]}
    for bad, message in (("1 0\n0\n", "has 1 numbers"), ("1 0\n", "has 1 lines where 2 classes")):
        (tmp_path / "x_predicate-matrix.txt").write_text(bad, encoding="utf-8")
        with pytest.raises(ConstructibleError, match=message):
            read_phrases(tmp_path / "x_predicate-matrix.txt")
    for name, text, message in (
        ("a.json", "[1]", "does not map labels"), ("b.json", '{"a": "b"}', "does not map labels"),
        ("c.json", "{", "not valid JSON"), ("d.txt", "\nno label here\n", r"d\.txt:2: no label"),
        ("e.txt", "", "holds no phrases"),
    ):  # fmt: skip
        (tmp_path / name).write_text(text, encoding="utf-8")
        with pytest.raises(ConstructibleError, match=message):
            read_phrases(tmp_path / name)


def test_published_phrases_give_a_draft_that_agrees_with_the_curated_table() -> None:
    phrases = read_phrases(data_path("knowledge", "lfcbm_gpt3_imagenet_important.json"))
    wordnet = read_wordnet(data_path("knowledge", "imagenet1000_wordnet_parts.json"))
    told = {"steel arch bridge": "through arch bridge", "crane": "construction crane", "seashore": "beach"}
    curated = load_library()
    asked = [f"{label}={told[label]}" if label in told else label for label in curated.classes]
    made = draft(phrases, asked, wordnet=wordnet)
    assert made.read_as["mantis"] == "praying mantis" and len(made.library.classes) == 80
    names, truth = curated.table()
    drafted, guess = made.library.table(list(curated.classes))
    both = [name for name in names if name in drafted]
    truth, guess = truth[:, [names.index(n) for n in both]], guess[:, [drafted.index(n) for n in both]]
    sure = (truth >= 0) & (guess >= 0)
    precision, base = (truth[sure & (guess == 1)] == 1).mean(), (truth[sure] == 1).mean()
    assert len(both) >= 25 and precision > 0.6 and base < 0.1
    assert np.mean([bool(entry.features) for entry in made.library.classes.values()]) > 0.9
    everything = draft(phrases, wordnet=wordnet)
    assert len(everything.library.classes) == len(phrases)


def call(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    code = run(ontology, [str(each) for each in arguments])
    out, err = capsys.readouterr()
    return code, out, err


def test_draft_check_and_show_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "p.json").write_text(json.dumps(ANIMALS), encoding="utf-8")
    code, out, err = call(capsys, "draft", tmp_path / "p.json", "--classes", "all", "--out", tmp_path / "d.yaml")
    assert code == 0 and "7 classes" in out and "review it" in out and "phrases dropped: it is a sound" in err
    code, _, err = call(capsys, "draft", tmp_path / "p.json", "--classes", "fox", "--out", tmp_path / "d.yaml")
    assert (
        code == 2 and "d.yaml: is there already, perhaps corrected by hand. Fix: choose another name or --force" in err
    )
    code, _, err = call(capsys, "check", "tiny_imagnet")
    assert code == 2 and "neither a file nor a curated library. Did you mean 'tiny_imagenet'?" in err
    code, out, err = call(capsys, "check", tmp_path / "d.yaml", "--json")
    report = json.loads(out)
    assert code == (0 if report["passed"] else 3) and report["facts"]["classes"] == 7 and report["facts"]["drafts"] >= 7
    code, out, _ = call(capsys, "show", "fox", "--file", tmp_path / "d.yaml")
    assert code == 0 and out.startswith("fox\n") and "tail [part 0.35, also of " in out
    (tmp_path / "classes.txt").write_text("fox\ncat\n", encoding="utf-8")
    code, out, _ = call(
        capsys, "draft", tmp_path / "p.json", "--classes", tmp_path / "classes.txt", "--out", tmp_path / "e.yaml",
        "--base", "none", "--json",
    )  # fmt: skip
    assert code == 0 and json.loads(out)["classes"] == 2 and "extends" not in (tmp_path / "e.yaml").read_text("utf-8")
    code, _, err = call(capsys, "draft", tmp_path / "p.json", "--classes", "wolf", "--out", tmp_path / "f.yaml")
    assert code == 2 and "no phrases for 'wolf'" in err and not (tmp_path / "f.yaml").exists()


def test_a_failed_check_exits_3_and_lists_every_problem(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = (
        "name: x\nfeatures:\n  - {name: noise, question: Is it loud, kind: part, scale: 0.2}\nclasses:\n  - {name: a}\n"
    )
    (tmp_path / "x.yaml").write_text(text, encoding="utf-8")
    code, out, err = call(capsys, "check", tmp_path / "x.yaml")
    assert code == 3 and err == f"error: 4 problems in {tmp_path / 'x.yaml'}. Fix: do what each line says\n"
    assert "x.yaml:3: the feature 'noise' cannot be seen in a photograph: its name is a sound" in out
    assert "x.yaml:5: the class 'a' lists no feature" in out and "note: " in out


def test_show_finds_a_class_of_any_curated_library(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = call(capsys, "show", "golf ball")
    assert code == 0 and out.startswith("golf ball n03445777: golf ball < ")
    code, out, _ = call(capsys, "show", "n02268443", "--json")
    value = json.loads(out)
    assert value["class"]["name"] == "dragonfly" and value["features"]["wings"]["kind"] == "part"
    code, _, err = call(capsys, "show", "dragonfl")
    assert code == 2 and "Did you mean 'dragonfly'?" in err
    assert call(capsys, "show", "dragonfly", "--dataset", "imagenette224")[0] == 2
