"""The quick start, run once with a small budget: the files that `make run` promises, and the report in a browser."""

from __future__ import annotations

import json
import re

import pytest

from tests.browser import DESKTOP, PHONE, Browser, browser  # noqa: F401
from tests.conftest import Quickstart

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500), pytest.mark.xdist_group("quickstart")]


def test_the_leaderboard_has_its_rows_and_keys(quickstart: Quickstart) -> None:
    rows = json.loads((quickstart.folder / "runs/quickstart/leaderboard.json").read_text())
    assert {"constructed", "baseline (one transformer)"} <= {row["name"] for row in rows}
    for row in rows:
        assert {"name", "bits_per_byte", "accuracy", "parameters", "seconds"} <= row.keys()
        assert row["bits_per_byte_low"] < row["bits_per_byte"] < row["bits_per_byte_high"]
    by_name = {row["name"]: row for row in rows}
    constructed, baseline = by_name["constructed"], by_name["baseline (one transformer)"]
    # Even with next to no training the counts are far ahead.
    assert constructed["bits_per_byte"] < 0.75 * baseline["bits_per_byte"]
    assert constructed["accuracy"] > baseline["accuracy"]


def test_progress_is_on_stderr_and_the_result_on_stdout(quickstart: Quickstart) -> None:
    assert "report.html" in quickstart.stdout and "constructed" in quickstart.stdout
    assert "nets" in quickstart.stderr and "score" in quickstart.stderr
    assert "Traceback" not in quickstart.stderr


def test_both_models_are_ones_that_score_takes(quickstart: Quickstart) -> None:
    import subprocess
    import sys

    for name in ("constructed", "baseline"):
        command = [sys.executable, "-m", "ontology.main", "cgpt", "score", f"runs/quickstart/{name}",
                   "kernels/plan.py", "--json"]  # fmt: skip
        done = subprocess.run(command, cwd=quickstart.folder, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        result = json.loads(done.stdout)
        assert {"bits_per_byte", "bytes", "tokens", "accuracy", "seconds", "per_concept"} <= result.keys()


def test_the_report_opens_and_explains_a_token(quickstart: Quickstart, browser: Browser) -> None:  # noqa: F811
    path = quickstart.folder / "runs/quickstart/report.html"
    assert not re.search(r"(src|href)=[\"']https?://", path.read_text(encoding="utf-8"))
    for size in (DESKTOP, PHONE):
        page = browser.open(path, size, dark=size is PHONE)
        page.click('.v-code [data-i="120"]')
        assert page.overflow() == 0
        text = page.run("document.querySelector('.viewer').innerText").lower()
        for word in ("concept in charge", "router lines", "share"):
            assert word in text
        assert page.problems() == []
