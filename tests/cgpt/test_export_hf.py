"""The export for Hugging Face transformers: the same logits, generation in batches, errors that say what to install."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from cgpt.corpus import SourceFile
from cgpt.export_hf import export
from cgpt.model import ConstructedLM
from cgpt.model_card import Measured
from cgpt.score import score_files
from ontology.errors import ConstructibleError
from tests.support import ROOT

PROMPTS = ["import o", "def add(a, b):\n    return", "class Größe:\n"]


@pytest.fixture(scope="module")
def exported(model: ConstructedLM, unseen: list[SourceFile], tmp_path_factory: pytest.TempPathFactory) -> Path:
    measured = Measured(("some where",), score_files(model, unseen[:3]))
    return export(model, tmp_path_factory.mktemp("hf") / "export", measured)


@pytest.fixture(scope="module")
def loaded(exported: Path, tmp_path_factory: pytest.TempPathFactory):
    from transformers import AutoModelForCausalLM, AutoTokenizer, dynamic_module_utils

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path_factory.mktemp("modules")))
        opened = AutoModelForCausalLM.from_pretrained(exported, trust_remote_code=True)
        yield opened, AutoTokenizer.from_pretrained(exported, trust_remote_code=True)


def test_logits_are_ours(model: ConstructedLM, loaded, unseen: list[SourceFile]):
    opened, tokenizer = loaded
    text = unseen[0].data[:1500].decode("utf-8", "ignore")
    ids = tokenizer(text, return_tensors="pt")["input_ids"]
    own = model.tokenizer.encode(text.encode())
    assert ids[0].tolist() == own.tolist()
    logits = opened(ids).logits[0].numpy()
    view = model.view(own)
    for i in range(len(own)):
        np.testing.assert_allclose(logits[i], np.log(model.position(view, i + 1).distribution), atol=1e-5)
    np.testing.assert_allclose(torch.logsumexp(torch.from_numpy(logits), -1), 0.0, atol=1e-5)


def test_padding_and_batches_change_nothing(loaded):
    opened, tokenizer = loaded
    alone = [opened(**tokenizer(text, return_tensors="pt")).logits[0] for text in PROMPTS]
    for side in ("left", "right"):
        batch = tokenizer(PROMPTS, return_tensors="pt", padding=True, padding_side=side)
        logits = opened(**batch).logits
        for row, mask, single in zip(logits, batch["attention_mask"], alone, strict=True):
            torch.testing.assert_close(row[mask.bool()], single, rtol=0, atol=0)
    kept = opened(**tokenizer(PROMPTS[1], return_tensors="pt"), logits_to_keep=2).logits
    torch.testing.assert_close(kept[0], alone[1][-2:], rtol=0, atol=0)


def test_token_0_is_the_border_between_files(model: ConstructedLM, loaded):
    opened, tokenizer = loaded
    first, second = (tokenizer(text)["input_ids"] for text in ("x = 1\n", "import os\n"))
    logits = opened(torch.tensor([[0, *first, 0, *second]])).logits[0]
    torch.testing.assert_close(logits[1 : len(first) + 1], opened(torch.tensor([first])).logits[0], rtol=0, atol=0)
    torch.testing.assert_close(logits[-len(second) :], opened(torch.tensor([second])).logits[0], rtol=0, atol=0)
    start = np.log(model.next_distribution(model.view(np.zeros(0, np.uint16))))
    for at in (0, len(first) + 1):
        np.testing.assert_allclose(logits[at].numpy(), start, atol=1e-5)


def test_generation(model: ConstructedLM, loaded):
    opened, tokenizer = loaded
    assert opened.generation_config.use_cache is False
    batch = tokenizer(PROMPTS, return_tensors="pt", padding=True)
    greedy = tokenizer.batch_decode(opened.generate(**batch, max_new_tokens=6), skip_special_tokens=True)
    for prompt, text in zip(PROMPTS, greedy, strict=True):
        view = model.view(model.tokenizer.encode(prompt.encode()))
        for _ in range(6):
            token = int(model.next_distribution(view).argmax())
            if token == 0:
                break
            view.extend(np.array([token], np.uint16))
        assert text == view.text.decode("utf-8", "replace")
    torch.manual_seed(0)
    once = opened.generate(**batch, max_new_tokens=6, do_sample=True, top_p=0.9, num_return_sequences=2)
    torch.manual_seed(0)
    again = opened.generate(**batch, max_new_tokens=6, do_sample=True, top_p=0.9, num_return_sequences=2)
    assert once.shape[0] == 6 and torch.equal(once, again)


def test_tokenizer_keeps_every_byte_of_a_text(model: ConstructedLM, loaded, unseen: list[SourceFile], tmp_path: Path):
    _, tokenizer = loaded
    for text in (unseen[1].data.decode(), "é\t x  \n\r\n", "a <|end|> b", ""):
        ids = tokenizer(text)["input_ids"]
        assert ids == model.tokenizer.encode(text.encode()).tolist() and tokenizer.decode(ids) == text
    assert tokenizer.eos_token_id == tokenizer.pad_token_id == 0 and len(tokenizer) == model.tokenizer.vocab_size


def test_saving_again_gives_the_same_export(exported: Path, loaded, tmp_path: Path):
    opened, tokenizer = loaded
    opened.save_pretrained(tmp_path / "again")
    for path in exported.rglob("*"):
        if path.is_file() and path.name != "README.md":
            assert (tmp_path / "again" / path.relative_to(exported)).read_bytes() == path.read_bytes(), path
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    assert (tmp_path / "tokenizer" / "constructible_tokenizer.json").is_file()


def test_the_card_says_what_was_measured(model: ConstructedLM, exported: Path, unseen: list[SourceFile]):
    text = (exported / "README.md").read_text()
    score = score_files(model, unseen[:3])
    assert f"| {score.bits_per_byte:.3f} [" in text and "'some where'" in text and "PSF-2.0" in text
    assert text.startswith("---\n") and "None" not in text


def test_a_missing_package_is_named_as_ours(exported: Path, monkeypatch: pytest.MonkeyPatch):
    from transformers.dynamic_module_utils import check_imports

    check_imports(exported / "constructible_hf.py")  # transformers' own check, which would say `pip install cgpt`
    monkeypatch.setitem(sys.modules, "cgpt.model", None)
    spec = importlib.util.spec_from_file_location("remote", exported / "constructible_hf.py")
    assert spec is not None and spec.loader is not None
    with pytest.raises(ImportError, match="pip install constructible"):
        spec.loader.exec_module(importlib.util.module_from_spec(spec))


def test_nothing_of_an_earlier_export_stays(model: ConstructedLM, tmp_path: Path):
    folder = export(model, tmp_path / "hf")
    before = {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    (folder / "constructible" / "forgotten.json").write_text("of an earlier model")
    export(model, folder)
    assert {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_a_folder_that_holds_something_else_is_left_alone(model: ConstructedLM, tmp_path: Path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ConstructibleError, match="something else"):
        export(model, tmp_path)
    for folder in (model.folder, model.folder / "hf"):
        with pytest.raises(ConstructibleError, match="the model's own"):
            export(model, folder)
    assert not (model.folder / "hf").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


TASK = """
task: tiny_code
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{prompt}}}}"
doc_to_choice: ["os", "zzqj"]
doc_to_target: 0
target_delimiter: ""
metric_list: [{{metric: acc}}]
"""


def test_the_evaluation_harness_runs_a_local_task(exported: Path, tmp_path: Path):
    for package in ("lm_eval", "accelerate"):
        pytest.importorskip(package, reason="needs lm-eval, which is no dependency: pip install 'lm-eval[hf]'")
    rows = [{"prompt": "import "}, {"prompt": "import sys\nimport "}, {"prompt": "from os import path\nimport "}]
    (tmp_path / "data.json").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "tiny_code.yaml").write_text(TASK.format(data=tmp_path / "data.json"))
    command = [
        sys.executable, "-m", "lm_eval", "--model", "hf", "--tasks", "tiny_code", "--include_path", str(tmp_path),
        "--model_args", f"pretrained={exported},trust_remote_code=True,dtype=float32", "--device", "cpu",
        "--batch_size", "2", "--output_path", str(tmp_path / "out"), "--trust_remote_code",
    ]  # fmt: skip
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(next((tmp_path / "out").rglob("results*.json")).read_text())
    assert found["results"]["tiny_code"]["acc,none"] == 1.0
