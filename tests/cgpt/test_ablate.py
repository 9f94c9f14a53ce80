"""Ablation and isolation: what is taken away or replaced changes its own situations and nothing else."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cgpt import mixing
from cgpt.ablate import ablate, situations_of, without
from cgpt.corpus import SourceFile
from cgpt.model import ConstructedLM, load
from cgpt.nets import OWN
from cgpt.reads import FileView
from ontology.errors import UsageError
from tests.cgpt.small import build_small, small_corpus
from tests.support import ROOT

CONCEPTS = ("after_statement_name", "after_attribute", "docstring_word")


@pytest.fixture(scope="module")
def views(model: ConstructedLM, unseen: list[SourceFile]) -> list[FileView]:
    """Some files, followed to their ends."""
    files = sorted(unseen, key=lambda file: -len(file.data))[1:4]
    return [model.view(model.tokenizer.encode(file.data)) for file in files]


def sample(model: ConstructedLM, views: list[FileView], concept: str, n: int = 40) -> list[tuple[FileView, int, bool]]:
    """(view, boundary, whether the concept is in charge) at positions inside and outside of a situation."""
    random, c = np.random.default_rng(0), model.concepts.index(concept)
    chosen = []
    for view in views:
        at = model.concepts_at(view)
        for inside in (True, False):
            rows = np.flatnonzero((at == c) == inside)
            chosen += [(view, int(i), inside) for i in random.permutation(rows)[:n]]
    return chosen


def replaced_net(model: ConstructedLM, concept: str) -> ConstructedLM:
    """The model with all that the concept's net owns replaced by other numbers."""
    assert model.nets is not None
    m = int(model.net_of[model.concepts.index(concept)])
    random = np.random.default_rng(1)
    changed = {name: np.array(getattr(model.nets, name)) for name in OWN}
    for name in OWN:
        changed[name][m] = random.uniform(0.1, 0.9, changed[name][m].shape)
    other = copy.copy(model)
    other.nets = replace(model.nets, **changed)
    return other


def replaced_mixer_row(model: ConstructedLM, concept: str) -> ConstructedLM:
    by_concept = model.mixer.by_concept.copy()
    row = by_concept[model.concepts.index(concept)]
    row[:] = np.random.default_rng(2).normal(size=len(row))
    other = copy.copy(model)
    other.mixer = replace(model.mixer, by_concept=by_concept)
    return other


@pytest.mark.parametrize("concept", CONCEPTS)
@pytest.mark.parametrize("replaced", [replaced_net, replaced_mixer_row, without])
def test_no_distribution_changes_where_another_situation_is_in_charge(
    model: ConstructedLM, views: list[FileView], concept: str, replaced
):
    """Bit for bit, over the whole alphabet; where the concept is in charge it does change."""
    other = replaced(model, concept)
    inside_seen = 0
    for view, boundary, inside in sample(model, views, concept):
        before, after = (m.position(view, boundary).distribution.copy() for m in (model, other))
        assert abs(after.sum() - 1.0) < 1e-6 and (after > 0.0).all()
        if inside:
            inside_seen += 1
            assert (before != after).any()
        else:
            np.testing.assert_array_equal(before, after)
    assert inside_seen >= 10


def test_without_a_concept_its_net_says_nothing(model: ConstructedLM, views: list[FileView]):
    other = model.without("after_attribute")
    for view, boundary, inside in sample(model, views, "after_attribute", 10):
        parts = other.position(view, boundary).parts
        assert parts.sum() == pytest.approx(1.0)
        if inside:
            assert parts[mixing.S_NET] == 0.0
        elif model.position(view, boundary).parts[mixing.S_NET] > 0.0:
            assert parts[mixing.S_NET] > 0.0


def test_a_concept_above_takes_all_below_it_along(model: ConstructedLM):
    below = situations_of(model, "attribute")
    assert len(below) > 1
    assert "docstring_word" not in below
    assert set(situations_of(model, model.ontology.root)) == set(model.concepts)
    other = model.without("attribute")
    for c, concept in enumerate(model.concepts):
        assert (other.net_of[c] == -1) == (concept in below)


@pytest.mark.parametrize("name", ["net", "corpus", "file", "names"])
def test_without_a_source_it_has_no_weight(model: ConstructedLM, views: list[FileView], name: str):
    other, source = model.without(name), mixing.SOURCES.index(name)
    had = 0.0
    for view in views:
        for boundary in range(0, view.n, 97):
            at = other.position(view, boundary)
            assert at.parts[source] == 0.0
            assert abs(at.distribution.sum() - 1.0) < 1e-6 and (at.distribution > 0.0).all()
            had = max(had, model.position(view, boundary).parts[source])
    assert had > 0.05


def test_without_a_read_it_moves_no_net(model: ConstructedLM, views: list[FileView]):
    other, column = model.without("previous_2"), 1
    view = views[0]
    changed = copy.copy(view)
    changed.reads = view.reads.copy()
    changed.reads[:, column] = 300
    seen = 0
    for boundary in range(0, view.n, 61):
        plain, moved = other.position(view, boundary), other.position(changed, boundary)
        np.testing.assert_array_equal(plain.distribution, moved.distribution)
        seen += bool((model.position(changed, boundary).distribution != plain.distribution).any())
    assert seen > 10


def test_the_model_itself_stays_as_it_was(model: ConstructedLM, unseen: list[SourceFile]):
    before = model.score_file(unseen[0].data).bits
    for name in ("net", "corpus", "file", "names", "docstring_word", "callee"):
        model.without(name)
    np.testing.assert_array_equal(model.score_file(unseen[0].data).bits, before)


def test_the_report_adds_up(model: ConstructedLM, unseen: list[SourceFile]):
    files = unseen[:6]
    found = ablate(model, "after_attribute", files, n_examples=5)
    assert found.kind == "concept" and found.situations == ["after_attribute"]
    assert set(found.per_concept) == {"after_attribute"}
    row = found.per_concept["after_attribute"]
    assert row["changed"] == found.changed > 0
    assert found.bits_without - found.bits == pytest.approx(row["bits_without"] - row["bits"])
    assert found.bits == pytest.approx(sum(model.score_file(file.data).bits.sum() for file in files))
    changes = [abs(example.bits_without - example.bits) for example in found.examples]
    assert len(changes) == 5 and changes == sorted(changes, reverse=True) and changes[-1] > 0.0
    texts = {file.path: file.data.decode().split("\n") for file in files}
    for example in found.examples:
        assert example.concept == "after_attribute"
        shown = example.before + example.token.split("\n")[0].rstrip("\r")
        assert example.token == "<end>" or shown in texts[example.path][example.line - 1]
    corpus = ablate(model, "corpus", files)
    assert corpus.bits_without > corpus.bits and len(corpus.per_concept) > 10


def test_what_cannot_be_taken_away(model: ConstructedLM, tmp_path: Path):
    with pytest.raises(UsageError, match="Did you mean 'docstring_word'"):
        model.without("docstring_wor")
    with pytest.raises(UsageError, match="shared by all nets"):
        model.without("token_embeddings")
    with pytest.raises(UsageError, match="nothing is left"):
        model.without("unigram")
    build_small(tmp_path / "plain", cut="plain", corpus=small_corpus(60_000))
    plain = load(tmp_path / "plain")
    assert isinstance(plain, ConstructedLM)
    with pytest.raises(UsageError, match="no nets"):
        plain.without("docstring_word")
    assert plain.without("corpus").score_file(b"x = 1\n").bits.sum() > 0.0


def test_the_command(model_folder: Path, tmp_path: Path, unseen: list[SourceFile]):
    (tmp_path / "code.py").write_bytes(unseen[0].data)
    command = [sys.executable, "-m", "ontology.main", "cgpt", "without", str(model_folder)]
    done = subprocess.run(
        [*command, "corpus", str(tmp_path / "code.py"), "--json"],
        cwd=ROOT, capture_output=True, text=True, timeout=300, env=os.environ,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["name"] == "corpus" and result["changed"] > 0 and result["bits_without"] > result["bits"]
    assert result["examples"][0]["path"] == "code.py" and result["bytes"] == len(unseen[0].data)
    done = subprocess.run(
        [*command, "corpu", str(tmp_path)], cwd=ROOT, capture_output=True, text=True, timeout=300, env=os.environ
    )
    assert done.returncode == 2 and "Did you mean 'corpus'" in done.stderr
