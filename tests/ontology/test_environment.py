"""Versions, memory, and the ledger of seconds."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from ontology import environment
from ontology.environment import Ledger, describe, peak_rss_bytes, single_threaded_products
from ontology.errors import ConstructibleError
from tests.support import ROOT


def test_describe_names_what_a_run_depends_on() -> None:
    found = describe()
    assert found["packages"]["numpy"] and found["python"].count(".") == 2 and found["cpus"] >= 1
    assert found["threads"] >= 1 and found["memory_bytes"] > 1 << 28 and found["cpu"]
    json.dumps(found)


def test_the_commit_is_that_of_the_code_wherever_it_is_called(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = describe()["git"]
    other = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b"]
    for command in (["init", "-q"], ["commit", "-q", "--allow-empty", "-m", "another project's"]):
        subprocess.run([*other, *command], check=True)
    monkeypatch.chdir(tmp_path)
    assert describe()["git"] == here
    # A copy installed into that checkout is none of its files.
    copy = tmp_path / "site-packages" / "environment.py"
    copy.parent.mkdir()
    copy.write_text("")
    monkeypatch.setattr(environment, "__file__", str(copy))
    assert describe()["git"] is None


def test_peak_memory_is_in_bytes_and_grows() -> None:
    before = peak_rss_bytes()
    block = bytearray(before + (64 << 20))
    assert len(block) and peak_rss_bytes() > before > 10 << 20


def test_a_large_parent_is_not_the_childs_peak() -> None:
    block = b"x" * (300 << 20)
    code = "from ontology.environment import peak_rss_bytes; print(peak_rss_bytes())"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert 5 << 20 < int(done.stdout) < len(block)


def test_seconds_add_up_over_processes_under_one_key(tmp_path: Path) -> None:
    path = tmp_path / "ledger.json"
    with Ledger(path).charge("job", "k"):
        time.sleep(0.15)
    ledger = Ledger(path)
    first = ledger.of("job")
    assert 0.15 <= first < 1.0
    with ledger.charge("job", "k"):
        time.sleep(0.1)
        assert ledger.of("job") >= first + 0.1
    assert ledger.of("job") >= first + 0.1 and ledger.key("job") == "k"
    with ledger.charge("job", "other"):
        assert ledger.of("job") < 0.1
    with ledger.charge("job", "other", again=True):
        pass
    assert ledger.of("job") < 0.1


def test_the_file_is_kept_fresh_while_a_job_runs(tmp_path: Path) -> None:
    """A build that is killed inside of one long call still knows what it used."""
    ledger = Ledger(tmp_path / "ledger.json", every_seconds=0.05)
    with ledger.charge("job"):
        time.sleep(0.4)
        stored = json.loads((tmp_path / "ledger.json").read_text())["seconds"]
        assert stored >= 0.2


def test_credit_keep_and_split(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.json")
    ledger.credit("reading", "", 1.0)
    ledger.credit("a", "k", 2.0)
    ledger.credit("group", "g", 3.0)
    ledger.split("group", {"b": "kb", "c": "kc"})
    assert ledger.jobs() == {"a": 2.0, "b": 1.5, "c": 1.5, "reading": 1.0} and ledger.seconds == 6.0
    ledger.keep({"a": "k", "b": "changed"})
    assert ledger.jobs() == {"a": 2.0, "reading": 1.0}


def test_one_thing_is_charged_at_a_time_and_a_failed_one_counts(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.json")
    with (
        pytest.raises(ConstructibleError, match="'b' is charged inside of 'a'"),
        ledger.charge("a"),
        ledger.charge("b"),
    ):
        pass
    with pytest.raises(ValueError), ledger.charge("c"):
        time.sleep(0.05)
        raise ValueError
    assert ledger.of("c") >= 0.05
    assert Ledger(tmp_path / "ledger.json").of("c") >= 0.05


def test_a_file_that_is_no_ledger_is_refused(tmp_path: Path) -> None:
    (tmp_path / "ledger.json").write_text("[]")
    with pytest.raises(ConstructibleError, match="not a ledger of this version"):
        Ledger(tmp_path / "ledger.json")


def test_version_is_the_installed_one() -> None:
    assert environment.version()[0].isdigit()


def test_products_keep_to_one_thread_until_the_last_one_has_left():
    def blas() -> list[int]:
        return [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]

    with threadpool_limits(2, "blas"):
        assert set(blas()) == {2}
        first, second = single_threaded_products(), single_threaded_products()
        first.__enter__()
        second.__enter__()
        first.__exit__(None, None, None)
        assert set(blas()) == {1}
        second.__exit__(None, None, None)
        assert set(blas()) == {2}


def test_results_under_docs_do_not_make_a_checkout_another_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package, page = tmp_path / "package", tmp_path / "docs" / "results.json"
    for path in (package / "environment.py", page):
        path.parent.mkdir(exist_ok=True)
        path.write_text("1\n")

    def git(*arguments: str) -> None:
        who = ("-c", "user.name=test", "-c", "user.email=test@example.org")
        subprocess.run(["git", "-C", str(tmp_path), *who, *arguments], check=True, capture_output=True)

    git("init")
    git("add", ".")
    git("commit", "-m", "first")
    monkeypatch.setattr(environment, "__file__", str(package / "environment.py"))
    found = describe()["git"]
    assert found is not None and not found["changed"]
    page.write_text("2\n")
    assert describe()["git"] == found
    (package / "environment.py").write_text("2\n")
    assert describe()["git"] == {**found, "changed": True}
