"""The dynamic setting: caches against counting by hand, and a file that is learned only after it was scored."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from cgpt import counts
from cgpt.caches import N_CACHE_LEVELS, Cache, CacheTables, add_caches, cache_targets, no_cache
from cgpt.cli import cgpt
from cgpt.dynamic import DynamicLM, DynamicMonolith, in_order, load_tables
from cgpt.model import ConstructedLM, MonolithLM
from ontology.errors import ConstructibleError
from tests.cgpt.small import build_small, unseen_files

VOCAB = 12
documents = st.lists(st.lists(st.integers(1, VOCAB - 1), max_size=60), max_size=6)
tokens = st.lists(st.integers(1, VOCAB - 1), min_size=1, max_size=40)


def filled(files: list[list[int]]) -> Cache:
    cache = Cache()
    for file in files:
        cache.add(np.array(file, dtype=np.uint16))
    return cache


def recent_by_hand(files: list[list[int]], context: list[int]) -> list[int]:
    """What followed the context, latest first, at most RECENT times."""
    joined = [0]
    for file in files:
        joined += [*file, 0]
    k = len(context)
    found = [joined[i] for i in range(k, len(joined)) if joined[i - k : i] == context]
    return found[::-1][: counts.RECENT]


@settings(max_examples=60, deadline=None)
@given(documents, documents, tokens)
def test_a_cache_counts_what_followed_the_context_most_recently(project, directory, file):
    history = np.array([0, *file, 0], dtype=np.uint16)
    buckets = np.zeros((len(file) + 1, N_CACHE_LEVELS), np.uint8)
    shares = np.zeros((len(file) + 1, N_CACHE_LEVELS), np.float32)
    caches = (filled(project).arrays(), filled(directory).arrays())
    cache_targets(history, 1, len(history), caches, VOCAB, buckets, shares)
    for i in range(1, len(history)):
        for scope, files in enumerate((project, directory)):
            for level, k in enumerate(counts.FILE_LEVELS):
                column = scope * counts.N_FILE_LEVELS + level
                found = recent_by_hand(files, history[i - k : i].tolist()) if i >= k else []
                if not found:
                    assert buckets[i - 1, column] == counts.ABSENT
                    continue
                assert buckets[i - 1, column] == counts.bucket(len(found), len(set(found)))
                assert shares[i - 1, column] == pytest.approx(found.count(history[i]) / len(found))


@settings(max_examples=30, deadline=None)
@given(documents, tokens, st.integers(0, 2**31))
def test_the_weighed_distribution_sums_to_one_and_is_what_the_fit_assumes(project, file, seed):
    rng = np.random.default_rng(seed)
    tables = CacheTables(
        rng.normal(size=(N_CACHE_LEVELS, counts.N_BUCKETS)), rng.normal(size=(2, N_CACHE_LEVELS)),
        rng.normal(size=(20, N_CACHE_LEVELS)),
    )  # fmt: skip
    history = np.array([0, *file, 0], dtype=np.uint16)
    caches = (filled(project).arrays(), filled(project[:1]).arrays())
    i, concept, step = len(file), 1, 7
    static = rng.dirichlet(np.ones(VOCAB))
    out = static.copy()
    left = add_caches(
        history, i, caches, tables, concept, step, out, np.zeros(VOCAB, np.int64), np.zeros(1, np.int64)
    )  # fmt: skip
    assert out.sum() == pytest.approx(1.0, abs=1e-12)
    for target in range(VOCAB):
        asked = history.copy()
        asked[i] = target
        buckets, shares = np.zeros((1, N_CACHE_LEVELS), np.uint8), np.zeros((1, N_CACHE_LEVELS), np.float32)
        cache_targets(asked, i, i + 1, caches, VOCAB, buckets, shares)
        there = buckets[0] != counts.ABSENT
        cells = tables.level[np.arange(N_CACHE_LEVELS), np.where(there, buckets[0], 0)]
        weights = np.where(there, np.exp(cells + tables.by_concept[concept] + tables.by_confidence[step]), 0.0)
        expected = (static[target] + weights @ shares[0]) / (1.0 + weights.sum())
        assert out[target] == pytest.approx(expected, rel=1e-5)
    assert left == pytest.approx(1.0 / (1.0 + weights.sum()))


def test_an_empty_cache_changes_nothing():
    out = np.full(VOCAB, 1.0 / VOCAB)
    tables = CacheTables(np.zeros((N_CACHE_LEVELS, 60)), np.zeros((1, N_CACHE_LEVELS)), np.zeros((20, N_CACHE_LEVELS)))
    history = np.array([0, 3, 0], dtype=np.uint16)
    scratch = np.zeros(VOCAB, np.int64), np.zeros(1, np.int64)
    assert add_caches(history, 1, (no_cache(), no_cache()), tables, 0, 0, out, *scratch) == 1.0
    assert (out == 1.0 / VOCAB).all()


def test_each_file_is_scored_before_it_is_learned(model_folder: Path):
    files = [file for file in in_order(unseen_files()) if len(file.data) > 2000][:3]
    model = ConstructedLM(model_folder)
    alone = model.score_file(files[0].data)
    dynamic = DynamicLM(model)
    first = dynamic.score_file(files[0].data, "a/x.py", "project")
    assert np.array_equal(first.bits, alone.bits), "the first file of a project has nothing to learn from"
    again = dynamic.score_file(files[0].data, "a/y.py", "project")
    assert again.bits.sum() < 0.5 * first.bits.sum(), "a file seen before is known nearly by heart"
    other = dynamic.score_file(files[1].data, "a/y.py", "another project")
    assert np.array_equal(other.bits, model.score_file(files[1].data).bits), "projects do not know of each other"


def test_later_files_do_not_change_earlier_scores(model_folder: Path):
    files = in_order(unseen_files())[:3]
    runs = []
    for last in (files[2].data, b"x = 1\n"):
        dynamic = DynamicLM(ConstructedLM(model_folder))
        runs.append([dynamic.score_file(data, "p/f.py", "p").bits for data in (files[0].data, files[1].data, last)])
    assert np.array_equal(runs[0][0], runs[1][0])
    assert np.array_equal(runs[0][1], runs[1][1])


def test_the_monolith_learns_within_a_project_and_forgets_at_its_end(tmp_path: Path):
    build_small(tmp_path / "root", cut="root", steps=30)
    file = max(unseen_files(), key=lambda file: len(file.data) if len(file.data) < 8000 else 0)
    model = MonolithLM(tmp_path / "root")
    dynamic = DynamicMonolith(model)
    scores = [dynamic.score_file(file.data, "x.py", project).bits.sum() for project in ("a", "a", "b")]
    assert scores[1] < scores[0]
    assert scores[2] == scores[0]


def test_the_command_prints_the_setting(model_folder: Path, tmp_path: Path):
    (tmp_path / "package").mkdir()
    data = unseen_files()[0].data
    for k in range(2):
        (tmp_path / "package" / f"f{k}.py").write_bytes(data + b"# version %d\n" % k)
    figures = {}
    for setting in ("static", "dynamic"):
        run = CliRunner().invoke(cgpt, ["score", str(model_folder), str(tmp_path), "--setting", setting, "--json"])
        assert run.exit_code == 0, run.output
        figures[setting] = json.loads(run.stdout)
        assert figures[setting]["setting"] == setting
    assert figures["dynamic"]["bytes"] == figures["static"]["bytes"]
    assert figures["dynamic"]["bits_per_byte"] < figures["static"]["bits_per_byte"]


def test_tables_of_another_version_are_refused(tmp_path: Path):
    (tmp_path / "dynamic.json").write_text('{"levels": ["project 1"], "level": [[0]]}')
    with pytest.raises(ConstructibleError, match="build the model again"):
        load_tables(tmp_path / "dynamic.json", 3)
