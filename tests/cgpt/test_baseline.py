"""The monolith: its data order, its training and resuming, its scores, its saved form."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cgpt.baseline import (
    END,
    Baseline,
    BaselineConfig,
    BaselineTrainer,
    TokenStream,
    train_for,
    windows,
)
from cgpt.transformer import bigram_rows, build_network
from ontology.errors import ConstructibleError
from ontology.io import load_tensors, save_tensors

TINY = BaselineConfig(64, 32, 2, 64, context=16, batch_tokens=64, learning_rate=1e-2, warm_up=0.1, warm_down=0.5)
BIGRAMS = replace(TINY, bigram_rows=50, bigram_width=8)


def documents(count: int = 12, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Documents that count upwards from a random start: easy to learn, so that training shows."""
    random = np.random.default_rng(seed)
    texts = [(1 + (random.integers(63) + np.arange(random.integers(5, 40))) % 63) for _ in range(count)]
    offsets = np.concatenate([[0], np.cumsum([len(text) for text in texts])]).astype(np.int64)
    return np.concatenate(texts).astype(np.uint16), offsets


def trainer(config: BaselineConfig = TINY) -> BaselineTrainer:
    return BaselineTrainer(config, *documents(), threads=1)


def run(trained: BaselineTrainer, first: int, last: int, total: int = 30) -> list[float]:
    losses = []
    for index in range(first, last):
        trained.set_progress(index / total)
        losses.append(trained.step(index))
    return losses


@pytest.fixture(scope="module")
def fitted() -> BaselineTrainer:
    fitted = trainer()
    run(fitted, 0, 30)
    return fitted


# Data order


@given(st.lists(st.integers(0, 6), min_size=1, max_size=6), st.integers(0, 40), st.integers(1, 50), st.integers(0, 3))
def test_stream_holds_every_document_once_per_epoch_after_its_separator(lengths, start, count, seed) -> None:
    if sum(lengths) == 0:
        lengths = [*lengths, 1]
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    ids = np.arange(1, offsets[-1] + 1, dtype=np.uint16)
    stream = TokenStream(ids, offsets, seed)
    epoch = stream.read(0, stream.epoch_tokens)
    assert sorted(epoch[epoch != END]) == ids.tolist() and (epoch == END).sum() == len(lengths)
    pieces = "".join(f"{token}," if token else "|" for token in epoch).split("|")[1:]
    assert sorted(pieces) == sorted(
        "".join(f"{token}," for token in ids[a:b]) for a, b in zip(offsets[:-1], offsets[1:], strict=True)
    )
    # A stretch is a function of its place alone, however the stream was read before.
    whole = TokenStream(ids, offsets, seed).read(0, start + count)
    assert np.array_equal(stream.read(start, count), whole[start:])


def test_order_differs_between_epochs_and_seeds() -> None:
    ids, offsets = documents()
    stream = TokenStream(ids, offsets, 0)
    first = stream.read(0, stream.epoch_tokens)
    assert not np.array_equal(first, stream.read(stream.epoch_tokens, stream.epoch_tokens))
    assert not np.array_equal(first, TokenStream(ids, offsets, 1).read(0, stream.epoch_tokens))


# Shape


@given(st.integers(2_000_000, 8_000_000), st.sampled_from([2048, 8192, 16384]))
@settings(max_examples=15, deadline=None)
def test_shape_meets_the_number_of_parameters(target: int, vocab_size: int) -> None:
    config = BaselineConfig.of_size(target, vocab_size)
    assert 100 * abs(config.parameters - target) <= 3 * target
    assert 3 * config.hidden_size // 64 * 32 <= config.intermediate_size <= 4 * config.hidden_size
    assert 0.11 * target < config.bigram_rows * config.bigram_width < 0.25 * target
    assert config.hidden_size % config.head_width == 0


def test_counted_parameters_are_those_of_the_network() -> None:
    for config in (TINY, BIGRAMS, BaselineConfig.of_size(2_000_000, 4096)):
        assert Baseline(build_network(config)).parameters == config.parameters


# Training


def test_training_learns_and_stays_finite() -> None:
    fresh = trainer()
    losses = run(fresh, 0, 30)
    assert losses[0] == pytest.approx(math.log(64), rel=0.1) and losses[-1] < 0.6 * losses[0]


def test_learning_rate_warms_up_and_falls_to_the_end() -> None:
    fresh, rates = trainer(), []
    for fraction in (0.0, 0.05, 0.1, 0.3, 0.5, 0.75, 1.0, 7.0):
        fresh.set_progress(fraction)
        rates.append(fresh.schedule)
    assert rates == pytest.approx([0.01, 0.5, 1, 1, 1, 0.5, 0.01, 0.01])


@pytest.mark.parametrize("config", [TINY, BIGRAMS])
def test_resumed_run_is_bit_identical_to_an_undisturbed_one(config: BaselineConfig) -> None:
    undisturbed = trainer(config)
    run(undisturbed, 0, 8)
    first, second = trainer(config), trainer(config)
    run(first, 0, 5)
    second.restore(first.state())
    run(second, 5, 8)
    expected, got = undisturbed.state(), second.state()
    assert expected.keys() == got.keys() and all(np.array_equal(expected[key], got[key]) for key in expected)


def test_state_survives_a_file_of_tensors(tmp_path: Path) -> None:
    first, second = trainer(), trainer()
    run(first, 0, 5)
    save_tensors(tmp_path / "state.safetensors", first.state())
    second.restore(load_tensors(tmp_path / "state.safetensors"))
    assert run(first, 5, 8) == run(second, 5, 8)


def test_state_before_the_first_step_and_as_copies() -> None:
    fresh, other = trainer(), trainer()
    state = fresh.state()
    other.restore(state)
    losses = run(fresh, 0, 3)
    assert run(other, 0, 3) == losses
    assert all(np.array_equal(state[key], value) for key, value in trainer().state().items())


def test_other_seed_gives_other_weights() -> None:
    key = "weight/model.embed_tokens.weight"
    assert not np.array_equal(trainer().state()[key], trainer(replace(TINY, seed=1)).state()[key])


def test_building_does_not_disturb_the_callers_random_numbers() -> None:
    import torch

    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    build_network(TINY)
    assert torch.equal(torch.rand(1), expected)


def test_train_for_counts_steps_or_seconds() -> None:
    assert len(list(train_for(trainer(), steps=3))) == 3
    assert len(list(train_for(trainer(), seconds=0.05))) >= 1
    with pytest.raises(ValueError):
        list(train_for(trainer()))


def test_unusable_input_is_refused_with_a_fix() -> None:
    ids, offsets = documents()
    with pytest.raises(ConstructibleError, match="outside the vocabulary"):
        BaselineTrainer(replace(TINY, vocab_size=8), ids, offsets)
    with pytest.raises(ConstructibleError, match="no text to train on"):
        BaselineTrainer(TINY, ids[:0], offsets[:1])
    with pytest.raises(ConstructibleError, match="no multiple"):
        BaselineTrainer(replace(TINY, batch_tokens=65), ids, offsets)
    wider = trainer(replace(TINY, hidden_size=64))
    with pytest.raises(ConstructibleError, match="another shape"):
        trainer().restore(wider.state())


# Scores


@given(st.integers(1, 200), st.sampled_from([2, 4, 16, 32]))
def test_windows_score_every_position_once_with_half_a_context_to_the_left(length: int, context: int) -> None:
    spans = list(windows(length, context))
    width, scored = min(length, context), []
    for number, (start, first) in enumerate(spans):
        assert start >= 0 and start + width <= length
        assert number == 0 or first - start >= context // 2
        scored += range(first, start + width)
    assert scored == list(range(length))


@pytest.mark.parametrize("length", [0, 1, 15, 16, 17, 50])
def test_scores_are_those_of_the_distribution_given_the_window(fitted: BaselineTrainer, length: int) -> None:
    model = fitted.model()
    ids = documents(6, seed=3)[0][:length]
    bits, correct = model.score_tokens(ids, batch_rows=2)
    assert bits.shape == correct.shape == (length + 1,) and bits.dtype == np.float64 and correct.dtype == bool
    # Up to one context both ways see the whole past, so they must agree token by token.
    for position in range(min(length + 1, model.context)):
        log_probs = model.next_log_probs(ids[:position])
        target = ids[position] if position < length else END
        assert math.isclose(np.exp(log_probs).sum(), 1.0, abs_tol=1e-9)
        assert bits[position] == pytest.approx(-log_probs[target] / math.log(2), abs=1e-4)
        assert correct[position] == (log_probs.argmax() == target)


def test_scores_do_not_depend_on_later_tokens(fitted: BaselineTrainer) -> None:
    ids = documents(8, seed=4)[0][:60]
    other = ids.copy()
    other[40:] = 7
    before, after = (fitted.model().score_tokens(tokens)[0] for tokens in (ids, other))
    # Windows are laid from the start, so a change at 40 leaves all scores before it as they were.
    assert np.allclose(before[:40], after[:40], atol=1e-5) and not np.allclose(before[40:], after[40:], atol=1e-2)


def test_trained_model_beats_a_fresh_one_on_unseen_documents(fitted: BaselineTrainer) -> None:
    ids = documents(4, seed=9)[0]
    fresh = Baseline(build_network(TINY).eval())
    assert fitted.model().score_tokens(ids)[0].mean() < 0.7 * fresh.score_tokens(ids)[0].mean()


# Bigrams


@pytest.fixture(scope="module")
def fitted_bigrams() -> BaselineTrainer:
    fitted = trainer(BIGRAMS)
    run(fitted, 0, 30)
    return fitted


def test_pairs_scatter_over_the_rows_and_order_matters() -> None:
    import torch

    ids = torch.arange(64)
    rows = bigram_rows(ids[:, None], ids[None, :], 50)
    counts = torch.bincount(rows.flatten(), minlength=50)
    assert rows.min() >= 0 and len(counts) == 50 and counts.min() > 0.6 * 64 * 64 / 50
    assert (rows != rows.T).float().mean() > 0.9


def test_the_token_before_changes_the_input_and_dynamic_evaluation_changes_its_row() -> None:
    import torch

    model = trainer(BIGRAMS).model()
    table = model.network.model.bigram_embed.weight
    assert not table.any()
    with torch.no_grad():
        for layer in model.network.model.layers:
            assert not layer.self_attn.o_proj.weight.any()  # so that only the table can tell what stands before
    assert np.array_equal(model.next_log_probs(np.array([3, 9])), model.next_log_probs(np.array([4, 9])))
    model.learn(np.array([3, 9, 5, 4, 9, 6]), 0.1)
    touched = torch.nonzero(table.abs().sum(1)).flatten().tolist()
    pairs = torch.tensor([[END, END], [END, 3], [3, 9], [9, 5], [5, 4], [4, 9], [9, 6]])
    assert touched == sorted(set(bigram_rows(pairs[:, 0], pairs[:, 1], 50).tolist()))
    with torch.no_grad():
        table[bigram_rows(torch.tensor(3), torch.tensor(9), 50)] += 1.0
    assert not np.allclose(model.next_log_probs(np.array([3, 9])), model.next_log_probs(np.array([4, 9])))


def test_saved_bigrams_score_the_same_and_generate_what_they_predict(
    fitted_bigrams: BaselineTrainer, tmp_path: Path
) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    model = fitted_bigrams.model()
    assert model.network.model.bigram_embed.weight.any()
    model.save(tmp_path / "m", {"cut": "root"})
    again = Baseline.load(tmp_path / "m")
    ids = documents(2, seed=5)[0]
    assert np.array_equal(again.score_tokens(ids)[0], model.score_tokens(ids)[0])
    assert again.parameters == BIGRAMS.parameters and again.network.config.cut == "root"
    opened: Any = AutoModelForCausalLM.from_pretrained(str(tmp_path / "m"))
    given = [5, 6, 7]
    made = opened.generate(torch.tensor([[END, *given]]), max_new_tokens=5, do_sample=False)[0, 4:].tolist()
    for token in made:
        assert token == model.next_log_probs(np.array(given)).argmax()
        given.append(token)
    with pytest.raises(ValueError, match="whole sequences"):
        opened.generate(torch.tensor([[END, 5]]), max_new_tokens=3, do_sample=False, use_cache=True)


# Saved form


def test_saved_folder_is_read_by_transformers_alone_and_generates(fitted: BaselineTrainer, tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    model = fitted.model()
    model.save(tmp_path / "m", {"format": "constructible-cgpt/1", "cut": "root"})
    assert {path.name for path in (tmp_path / "m").iterdir()} == {
        "config.json",
        "generation_config.json",
        "model.safetensors",
    }
    alone: Any = AutoModelForCausalLM.from_pretrained(str(tmp_path / "m"))
    assert alone.config.cut == "root" and alone.config.format == "constructible-cgpt/1"
    made = alone.generate(torch.tensor([[END, 5, 6, 7]]), max_new_tokens=4, do_sample=False)
    assert made.shape[0] == 1 and made.shape[1] > 4
    again = Baseline.load(tmp_path / "m")
    ids = documents(2, seed=5)[0]
    assert np.array_equal(again.score_tokens(ids)[0], model.score_tokens(ids)[0])
    assert again.parameters == TINY.parameters


def test_saving_twice_gives_the_same_bytes(fitted: BaselineTrainer, tmp_path: Path) -> None:
    for name in ("one", "two"):
        fitted.model().save(tmp_path / name)
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()


def test_unreadable_and_unwritable_folders_are_named(
    fitted: BaselineTrainer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConstructibleError, match="no saved transformer"):
        Baseline.load(tmp_path)
    fitted.model().save(tmp_path / "m")
    (tmp_path / "m" / "model.safetensors").write_bytes(b"not safetensors")
    with pytest.raises(ConstructibleError, match="cannot be read"):
        Baseline.load(tmp_path / "m")
    (tmp_path / "file").write_text("x")
    with pytest.raises(ConstructibleError):
        fitted.model().save(tmp_path / "file" / "m")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    model = fitted.model()
    monkeypatch.setattr(model.network, "save_pretrained", full)
    with pytest.raises(ConstructibleError, match="No space left"):
        model.save(tmp_path / "full")
    assert list((tmp_path / "full").iterdir()) == []
