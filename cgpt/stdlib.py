"""The running interpreter's own library as a corpus, and its fixed split into training and held-out packages."""

from __future__ import annotations

import sys
import sysconfig
from pathlib import Path

from ontology.errors import ConstructibleError

LICENCE = "PSF-2.0"

# Held out by top-level package or module, about 15 % of the bytes. Chosen by hand once, before anything was trained:
# parsers, formatters, numerics, files, network and command-line code, small and large; and so that nothing held out
# has a near copy in training (`tokenize` stays with `lib2to3`, `ntpath` with `posixpath`, `_pydecimal` with `_pyio`).
# The same for every Python version: a name that a version does not have is simply absent.
HELD_OUT = frozenset(
    {
        "argparse",
        "bdb",
        "calendar",
        "concurrent",
        "configparser",
        "csv",
        "dataclasses",
        "difflib",
        "fractions",
        "gettext",
        "graphlib",
        "heapq",
        "ipaddress",
        "json",
        "logging",
        "mailbox",
        "pdb",
        "plistlib",
        "pprint",
        "selectors",
        "shlex",
        "sqlite3",
        "statistics",
        "tempfile",
        "textwrap",
        "tomllib",
        "uuid",
        "webbrowser",
        "wsgiref",
        "xmlrpc",
        "zipfile",
    }
)

# Left out of both sides, because it is not code that a person wrote by hand:
LEFT_OUT = {
    "encodings": "character tables written by a generator",
    "pydoc_data": "documentation text in one string",
    "this": "a rotated poem",
    "antigravity": "opens a web page when imported",
}
_TEST_FOLDERS = frozenset({"test", "tests", "idle_test", "_bundled", "site-packages", "dist-packages", "__pycache__"})


def stdlib_folder() -> Path:
    """Folder of the running interpreter's library; raises ConstructibleError where its sources are not installed."""
    folder = Path(sysconfig.get_paths()["stdlib"])
    if not (folder / "argparse.py").is_file():
        raise ConstructibleError(
            "this interpreter's library is not there as source files.",
            fix="use a Python with its .py files installed, or give a folder of Python files as corpus",
            file=folder,
        )
    return folder


def stdlib_paths() -> list[tuple[str, str]]:
    """(package, path relative to the library's folder) of every file that counts, sorted by path.

    Only what `sys.stdlib_module_names` lists: installed packages, the `test` package and build records are not in
    it. Test folders inside packages, bundled wheels and LEFT_OUT are dropped as well.
    """
    folder, found = stdlib_folder(), []
    for name in sorted(sys.stdlib_module_names - LEFT_OUT.keys()):
        module, package = folder / f"{name}.py", folder / name
        if module.is_file():
            found.append((name, module.name))
        elif package.is_dir():
            for path in package.rglob("*.py"):
                relative = path.relative_to(folder)
                if _TEST_FOLDERS.isdisjoint(relative.parts):
                    found.append((name, relative.as_posix()))
    return sorted(found, key=lambda entry: entry[1])


def stdlib_split() -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(training packages, held-out packages) that this interpreter has, each sorted by name."""
    present = sorted({package for package, _ in stdlib_paths()})
    return tuple(name for name in present if name not in HELD_OUT), tuple(name for name in present if name in HELD_OUT)
