"""The package as a whole: light to import, every name there, ignorant of the tracks."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import ontology

FOLDER = Path(ontology.__file__).parent
HEAVY = ("torch", "transformers", "numba", "datasets", "pyarrow", "pydantic", "networkx", "numpy")


def loaded_after(code: str) -> set[str]:
    """Which of the heavy packages a fresh interpreter has loaded after running `code`."""
    code += f"\nimport sys\nprint(*[name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    return set(done.stdout.split("\n")[-2].split())


def test_importing_the_package_and_its_command_line_loads_nothing_heavy() -> None:
    assert loaded_after("import ontology, ontology.cli, ontology.main, ontology.doctor") == set()
    routers = loaded_after("import ontology.routers")
    assert routers == {"numpy"}
    assert "torch" not in loaded_after("import ontology.fit, ontology.build, ontology.track")


@pytest.mark.parametrize("name", ontology.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(ontology, name).__name__ == name


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = ontology.nothing  # type: ignore[attr-defined]


def test_the_engine_imports_no_track() -> None:
    for path in FOLDER.glob("**/*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not {name.split(".")[0] for name in names} & {"cgpt", "vision", "eval"}, path
