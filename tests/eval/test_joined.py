"""A transformer beside the tables: its distribution is the mixer's weighted sum, and the mixer hears it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cgpt.baseline import BaselineConfig, BaselineTrainer, train_for
from cgpt.data import TokenizedCorpus
from cgpt.mixer import NET
from cgpt.model import ConstructedLM, load
from eval.joined import JoinedLM, Transformer, fit_joined
from tests.cgpt.small import build_small, small_corpus, unseen_files


@pytest.fixture(scope="module")
def joined(tmp_path_factory: pytest.TempPathFactory) -> JoinedLM:
    folder: Path = tmp_path_factory.mktemp("plain")
    build_small(folder, cut="plain", corpus=small_corpus(200_000))
    plain = load(folder)
    assert isinstance(plain, ConstructedLM)
    (tokens,) = folder.glob(".store/*/*/files/tokens.safetensors")
    corpus = TokenizedCorpus.load(tokens)
    config = BaselineConfig.of_size(60_000, plain.tokenizer.vocab_size)
    trainer = BaselineTrainer(config, np.array(corpus.ids), np.array(corpus.offsets), threads=1)
    for _ in train_for(trainer, steps=20):
        pass
    neural = Transformer(trainer.model())
    return JoinedLM(plain, neural, fit_joined(tokens, plain, neural))


def test_the_mixer_hears_the_transformer(joined: JoinedLM):
    rows = joined.mixer.table()
    assert np.isfinite(joined.mixer.by_concept[:, NET]).all()
    assert max(row["weights"]["net"] for row in rows if row["positions"]) > 0.02
    # Twenty steps teach next to nothing: the tables carry the prediction.
    counted = sum(row["positions"] * (row["weights"]["corpus"] + row["weights"]["file"]) for row in rows)
    assert counted > 0.4 * sum(row["positions"] for row in rows)


def test_scores_are_of_every_token_and_no_worse_than_the_tables_alone(joined: JoinedLM):
    bits = {"joined": 0.0, "plain": 0.0}
    for file in unseen_files(60_000):
        ours, plain = joined.score_file(file.data), joined.plain.score_file(file.data)
        assert len(ours.bits) == len(plain.bits) and ours.n_bytes == len(file.data)
        assert np.isfinite(ours.bits).all() and (ours.bits > 0.0).all()
        np.testing.assert_array_equal(ours.concept, plain.concept)
        bits["joined"] += ours.bits.sum()
        bits["plain"] += plain.bits.sum()
    assert bits["joined"] < 1.02 * bits["plain"]
    assert bits["joined"] != bits["plain"]
