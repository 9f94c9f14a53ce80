"""The writer of artefacts: what a killed process leaves behind."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from ontology.io import remove_leftovers, write_text


def test_a_killed_writer_leaves_the_old_file_and_a_leftover_that_is_removed(tmp_path: Path) -> None:
    write_text(tmp_path / "fit.json", "old")
    code = (
        "import os, sys; from ontology.io import write_atomic\n"
        "write_atomic(sys.argv[1], lambda path: (path.write_text('half'), os.kill(os.getpid(), 9)))"
    )
    killed = subprocess.run([sys.executable, "-c", code, str(tmp_path / "fit.json")], check=False)
    assert killed.returncode == -9
    assert (tmp_path / "fit.json").read_text() == "old"
    (leftover,) = tmp_path.glob(".*.tmp")
    assert remove_leftovers(tmp_path) == [leftover]
    assert [path.name for path in tmp_path.iterdir()] == ["fit.json"]


def test_files_of_living_writers_and_of_others_stay(tmp_path: Path) -> None:
    names = {
        f".fit.json.{os.getpid()}.abc.tmp",
        f".fit.json.{os.getpid()}.tmp",
        ".hidden.tmp",
        "notes.1.tmp",
        "fit.json",
    }
    for name in names:
        (tmp_path / name).write_text("")
    assert remove_leftovers(tmp_path) == []
    assert {path.name for path in tmp_path.iterdir()} == names
