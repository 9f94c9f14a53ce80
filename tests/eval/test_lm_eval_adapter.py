"""Our models in lm-evaluation-harness: the same figures as ours, and as that harness' own evaluation of the same model.

Those parts that need the harness are skipped where it is not installed (`pip install 'constructible[harness]'`).
"""

from __future__ import annotations

import importlib.util
import json
import math
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from cgpt.corpus import SourceFile
from eval import lm_eval_adapter
from eval.lm_eval_adapter import Answers, harness_model, register
from ontology.errors import MissingExtra
from tests.eval.conftest import Models

HARNESS = pytest.mark.skipif(importlib.util.find_spec("lm_eval") is None, reason="lm-eval is not installed")
THEIRS = pytest.mark.skipif(importlib.util.find_spec("accelerate") is None, reason="its own models need accelerate")
TEXTS = ["import os\nprint(os)\n", "def f(a):\n    return 'é' + a\n", "x = 1\n" * 3]


def test_a_text_costs_what_its_score_says_without_the_end(models: Models) -> None:
    for name in ("constructed", "monolith", "hugging_face"):
        answers = Answers(models.open(name))
        for text in TEXTS:
            score = answers.model.score_file(SourceFile("a.py", text.encode(), "", ""))
            assert answers.rolling(text) == pytest.approx(-math.log(2) * score.bits[:-1].sum())


def test_a_continuation_costs_the_rest_and_greedy_means_greedy(models: Models) -> None:
    model = models.open("constructed")
    answers = Answers(model)
    context, continuation = "import os\n", "import sys\n"
    alone, _ = answers.continuation("", context)
    rest, _ = answers.continuation(context, continuation)
    assert alone + rest == pytest.approx(answers.rolling(context + continuation))
    made = answers.generate(context, ["\n"], 12)
    assert "\n" not in made
    if made:
        assert answers.continuation(context, made)[1]
        assert not answers.continuation(context, "zq")[1]
    assert answers.generate(context, ["x", "y"], 12).count("x") == 0


def test_without_the_harness_the_extra_is_named(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    monkeypatch.setitem(sys.modules, "lm_eval.api.model", None)
    for call in (register, lambda: harness_model("nowhere")):
        with pytest.raises(MissingExtra, match=r"constructible\[harness\]"):
            call()


def test_arguments_of_that_harness_are_understood(models: Models, monkeypatch) -> None:
    """Its base class stands in as a plain object: the wiring alone."""
    stand_in = SimpleNamespace(LM=object)
    monkeypatch.setitem(sys.modules, "lm_eval", SimpleNamespace(api=SimpleNamespace(model=stand_in)))
    monkeypatch.setitem(sys.modules, "lm_eval.api", SimpleNamespace(model=stand_in))
    monkeypatch.setitem(sys.modules, "lm_eval.api.model", stand_in)
    made = lm_eval_adapter.harness_class()
    model = made.create_from_arg_string(f"pretrained={models.plain},batch_size=1")  # type: ignore[attr-defined]
    ask = SimpleNamespace
    assert model.loglikelihood_rolling([ask(args=(TEXTS[0],))]) == [model.answers.rolling(TEXTS[0])]
    assert model.loglikelihood([ask(args=("a = ", "1"))]) == [model.answers.continuation("a = ", "1")]
    (text,) = model.generate_until([ask(args=("import ", {"until": ["\n"], "max_gen_toks": 4}))])
    assert "\n" not in text


def documents(folder: Path) -> dict:
    path = folder / "texts.jsonl"
    path.write_text("\n".join(json.dumps({"text": text}) for text in TEXTS) + "\n")
    return {
        "task": "texts", "dataset_path": "json", "dataset_kwargs": {"data_files": {"test": str(path)}},
        "test_split": "test", "output_type": "loglikelihood_rolling", "doc_to_text": "", "doc_to_target": "{{text}}",
        "metric_list": [{"metric": "bits_per_byte"}],
    }  # fmt: skip


@HARNESS
@pytest.mark.slow
def test_the_same_figure_in_that_harness_as_in_ours(models: Models, tmp_path: Path, monkeypatch) -> None:
    """Bits per byte of three models over three texts, ours less the ends of the texts."""
    import lm_eval  # pyright: ignore[reportMissingImports]

    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    register()
    n_bytes = sum(len(text.encode()) for text in TEXTS)
    for name in ("constructed", "monolith", "hugging_face"):
        folder = getattr(models, name)
        result = lm_eval.simple_evaluate(
            model="constructible", model_args=f"pretrained={folder}", tasks=[documents(tmp_path)], bootstrap_iters=0
        )
        scores = [models.open(name).score_file(SourceFile("a.py", t.encode(), "", "")) for t in TEXTS]
        ours = sum(score.bits[:-1].sum() for score in scores) / n_bytes
        assert result["results"]["texts"]["bits_per_byte,none"] == pytest.approx(ours, abs=1e-9)


@HARNESS
@THEIRS
@pytest.mark.slow
def test_that_harness_own_evaluation_of_the_same_model_gives_our_figure(
    models: Models, tmp_path: Path, monkeypatch
) -> None:
    import lm_eval  # pyright: ignore[reportMissingImports]
    from lm_eval.models.huggingface import HFLM  # pyright: ignore[reportMissingImports]

    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    theirs = HFLM(pretrained=str(models.hugging_face), device="cpu", batch_size=1, dtype="float32")
    result = lm_eval.simple_evaluate(model=theirs, tasks=[documents(tmp_path)], bootstrap_iters=0)
    scores = [models.open("hugging_face").score_file(SourceFile("a.py", t.encode(), "", "")) for t in TEXTS]
    ours = sum(score.bits[:-1].sum() for score in scores) / sum(len(text.encode()) for text in TEXTS)
    assert result["results"]["texts"]["bits_per_byte,none"] == pytest.approx(ours, abs=1e-4)
