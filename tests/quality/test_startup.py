"""The command line answers at once: help imports nothing heavy."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

HEAVY = {"torch", "transformers", "numba", "datasets", "pyarrow", "pandas", "tokenizers", "scipy", "triton", "ray"}
PROGRAM = """
import json, sys
from ontology.main import constructible, run
code = run(constructible, sys.argv[1:])
print("\\n" + json.dumps([code, sorted(name for name in sys.modules if "." not in name)]))
"""


def loaded(*arguments: str) -> tuple[int, str, set[str]]:
    done = subprocess.run([sys.executable, "-c", PROGRAM, *arguments], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    text, _, last = done.stdout.rstrip().rpartition("\n")
    code, modules = json.loads(last)
    return code, text, set(modules)


def test_help_lists_every_group_and_imports_nothing_heavy() -> None:
    code, text, modules = loaded("--help")
    assert code == 0 and not modules & HEAVY
    assert all(name in text for name in ("cgpt", "vision", "ontology", "eval", "kernels", "doctor"))
    assert "broken:" not in text, text


@pytest.mark.parametrize("group", ["cgpt", "vision", "ontology", "eval", "kernels"])
def test_help_of_a_group_imports_nothing_heavy(group: str) -> None:
    code, text, modules = loaded(group, "--help")
    assert code == 0 and "Usage:" in text and not modules & HEAVY


def test_importing_the_packages_imports_nothing_heavy() -> None:
    program = "import sys, cgpt, vision, ontology, kernels\nimport eval as _\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and not set(done.stdout.split()) & HEAVY
