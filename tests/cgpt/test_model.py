"""The whole model: distributions sum to one, situations are isolated, scores and explanations add up."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cgpt import counts, mixing, names
from cgpt.complete import complete
from cgpt.corpus import SourceFile
from cgpt.explain import Explainer, explain
from cgpt.index import N_LEVELS
from cgpt.model import ConstructedLM, load
from cgpt.nets import OWN, Nets
from cgpt.score import score_files
from ontology.errors import ConstructibleError
from ontology.io import write_json

POSITIONS = 10_000


def source_distributions(model: ConstructedLM, view, at) -> dict[str, np.ndarray]:
    """The distribution of every source at a position, put together from the parts of the record."""
    vocab = len(model.unigram)
    made = {"unigram": model.unigram}
    for name, levels in (
        ("corpus", range(N_LEVELS)), ("file", range(N_LEVELS, counts.N_ALL_LEVELS)),
    ):  # fmt: skip
        weight = at.level_weights[levels.start : levels.stop].sum()
        if weight > 0:
            out = np.zeros(vocab)
            for level in levels:
                part = slice(at.starts[level], at.starts[level + 1])
                np.add.at(out, at.entry_tokens[part], at.level_weights[level] / weight * at.entry_shares[part])
            made[name] = out
    if at.net_distribution is not None:
        made["net"] = at.net_distribution
    offered, slots = view.offered[at.boundary], view.slots[at.boundary]
    present = (slots != names.NOTHING) & (offered != names.END_OF_NAME)
    if present.any():
        weights = model.rank_weights[slots[present]]
        out = np.zeros(vocab)
        np.add.at(out, offered[present], weights / weights.sum())
        made["names"] = out
    return made


def test_every_distribution_sums_to_one_at_ten_thousand_positions(model: ConstructedLM, unseen: list[SourceFile]):
    """Every source and the mix, and the mix is the sources by their weights."""
    left, seen = POSITIONS, set()
    random = np.random.default_rng(0)
    for file in unseen:
        view = model.view(model.tokenizer.encode(file.data))
        for i in random.permutation(view.n + 1)[: min(left, 2500)]:
            at = model.position(view, int(i))
            assert abs(at.distribution.sum() - 1.0) < 1e-6
            assert (at.distribution > 0.0).all()
            assert abs(at.parts.sum() - 1.0) < 1e-9
            mixed = np.zeros(len(model.unigram))
            for name, p in source_distributions(model, view, at).items():
                assert abs(p.sum() - 1.0) < 1e-6, name
                mixed += at.parts[mixing.SOURCES.index(name)] * p
                seen.add(name)
            np.testing.assert_allclose(mixed, at.distribution, atol=1e-6)
            left -= 1
        if not left:
            break
    assert left == 0 and seen == set(mixing.SOURCES)


def test_scores_are_the_positions_probabilities(model: ConstructedLM, unseen: list[SourceFile]):
    file = unseen[0]
    score = model.score_file(file.data)
    ids = model.tokenizer.encode(file.data)
    view, targets = model.view(ids), np.append(ids, 0)
    assert len(score.bits) == len(ids) + 1 and score.n_bytes == len(file.data)
    for i in range(0, len(ids) + 1, 37):
        p = model.position(view, i).distribution
        assert abs(score.bits[i] + np.log2(p[targets[i]])) < 1e-4
        assert score.correct[i] == (p.argmax() == targets[i])


def test_scoring_finds_what_the_whole_distribution_has_to_the_last_bit(
    model: ConstructedLM, model_folder: Path, unseen: list[SourceFile], monkeypatch: pytest.MonkeyPatch
):
    """Scoring looks at few tokens of most positions; neither probabilities nor first choices may differ for that."""
    view = model.view(model.tokenizer.encode(unseen[1].data))
    concept, matches = model.concepts_at(view), model.matches(view)
    rows = np.lexsort((matches[0][:, 0], concept))[::3]
    common = matches[1][rows, 0] - matches[0][rows, 0] > counts.HEAVY
    assert common.any() and not common.all()
    whole = load(model_folder)
    assert isinstance(whole, ConstructedLM)
    for said in (model._nets_say(concept[rows], view.reads[rows]), (np.zeros((len(rows), 0), np.float32), 0.0 * rows)):
        probability, best, parts = model.score_rows(view, matches, concept[rows], rows, said)
        for r, i in enumerate(rows.tolist()):
            monkeypatch.setattr(whole, "_nets_say", lambda *_, one=(said[0][r : r + 1], said[1][r : r + 1]): one)
            at = whole.position(view, i)
            assert probability[r] == at.distribution[view.history[i + 1]]
            assert best[r] == at.distribution.argmax() and np.array_equal(parts[r], at.parts)


def test_several_threads_score_as_one_does(model: ConstructedLM, unseen: list[SourceFile]):
    advanced: list[int] = []
    together = score_files(model, unseen, advanced.append)
    assert advanced == [len(file.data) for file in unseen]
    assert [file.path for file in together.files] == [file.path for file in unseen]
    for file, scored in zip(unseen, together.files, strict=True):
        alone = model.score_file(file.data, file.path, file.project)
        assert alone.bits.tobytes() == scored.bits.tobytes() and (alone.correct == scored.correct).all()


@given(st.lists(st.floats(0.0, 1.0), min_size=1, max_size=70))
def test_the_most_probable_is_the_first_of_the_greatest(values: list[float]):
    assert mixing.most_probable(np.array(values)) == int(np.argmax(values))


def test_a_concept_is_in_charge_everywhere_and_bits_add_up(model: ConstructedLM, unseen: list[SourceFile]):
    score = score_files(model, unseen)
    assert all(((file.concept >= 0) & (file.concept < len(model.concepts))).all() for file in score.files)
    per_concept = score.per_concept()
    assert sum(row["tokens"] for row in per_concept.values()) == score.n_tokens.sum()
    assert sum(row["bits_per_byte"] for row in per_concept.values()) == pytest.approx(score.bits_per_byte)
    assert sum(row["bytes"] for row in per_concept.values()) == score.n_bytes.sum()
    # A tokenizer of 1,024 tokens and next to no training: still far from the 8 bits of not knowing anything.
    assert score.bits_per_byte < 2.5


@pytest.fixture()
def copy(model_folder: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "copy"
    shutil.copytree(model_folder, folder, ignore=shutil.ignore_patterns(".store"))
    for path in folder.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
    return folder


def test_replacing_a_net_or_a_mixer_row_changes_its_own_situation_alone(
    model: ConstructedLM, copy: Path, unseen: list[SourceFile]
):
    """Isolation: the other situations' distributions stay bit for bit."""
    concept = "after_statement_name"
    assert model.nets is not None
    m, c = model.nets.concepts.index(concept), model.concepts.index(concept)
    changed = {name: np.array(getattr(model.nets, name)) for name in OWN}
    for name in OWN:
        changed[name][m] += 0.5
    replace(model.nets, **changed).save(copy / "nets.safetensors")
    by_concept = model.mixer.by_concept.copy()
    by_concept[c] = np.roll(by_concept[c], 1)
    write_json(copy / "mixer.json", replace(model.mixer, by_concept=by_concept).as_json())
    other = load(copy)
    different = 0
    for file in unseen[:4]:
        before, after = model.score_file(file.data), other.score_file(file.data)
        elsewhere = before.concept != c
        np.testing.assert_array_equal(before.bits[elsewhere], after.bits[elsewhere])
        different += int((before.bits[~elsewhere] != after.bits[~elsewhere]).sum())
    assert different > 20


def test_explanations_say_what_was_predicted(model: ConstructedLM, unseen: list[SourceFile]):
    file = unseen[1]
    record = explain(model, file.data, file.path, max_tokens=400)
    json.dumps(record)
    kinds = set()
    score = model.score_file(file.data)
    for i, token in enumerate(record["tokens"]):
        assert token["bits"] == pytest.approx(score.bits[i], abs=1e-4)
        probability = sum(e["weight"] * e["probability"] for e in token["experts"])
        assert probability == pytest.approx(2.0 ** -token["bits"], rel=1e-5, abs=1e-9)
        assert sum(e["share"] for e in token["experts"]) == pytest.approx(1.0)
        assert token["concept"] in record["concepts"] and token["lines"]
        assert token["text"] == file.data[token["start"] : token["end"]].decode("utf-8", "replace")
        kinds |= {item["kind"] for e in token["experts"] for item in e["evidence"]}
    assert kinds == {"net", "match", "cache", "name"}


def test_evidence_points_at_the_line_it_rests_on(model: ConstructedLM, unseen: list[SourceFile]):
    """Every quoted corpus place exists: the token does stand at that line of that file."""
    from cgpt.corpus import read_corpus

    sources = {file.path: file for file in read_corpus("stdlib:train").files}
    explainer = Explainer(model)
    file = unseen[2]
    view = model.view(model.tokenizer.encode(file.data)[:300])
    checked = 0
    for boundary in range(0, view.n, 7):
        target = int(view.history[boundary + 1])
        for expert in explainer.token(view, boundary, target)["experts"]:
            for item in expert["evidence"]:
                if item["kind"] != "match" or target == 0:
                    continue
                source = sources[item["file"].split(": ")[-1]]
                text = model.tokenizer.token_bytes[target].decode("utf-8", "replace").strip()
                lines = source.data.decode().split("\n")
                assert item["licence"] == source.licence
                assert text.split("\n")[0] in "\n".join(lines[item["line"] - 1 : item["line"] + 1])
                checked += 1
    assert checked > 20


def test_completion_is_greedy_healed_and_repeats(model: ConstructedLM):
    prompt = b"import os\n\n\ndef read(path):\n    with open(pa"
    made = complete(model, prompt, max_tokens=12)
    assert made.healed and prompt.endswith(made.healed)
    assert made == complete(model, prompt, max_tokens=12)
    first = model.tokenizer.token_bytes[made.steps[0].token]
    assert first.startswith(made.healed) and made.text.startswith(first[len(made.healed) :])
    sampled = {complete(model, prompt, 8, temperature=1.0, seed=seed).text for seed in range(6)}
    assert len(sampled) > 2
    assert complete(model, b"", max_tokens=3).healed == b""


@pytest.mark.parametrize("damage", ["config", "format", "missing", "mixer", "names", "nets"])
def test_a_broken_folder_is_named(copy: Path, damage: str):
    if damage == "config":
        (copy / "config.json").write_text("{not json")
    elif damage == "format":
        write_json(copy / "config.json", {"format": "something/9"})
    elif damage == "missing":
        (copy / "index.safetensors").unlink()
    elif damage == "names":
        write_json(copy / "names.json", {"weights": [0.5, 0.5]})
    elif damage == "nets":  # of a build with fewer tokens
        nets = Nets.load(copy / "nets.safetensors")
        replace(nets, output=nets.output[:-1], bias=nets.bias[:-1]).save(copy / "nets.safetensors")
    else:
        (copy / "mixer.json").write_text("[]")
    with pytest.raises(ConstructibleError, match="Fix:") as raised:
        load(copy)
    assert str(copy) in str(raised.value)


def test_the_python_interface(model: ConstructedLM, model_folder: Path, tmp_path: Path):
    (tmp_path / "code.py").write_text("def add(a, b):\n    return a + b\n")
    opened = ConstructedLM.from_pretrained(model_folder)
    score = opened.score(str(tmp_path / "code.py"))
    assert score.bits_per_byte > 0 and len(score.files) == 1
    assert opened.generate("import o", max_tokens=3) == complete(model, b"import o", 3).text.decode()
    record = opened.explain("x = 1\n")
    assert "".join(token["text"] for token in record["tokens"]) == "x = 1\n"
