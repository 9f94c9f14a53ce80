"""Fit: order, reuse, budgets, and builds that are killed at any moment."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ontology.build import NetOptions, load_modules, plan
from ontology.environment import Ledger
from ontology.errors import ConstructibleError, UsageError
from ontology.fit import Budget, Job, JobContext, fit, job_keys, order_jobs
from ontology.graph import cut
from ontology.progress import Progress
from ontology.store import Store
from ontology.training import train
from tests.ontology.toy_track import ToyTrack

ROOT = Path(__file__).parents[2]
QUIET = Progress(quiet=True)


def writes(text: str, ran: list[str] | None = None) -> Callable[[JobContext], None]:
    def run(context: JobContext) -> None:
        if ran is not None:
            ran.append(context.name)
        read = "".join((folder / f"{name}.txt").read_text() for name, folder in sorted(context.inputs.items()))
        (context.folder / f"{context.name}.txt").write_text(read + text)

    return run


def artefacts(out: Path) -> dict[str, bytes]:
    """What a plan left in a run folder, clocks and logs aside."""
    skip = {"ledger.json", "metrics.jsonl", "environment.json", ".lock"}
    found = {p.relative_to(out).as_posix(): p for p in out.rglob("*") if p.is_file() and ".store" not in p.parts}
    return {name: path.read_bytes() for name, path in found.items() if name not in skip}


def test_jobs_run_after_those_they_depend_on_and_once(tmp_path: Path) -> None:
    ran: list[str] = []
    jobs = [
        Job("c", {}, writes("c", ran), depends=("a", "b")),
        Job("a", {}, writes("a", ran)),
        Job("b", {}, writes("b", ran), depends=("a",)),
    ]
    fitted = fit(jobs, tmp_path / "run", progress=QUIET)
    assert ran == ["a", "b", "c"] and fitted.done == ("a", "b", "c") and fitted.reused == ()
    assert (tmp_path / "run" / "c.txt").read_text() == "aabc"
    again = fit(jobs, tmp_path / "run", progress=QUIET)
    assert ran == ["a", "b", "c"] and again.done == () and again.keys == fitted.keys
    assert again.seconds == fitted.seconds and again.total_seconds == pytest.approx(fitted.total_seconds)


def test_only_what_changed_and_what_depends_on_it_is_done_again(tmp_path: Path) -> None:
    ran: list[str] = []

    def jobs(version: int) -> list[Job]:
        return [
            Job("a", {}, writes("a", ran)),
            Job("b", {"version": version}, writes(f"b{version}", ran)),
            Job("c", {}, writes("c", ran), depends=("b",)),
            Job("d", {}, writes("d", ran), depends=("a",)),
        ]

    store = Store(tmp_path / "store")
    for version in (1, 2, 1):
        fit(jobs(version), tmp_path / "run", store, progress=QUIET)
        assert (tmp_path / "run" / "c.txt").read_text() == f"b{version}c"
    assert ran == ["a", "b", "c", "d", "b", "c"]
    fit(jobs(2), tmp_path / "elsewhere", store, progress=QUIET)
    assert len(ran) == 6


def test_peak_memory_is_that_of_the_run_that_did_the_work(tmp_path: Path, monkeypatch) -> None:
    for peak in (900, 300):
        monkeypatch.setattr("ontology.fit.peak_rss_bytes", lambda peak=peak: peak)
        fit([Job("a", {}, writes("a"))], tmp_path / "run", progress=QUIET)
        assert json.loads((tmp_path / "run" / "environment.json").read_text())["peak_rss_bytes"] == 900


def test_files_of_an_earlier_plan_go_and_those_of_others_stay(tmp_path: Path) -> None:
    jobs = [
        Job("a", {}, writes("a")),
        Job("b", {}, writes("b"), place="sub/folder"),
        Job("c", {}, writes("c"), place=None),
    ]
    fit(jobs, tmp_path, progress=QUIET)
    (tmp_path / "mine.txt").write_text("mine")
    assert (tmp_path / "sub/folder/b.txt").exists() and not (tmp_path / "c.txt").exists()
    fit(jobs[:1], tmp_path, progress=QUIET)
    assert not (tmp_path / "sub/folder/b.txt").exists() and (tmp_path / "mine.txt").read_text() == "mine"
    assert set(Ledger(tmp_path / "ledger.json").jobs()) == {"a"}


def test_a_failed_job_leaves_the_finished_ones(tmp_path: Path) -> None:
    def fails(context: JobContext) -> None:
        raise ConstructibleError("no.", fix="yes")

    ran: list[str] = []
    with pytest.raises(ConstructibleError, match="no"):
        fit([Job("a", {}, writes("a", ran)), Job("b", {}, fails, depends=("a",))], tmp_path, progress=QUIET)
    fit([Job("a", {}, writes("a", ran)), Job("b", {}, writes("b", ran), depends=("a",))], tmp_path, progress=QUIET)
    assert ran == ["a", "b"] and (tmp_path / "b.txt").read_text() == "ab"


@pytest.mark.parametrize(
    ("jobs", "message"),
    [
        ([Job("a", {}, writes("")), Job("a", {}, writes(""))], "two jobs are named 'a'"),
        ([Job("abc", {}, writes("")), Job("b", {}, writes(""), depends=("abd",))], "Did you mean 'abc'"),
        (
            [Job("a", {}, writes(""), depends=("b",)), Job("b", {}, writes(""), depends=("a",))],
            "wait for each other: a, b",
        ),
        ([Job("a", {}, writes(""), share=0.0)], "share 0.0"),
        ([Job("a", {}, writes(""), reserve_seconds=-1)], "reserves -1"),
    ],
)
def test_plans_that_cannot_be_run_are_refused(jobs: list[Job], message: str) -> None:
    with pytest.raises(ConstructibleError, match=message):
        order_jobs(jobs)


def test_two_jobs_may_not_write_one_file(tmp_path: Path) -> None:
    def same(context: JobContext) -> None:
        (context.folder / "same.txt").write_text(context.name)

    with pytest.raises(ConstructibleError, match="'a' and 'b' both write same.txt"):
        fit([Job("a", {}, same), Job("b", {}, same)], tmp_path, progress=QUIET)


@pytest.mark.parametrize("values", [{"steps": 0}, {"steps": -5}, {"minutes": 0.0}, {"minutes": float("nan")},
                                    {"minutes": float("inf")}, {"steps": 1, "minutes": 1.0}])  # fmt: skip
def test_senseless_budgets_are_refused(values: dict) -> None:
    with pytest.raises(UsageError):
        Budget(**values)


def test_the_budget_is_part_of_the_key_of_trainings_only() -> None:
    jobs = [Job("table", {}, writes("")), Job("net", {}, writes(""), kind="net")]
    one, other = job_keys(jobs, Budget(steps=1)), job_keys(jobs, Budget(steps=2))
    assert one["table"] == other["table"] and one["net"] != other["net"]
    assert job_keys([Job("table", {"x": 1}, writes(""))], Budget())["table"] != one["table"]


def test_a_folder_in_use_is_refused(tmp_path: Path) -> None:
    def nested(context: JobContext) -> None:
        fit([Job("b", {}, writes("b"))], tmp_path / "run", Store(tmp_path / "other"), progress=QUIET)

    with pytest.raises(ConstructibleError, match="another process is building into this folder"):
        fit([Job("a", {}, nested)], tmp_path / "run", Store(tmp_path / "store"), progress=QUIET)


def test_seconds_are_divided_by_share_after_reserves_and_used_time(tmp_path: Path) -> None:
    seen: dict[str, float] = {}

    def looks(context: JobContext) -> None:
        seen[context.name] = context.seconds_left()
        (context.folder / f"{context.name}.txt").write_text("")

    ledger = Ledger(tmp_path / "run" / "ledger.json")
    ledger.credit("reading", "", 10.0)
    jobs = [
        Job("first", {}, looks, kind="net", share=1.0),
        Job("second", {}, looks, kind="net", share=3.0),
        Job("last", {}, looks, kind="table", reserve_seconds=6.0),
    ]
    fit(jobs, tmp_path / "run", budget=Budget(minutes=1.0), progress=QUIET, ledger=ledger)
    assert seen["first"] == pytest.approx((60 - 10 - 6) / 4, abs=1.0)
    assert seen["second"] == pytest.approx(60 - 10 - 6, abs=1.0)
    assert seen["last"] == pytest.approx(60 - 10, abs=1.0)


def test_a_reserve_may_follow_from_what_earlier_jobs_took(tmp_path: Path) -> None:
    left: list[float] = []

    def slow(context: JobContext) -> None:
        time.sleep(0.3)
        (context.folder / "slow.txt").write_text("")

    def looks(context: JobContext) -> None:
        left.append(context.seconds_left())
        (context.folder / "looks.txt").write_text("")

    asked: list[set[str]] = []

    def reserve(took: Mapping[str, float]) -> float:
        asked.append(set(took))
        return 100 * took["slow"]

    jobs = [
        Job("slow", {}, slow),
        Job("looks", {}, looks, kind="net"),
        Job("last", {}, writes("last"), ("looks",), reserve_seconds=reserve),
    ]
    fit(jobs, tmp_path / "run", budget=Budget(minutes=2.0), progress=QUIET)
    assert 120 - 100 * 1.0 < left[0] < 120 - 100 * 0.3
    assert asked == [{"slow"}]


def test_reused_work_counts_with_its_original_seconds(tmp_path: Path) -> None:
    def slow(context: JobContext) -> None:
        time.sleep(0.6)
        (context.folder / f"{context.name}.txt").write_text("")

    left: list[float] = []

    def looks(context: JobContext) -> None:
        left.append(context.seconds_left())
        (context.folder / f"{context.name}.txt").write_text("")

    store = Store(tmp_path / "store")
    fit([Job("slow", {}, slow)], tmp_path / "one", store, progress=QUIET)
    jobs = [Job("slow", {}, slow), Job("net", {}, looks, kind="net")]
    fitted = fit(jobs, tmp_path / "two", store, Budget(minutes=1.0), QUIET)
    assert fitted.reused == ("slow",) and fitted.seconds["slow"] == pytest.approx(0.6, abs=0.3)
    assert left[0] < 59.45


class Counter:
    """A trainer that can be watched: its state is a sum over steps and fractions."""

    def __init__(self, pause: float = 0.0) -> None:
        self.total, self.fractions, self.steps, self.pause = np.zeros(2), [0.0], [], pause

    def set_progress(self, fraction: float) -> None:
        self.fractions.append(fraction)

    def step(self, index: int) -> float:
        time.sleep(self.pause)
        self.steps.append(index)
        self.total += [index, self.fractions[-1]]
        return 1.0 / (1 + index)

    def state(self) -> dict[str, np.ndarray]:
        return {"total": self.total.copy()}

    def restore(self, state) -> None:
        self.total = np.array(state["total"])


def run_training(out: Path, trainer: Counter, budget: Budget, **options) -> None:
    def run(context: JobContext) -> None:
        train(trainer, context, **options)
        np.save(context.folder / "total.npy", trainer.total)

    fit([Job("counting", {}, run, kind="net")], out, budget=budget, progress=QUIET)


def test_training_by_steps_goes_on_where_it_was(tmp_path: Path) -> None:
    whole = Counter()
    run_training(tmp_path / "whole", whole, Budget(steps=50))
    assert whole.steps == list(range(50)) and whole.fractions[1] == 0.0 and whole.fractions[-1] == 49 / 50

    class Dies(Counter):
        def step(self, index: int) -> float:
            if index == 30:
                raise KeyboardInterrupt
            return super().step(index)

    with pytest.raises(KeyboardInterrupt):
        run_training(tmp_path / "parts", Dies(), Budget(steps=50), checkpoint_seconds=0.0)
    rest = Counter()
    run_training(tmp_path / "parts", rest, Budget(steps=50), checkpoint_seconds=0.0)
    assert rest.steps[0] > 25 and rest.steps[-1] == 49
    assert artefacts(tmp_path / "parts") == artefacts(tmp_path / "whole")


def test_training_by_minutes_uses_them_and_ends_at_fraction_one(tmp_path: Path) -> None:
    trainer = Counter(pause=0.01)
    begun = time.monotonic()
    run_training(tmp_path, trainer, Budget(minutes=1 / 60))
    assert 0.9 < time.monotonic() - begun < 4.0
    assert trainer.fractions == sorted(trainer.fractions) and trainer.fractions[-1] > 0.9
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert lines and lines[-1]["job"] == "counting" and lines[-1]["step"] == len(trainer.steps)


def test_what_follows_a_training_has_its_part_kept(tmp_path: Path) -> None:
    left: list[float] = []
    trainer = Counter(pause=0.01)

    def run(context: JobContext) -> None:
        train(trainer, context, keep_seconds=9.0)
        left.append(context.seconds_left())

    fit([Job("counting", {}, run, kind="net")], tmp_path, budget=Budget(minutes=1 / 6), progress=QUIET)
    assert 6.0 < left[0] <= 9.0 and trainer.fractions[-1] > 0.9


def test_a_training_without_budget_or_with_a_broken_loss_says_so(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="nothing says how long to train"):
        run_training(tmp_path / "a", Counter(), Budget())

    class Broken(Counter):
        def step(self, index: int) -> float:
            return float("nan")

    with pytest.raises(ConstructibleError, match="the loss of 'counting' is nan at step 5"):
        run_training(tmp_path / "b", Broken(), Budget(steps=5))


def test_the_toy_track_is_built_by_the_engine(tmp_path: Path) -> None:
    """Nets of one shape in one call, a table and plain code; better than the one net at the root of as many steps."""
    track, store = ToyTrack(), Store(tmp_path / "store")
    scores = {}
    for spec in ("root", "1", "leaves", "plain"):
        members = cut(track.ontology, spec)
        fitted = fit(plan(track, members), tmp_path / spec, store, Budget(steps=300), QUIET)
        modules = load_modules(tmp_path / spec, members)
        assert tuple(modules) == members.concepts
        scores[spec] = track.score(modules, "test")
        if spec == "leaves":
            assert set(fitted.reused) == {"air", "hand", "sea"} and set(fitted.done) == {"road", "rail"}
    assert scores["leaves"]["accuracy"] > 0.85 > scores["root"]["accuracy"] + 0.1
    assert scores["leaves"]["bits_per_row"] < scores["1"]["bits_per_row"] < scores["root"]["bits_per_row"]
    assert scores["plain"]["accuracy"] < scores["leaves"]["accuracy"]


def test_a_module_over_its_limit_or_its_reads_is_refused_before_any_training() -> None:
    track = ToyTrack(hidden=60)
    with pytest.raises(
        ConstructibleError, match=r"ontology.yaml:17: the module of 'road' has \d+ parameters, more than 200"
    ):
        plan(track, cut(track.ontology, "leaves"))
    plan(track, cut(track.ontology, "root"))  # the root is exempt

    class Reads(ToyTrack):
        def module(self, concept: str, *, nets: bool = True):
            module = super().module(concept, nets=nets)
            module.reads = (*module.reads, "mode")
            return module

    greedy = Reads()
    with pytest.raises(
        ConstructibleError, match="the module of 'road' reads 'mode', which the concept does not declare"
    ):
        plan(greedy, cut(greedy.ontology, "leaves"))


def test_a_net_in_the_plain_cut_is_refused() -> None:
    class Nets(ToyTrack):
        def module(self, concept: str, *, nets: bool = True):
            return super().module(concept)

    track = Nets()
    with pytest.raises(ConstructibleError, match="'road' is a net, but the cut 'plain' has none"):
        plan(track, cut(track.ontology, "plain"))


def test_group_members_already_in_the_store_are_not_trained_again(tmp_path: Path) -> None:
    """A net's result does not depend on its company, so artefacts do not depend on what the store had."""
    track, members = ToyTrack(rows=800), cut(ToyTrack().ontology, "leaves")
    jobs = plan(track, members, options=NetOptions(rows_per_module=16))
    fit(jobs, tmp_path / "whole", Store(tmp_path / "one"), Budget(steps=40), QUIET)
    store = Store(tmp_path / "two")
    fit([job for job in jobs if job.name == "rail"], tmp_path / "part", store, Budget(steps=40), QUIET)
    fitted = fit(jobs, tmp_path / "rest", store, Budget(steps=40), QUIET)
    assert "rail" in fitted.reused and "road" in fitted.done
    assert artefacts(tmp_path / "rest") == artefacts(tmp_path / "whole")


class Crash(BaseException):
    """What no code of ours catches."""


@pytest.mark.parametrize("operation", ["rename", "replace", "link", "fsync"])
def test_a_crash_at_any_file_operation_loses_nothing(
    operation: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Crash at the n-th rename (or link, or flush) for every n, run again, and compare."""

    def build(out: Path) -> None:
        def run(context: JobContext) -> None:
            trainer = Counter()
            train(trainer, context, checkpoint_seconds=0.0)
            np.save(context.folder / "total.npy", trainer.total)

        jobs = [
            Job("a", {}, writes("a")), Job("b", {}, writes("b"), depends=("a",), place="b"),
            Job("net", {}, run, kind="net", place="net"),
        ]  # fmt: skip
        fit(jobs, out, budget=Budget(steps=5), progress=QUIET)

    build(tmp_path / "whole")
    expected = artefacts(tmp_path / "whole")
    real = getattr(os, operation)
    crashes, n = 0, 0
    while crashes == n:
        calls = 0

        def crashing(*arguments: Any, at: int = n + 1, **options: Any) -> Any:
            nonlocal calls, crashes
            calls += 1
            if calls == at and threading.current_thread() is threading.main_thread():
                crashes += 1
                raise Crash
            return real(*arguments, **options)

        out = tmp_path / f"run{n}"
        monkeypatch.setattr(os, operation, crashing)
        with contextlib.suppress(Crash):
            build(out)
        monkeypatch.setattr(os, operation, real)
        build(out)
        assert artefacts(out) == expected, f"{operation} {n}"
        n += 1
    assert crashes >= 3


def start(out: Path, store: Path, kind: str, number: str) -> subprocess.Popen:
    command = [sys.executable, str(ROOT / "tests/ontology/toy_build.py"), str(out), str(store), kind, number]
    environment = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PATH": "/usr/bin:/bin", "HOME": str(out.parent)}
    return subprocess.Popen(
        command, cwd=out.parent, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def finish(process: subprocess.Popen) -> str:
    stdout, stderr = process.communicate(timeout=120)
    assert process.returncode == 0, stderr
    return stdout


@pytest.mark.slow
def test_a_build_killed_at_random_moments_gives_the_same_artefacts(tmp_path: Path) -> None:
    steps = "1500"
    seconds = float(finish(start(tmp_path / "whole", tmp_path / "store-a", "steps", steps)).split()[1])
    expected = artefacts(tmp_path / "whole")
    assert len(expected) == 10  # fit.json and five modules, four of them with tensors
    rng = random.Random(0)
    out, store, killed = tmp_path / "parts", tmp_path / "store-b", 0
    ledger = out / "ledger.json"
    while killed < 8:
        before = ledger.stat().st_mtime_ns if ledger.exists() else 0
        process = start(out, store, "steps", steps)
        while process.poll() is None and (not ledger.exists() or ledger.stat().st_mtime_ns == before):
            time.sleep(0.01)  # the interpreter starts
        # Short against the whole build, whose seconds were measured while other tests may have been running.
        time.sleep(rng.uniform(0.0, 0.1 * seconds))
        if process.poll() is not None:
            break
        process.send_signal(signal.SIGKILL)
        process.communicate()
        killed += 1
    assert killed >= 2
    finish(start(out, store, "steps", steps))
    assert artefacts(out) == expected


@pytest.mark.slow
def test_a_build_by_minutes_goes_on_with_the_seconds_already_used(tmp_path: Path) -> None:
    out, store = tmp_path / "run", tmp_path / "store"
    process = start(out, store, "minutes", "0.15")
    ledger = out / "ledger.json"
    while process.poll() is None and (not ledger.exists() or json.loads(ledger.read_text())["seconds"] < 3.0):
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    used = json.loads(ledger.read_text())["seconds"]
    assert 3.0 <= used < 9.0
    begun = time.monotonic()
    total = float(finish(start(out, store, "minutes", "0.15")).split()[1])
    assert 8.5 < total < 11.0
    assert time.monotonic() - begun < 9.0 - used + 8.0  # the rest, and the start of the interpreter
