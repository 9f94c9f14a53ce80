"""`constructible ontology`: check with a track finds failing tests and uncovered branches; show; cuts."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from ontology.check import check
from ontology.main import constructible, run
from ontology.registry import TRACKS
from tests.ontology.toy_track import HERE, ToyTrack

FILE = HERE / "ontology.yaml"


@pytest.fixture(autouse=True)
def _toy_is_registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TRACKS, "_targets", {"toy": "tests.ontology.toy_track:ToyTrack"})
    monkeypatch.setattr(TRACKS, "_discovered", True)


def call(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = run(constructible, ["ontology", *arguments])
    out, err = capsys.readouterr()
    return code, out, err


def test_a_good_ontology_passes(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = call(capsys, "check", "--track", "toy")
    assert (code, err) == (0, "")
    assert out == ("7 concepts, 5 leaves, depth 2, a tree; 7 of 7 routing tests pass; 8 of 8 branches covered\n")
    code, out, _ = call(capsys, "check", str(FILE), "--json")
    assert code == 0 and json.loads(out)["passed"] is True and json.loads(out)["facts"]["depth"] == 2


def test_every_problem_of_a_broken_file_is_listed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = FILE.read_text().replace("[road, rail]", "[road, rial]").replace("air early, in time or late?", "air")
    (tmp_path / "o.yaml").write_text(text.replace("Is a flown parcel early, in time or late?", "A flown parcel."))
    code, out, err = call(capsys, "check", str(tmp_path / "o.yaml"))
    assert code == 3 and err == f"error: 2 problems in {tmp_path / 'o.yaml'}. Fix: do what each line says\n"
    assert "o.yaml:12: 'ground' has the unknown child 'rial'. Did you mean 'rail'?" in out
    assert "o.yaml:25: the question of 'air' does not end in a question mark" in out


def test_uncovered_branches_and_failing_tests_are_reported_with_their_lines(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (
        FILE.read_text()
        .replace("tests: [mode=sea]", "tests: [mode=air]")
        .replace("tests: [mode=rail]", "tests: [mod=1]")
    )
    (tmp_path / "o.yaml").write_text(text)
    code, out, _ = call(capsys, "check", str(tmp_path / "o.yaml"), "--track", "toy", "--json")
    report = json.loads(out)
    assert code == 3 and report["passed"] is False
    found = {(Path(problem["file"]).name, problem["line"]): problem["message"] for problem in report["problems"]}
    assert found == {
        ("o.yaml", 23): "the test 'mod=1': the router's state has no field 'mod'.",
        ("o.yaml", 34): "the test 'mode=air' of 'sea' leads to 'air' (router lines 10, 11).",
        ("router.py", 7): 'no test takes this branch (never false: if state.mode == "road":).',
        ("router.py", 12): 'no test takes this branch (never true: elif state.mode == "sea":).',
    }
    assert report["facts"]["branches_covered"] == 6


def test_a_router_that_does_not_fit_the_ontology_is_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = (HERE / "router.py").read_text()
    (tmp_path / "router.py").write_text(
        source.replace('return "sea"', 'return "ship"').replace('"rail"\n', '"ground"\n')
    )
    code, out, _ = call(capsys, "check", "--track", "toy", "--router", str(tmp_path / "router.py"))
    assert code == 3
    assert "router.py:13: the router returns 'ship', which is not in the ontology" in out
    assert "router.py:9: the router returns 'ground', which has children" in out
    assert "the router never returns the leaf 'sea'" in out and "never returns the leaf 'rail'" in out
    (tmp_path / "router.py").write_text("import os\n")
    code, out, _ = call(capsys, "check", "--track", "toy", "--router", str(tmp_path / "router.py"))
    assert code == 3 and "router.py:1: an import may not stand here" in out


def test_a_leaf_without_tests_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "o.yaml").write_text(FILE.read_text().replace("    tests: [mode=hand]\n", ""))
    shutil.copy(HERE / "router.py", tmp_path)
    report = check(tmp_path / "o.yaml", track=ToyTrack())
    assert [problem.message for problem in report.problems][0] == "the leaf 'hand' has no tests."
    assert len(report.problems) == 2  # and the branch that leads to it


def test_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert call(capsys, "check")[0] == 2
    assert call(capsys, "check", "--track", "tyo")[0] == 2
    assert call(capsys, "check", str(FILE), "--router", "router.py")[0] == 2
    assert call(capsys, "check", "missing.yaml")[0] == 3
    assert call(capsys, "show", "missing.yaml")[0] == 1
    assert call(capsys, "cuts", str(FILE), "--cut", "9")[0] == 2


def test_show_is_a_tree_with_questions(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = call(capsys, "show", str(FILE))
    assert code == 0 and out.splitlines()[1].startswith("delivery [net] Is the parcel")
    assert "│  └─ rail [net] Is a parcel on rails early, in time or late?" in out.splitlines()
    code, out, _ = call(capsys, "show", "--track", "toy", "--json")
    assert code == 0 and json.loads(out)["concepts"][1]["children"] == ["road", "rail"]


def test_cuts_lists_every_depth(capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = call(capsys, "cuts", str(FILE))
    assert out.splitlines() == [
        "root: 1 modules: delivery",
        "1: 4 modules: ground, air, sea, hand",
        "leaves: 5 modules: road, rail, air, sea, hand",
        "plain: 5 modules without nets: road, rail, air, sea, hand",
    ]
    _, out, _ = call(capsys, "cuts", str(FILE), "--cut", "ground,air,sea,hand", "--json")
    assert json.loads(out)[0]["owners"]["rail"] == ["ground"]
