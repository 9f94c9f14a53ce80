"""Measuring: the figures against other ways to work them out, resuming, and results whose header is read alone."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cgpt.corpus import SourceFile, read_corpus
from cgpt.model import ConstructedLM, load
from cgpt.score import score_files
from eval.cli import eval_
from eval.models import open_model, open_specs, parse_spec
from eval.records import read_header, read_results
from eval.runner import result_path, run
from eval.tasks import TASKS, Measured, Options, load_tasks
from eval.tasks.base import place_free
from eval.tasks.language import BITS, lexical_spans, measure, whole_tokens
from ontology.errors import ConstructibleError, UsageError
from ontology.main import run as run_command
from ontology.progress import Progress
from tests.eval.conftest import Models, copy_model

QUIET = Progress(quiet=True)


def run_bits(models: Models, out: Path, names: list[str], limit: int | None = None, task=BITS) -> list[Path]:
    options = Options(data=str(models.unseen), limit=limit)
    return run(open_specs(names), [task], options, out, progress=QUIET)


def test_the_figures_are_those_of_the_models_own_score(models: Models, tmp_path: Path) -> None:
    names = [str(models.constructed), str(models.monolith)]
    for path, folder in zip(run_bits(models, tmp_path, names), names, strict=True):
        score = score_files(load(folder), read_corpus(str(models.unseen)).files)
        figures = read_header(path)["figures"]
        assert figures["bits per byte"]["value"] == pytest.approx(score.bits_per_byte, rel=1e-12)
        assert figures["next-token accuracy"]["value"] == pytest.approx(score.accuracy, rel=1e-12)
        assert figures["bits per byte"]["low"] < score.bits_per_byte < figures["bits per byte"]["high"]
        parts = read_header(path)["parts"]
        expected = score.per_concept()
        assert parts.keys() == expected.keys()
        for name, row in expected.items():
            assert parts[name]["bits per byte"]["value"] == pytest.approx(row["bits_per_byte"], abs=1e-12)
            assert parts[name]["next-token accuracy"]["value"] == pytest.approx(row["accuracy"], abs=1e-12)


def test_opaque_parameters_are_those_that_acted(models: Models, tmp_path: Path) -> None:
    names = [str(models.constructed), str(models.plain), str(models.monolith)]
    ours, plain, monolith = (read_header(path)["figures"] for path in run_bits(models, tmp_path, names, limit=2))
    key = "opaque parameters per decision"
    model = load(models.constructed)
    nets = model.nets if isinstance(model, ConstructedLM) else None
    assert nets is not None
    shared = sum(nets.shared_parameters.values())
    assert shared < ours[key]["value"] < nets.parameters
    assert plain[key]["value"] == 0
    assert monolith[key]["value"] == load(models.monolith).parameters


def test_a_hugging_face_model_against_transformers_itself(models: Models) -> None:
    """A file that fits the context, scored by one plain forward pass of the network."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    text = "def f(naïve):\n    return '→'\n"
    model = models.open("hugging_face")
    score = model.score_file(SourceFile("a.py", text.encode(), "p", "MIT"))
    network = AutoModelForCausalLM.from_pretrained(models.hugging_face)
    tokenizer = AutoTokenizer.from_pretrained(models.hugging_face)
    ids = [0, *tokenizer(text)["input_ids"], 0]
    with torch.inference_mode():
        log_probs = torch.log_softmax(network(torch.tensor([ids])).logits[0].double(), -1)
    wanted = [-float(log_probs[i, ids[i + 1]]) / math.log(2) for i in range(len(ids) - 1)]
    assert len(ids) < 64 and score.bits == pytest.approx(wanted, abs=1e-4)
    assert score.correct.tolist() == [int(log_probs[i].argmax()) == ids[i + 1] for i in range(len(ids) - 1)]
    assert score.token_bytes.sum() == len(text.encode()) == score.n_bytes


def test_long_files_are_scored_in_windows_of_which_each_token_sees_half_a_context(models: Models) -> None:
    model = models.open("hugging_face")
    data = b"value = 1\n" * 40
    long = model.score_file(SourceFile("a.py", data, "p", "MIT"))
    assert len(long.bits) > 128 and np.isfinite(long.bits).all()
    ids, starts, _ = model.tokenize(data)  # type: ignore[attr-defined]
    # The last window alone gives the same bits for its second half.
    import torch

    inputs = np.concatenate([[0], ids])[-64:]
    with torch.inference_mode():
        logits = model.network(torch.from_numpy(inputs)[None]).logits[0].double()  # type: ignore[attr-defined]
    last = -float(torch.log_softmax(logits[-1], -1)[0]) / math.log(2)
    assert long.bits[-1] == pytest.approx(last, abs=1e-4)


def test_bytes_that_a_tokenizer_cannot_say_are_not_counted_as_said(models: Models, tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models as kinds, pre_tokenizers  # isort: skip
    from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

    words = Tokenizer(kinds.WordLevel({"<unk>": 0, "def": 1, "f": 2}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()  # type: ignore[assignment]
    folder = tmp_path / "lossy"
    AutoModelForCausalLM.from_pretrained(models.hugging_face).save_pretrained(folder)
    PreTrainedTokenizerFast(tokenizer_object=words, unk_token="<unk>").save_pretrained(folder)
    (path,) = run_bits(models, tmp_path / "out", [str(folder)], limit=2)
    values = read_results(path).values
    assert (values["bytes_said"] < 0.9 * values["bytes"]).all()


def test_lexical_tokens_are_the_same_for_all_models_and_leave_white_space_out() -> None:
    data = b"def first(a_b, c):\n\n    return a_b + 'x y'  # note\n"
    spans = [data[a:b] for a, b in lexical_spans(data).tolist()]
    assert b"".join(spans) == re.sub(rb"\s", b"", data)
    for word in (b"def", b"first", b"(", b"a_b", b"return", b"x", b"note"):
        assert word in spans


def test_a_whole_token_is_right_only_if_all_its_pieces_are(models: Models) -> None:
    model = models.open("constructed")
    file = SourceFile("a.py", b"import configuration_of_everything\nx = configuration_of_everything.y\n", "p", "MIT")
    score = model.score_file(file)
    everything = replace(score, correct=np.ones_like(score.correct))
    assert (
        whole_tokens(file.data, everything)[0]
        == whole_tokens(file.data, everything)[1]
        == len(lexical_spans(file.data))
    )
    ends = np.cumsum(score.token_bytes[:-1])
    inside = int(np.searchsorted(ends, 12, side="right"))  # a piece of the long name
    one_wrong = replace(score, correct=np.arange(len(score.correct)) != inside)
    assert whole_tokens(file.data, one_wrong)[0] == len(lexical_spans(file.data)) - 1
    last_wrong = replace(score, correct=np.arange(len(score.correct)) != len(score.correct) - 1)
    assert whole_tokens(file.data, last_wrong)[0] == len(lexical_spans(file.data)), "the file's end is no token"


def test_a_run_resumes_by_example(models: Models, tmp_path: Path) -> None:
    measured: list[str] = []

    def counting(model, example):
        measured.append(example.id)
        return measure(model, example)

    task = replace(BITS, measure=counting)
    names = [str(models.plain)]
    (path,) = run_bits(models, tmp_path, names, limit=3, task=task)
    first = read_results(path)
    assert len(measured) == 3
    run_bits(models, tmp_path, names, limit=3, task=task)
    assert len(measured) == 3, "the same command again measures nothing"
    (path,) = run_bits(models, tmp_path, names, limit=5, task=task)
    assert len(measured) == 5 and len(set(measured)) == 5, "a larger limit measures the new ones only"
    assert set(first.examples) < set(read_results(path).examples)
    # The same as all at once.
    (other,) = run_bits(models, tmp_path / "other", names, limit=5)
    assert read_header(other)["figures"] == read_header(path)["figures"]
    newer = replace(task, version=task.version + 1)
    run_bits(models, tmp_path, names, limit=5, task=newer)
    assert len(measured) == 10, "another version of the task starts again"


def test_a_killed_run_loses_only_what_was_not_written(models: Models, tmp_path: Path, monkeypatch) -> None:
    measured: list[str] = []

    def failing(model, example):
        if len(measured) == 3:
            raise KeyboardInterrupt
        measured.append(example.id)
        return [Measured({"bits": 1.0, "bytes": 1.0})]

    monkeypatch.setattr("eval.runner.FLUSH_SECONDS", -1.0)
    with pytest.raises(KeyboardInterrupt):
        run_bits(models, tmp_path, [str(models.plain)], limit=5, task=replace(BITS, measure=failing))
    path = result_path(tmp_path, "plain", None, "bits")
    assert not path.exists() and len(list(path.with_suffix(".rows").iterdir())) == 3
    calm = replace(
        BITS, measure=lambda model, example: measured.append(example.id) or [Measured({"bits": 1.0, "bytes": 1.0})]
    )
    run_bits(models, tmp_path, [str(models.plain)], limit=5, task=calm)
    assert len(measured) == 5 == len(set(measured)) and not path.with_suffix(".rows").exists()
    assert len(read_results(path).examples) == 5


def test_more_examples_killed_and_resumed_count_each_once(models: Models, tmp_path: Path, monkeypatch) -> None:
    names = [str(models.plain)]
    run_bits(models, tmp_path, names, limit=2)
    done = 0

    def failing(model, example):
        nonlocal done
        done += 1
        if done == 3:
            raise KeyboardInterrupt
        return measure(model, example)

    with monkeypatch.context() as patch:
        patch.setattr("eval.runner.FLUSH_SECONDS", -1.0)
        with pytest.raises(KeyboardInterrupt):
            run_bits(models, tmp_path, names, limit=5, task=replace(BITS, measure=failing))
    (path,) = run_bits(models, tmp_path, names, limit=5)
    (other,) = run_bits(models, tmp_path / "other", names, limit=5)
    assert sorted(read_results(path).examples) == sorted(read_results(other).examples)
    assert read_header(path)["figures"] == read_header(other)["figures"]
    assert read_header(path)["parts"] == read_header(other)["parts"]


def test_a_run_that_was_stopped_at_its_figures_works_them_out(models: Models, tmp_path: Path, monkeypatch) -> None:
    def stopped(results):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("eval.runner.summary", stopped)
        with pytest.raises(KeyboardInterrupt):
            run_bits(models, tmp_path, [str(models.plain)], limit=2)
    (path,) = run_bits(models, tmp_path, [str(models.plain)], limit=2)
    header = read_header(path)
    assert header["figures"]["bits per byte"]["value"] > 0 and header["measured_examples"] == 0


def test_what_cannot_be_done_is_found_before_anything_is_measured(models: Models, tmp_path: Path) -> None:
    specs, tasks = open_specs([str(models.plain), str(models.monolith)]), load_tasks("bits,replay")
    with pytest.raises(UsageError, match="cannot do what the task 'replay' needs"):
        run(specs, tasks, Options(data=str(models.unseen), limit=1), tmp_path / "out", progress=QUIET)
    assert not (tmp_path / "out").exists()


def test_a_library_of_another_python_is_not_taken_for_the_one_it_was_built_from(models: Models, tmp_path: Path) -> None:
    folder = copy_model(models.plain, tmp_path / "mine")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"corpus": {**config["corpus"], "name": "stdlib:train"}}))
    (folder / "training_files.json").write_text(json.dumps({"files": ["0" * 16], "corpus": "of another Python"}))
    (path,) = run_bits(models, tmp_path / "out", [str(folder)], limit=1)
    assert read_header(path)["copied"] is None and read_header(path)["leaked"] == []


def test_a_model_is_what_it_says_and_not_how_it_was_stored(models: Models, tmp_path: Path) -> None:
    one, two = copy_model(models.plain, tmp_path / "one"), copy_model(models.plain, tmp_path / "two")
    (two / ".store" / "ab").mkdir(parents=True)
    (two / ".store" / "ab" / "entry.json").write_text('{"seconds": 3.2}')
    prints = [open_model(spec).fingerprint for spec in open_specs([str(one), str(two)])]
    assert prints[0] == prints[1]


def test_a_changed_model_is_measured_again(models: Models, tmp_path: Path) -> None:
    folder = copy_model(models.plain, tmp_path / "mine")
    (path,) = run_bits(models, tmp_path / "out", [str(folder)], limit=2)
    before = read_header(path)
    names = json.loads((folder / "names.json").read_text())
    names["weights"] = names["weights"][::-1]
    (folder / "names.json").write_text(json.dumps(names))
    (path,) = run_bits(models, tmp_path / "out", [str(folder)], limit=2)
    after = read_header(path)
    assert after["figures"] != before["figures"] and after["measured_examples"] == 2


def test_the_header_says_what_was_measured_and_what_it_cost(models: Models, tmp_path: Path) -> None:
    (path,) = run_bits(models, tmp_path, [str(models.constructed)], limit=3)
    header = read_header(path)
    budget = header["budget"]
    assert budget["seconds"] > 0 and budget["peak_rss_bytes"] > 1e7 and budget["threads"] >= 1
    assert budget["parameters"] == load(models.constructed).parameters
    assert budget["table_entries"] > 10_000 and budget["train_flops"] > 1e6 and budget["train_rows"] > 0
    assert budget["data_bytes"] <= 120_000 and len(budget["data_hash"]) == 64
    assert header["leaked"] == [] and header["examples"] == 3
    assert header["task_version"] == BITS.version and header["environment"]["python"]


def test_a_test_file_that_was_trained_on_is_named(models: Models, tmp_path: Path) -> None:
    options = Options(data=str(models.train), limit=4)
    (path,) = run(open_specs([str(models.plain)]), [BITS], options, tmp_path, progress=QUIET)
    assert len(read_header(path)["leaked"]) == 4
    file = next(models.train.rglob("*.py"))
    disguised = tmp_path / "seen" / "copy.py"
    disguised.parent.mkdir()
    disguised.write_text("\n\n" + file.read_text().replace("\n", "  \r\n"))
    (path,) = run(open_specs([str(models.plain)]), [BITS], Options(str(disguised.parent)), tmp_path, progress=QUIET)
    assert read_header(path)["leaked"] == ["copy.py"] or len(read_header(path)["leaked"]) == 1
    (path,) = run(open_specs([str(models.hugging_face)]), [BITS], options, tmp_path, progress=QUIET)
    assert read_header(path)["leaked"] is None, "nobody knows what it was trained on"


def test_nets_alone_and_with_the_wrong_router_are_models_too(models: Models, tmp_path: Path) -> None:
    folder = models.constructed
    names = [str(folder), f"nets=nets-only:{folder}"]
    whole, nets = (read_header(path)["figures"]["bits per byte"]["value"] for path in run_bits(models, tmp_path, names))
    assert whole < nets
    with pytest.raises(UsageError, match="no nets"):
        run_bits(models, tmp_path, [f"nets-only:{models.plain}"])


def test_results_do_not_say_where_files_lie() -> None:
    said = "constructible eval run a=/home/me/x/model-{seed} --data /tmp/data/validation.parquet --out runs/a"
    assert place_free(said) == "constructible eval run a=model-{seed} --data validation.parquet --out runs/a"
    assert BITS.options(Options("/tmp/data/test.parquet")) == {"data": "test.parquet", "limit": None}
    assert place_free("stdlib:held-out runs/a/b 1/2") == "stdlib:held-out runs/a/b 1/2"


def test_names_of_models() -> None:
    assert parse_spec("a/b/c").name == "c" and parse_spec("x=a/b").name == "x"
    assert parse_spec("nets-only:a/b").name == "nets-only:b"
    specs = open_specs(["runs/ours-{seed}", "runs/other"], seeds=2)
    assert [(s.name, str(s.folder), s.seed) for s in specs] == [
        ("ours", "runs/ours-0", 0), ("ours", "runs/ours-1", 1), ("other", "runs/other", None),
    ]  # fmt: skip
    for wrong, words in ((["a", "b/a"], "two models"), (["a-{seed}"], "--seeds"), (["nets-onyl:a"], "nets-only")):
        with pytest.raises(UsageError, match=words):
            open_specs(wrong)


def test_tasks_are_found_by_name_and_by_entry_point(monkeypatch) -> None:
    assert load_tasks("bits, bits")[0] is BITS and len(load_tasks("bits,bits")) == 1
    with pytest.raises(UsageError, match="Did you mean 'bits'"):
        load_tasks("bit")
    with pytest.raises(UsageError, match="no task"):
        load_tasks(" , ")
    monkeypatch.setitem(TASKS._targets, "strange", "math:pi")
    with pytest.raises(ConstructibleError, match="float"):
        load_tasks("strange")
    import importlib.metadata

    entry = importlib.metadata.EntryPoint("mine", "eval.tasks.language:BITS", "constructible.tasks")
    monkeypatch.setattr(
        importlib.metadata, "entry_points", lambda group: [entry] if group == "constructible.tasks" else []
    )
    monkeypatch.setattr(TASKS, "_discovered", False)
    monkeypatch.setattr(TASKS, "_targets", dict(TASKS._targets))
    assert load_tasks("mine") == [BITS]


def test_the_command(models: Models, tmp_path: Path, capsys) -> None:
    arguments = ["run", str(models.plain), "--tasks", "bits", "--data", str(models.unseen), "--limit", "2"]
    arguments += ["--out", str(tmp_path)]
    assert run_command(eval_, arguments) == 0
    text = capsys.readouterr().out
    assert "bits per byte" in text and "plain" in text and "2 examples" in text
    assert run_command(eval_, [*arguments, "--json"]) == 0
    (header,) = json.loads(capsys.readouterr().out)
    assert header["figures"]["bits per byte"]["value"] > 0
    assert run_command(eval_, ["run", str(tmp_path / "no"), "--tasks", "bits", "--data", str(models.unseen)]) == 2
    assert run_command(eval_, ["run", str(models.unseen), "--tasks", "bits", "--data", str(models.unseen)]) == 1
    assert "neither a model of ours" in capsys.readouterr().err
    assert run_command(eval_, ["tasks"]) == 0
    assert "bits" in capsys.readouterr().out
