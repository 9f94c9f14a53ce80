"""What can be said of the source without running it: style, types, layers, names, size, machine paths."""

from __future__ import annotations

import ast
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import ROOT, project_files

BIN = Path(sys.executable).parent


def run(*command: str | Path, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(part) for part in command], cwd=cwd, capture_output=True, text=True, timeout=600)


def test_ruff_is_clean() -> None:
    done = run(BIN / "ruff", "check", "--output-format", "concise", ".")
    assert done.returncode == 0, done.stdout + done.stderr


def test_pyright_is_clean() -> None:
    # The wheel brings the checker and its own node: nothing is fetched here.
    done = run(BIN / "pyright", "--outputjson", "--pythonpath", sys.executable)
    assert done.stdout.startswith("{"), done.stdout + done.stderr
    errors = [found for found in json.loads(done.stdout)["generalDiagnostics"] if found["severity"] == "error"]
    lines = [f"{found['file']}:{found['range']['start']['line'] + 1}: {found['message']}" for found in errors]
    assert not lines, "\n".join(lines)


def test_layers_hold() -> None:
    done = run(BIN / "lint-imports", "--no-cache")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("kernels/plan.py", "import ontology.errors"),
        ("ontology/graph.py", "def f():\n    from cgpt.corpus import read_corpus\n    return read_corpus"),
        ("cgpt/corpus.py", "from vision import cli"),
        ("ontology/graph.py", "from eval.cli import eval_"),
    ],
)
def test_a_breach_of_the_layers_is_found(tmp_path: Path, module: str, line: str) -> None:
    """A small tree under the project's own rule, with one import against it."""
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    files = ["cgpt/corpus.py", "vision/cli.py", "ontology/graph.py", "ontology/errors.py", "eval/cli.py"]
    for name in [*files, "kernels/plan.py"]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
        (tmp_path / name).with_name("__init__.py").touch()
    clean = run(BIN / "lint-imports", "--no-cache", cwd=tmp_path)
    assert clean.returncode == 0, clean.stdout + clean.stderr
    (tmp_path / module).write_text(line + "\n")
    assert run(BIN / "lint-imports", "--no-cache", cwd=tmp_path).returncode == 1


def python_files() -> list[Path]:
    return [path for path in project_files() if path.suffix == ".py"]


def test_nobody_imports_eval_by_its_bare_name() -> None:
    """`import eval` hides the builtin in the importing module; `from eval.x import y` does not."""
    found = []
    for path in python_files():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import | ast.ImportFrom):
                bound = {name.asname or name.name.partition(".")[0] for name in node.names}
                if "eval" in bound:
                    found.append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert not found


def test_no_file_names_a_place_on_somebodys_machine() -> None:
    # Put together from parts so that this file does not match itself.
    places = ["/" + "work/", "/" + "root/", "/" + "opt/", "/" + "Users/", "file" + ":///"]
    pattern = re.compile("|".join(rf"(?<![\w.>]){re.escape(place)}" for place in places))
    found = []
    for path in project_files():
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except UnicodeDecodeError:
            continue  # a picture
        name = path.relative_to(ROOT)
        found += [f"{name}:{number}: {line[:100]}" for number, line in enumerate(lines, 1) if pattern.search(line)]
    assert not found


def test_files_stay_small_enough_to_be_one_subject() -> None:
    sizes = {str(path.relative_to(ROOT)): len(path.read_text(encoding="utf-8").splitlines()) for path in python_files()}
    assert sizes and not {name: size for name, size in sizes.items() if size > 600}
