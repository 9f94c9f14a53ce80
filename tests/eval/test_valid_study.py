"""The study of `--valid`: it resumes, its prompts repeat, its figures add up."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from cgpt.corpus import read_corpus
from cgpt.valid import python_error
from eval.studies.valid import prompt_of, run
from tests.cgpt.small import build_small, small_corpus


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("valid-study") / "model"
    build_small(out, cut="plain", corpus=small_corpus(200_000))
    return out


def test_prompts_compile_and_the_truth_is_a_statement():
    corpus = read_corpus("stdlib:held-out")
    for number in range(12):
        prompt, truth, which = prompt_of(corpus, 3, number)
        data = corpus.files[which].data
        assert data.startswith(prompt + truth) and python_error(prompt) is None
        assert truth.endswith(b"\n") or len(prompt + truth) == len(data)
        assert (prompt, truth, which) == prompt_of(corpus, 3, number)


def test_a_study_goes_on_where_it_stopped(folder: Path, tmp_path: Path):
    options = argparse.Namespace(
        model=folder, corpus="stdlib:held-out", completions=8, temperature=0.0, max_tokens=24, seed=1,
        out=tmp_path / "study.json",
    )  # fmt: skip
    whole = run(options)
    assert whole["completions"] == 8
    for name in ("free", "valid"):
        entry = whole[name]
        assert entry["compile"] + sum(entry["errors"].values()) == 8
        assert entry["exact_low"] <= entry["exact"] <= entry["exact_high"]
    assert whole["valid"]["errors"] | {"other": 0} == dict.fromkeys(whole["valid"]["errors"], 0)
    options.completions = 9
    longer = run(options)
    assert longer["completions"] == 9
    options.completions = 8
    assert run(options) == whole
