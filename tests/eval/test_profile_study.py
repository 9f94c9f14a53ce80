"""The profile study: whose time is whose, and the page."""

from __future__ import annotations

import pytest

from eval.studies import profile
from eval.studies.profile import AUTOGRAD, ROOT, part_of, shares


def _project(path, name):
    return (str(ROOT / path), 1, name)


LIBRARY = ("/somewhere/torch/nn.py", 2, "linear")
BUILTIN = ("~", 0, "<built-in method torch.addmm>")
BACKWARD = ("~", 0, "<method 'run_backward' of 'torch._C._EngineBase' objects>")


def test_parts():
    assert part_of(_project("kernels/cnn.py", "module_cnn")) == "kernels/cnn.py module_cnn"
    assert part_of(_project("tests/x.py", "f")) is None and part_of(LIBRARY) is None and part_of(BUILTIN) is None
    assert part_of(BACKWARD) == AUTOGRAD


def test_library_time_goes_to_its_callers_and_nothing_is_lost():
    train, score = _project("vision/train_nodes.py", "step"), _project("vision/score.py", "score")
    root = ("~", 0, "<built-in method exec>")
    # function -> (calls, calls, own seconds, all seconds, {caller: (calls, calls, own, all)})
    stats = {
        root: (1, 1, 0.5, 13.5, {}),
        train: (1, 1, 1.0, 10.0, {root: (1, 1, 1.0, 10.0)}),
        score: (1, 1, 1.0, 3.0, {root: (1, 1, 1.0, 3.0)}),
        LIBRARY: (4, 4, 2.0, 8.0, {train: (3, 3, 1.5, 6.0), score: (1, 1, 0.5, 2.0)}),
        BUILTIN: (4, 4, 6.0, 6.0, {LIBRARY: (4, 4, 6.0, 6.0)}),
        BACKWARD: (1, 1, 3.0, 3.0, {train: (1, 1, 3.0, 3.0)}),
    }
    found = shares(stats)
    assert found == pytest.approx({
        "vision/train_nodes.py step": 1.0 + 8.0 * 0.75, "vision/score.py score": 1.0 + 8.0 * 0.25, AUTOGRAD: 3.0,
        "start, imports, other": 0.5,
    })  # fmt: skip
    assert sum(found.values()) == pytest.approx(13.5)


def test_libraries_that_call_each_other_end():
    other = ("/somewhere/other.py", 3, "g")
    stats = {LIBRARY: (1, 1, 1.0, 2.0, {other: (1, 1, 1.0, 2.0)}), other: (1, 1, 1.0, 2.0, {LIBRARY: (1, 1, 1.0, 2.0)})}
    assert shares(stats) == pytest.approx({"start, imports, other": 2.0})


def test_every_build_starts_from_nothing_and_the_page_has_both(tmp_path, monkeypatch):
    ran = []

    def build(arguments, backend, file=None, root=ROOT):
        ran.append((backend, file is not None, root))
        if file is not None:
            import cProfile

            run = cProfile.Profile()
            run.runcall(sorted, [2, 1])
            run.dump_stats(file)
        seconds = 2.0 if backend == "torch" else 1.0
        return {"process_seconds": seconds, "seconds": seconds, "jobs": {"node-a": seconds / 4, "node-b": seconds / 4}}

    monkeypatch.setattr(profile, "_build", build)
    monkeypatch.setattr(profile, "_commit", lambda checkout: checkout.name)
    result = profile.run(
        {"vision": ["vision", "build", "/data/pictures"]}, tmp_path / "o", tmp_path / "p.json", tmp_path / "abc123"
    )
    both = [(backend, profiled, ROOT) for backend in (None, "torch") for profiled in (False, False, True)]
    assert ran == both + 2 * [(None, False, tmp_path / "abc123")]
    text = (tmp_path / "p.md").read_text()
    assert "| | package kernels | plain torch | commit abc123 |" in text
    assert "| seconds of the build | 1.0 | 2.0 (2.00) | 1.0 (1.00) |" in text
    assert "| job nodes | 0.5 | 1.0 (2.00) | 0.5 (1.00) |" in text
    assert "/data" not in text and "/data" not in (tmp_path / "p.json").read_text()
    assert result["tracks"]["vision"]["plain torch"]["seconds"] == 2.0
