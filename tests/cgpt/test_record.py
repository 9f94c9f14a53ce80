"""The accountable record: whole distributions come back from it without the model's code, and false ones are found."""

from __future__ import annotations

import ast
import copy
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cgpt import mixing
from cgpt.check_record import SOURCES, Checker
from cgpt.corpus import SourceFile
from cgpt.model import ConstructedLM, load
from cgpt.record import TOLERANCE, compare, record
from ontology.errors import ConstructibleError, UsageError
from tests.cgpt.small import build_small, small_corpus
from tests.support import ROOT

POSITIONS = 10_000


def imports_of(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(node.module or "")
    return found


def test_the_checkers_are_short_and_independent():
    """At most 150 lines; nothing but numpy, safetensors and the standard library, and no code of the model."""
    for name, ours in (("check_record", set()), ("check_evidence", {"cgpt.check_record"})):
        path = ROOT / "cgpt" / f"{name}.py"
        assert len(path.read_text(encoding="utf-8").splitlines()) <= 150
        assert imports_of(path) <= {"__future__", "json", "pathlib", "typing", "numpy", "safetensors.numpy"} | ours
    program = "import sys, cgpt.check_record, cgpt.check_evidence; print(*[m for m in sys.modules if 'cgpt.' in m])"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert set(done.stdout.split()) == {"cgpt.check_record", "cgpt.check_evidence"}, done.stderr
    assert SOURCES == mixing.SOURCES


@pytest.mark.slow
def test_ten_thousand_distributions_come_back_from_the_record(model: ConstructedLM, unseen: list[SourceFile]):
    """Every position of unseen files, the starts and ends of files included, through JSON and back."""
    left, largest = POSITIONS, 0.0
    for file in unseen:
        n = len(model.tokenizer.encode(file.data)) + 1
        made = json.loads(json.dumps(record(model, file.data, file.path, range(min(n, left)))))
        found = compare(model, made)
        assert not found["failed"], found["failed"][:3]
        largest = max(largest, found["largest_difference"])
        left -= found["positions"]
        if not left:
            break
    assert left == 0 and largest <= TOLERANCE


@pytest.fixture(scope="module")
def made(model: ConstructedLM, unseen: list[SourceFile]) -> dict[str, Any]:
    """A record of tokens in the middle of a file."""
    file = max(unseen, key=lambda file: len(file.data))
    middle = len(model.tokenizer.encode(file.data)) // 2
    return json.loads(json.dumps(record(model, file.data, file.path, range(middle, middle + 300))))


def test_the_record_holds_evidence_and_no_probability(model: ConstructedLM, made: dict[str, Any]):
    kinds = set()
    for token in made["tokens"]:
        assert {"concept", "lines", "corpus", "file", "names", "reads", "experts"} <= token.keys()
        assert not {"bits", "top", "probability", "distribution"} & token.keys()
        assert made["concepts"][token["concept"]]["path"][-1] == token["concept"] and token["lines"]
        assert made["concepts"][token["concept"]]["path"][0] == model.ontology.root
        assert [expert["name"] for expert in token["experts"]] == list(mixing.SOURCES)
        for expert in token["experts"]:
            assert expert.keys() == {"name", "bits", "evidence"} and expert["bits"] >= 0.0
            kinds |= {item["kind"] for item in expert["evidence"]}
            for item in expert["evidence"]:
                if item["kind"] == "match":
                    assert item["file"] and item["line"] >= 1 and item["licence"] == "PSF-2.0"
    assert kinds == {"net", "match", "cache", "name"}


def test_shares_in_bits_add_up_to_the_score(model: ConstructedLM, unseen: list[SourceFile]):
    file = min(unseen, key=lambda file: len(file.data))
    score = model.score_file(file.data)
    tokens = record(model, file.data)["tokens"]
    bits = [sum(expert["bits"] for expert in token["experts"]) for token in tokens]
    np.testing.assert_allclose(bits, score.bits, atol=1e-4)


def busiest(made: dict[str, Any], has: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    return next(token for token in reversed(made["tokens"]) if has(token))


def shift(token: dict[str, Any]) -> None:
    token["corpus"]["slices"][-1][1] += 1


def shorten(token: dict[str, Any]) -> None:
    token["corpus"]["longest"] -= 1


def drop_level(token: dict[str, Any]) -> None:
    token["corpus"]["slices"].pop()


def drop_place(token: dict[str, Any]) -> None:
    token["file"][0].pop()


def drop_place_like_this(token: dict[str, Any]) -> None:
    token["places"]["state"].pop()


def forget_kind_of_place(token: dict[str, Any]) -> None:
    del token["places"]["plain token"]


def move_place(token: dict[str, Any]) -> None:
    token["file"][0][0] -= 1


def place_of(token: dict[str, Any]) -> dict[str, Any]:
    return next(item for expert in token["experts"] for item in expert["evidence"] if item["file"])


def another_file(token: dict[str, Any]) -> None:
    place_of(token)["file"] = "os: os.py"


def another_line(token: dict[str, Any]) -> None:
    place_of(token)["line"] += 7


def another_licence(token: dict[str, Any]) -> None:
    place_of(token)["licence"] = "MIT"


def another_position(token: dict[str, Any]) -> None:
    place_of(token)["position"] += 1


def another_share(token: dict[str, Any]) -> None:
    expert = max(token["experts"], key=lambda expert: expert["bits"])
    expert["bits"] *= 1.1


def forget_a_source(token: dict[str, Any]) -> None:
    token["experts"].remove(max(token["experts"], key=lambda expert: expert["bits"]))


def another_read(token: dict[str, Any]) -> None:
    for name in token["reads"]:
        token["reads"][name] = 300


def another_confidence(token: dict[str, Any]) -> None:
    token["confidence"] += 1


def another_name(token: dict[str, Any]) -> None:
    token["names"][0][0] = 300


def fewer_names(token: dict[str, Any]) -> None:
    token["names"] = token["names"][1:]


def another_target(token: dict[str, Any]) -> None:
    token["target"] = 300


def another_concept(token: dict[str, Any]) -> None:
    token["concept"] = "docstring_word" if token["concept"] != "docstring_word" else "after_attribute"


CHANGES = [
    shift, shorten, drop_level, drop_place, move_place,
    drop_place_like_this, forget_kind_of_place, another_file, another_line, another_licence, another_position,
    another_share, forget_a_source, another_read, another_confidence, another_name, fewer_names, another_target,
    another_concept,
]  # fmt: skip


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_a_false_record_is_found(model: ConstructedLM, made: dict[str, Any], change: Callable[[dict[str, Any]], None]):
    """One claim of one token is changed; exactly that token is refused."""
    token = copy.deepcopy(
        busiest(
            made,
            lambda token: (
                bool(token["names"]) and len(token["file"]) > 1 and len(token["corpus"]["slices"]) > 1
                and any(item["file"] for expert in token["experts"] for item in expert["evidence"])
                and max(expert["bits"] for expert in token["experts"]) > 0.5 and len(token["names"]) > 1
            ),
        )
    )  # fmt: skip
    assert not compare(model, {**made, "tokens": [token]})["failed"]
    change(token)
    found = compare(model, {**made, "tokens": [token, made["tokens"][3]]})
    assert [row["at"] for row in found["failed"]] == [token["at"]]


@pytest.mark.parametrize(
    "change",
    [{"model": None}, {"surroundings": {}}, {"ids": [70_000]}, {"ids": [65_000]}, {"tokens": []}, {"ids": "x"}],
)  # fmt: skip
def test_what_is_no_whole_record_is_one_clear_line(model: ConstructedLM, made: dict[str, Any], change: dict[str, Any]):
    with pytest.raises(ConstructibleError, match="record"):
        compare(model, made | change)
    with pytest.raises(ConstructibleError, match="record"):
        compare(model, {key: value for key, value in made.items() if key not in change})


def test_files_that_are_not_text_have_records_too(model: ConstructedLM):
    for data in (b"", b"\xff\xfe\x00 x = 1\r\n", b"\r\n" * 5, b"x" * 300):
        found = compare(model, json.loads(json.dumps(record(model, data))))
        assert not found["failed"] and found["positions"] >= 1


def test_a_model_without_nets_is_rebuilt_too(tmp_path: Path, unseen: list[SourceFile]):
    build_small(tmp_path / "plain", cut="plain", corpus=small_corpus(100_000))
    plain = load(tmp_path / "plain")
    assert isinstance(plain, ConstructedLM)
    found = compare(
        plain, record(plain, max(unseen, key=lambda file: len(file.data)).data, boundaries=range(0, 900, 9))
    )
    assert not found["failed"] and found["largest_difference"] <= TOLERANCE


def test_the_parts_are_the_models_sources(model: ConstructedLM, made: dict[str, Any]):
    """The checker's five parts carry the weights that the model reports for its sources."""
    checker = Checker(model.folder)
    view = model.view(np.array(made["ids"], dtype=np.uint16))
    for token in made["tokens"][::40]:
        parts = checker.rebuild(made, token)
        np.testing.assert_allclose(parts.sum(1), model.position(view, token["at"]).parts, atol=1e-6)


def test_a_model_that_says_other_than_its_folder_is_found(model: ConstructedLM, made: dict[str, Any]):
    """The comparison is with the model: factors that are off by a thousandth are enough."""
    other = copy.copy(model)
    by_concept = model.mixer.by_concept.copy()
    by_concept[:, ::2] += 1e-3
    other.mixer = replace(model.mixer, by_concept=by_concept)
    found = compare(other, made)
    assert len(found["failed"]) > 0.8 * found["positions"]
    assert "from the model's" in found["failed"][0]["reason"] and found["largest_difference"] > TOLERANCE


def test_a_variant_makes_no_record(model: ConstructedLM):
    with pytest.raises(UsageError, match="without names allowing MIT"):
        record(model.without("names").allowing("MIT", "PSF-2.0"), b"x = 1\n")


def run_cli(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "ontology.main", "cgpt", *map(str, arguments)],
        cwd=ROOT, capture_output=True, text=True, timeout=300, env=os.environ,
    )  # fmt: skip


def test_the_commands(model_folder: Path, model: ConstructedLM, tmp_path: Path):
    (tmp_path / "code.py").write_text("import os\n\n\ndef f(x):\n    return os.path.join(x, x)\n")
    out = tmp_path / "record.json"
    done = run_cli("explain", model_folder, tmp_path / "code.py", "--record", out)
    assert done.returncode == 0 and done.stdout.strip() == str(out), done.stderr
    done = run_cli("check-record", model_folder, out, "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["failed"] == [] and result["positions"] > 10 and result["largest_difference"] <= TOLERANCE
    value = json.loads(out.read_text())
    value["tokens"][4]["experts"][1]["bits"] += 0.5
    out.write_text(json.dumps(value))
    done = run_cli("check-record", model_folder, out)
    assert done.returncode == 3 and "the first is 4" in done.stderr and "Traceback" not in done.stderr
    with pytest.raises(ConstructibleError, match="another model"):
        compare(model, {**value, "model": "00"})
    with pytest.raises(ConstructibleError, match="not a record"):
        compare(model, {})
    assert run_cli("explain", model_folder, tmp_path / "code.py").returncode == 2
