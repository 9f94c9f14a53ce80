"""Pins, the Makefile's stamps, and the wheel: built, installed in a clean place, imported from another folder."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import time
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from tests.support import ROOT, project_files

PACKAGES = {"cgpt", "vision", "ontology", "eval", "kernels"}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


# Pins


def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return dict(line.split("==") for line in lines if line and not line.startswith("#"))


def requirements() -> list[Requirement]:
    groups = [PROJECT["dependencies"], *PROJECT["optional-dependencies"].values()]
    return [Requirement(text) for group in groups for text in group]


def test_every_dependency_is_pinned_inside_its_range() -> None:
    pinned = pins()
    for requirement in requirements():
        version = pinned[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(version), f"{requirement} against {version}"


def test_ranges_and_extras_are_as_promised() -> None:
    assert set(PROJECT["optional-dependencies"]) == {"llm", "gpu", "cluster", "harness", "serve", "dev"}
    assert pins()["torch"] == "2.13.0" and pins()["triton"] == "3.7.1"  # a pair
    by_name = {requirement.name: requirement.specifier for requirement in requirements()}
    assert by_name["torch"].contains("2.11.0") and by_name["triton"].contains("3.6.0")
    # transformers reads the version of whatever distribution brings a package `kernels`.
    assert PROJECT["name"] not in PACKAGES and Version(PROJECT["version"]) < Version("0.9.0")


def test_every_entry_point_leads_somewhere() -> None:
    import click

    from ontology.registry import COMMANDS
    from ontology.track import load_track

    groups = PROJECT["entry-points"]
    for name, target in groups["constructible.commands"].items():
        assert COMMANDS.target(name) == target, "installed under other names: run pip install -e . again"
        assert isinstance(COMMANDS.load(name), click.Command)
    assert [load_track(name).name for name in groups["constructible.tracks"]] == list(groups["constructible.tracks"])


# Makefile


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A folder in which `make` believes that everything is installed."""
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    later = time.time() + 10
    for number, name in enumerate(("bin/python", ".installed", ".installed-dev")):
        (tmp_path / ".venv" / name).touch()
        os.utime(tmp_path / ".venv" / name, (later + number, later + number))
    return tmp_path


def planned(folder: Path, target: str) -> str:
    # Without the folder's name, which make prints when another make (`make test`) started it.
    command = ["make", "--no-print-directory", "-n", target]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout


def test_make_installs_nothing_when_nothing_changed(checkout: Path) -> None:
    assert planned(checkout, "run").split() == [".venv/bin/constructible", "eval", "quickstart"]
    assert "pip install" not in planned(checkout, "test") and "pytest" in planned(checkout, "test")


@pytest.mark.parametrize("changed", ["pyproject.toml", "constraints.txt"])
def test_make_installs_again_when_requirements_changed(checkout: Path, changed: str) -> None:
    later = time.time() + 100
    os.utime(checkout / changed, (later, later))
    assert "install -c constraints.txt -e .\n" in planned(checkout, "run")
    assert "install -c constraints.txt -e '.[dev]'\n" in planned(checkout, "test")


def test_make_refuses_another_python_by_name(checkout: Path) -> None:
    shutil.rmtree(checkout / ".venv")
    old = checkout / "python-old"
    pretend = "import sys; sys.version_info = (3, 9); exec(sys.argv[1])"
    old.write_text(f'#!/bin/sh\nexec {sys.executable} -c "{pretend}" "$2"\n')
    old.chmod(0o755)
    done = subprocess.run(["make", "run", f"PYTHON={old}"], cwd=checkout, capture_output=True, text=True)
    assert done.returncode != 0 and "is Python 3.9; 3.11 to 3.13 is needed. Fix: make PYTHON=" in done.stderr


# Wheel


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy, so that no build folder is left behind and none is picked up."""
    folder = tmp_path_factory.mktemp("wheel")
    for path in project_files():
        copy = folder / "source" / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, copy)
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), "source"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new environment holding the wheel alone; the dependencies are lent by path, since only ours is in question.

    Path files of the lender are not followed from here, so its editable install of this project stays out of reach.
    """
    folder = tmp_path_factory.mktemp("clean")
    venv.EnvBuilder(with_pip=False, symlinks=True).create(folder)
    python = folder / "bin" / "python"
    command = [sys.executable, "-m", "pip", "--python", str(python), "install", "--no-deps", "--no-index", str(wheel)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    own = sysconfig.get_path("purelib", vars={"base": str(folder), "platbase": str(folder)})
    lent = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    (Path(own) / "lent.pth").write_text("\n".join(sorted(lent)) + "\n")
    return folder


def run_in(folder: Path, cwd: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    command = [str(folder / "bin" / arguments[0]), *arguments[1:]]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=300, env=environment)


def test_wheel_holds_exactly_the_five_packages_with_their_data(wheel: Path) -> None:
    names = [name for name in zipfile.ZipFile(wheel).namelist() if not name.endswith("/")]
    assert {name.split("/")[0] for name in names} == PACKAGES | {f"constructible-{PROJECT['version']}.dist-info"}
    wanted = {str(path.relative_to(ROOT)) for path in project_files() if path.relative_to(ROOT).parts[0] in PACKAGES}
    assert wanted <= set(names), f"not in the wheel: {sorted(wanted - set(names))}"
    assert any(name.endswith("router.py") for name in names) and any(name.endswith(".yaml") for name in names)
    assert any(name.endswith("licenses/LICENSE") for name in names)
    metadata = zipfile.ZipFile(wheel).read(f"constructible-{PROJECT['version']}.dist-info/METADATA").decode()
    assert re.search(r"^License-Expression: MIT$", metadata, re.M)


@pytest.mark.slow
def test_every_module_of_the_wheel_imports_from_another_folder(installed: Path, tmp_path: Path) -> None:
    program = f"""
import importlib, pkgutil, sys
for package in {sorted(PACKAGES)!r}:
    top = importlib.import_module(package)
    assert top.__file__.startswith({str(installed)!r}), top.__file__
    for found in pkgutil.walk_packages(top.__path__, package + "."):
        importlib.import_module(found.name)
print(len([name for name in sys.modules if name.partition(".")[0] in {PACKAGES!r}]))
"""
    done = run_in(installed, tmp_path, "python", "-c", program)
    assert done.returncode == 0, done.stderr[-3000:]
    assert int(done.stdout) > 30


def test_command_of_the_wheel_runs_from_another_folder(installed: Path, tmp_path: Path) -> None:
    for arguments in (["--help"], ["cgpt", "--help"], ["eval", "--help"]):
        done = run_in(installed, tmp_path, "constructible", *arguments)
        assert done.returncode == 0 and "Usage:" in done.stdout and "broken:" not in done.stdout, done.stderr


@pytest.mark.slow
def test_transformers_does_not_take_our_kernels_for_its_own(installed: Path, tmp_path: Path) -> None:
    program = "from transformers.utils import is_kernels_available; print(is_kernels_available())"
    done = run_in(installed, tmp_path, "python", "-c", program)
    assert done.returncode == 0 and done.stdout.split() == ["False"], done.stderr[-2000:]
