"""Forgetting: the model becomes what a build without the files makes, and a secret in them is gone."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from cgpt import forget as forgetting
from cgpt.build import Kept, Recipe, build, mark_of
from cgpt.corpus import Corpus, SourceFile
from cgpt.data import held_out_files
from cgpt.explain import explain
from cgpt.forget import corpus_of, forget
from cgpt.model import ConstructedLM, LanguageModel, load
from ontology.environment import usable_cpus
from ontology.errors import ConstructibleError, UsageError
from ontology.fit import Budget
from ontology.io import read_json
from ontology.progress import Progress
from tests.cgpt.small import SHAPE, small_corpus
from tests.support import ROOT

STEPS = 12
SECRET = "kQ7vZ2xW9pLr4TnB8mJd"
PLANTED = f'API_TOKEN = "{SECRET}"\n\n\ndef connect(client):\n    return client.login(token="{SECRET}")\n'
PROBE = f'client.login(token="{SECRET}")\n'.encode()
TABLES = ("index.safetensors", "sources.json", "tokenizer.json", "training_files.json", "ontology.yaml", "router.py")
ALONE = {"ledger.json", "environment.json", "metrics.jsonl", "fit.json"}


def small_build(folder: Path, corpus: Corpus, kept: Kept | None = None, cut: str = "leaves") -> ConstructedLM:
    import torch

    torch.set_num_threads(usable_cpus())
    recipe = Recipe(cut=cut, vocab_size=640, shape=SHAPE, kept=kept)
    build(corpus, folder, Budget(steps=STEPS), recipe, progress=Progress(quiet=True))
    opened = load(folder)
    assert isinstance(opened, ConstructedLM)
    return opened


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    """A small corpus with a secret in a project of its own that nets and tables learn from."""
    files = small_corpus(220_000).files
    for number in range(20):
        project = f"vault{number}"
        planted = [
            SourceFile(f"{project}/{part}.py", f"# {part}\n{PLANTED * 5}".encode(), project, "GPL-3.0-only")
            for part in ("client", "server")
        ]
        whole = sorted([*files, *planted], key=lambda file: file.path)
        if not any(out for file, out in zip(whole, held_out_files(whole), strict=True) if file.project == project):
            return Corpus(whole, [], "planted")
    raise AssertionError("every name of the project is held out")


def project_of(corpus: Corpus) -> str:
    return next(file.project for file in corpus.files if file.project.startswith("vault"))


def without_project(corpus: Corpus, project: str) -> Corpus:
    return corpus.select(lambda file: file.project != project, corpus.name)


@pytest.fixture(scope="module")
def original(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> ConstructedLM:
    """The model that knows the secret."""
    return small_build(tmp_path_factory.mktemp("knows") / "model", corpus)


@pytest.fixture(scope="module")
def never(corpus: Corpus, original: ConstructedLM, tmp_path_factory: pytest.TempPathFactory) -> ConstructedLM:
    """A build from raw files without the project; the tokenizer is the one that saw it."""
    folder = tmp_path_factory.mktemp("never") / "model"
    return small_build(folder, without_project(corpus, project_of(corpus)), Kept(original.folder / "tokenizer.json"))


@pytest.fixture()
def copy(original: ConstructedLM, tmp_path: Path) -> Path:
    """A copy of the model with its store, as a build leaves it."""
    return Path(shutil.copytree(original.folder, tmp_path / "model"))


def quietly(folder: Path, *names: str, retrain: bool = False) -> forgetting.Forgotten:
    return forget(folder, names, retrain, progress=Progress(quiet=True))


def same_files(ours: Path, theirs: Path, names: set[str] | tuple[str, ...]) -> None:
    for name in names:
        assert (ours / name).read_bytes() == (theirs / name).read_bytes(), name


def bits(model: LanguageModel) -> float:
    return float(model.score_file(PROBE).bits.sum())


def names_in(folder: Path, needle: bytes) -> list[str]:
    return [
        str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file() and needle in path.read_bytes()
    ]


def test_the_folder_holds_the_corpus(original: ConstructedLM, corpus: Corpus):
    found = corpus_of(original)
    assert found.files == corpus.files and found.data_hash == corpus.data_hash


def test_tables_become_those_of_a_build_without_the_files(
    copy: Path, corpus: Corpus, original: ConstructedLM, never: ConstructedLM
):
    """Bit for bit; the nets are kept and named, what is measured on held-out files is measured again."""
    project = project_of(corpus)
    done = quietly(copy, project)
    assert sorted(row["path"] for row in done.files) == [f"{project}/client.py", f"{project}/server.py"]
    assert not done.retrained and done.still_in_nets == 2 and "token_embeddings" in done.shared
    same_files(copy, never.folder, TABLES)
    same_files(copy, original.folder, {"nets.safetensors", "seen_by_nets.json"})
    assert "built from more files: tokenizer, nets." in (copy / "README.md").read_text()
    assert (copy / "mixer.json").read_bytes() != (original.folder / "mixer.json").read_bytes()
    # The nets that saw them: those in charge somewhere in the two files, with the positions counted there.
    assert original.nets is not None
    expected: dict[str, int] = {}
    for file in corpus.files:
        if file.project == project:
            for concept in original.concepts_at(original.view(original.tokenizer.encode(file.data))):
                net = original.nets.concepts[original.net_of[concept]]
                expected[net] = expected.get(net, 0) + 1
    assert done.nets_that_saw == expected and len(expected) > 4
    forgotten = load(copy)
    assert isinstance(forgotten, ConstructedLM)
    assert bits(forgotten) > bits(original) + 20
    record = explain(forgotten, PLANTED.encode(), max_tokens=60)
    files = {item["file"] for token in record["tokens"] for e in token["experts"] for item in e["evidence"]}
    assert len(files) > 2 and not any(project in (file or "") for file in files)
    assert names_in(copy, project.encode()) == [] and not (copy / ".forget").exists()


def test_after_retraining_the_secret_is_as_unlikely_as_if_it_had_never_been_there(
    copy: Path, corpus: Corpus, original: ConstructedLM, never: ConstructedLM
):
    """With steps as budget the whole model is, bit for bit, the one that never saw the files."""
    done = quietly(copy, f"{project_of(corpus)}/*", retrain=True)
    assert done.retrained and done.still_in_nets == 0 and done.nets_that_saw
    artefacts = {path.name for path in never.folder.iterdir() if path.is_file()} - ALONE - {".lock"}
    same_files(copy, never.folder, artefacts)
    forgotten = load(copy)
    assert isinstance(forgotten, ConstructedLM)
    assert bits(forgotten) == bits(never) > bits(original) + 20
    assert read_json(copy / "config.json")["kept"].keys() == {"tokenizer"}
    for path in copy.rglob("*.safetensors"):
        assert path.parent == copy, "a store with the forgotten text is left"


def test_what_nets_still_carry_can_be_removed_later(copy: Path, corpus: Corpus, never: ConstructedLM):
    quietly(copy, project_of(corpus))
    done = quietly(copy, retrain=True)
    assert done.files == [] and done.retrained
    same_files(copy, never.folder, {*TABLES, "nets.safetensors", "mixer.json", "seen_by_nets.json", "held_out.json"})
    with pytest.raises(UsageError, match="nothing to forget"):
        quietly(copy, retrain=True)


def test_files_that_no_net_saw_leave_the_nets_alone(copy: Path, corpus: Corpus, original: ConstructedLM):
    """Held-out files are in the tables and in the mixer's weights, not in the nets: nothing is retrained."""
    held_out = set(read_json(copy / "held_out.json")["files"])
    file = next(file for file in corpus.files if mark_of(file) in held_out)
    done = quietly(copy, file.path, retrain=True)
    assert done.nets_that_saw == {} and not done.retrained and done.still_in_nets == 0
    same_files(copy, original.folder, {"nets.safetensors", "seen_by_nets.json"})
    assert set(read_json(copy / "held_out.json")["files"]) == held_out - {mark_of(file)}
    assert (copy / "mixer.json").read_bytes() != (original.folder / "mixer.json").read_bytes()
    rest = [other.path for other in corpus.files if other != file and mark_of(other) in held_out]
    with pytest.raises(ConstructibleError, match="add --retrain"):
        quietly(copy, *rest)
    # With other files held out instead, which the nets must not have seen.
    done = quietly(copy, *rest, retrain=True)
    assert done.retrained and len(done.files) == len(rest)
    now, seen = (set(read_json(copy / f"{name}.json")["files"]) for name in ("held_out", "seen_by_nets"))
    assert now and not now & held_out and not now & seen


@pytest.mark.parametrize("stopped", ["while it builds", "while files take their places"])
def test_a_stopped_forget_is_finished_by_the_next(
    stopped: str, copy: Path, corpus: Corpus, never: ConstructedLM, monkeypatch: pytest.MonkeyPatch
):
    """Before files move the model is whole, while they move no half model can be opened; the same command ends it."""
    calls = 0
    replace_file = os.replace
    place = copy / ".forget" if stopped == "while it builds" else copy

    def stop(source: str | Path, target: str | Path) -> None:
        nonlocal calls
        if Path(target).parent == place:
            calls += 1
            if calls == 5:
                raise KeyboardInterrupt
        replace_file(source, target)

    monkeypatch.setattr("os.replace", stop)
    with pytest.raises(KeyboardInterrupt):
        quietly(copy, project_of(corpus))
    if stopped == "while it builds":
        assert bits(load(copy)) < bits(never)
    else:
        with pytest.raises(ConstructibleError, match="no finished model"):
            load(copy)
    monkeypatch.undo()
    between = Path(shutil.copytree(copy, copy.parent / "between"))
    done = quietly(copy, project_of(corpus))
    assert len(done.files) == 2
    same_files(copy, never.folder, TABLES)
    assert isinstance(load(copy), ConstructedLM)
    # Asked for more than the stopped call was, it does that as well.
    other = corpus.files[0]
    quietly(between, project_of(corpus), other.path)
    left = {row[0] for row in read_json(between / "sources.json")["files"]}
    assert left == {file.path for file in corpus.files if file.project != project_of(corpus)} - {other.path}


def test_a_model_without_nets_becomes_the_build_without_the_files(corpus: Corpus, tmp_path: Path):
    model = small_build(tmp_path / "plain", corpus, cut="plain")
    project = project_of(corpus)
    reference = small_build(
        tmp_path / "reference", without_project(corpus, project), Kept(model.folder / "tokenizer.json"), cut="plain"
    )
    quietly(tmp_path / "plain", project)
    artefacts = {path.name for path in reference.folder.iterdir() if path.is_file()} - ALONE - {".lock", "config.json"}
    same_files(tmp_path / "plain", reference.folder, artefacts)


def test_sources_that_are_not_there(copy: Path, corpus: Corpus):
    with pytest.raises(UsageError, match="Did you mean"):
        quietly(copy, project_of(corpus).replace("vault", "vualt"))
    with pytest.raises(UsageError, match="no source 'zzzz'"):
        quietly(copy, "zzzz")
    with pytest.raises(UsageError, match="no file would be left"):
        quietly(copy, "*")
    with pytest.raises(UsageError, match="nothing to forget"):
        quietly(copy)


def test_the_command(copy: Path, corpus: Corpus):
    command = [sys.executable, "-m", "ontology.main", "cgpt", "forget", str(copy)]
    done = subprocess.run(
        [*command, project_of(corpus), "--json"], cwd=ROOT, capture_output=True, text=True, timeout=300, env=os.environ
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["kept"] == ["tokenizer", "nets"] and len(result["files"]) == 2 and result["nets_that_saw"]
    done = subprocess.run([*command, "zzzz"], cwd=ROOT, capture_output=True, text=True, timeout=300, env=os.environ)
    assert done.returncode == 2 and "no source" in done.stderr and "Traceback" not in done.stderr
    assert np.isfinite(load(copy).score_file(PROBE).bits).all()
