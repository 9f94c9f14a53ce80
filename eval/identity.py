"""What a stored row depends on beside a model's files: the code that answered and the code that measured.

The hash is of what the code means: comments, docstrings and layout are left out, so that a corrected sentence measures
nothing again, and any other change of a package that answers does.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
from functools import lru_cache
from pathlib import Path

from ontology.io import sha256_json

ANSWERS = ("cgpt", "vision", "kernels", "ontology.routers", "ontology.restricted", "ontology.checker")
"""Whose code decides what a model of ours says."""
MEASURES = ("eval.models", "eval.hugging_face", "eval.vision_models", "eval.controls", "eval.imitations")
_ASIDE = ("cli", "page", "cards", "report")
"""Modules whose names begin or end so only show what was worked out."""


@lru_cache(maxsize=64)
def meaning(*modules: str) -> str:
    """One hash of what the code of modules means; a package counts with all that is below it.

    A module that cannot be found (one made up in a session) counts by its name.
    """
    found: dict[str, str] = {}
    for name in modules:
        try:
            spec = importlib.util.find_spec(name)
        except (ImportError, ValueError):
            spec = None
        if spec is None or spec.origin is None:
            found[name] = ""
        elif spec.submodule_search_locations:
            folder = Path(next(iter(spec.submodule_search_locations)))
            for path in sorted(folder.rglob("*.py")):
                if not path.stem.startswith(_ASIDE) and not path.stem.endswith(_ASIDE):
                    found[f"{name}/{path.relative_to(folder).as_posix()}"] = _of_file(path)
        else:
            found[name] = _of_file(Path(spec.origin))
    return sha256_json(found)


def _of_file(path: Path) -> str:
    return meaning_of(path.read_text(encoding="utf-8"))


def meaning_of(source: str) -> str:
    """The hash of one module's text; text that does not parse counts as it stands."""
    try:
        tree = ast.parse(source)
    except SyntaxError:
        return hashlib.sha256(source.encode("utf-8")).hexdigest()
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0] if node.body else None
            said = first.value if isinstance(first, ast.Expr) else None
            if isinstance(said, ast.Constant) and isinstance(said.value, str):
                node.body = node.body[1:]
    return hashlib.sha256(ast.dump(tree).encode("utf-8")).hexdigest()
