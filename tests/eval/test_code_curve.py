"""The code track's curve with a budget of a few steps: equal sizes, exact splits by answer kind, resumption."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cgpt.nets import NetShape
from cgpt.reads import N_READS, READS
from eval.answer_kinds import OFTEN, KindNets, KindTrainer, Split
from eval.code_curve import CONTROLS, CUTS, LINES, Settings, run
from eval.decomposition import PARAMETERS_WITHIN, lines, warnings
from ontology.io import read_json
from ontology.progress import Progress
from tests.cgpt.small import small_corpus, unseen_files

SHAPE = NetShape(d_in=8, hidden=16, d_out=8, batch_rows=64)


def _split(rng: np.random.Generator, n: int = 3000) -> tuple[Split, np.ndarray, np.ndarray, np.ndarray]:
    kinds = np.array([0, 1, 1, 1, 2, 2, 5, 5, 5, 5])
    situation, targets = rng.integers(0, 2, n), rng.integers(0, 10, n)
    targets[situation == 1] %= 4  # the second situation meets the last kinds never
    split = Split.of(kinds, ["a", "b"], [READS, READS[:3]], situation, targets)
    reads = rng.integers(0, 10, (n, N_READS)).astype(np.uint16)
    reads[:, 0] = targets  # there is something to learn
    return split, reads, situation, targets


def test_a_split_is_a_distribution_that_learns(tmp_path: Path) -> None:
    split, reads, situation, targets = _split(np.random.default_rng(0))
    assert split.sizes == [1, 3, 2, 4, 4] and OFTEN == 1000
    assert set(split.names[:2]) == {"a: kind", "b: kind"} and (split.net_of[:, 0] == -1).all()
    # What is seldom everywhere has one net for both situations.
    assert split.net_of[0, 2] == split.net_of[1, 2] >= 2
    examples, asked = split.examples(reads, situation, targets)
    assert len(examples.targets) == len(targets) + (targets > 0).sum() == len(asked)
    trainer = KindTrainer(split, examples, asked, len(targets), SHAPE)
    assert trainer.rows_per_step == round(64 * len(asked) / len(targets))
    trainer.set_progress(0.2)
    losses = [trainer.step(index) for index in range(60)]
    assert np.mean(losses[-10:]) < 0.9 * np.mean(losses[:10])
    nets = KindNets(split, trainer.finish())
    for m in range(2):
        powers, total = nets.powers(m, reads[:7])
        assert powers.shape == (7, 10) and np.allclose(powers.max(1), 1.0) and np.allclose(total, powers.sum(1))
        # The kinds' shares are those of the kind net alone.
        shares = (powers / total[:, None])[:, split.order]
        kind = np.add.reduceat(shares, split.bounds[:-1], axis=1)
        logits = nets._parts[-1].logits(m, reads[:7])
        expected = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        assert np.allclose(kind, expected, atol=1e-5)
    nets.save(tmp_path / "nets.safetensors")
    again = KindNets.load(tmp_path / "nets.safetensors")
    assert np.array_equal(again.powers(1, reads[:5])[0], nets.powers(1, reads[:5])[0])
    assert again.split.names == split.names and again.split.reads == split.reads


@pytest.mark.slow
def test_all_cuts_are_of_one_size_and_resume(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    train, test = small_corpus(100_000), unseen_files(20_000)
    for folder, files in (("train", train.files), ("test", test)):
        for i, file in enumerate(files):
            path = tmp_path / folder / f"{i}.py"
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(file.data)
    settings = Settings(
        str(tmp_path / "train"), str(tmp_path / "test"), tmp_path / "out", steps=2, seeds=1, vocab_size=640, shape=SHAPE
    )
    raw_path = tmp_path / "raw.json"
    raw = run(settings, "test", raw_path, Progress(quiet=True))
    assert read_json(raw_path) == raw
    sizes = {build["cut"]: build["parameters"] for build in raw["builds"]}
    assert set(sizes) == {*CUTS, *CONTROLS} - {"plain"}
    (special,) = (build for build in raw["builds"] if build["cut"] == "specialists")
    assert special["nets"] > 60 and special["kept_parameters"] <= special["parameters"]
    assert sizes.pop("transformer") > 20_000, "one layer of the narrowest width is more than the nets here have"
    for size in sizes.values():
        assert abs(size / raw["wanted_parameters"] - 1) <= PARAMETERS_WITHIN
    assert not [text for text in warnings(raw | {"builds": raw["builds"][:5]}) if "parameters" in text]
    alone, whole = lines(raw)
    assert [line.name for line in (alone, whole)] == list(LINES)
    assert list(whole.points) == list(CUTS) and "plain" not in alone.points
    assert ("all situations", "specialists") in [(step.upper, step.lower) for step in alone.in_all]
    assert set(whole.control_points) == set(CONTROLS)
    # After two steps the nets know nothing: the tables carry every cut.
    plain = whole.points["plain"].estimate
    assert all(abs(one.estimate / plain - 1) < 0.05 for one in whole.points.values())
    assert all(one.estimate > plain for one in alone.points.values())
    monkeypatch.setattr("eval.code_curve._train", None)
    monkeypatch.setattr("eval.code_curve.fit_joined", None)
    assert run(settings, "test", raw_path, Progress(quiet=True))["runs"] == raw["runs"]
