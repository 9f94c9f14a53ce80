"""Builds: repeat bit for bit, survive kills, keep to their minutes, refuse bad input in one clear line."""

from __future__ import annotations

import ast
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cgpt.build import HERE, NET_CODE, Recipe, build
from cgpt.complete import complete
from cgpt.corpus import Corpus, SourceFile
from cgpt.data import held_out_files
from cgpt.export_hf import export
from cgpt.model import ConstructedLM, load
from cgpt.pack import Packer
from cgpt.score import score_files
from ontology.errors import ConstructibleError
from ontology.fit import Budget
from ontology.io import read_json
from ontology.progress import Progress
from tests.cgpt.small import SHAPE, build_small, small_corpus
from tests.support import ROOT

CUTS = ("root", "1", "plain")


def artefacts(folder: Path) -> dict[str, str]:
    """SHA-256 of every file that makes the model (what the build says about itself, seconds and machine, left out)."""
    about = {"ledger.json", "metrics.jsonl", "environment.json", ".lock"}
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and ".store" not in path.parts and path.name not in about
    }


def start(folder: Path, steps: int) -> subprocess.Popen:
    command = [sys.executable, "-m", "tests.cgpt.small", str(folder), str(steps)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


@pytest.mark.slow
def test_killed_ten_times_a_build_ends_the_same(tmp_path: Path):
    """kill -9 at random moments, then the same command: the same artefacts as an undisturbed build."""
    process = start(tmp_path / "whole", 40)
    _, errors = process.communicate(timeout=600)
    assert process.returncode == 0, errors.decode()[-2000:]
    whole = artefacts(tmp_path / "whole")
    assert "nets.safetensors" in whole
    moments = random.Random(7)
    kills = finished = 0
    while kills < 10 or not finished:
        folder = tmp_path / f"killed-{finished}"
        process = start(folder, 40)
        try:
            _, errors = process.communicate(timeout=moments.uniform(0.8, 5.0) if kills < 10 else 600)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            kills += 1
            continue
        # It got through: the result is compared, and the next kills hit a build that starts from nothing.
        assert process.returncode == 0, errors.decode()[-2000:]
        assert artefacts(folder) == whole
        finished += 1


def test_another_seed_is_another_model(model_folder: Path, tmp_path: Path):
    build_small(tmp_path / "seed", seed=1, steps=5)
    ours, theirs = artefacts(model_folder), artefacts(tmp_path / "seed")
    assert ours.keys() == theirs.keys()
    assert ours["nets.safetensors"] != theirs["nets.safetensors"]
    assert ours["tokenizer.json"] == theirs["tokenizer.json"]
    assert ours["index.safetensors"] == theirs["index.safetensors"]


@pytest.mark.parametrize("cut", CUTS)
def test_every_cut_is_a_model(cut: str, tmp_path: Path, unseen):
    build_small(tmp_path / "model", cut=cut, steps=8)
    model = load(tmp_path / "model")
    score = score_files(model, unseen[:2])
    assert 0.5 < score.bits_per_byte < 8.0
    assert model.config["cut"] == cut
    assert (model.parameters == 0) == (cut == "plain")
    assert model.concepts == load(tmp_path / "model").concepts
    assert score.per_concept().keys() <= set(model.concepts)
    if cut == "1":
        assert isinstance(model, ConstructedLM) and model.nets is not None
        assert set(model.nets.concepts) == {
            "text", "statement_place", "definition", "attribute", "after_name", "after_value", "value",
        }  # fmt: skip


def test_minutes_are_kept_across_kills(tmp_path: Path):
    """A killed build with --minutes goes on with the seconds it had used."""
    corpus = tmp_path / "corpus"
    for file in small_corpus(200_000).files:
        path = corpus / file.path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(file.data)
    folder = tmp_path / "model"
    command = [sys.executable, "-m", "ontology.main", "cgpt", "build", str(corpus), "--out", str(folder),
               "--minutes", "0.35", "--vocab", "1024"]  # fmt: skip
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    # Wait until some seconds are on record, then kill.
    while time.monotonic() < deadline:
        ledger = folder / "ledger.json"
        if ledger.exists() and read_json(ledger)["seconds"] > 5.0:
            break
        assert process.poll() is None, "the build ended before it could be killed"
        time.sleep(0.2)
    process.send_signal(signal.SIGKILL)
    process.wait()
    used = read_json(folder / "ledger.json")["seconds"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    total = read_json(folder / "ledger.json")["seconds"]
    assert total >= used > 5.0
    assert read_json(folder / "config.json")["cut"] == "leaves"


def run_cli(*arguments: str, cwd: Path | None = None, stdin: bytes = b"") -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "ontology.main", "cgpt", *arguments],
        cwd=cwd or ROOT, input=stdin, capture_output=True, timeout=300, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip


def fill(folder: Path, kind: str) -> None:
    folder.mkdir()
    if kind == "no python":
        (folder / "notes.txt").write_text("hello")
    elif kind == "binary":
        (folder / "a.py").write_bytes(b"\0\1\2" * 100)
    elif kind == "latin-1":
        (folder / "a.py").write_bytes("x = 'é'\n".encode("latin-1"))
    elif kind == "huge":
        with open(folder / "a.py", "wb") as file:
            file.write(b"x = 1\n" * (50_000_000 // 6))


@pytest.mark.parametrize("kind", ["empty", "no python", "binary", "latin-1", "huge"])
def test_a_corpus_without_a_usable_file_is_one_clear_line(kind: str, tmp_path: Path):
    fill(tmp_path / "corpus", kind)
    done = run_cli("build", str(tmp_path / "corpus"), "--out", str(tmp_path / "out"), "--steps", "1")
    assert done.returncode == 1
    errors = [line for line in done.stderr.decode().splitlines() if line.startswith("error:")]
    assert len(errors) == 1 and "Fix:" in errors[0] and b"Traceback" not in done.stderr


def test_bad_files_beside_good_ones_are_listed_not_fatal(tmp_path: Path):
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    for file in small_corpus(60_000).files:
        (corpus / Path(file.path).name).write_bytes(file.data)
    (corpus / "bad.py").write_bytes(b"\xff\xfe broken")
    done = run_cli("build", str(corpus), "--out", str(tmp_path / "out"), "--steps", "2", "--vocab", "600", "--json")
    assert done.returncode == 0, done.stderr.decode()
    assert b"bad.py" in done.stderr and b'"skipped"' in done.stdout and b"bad.py" in done.stdout


@pytest.mark.parametrize(
    "options",
    [
        ["--steps", "0"], ["--minutes", "-1"], ["--steps", "5", "--minutes", "1"], ["--cut", "leafs", "--steps", "1"],
        ["--cut", "99", "--steps", "1"], ["--seed", "x"], ["--vocab", "3"], ["--no-such-option"],
    ],
)  # fmt: skip
def test_unknown_options_and_values_are_bad_usage(options: list[str], tmp_path: Path):
    done = run_cli("build", "stdlib", "--out", str(tmp_path / "out"), *options)
    assert done.returncode == 2, done.stderr.decode()
    assert done.stderr.decode().splitlines()[-1].startswith("error:") and b"Traceback" not in done.stderr


def test_an_output_that_cannot_be_written_is_named(tmp_path: Path):
    (tmp_path / "file").write_text("in the way")
    done = run_cli("build", "stdlib", "--out", str(tmp_path / "file" / "out"), "--steps", "1")
    assert done.returncode == 1 and b"Fix:" in done.stderr and b"Traceback" not in done.stderr


@pytest.fixture()
def small_disk(tmp_path: Path):
    """A file system of 3 MB, where this process may mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(folder)], capture_output=True)
    if mounted.returncode:
        pytest.skip("a small tmpfs cannot be mounted here (needs root)")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_is_one_clear_line_and_loses_nothing(small_disk: Path):
    arguments = ["build", "stdlib:train", "--out", str(small_disk / "out"), "--steps", "1"]
    done = run_cli(*arguments)
    assert done.returncode == 1 and b"Traceback" not in done.stderr
    assert b"full" in done.stderr and b"Fix:" in done.stderr
    subprocess.run(["mount", "-o", "remount,size=400m", str(small_disk)], check=True)
    done = run_cli(*arguments)
    assert done.returncode == 0, done.stderr.decode()
    assert b"in the store already" in done.stderr


def test_a_read_only_disk_is_named(small_disk: Path):
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    done = run_cli("build", "stdlib:train", "--out", str(small_disk / "out"), "--steps", "1")
    assert done.returncode == 1 and b"read-only" in done.stderr and b"Traceback" not in done.stderr


def test_the_mixer_learns_from_files_of_their_own():
    files = small_corpus().files
    chosen = held_out_files(files)
    share = sum(len(f.data) for f, c in zip(files, chosen, strict=True) if c) / sum(len(f.data) for f in files)
    assert 0.03 < share < 0.13
    ours = {f.project for f, c in zip(files, chosen, strict=True) if c}
    rest = {f.project for f, c in zip(files, chosen, strict=True) if not c}
    assert not ours & rest
    assert (held_out_files(files) == chosen).all()
    assert held_out_files(files[:1]).sum() == 0 and held_out_files(files[:2]).sum() == 1


TINY = {f"m{i}.py": f"def f{i}(x):\n    return x + {i}\n".encode() * 4 for i in range(12)}


@pytest.mark.parametrize("cut", ["root", "leaves"])
def test_a_corpus_too_small_for_its_alphabet_gives_a_whole_model(cut: str, tmp_path: Path):
    """Fewer pieces than were asked for: no distribution has a token that there is not."""
    files = [SourceFile(name, data, "tiny", "MIT") for name, data in TINY.items()]
    build_small(tmp_path / "m", cut=cut, steps=3, corpus=Corpus(files, [], "tiny"))
    model = load(tmp_path / "m")
    assert model.config["vocab_size"] == model.tokenizer.vocab_size < 1024
    made = complete(model, b"def f", 40, temperature=3.0, seed=1)
    assert made.steps and all(0 < step.probability <= 1 for step in made.steps)
    assert score_files(model, files[:2]).bits_per_byte > 0
    if isinstance(model, ConstructedLM):
        packer = Packer(model)
        assert packer.unpack(packer.pack(files[0].data).data) == files[0].data
        exported = read_json(export(model, tmp_path / "hf") / "config.json")
        assert exported["vocab_size"] == len(model.index.unigram)


def test_a_repository_that_holds_its_own_model_is_built_again_from_the_store(tmp_path: Path):
    for name, data in TINY.items():
        (tmp_path / name).write_bytes(data)
    command = ["build", ".", "--out", "runs/mine", "--steps", "2", "--hidden", "8", "--json"]
    first, second = (json.loads(run_cli(*command, cwd=tmp_path).stdout) for _ in range(2))
    assert (first["files"], first["bytes"]) == (second["files"], second["bytes"])
    assert read_json(tmp_path / "runs" / "mine" / "config.json")["corpus"]["name"] == tmp_path.name
    assert (tmp_path / "runs" / "mine" / "router.py").exists()


def test_a_limit_of_parameters_is_checked_before_training_and_on_work_that_is_taken_over(tmp_path: Path):
    text = (HERE / "ontology.yaml").read_text()
    (tmp_path / "low.yaml").write_text(text.replace("max_params: 200000", "max_params: 400"))
    files = [SourceFile(name, data, "tiny", "MIT") for name, data in TINY.items()]

    def run(ontology: Path) -> None:
        recipe = Recipe(vocab_size=1024, shape=SHAPE, ontology=ontology)
        build(Corpus(files, [], "tiny"), tmp_path / "m", Budget(steps=3), recipe, progress=Progress(quiet=True))

    run(HERE / "ontology.yaml")
    with pytest.raises(ConstructibleError, match="over its max_params 400"):
        run(tmp_path / "low.yaml")


def test_score_command_takes_files_folders_and_parquet(model_folder: Path, tmp_path: Path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    code = "def add(a, b):\n    return a + b\n"
    (tmp_path / "one.py").write_text(code)
    table = {"code": [code + "# two\n"], "repo_name": ["a/b"], "path": ["two.py"], "license": ["MIT"],
             "language": ["Python"]}  # fmt: skip
    pq.write_table(pa.table(table), tmp_path / "rows.parquet")
    done = run_cli("score", str(model_folder), str(tmp_path / "one.py"), str(tmp_path / "rows.parquet"), "--json")
    assert done.returncode == 0, done.stderr.decode()
    result = json.loads(done.stdout)
    assert {"bits_per_byte", "bytes", "tokens", "accuracy", "seconds", "per_concept"} <= result.keys()
    assert result["files"] == 2 and result["bytes"] == 2 * len(code) + 6
    assert result["known_files"] == 0 and b"in the training corpus" not in done.stderr
    known = small_corpus().files[0]
    (tmp_path / "known.py").write_bytes(known.data)
    done = run_cli("score", str(model_folder), str(tmp_path / "known.py"), "--json")
    assert json.loads(done.stdout)["known_files"] == 1 and b"1 of 1 files are in the training corpus" in done.stderr
    (tmp_path / "known.py").unlink()
    table = run_cli("score", str(model_folder), str(tmp_path))
    assert table.returncode == 0 and b"bits/byte" in table.stdout
    missing = run_cli("score", str(model_folder), str(tmp_path / "absent.py"))
    assert missing.returncode == 2 and b"absent.py" in missing.stderr


def test_complete_and_explain_commands(model_folder: Path, tmp_path: Path):
    done = run_cli("complete", str(model_folder), "-", "--max-tokens", "5", stdin=b"import o")
    assert done.returncode == 0 and done.stdout.strip()
    done = run_cli("complete", str(model_folder), "-", "--max-tokens", "3", "--explain", stdin=b"for i in ra")
    assert done.returncode == 0 and b"p=" in done.stdout
    (tmp_path / "code.py").write_text("def f(x):\n    return x\n")
    page = tmp_path / "page.html"
    done = run_cli("explain", str(model_folder), str(tmp_path / "code.py"), "--html", str(page))
    assert done.returncode == 0 and "after_name" in page.read_text()
    done = run_cli("complete", str(tmp_path), "-", stdin=b"x")
    assert done.returncode == 1 and b"no finished model" in done.stderr


def test_stored_nets_are_known_by_all_the_code_that_makes_them():
    """Whatever the nets and their examples import counts into the key, or a change of it would take old nets over."""
    met, left = set(), ["cgpt.nets", "cgpt.data"]
    while left:
        name = left.pop()
        met.add(name)
        for node in ast.parse((ROOT / f"{name.replace('.', '/')}.py").read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ImportFrom) and node.module is not None:
                found = {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)} - met
                left += [
                    each
                    for each in found
                    if each.startswith("cgpt.") and (ROOT / f"{each.replace('.', '/')}.py").is_file()
                ]
    # How functions are compiled, what a file is (files have keys of their own), and the lengths of the index' contexts.
    assert met - set(NET_CODE) == {"cgpt.compiled", "cgpt.corpus", "cgpt.stdlib", "cgpt.index"}
