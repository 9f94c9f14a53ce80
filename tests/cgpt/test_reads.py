"""Reads: gathered alike in one go and step by step, and from the left alone."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cgpt import counts
from cgpt.corpus import SourceFile
from cgpt.model import ConstructedLM
from cgpt.reads import READS, FileView

ROWS = ("reads", "fields", "registers", "offered", "slots", "name_first", "receiver")
relaxed = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@relaxed
@given(st.data())
def test_stepping_gives_what_reading_at_once_gives(model: ConstructedLM, unseen: list[SourceFile], data):
    file = data.draw(st.sampled_from(unseen[:6]))
    ids = model.tokenizer.encode(file.data)[:1500]
    whole = model.view(ids)
    stepped = FileView(model.alphabet, 16)
    at = 0
    while at < len(ids):
        k = data.draw(st.integers(1, 400))
        stepped.extend(ids[at : at + k])
        at += k
    for name in ROWS:
        np.testing.assert_array_equal(getattr(whole, name)[: whole.n + 1], getattr(stepped, name)[: whole.n + 1], name)
    np.testing.assert_array_equal(whole.previous[:, 1 : whole.n + 2], stepped.previous[:, 1 : whole.n + 2])
    assert stepped.text == whole.text


@relaxed
@given(st.data())
def test_what_comes_later_changes_nothing(model: ConstructedLM, unseen: list[SourceFile], data):
    """Causality: with other text from position i on, situation, reads and distribution at i are the same."""
    file, other = data.draw(st.sampled_from(unseen[:6])), data.draw(st.sampled_from(unseen[6:12]))
    ids = model.tokenizer.encode(file.data)[:1200]
    i = data.draw(st.integers(0, len(ids)))
    tail = data.draw(st.one_of(st.just(model.tokenizer.encode(other.data)[:300]), st.just(np.zeros(0, np.uint16))))
    one, two = model.view(ids), model.view(np.concatenate([ids[:i], tail]).astype(np.uint16))
    for name in ROWS:
        np.testing.assert_array_equal(getattr(one, name)[: i + 1], getattr(two, name)[: i + 1], name)
    assert model.concepts_at(one)[i] == model.concepts_at(two)[i]
    np.testing.assert_array_equal(model.position(one, i).distribution, model.position(two, i).distribution)


def test_places_are_earlier_positions_with_the_same_surroundings(model: ConstructedLM, unseen: list[SourceFile]):
    data = max((file.data for file in unseen), key=len)
    view = model.view(model.tokenizer.encode(data)[:900])
    breaks = {t for t, text in enumerate(model.tokenizer.token_bytes) if text[:1] == b"\n" and not text.strip()}
    found = 0
    for k, place in enumerate(counts.PLACES):
        latest: dict[tuple, int] = {}
        for i in range(view.n + 1):
            key = tuple(view.fields[i]) if place.lexer else ()
            for name in place.reads:
                if name == counts.PLAIN:
                    last = int(view.history[i])
                    text = model.tokenizer.token_bytes[last]
                    key += ("break",) if last in breaks else (text.removeprefix(b" ") or text,)
                else:
                    key += (int(view.reads[i, READS.index(name)]),)
            assert view.previous[counts.N_FILE_LEVELS + k, i + 1] == latest.get(key, -1), (place.name, i)
            found += key in latest
            latest[key] = i + 1
    assert found > 2 * view.n


def test_reads_name_what_they_say(model: ConstructedLM):
    code = "import os\n\n\nclass Store:\n    def load(self, path):\n        for name in sorted(os.listdir(path, key="
    view = model.view(model.tokenizer.encode(code.encode()))
    said = {name: view.read_text(view.n, k) for k, name in enumerate(READS)}
    expected = {
        "callee": "listdir", "outer_callee": "sorted", "argument_name": "key", "def_name": "load",
        "class_name": "Store", "block_header": "def", "block_name": "load", "line_first": "for",
        "bracket_position": "1", "column": "4",
    }  # fmt: skip
    for name, word in expected.items():
        assert word.startswith(said[name].strip()) and said[name].strip(), (name, said[name])
    assert said["decorator"] == "-"


def test_what_followed_earlier_in_the_file_is_read(model: ConstructedLM):
    view = model.view(model.tokenizer.encode(b"value = compute(1)\nvalue = compute(2)\nvalue ="))
    said = {name: view.read_text(view.n, k) for k, name in enumerate(READS)}
    assert " compute".startswith(said["file_1"]) and said["file_1"].strip()
    assert said["file_2"] == said["file_1"]


def test_every_declared_read_exists(model: ConstructedLM):
    for concept in model.ontology.concepts:
        assert set(concept.reads) <= set(READS), concept.name
    used = {read for concept in model.ontology.concepts for read in concept.reads}
    assert len(used) >= 30


@pytest.mark.parametrize("text", ["", "\r\n\tx", "\ufeffx = 'é😀'\n", "((((", "'''open", "f'{a!r:>{w}"])
def test_any_text_can_be_followed(model: ConstructedLM, text: str):
    ids = model.tokenizer.encode(text.encode())
    view = model.view(ids)
    assert view.text == text.encode()
    assert (view.reads[: view.n + 1] < model.tokenizer.vocab_size + 1 + 32).all()
