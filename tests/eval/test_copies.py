"""Test files that a model knows, whole or in parts: what is found, what is not, and what the harness does about it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cgpt.corpus import SourceFile, read_corpus
from eval import runner
from eval.copies import MIN_LINES, MIN_SHARE, RUN, Known, counted_lines
from eval.identity import ANSWERS, meaning, meaning_of
from eval.models import open_specs
from eval.records import read_header
from eval.runner import run
from eval.tasks import Options, load_tasks
from ontology.errors import UsageError
from ontology.io import read_json, write_json, write_text
from ontology.progress import Progress
from tests.eval.conftest import Models, copy_model

QUIET = Progress(quiet=True)
LICENCE = "# Licensed under the Apache License, Version 2.0 (the licence); you may not use this file except in\n" * 12
IMPORTS = "".join(f"import {name}\n" for name in ("json", "logging", "operating", "regular", "system"))


def code(name: str, n: int) -> str:
    """A file of n different lines that count."""
    return "".join(f"    {name}_{i} = compute_{name}({i}, other_{i % 7})\n" for i in range(n))


def known(*texts: str) -> Known:
    return Known([SourceFile(f"{i}.py", text.encode(), "p", "MIT") for i, text in enumerate(texts)])


@pytest.mark.parametrize("n", [RUN, 12, 40])
def test_a_copied_run_is_found_whatever_its_layout(n: int) -> None:
    trained = known(code("first", 60), code("second", 60))
    part = code("first", 60).splitlines(keepends=True)[10 : 10 + n]
    moved = "".join("\t" + line.lstrip().replace(", ", ",") + "\n# a remark\n\n" for line in part)
    found = trained.shared((code("mine", 20) + moved + code("mine_too", 20)).encode())
    assert (found.shared, found.longest, found.counted) == (n, n, 40 + n)
    assert found.copied == (n >= MIN_LINES and n / (40 + n) >= MIN_SHARE)


def test_what_is_nobodys_is_not_a_copy() -> None:
    trained = known(LICENCE + IMPORTS + code("first", 30))
    own = trained.shared((LICENCE + IMPORTS + code("mine", 30)).encode())
    assert not own.copied and own.shared == RUN, "five imports are one run, not a copy of a file"
    assert trained.shared(b"else:\n)\n}\n" * 40).counted == 0
    assert trained.shared(b"").share == 0.0 and known().shared(code("mine", 30).encode()).shared == 0
    assert counted_lines(b"  x = [1]\n\n# x = first_value\n  total = first + 1\n") == [b"total=first+1"]


def test_a_line_changed_here_and_there_hides_only_what_is_between() -> None:
    lines = code("first", 120).splitlines()
    trained = known("\n".join(lines))
    for every, expected in ((20, True), (4, False)):
        edited = [line + " + 1" if i % every == 0 else line for i, line in enumerate(lines)]
        assert trained.shared("\n".join(edited).encode()).copied == expected


def test_fingerprints_do_not_collide() -> None:
    rng = np.random.default_rng(0)
    text = "\n".join(f"value = call_{a}({b})" for a, b in rng.integers(0, 10**9, (20_000, 2)))
    other = "\n".join(f"value = call_{a}({b})" for a, b in rng.integers(0, 10**9, (20_000, 2)))
    assert known(text).shared(other.encode()).shared == 0


def mixed(models: Models, folder: Path) -> tuple[Path, str]:
    """A folder of files that no model has seen, and one of which half stands in training; the name of that one."""
    source = max(read_corpus(str(models.train)).files, key=lambda file: len(file.data))
    part = source.data.decode().splitlines(keepends=True)[:200]
    write_text(folder / "q" / "half.py", "".join(part) + code("mine", 100))
    for i, file in enumerate(read_corpus(str(models.unseen)).files[:3]):
        write_text(folder / "q" / f"new{i}.py", file.data.decode())
    return folder, "half.py"


def test_a_run_says_which_test_files_stand_in_training(models: Models, tmp_path: Path) -> None:
    data, name = mixed(models, tmp_path / "data")
    folder = copy_model(models.plain, tmp_path / "m")
    config = read_json(folder / "config.json")
    write_json(folder / "config.json", config | {"corpus": config["corpus"] | {"name": "ours"}})
    spec = open_specs([f"m={folder}"])

    def measured(out: str, train: Path | None = models.train, **more) -> dict:
        options = Options(str(data), None if train is None else str(train))
        (path,) = run(spec, load_tasks("bits"), options, tmp_path / out, progress=QUIET, **more)
        return read_header(path)

    assert measured("one", None)["copied"] is None, "nobody has looked"
    found = measured("one")
    assert [example.endswith(name) for example in found["copied"]] == [True] and found["leaked"] == []
    assert found["measured_examples"] == 0, "looking measures nothing again"
    left = measured("two", without_known=True)
    assert left["copied"] == {} and left["examples"] == found["examples"] - 1
    (path,) = run(open_specs([f"m={models.plain}"]), load_tasks("bits"), Options(str(data)), tmp_path / "four",
                  progress=QUIET)  # fmt: skip
    assert read_header(path)["copied"] == found["copied"], "a corpus of the standard library is found by itself"
    with pytest.raises(UsageError, match="was not built from the corpus given"):
        measured("three", models.unseen)


def test_learning_as_it_goes_looks_for_known_files_too(models: Models, tmp_path: Path) -> None:
    spec = open_specs([f"m={models.monolith}"])
    data, _ = mixed(models, tmp_path / "data")
    file = read_corpus(str(models.train)).files[0]
    write_text(tmp_path / "data" / "r" / "known.py", "\n" + file.data.decode())
    options = Options(str(data), str(models.train))
    (path,) = run(spec, load_tasks("dynamic"), options, tmp_path / "out", progress=QUIET)
    header = read_header(path)
    assert header["leaked"] == ["r"], "the project of the file it knows"
    assert set(header["copied"]) >= {"q"}, "the project of the file of which it knows a half"
    (path,) = run(spec, load_tasks("dynamic"), Options(str(models.unseen), str(models.train)), tmp_path / "clean",
                  progress=QUIET)  # fmt: skip
    assert read_header(path)["leaked"] == []


def test_a_file_that_is_there_twice_counts_once(models: Models, tmp_path: Path) -> None:
    file = read_corpus(str(models.unseen)).files[0].data.decode()
    for name, text in (("a/one.py", file), ("b/two.py", "\n\n" + file.replace("\n", "\r\n"))):
        write_text(tmp_path / "data" / name, text)
    (path,) = run(open_specs([f"m={models.plain}"]), load_tasks("bits"), Options(str(tmp_path / "data")),
                  tmp_path / "out", progress=QUIET)  # fmt: skip
    assert read_header(path)["examples"] == 1


def test_changed_code_measures_again_and_changed_words_do_not(models: Models, tmp_path: Path, monkeypatch) -> None:
    folder = copy_model(models.plain, tmp_path / "mine")
    options = Options(str(models.unseen), limit=2)

    def measured() -> int:
        (path,) = run(open_specs([str(folder)]), load_tasks("bits"), options, tmp_path / "out", progress=QUIET)
        return read_header(path)["measured_examples"]

    first = measured()
    assert first == 2
    code_now = runner.meaning
    monkeypatch.setattr(runner, "meaning", lambda *modules: code_now(*modules) + "+")
    longer = Options(str(models.unseen), limit=3)
    (path,) = run(open_specs([str(folder)]), load_tasks("bits"), longer, tmp_path / "out", progress=QUIET)
    assert read_header(path)["measured_examples"] == 3, "no row of the code before is kept"

    text = '"""Says."""\n\n\ndef f(x):\n    """What."""\n    return x + 1  # why\n'
    assert meaning_of(text) == meaning_of("def f(x):\n    return (x + 1)\n")
    assert meaning_of(text) != meaning_of(text.replace("1", "2"))
    assert meaning_of('def f():\n    """Only words."""\n') != meaning_of("def f():\n    return 1\n")
    assert meaning_of("not (python") != meaning_of("not (python at all")
    assert meaning(*ANSWERS) == meaning(*ANSWERS) != meaning("cgpt")
    assert len(meaning("no_such_module")) == 64
