"""Progress goes to stderr: live in a terminal, a line now and then in a log."""

from __future__ import annotations

import io
import time

import pytest

from ontology.progress import Progress, clock, count


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00"), (7.4, "0:07"), (185, "3:05"), (3723, "1:02:03"), (-1, "?"), (float("inf"), "?"),
                          (float("nan"), "?")]
)  # fmt: skip
def test_clock(seconds: float, text: str) -> None:
    assert clock(seconds) == text


@pytest.mark.parametrize(("number", "text"), [(950, "950"), (12_340, "12.3k"), (4.5e6, "4.5M"), (2e9, "2.0G")])
def test_count(number: float, text: str) -> None:
    assert count(number) == text


def test_a_log_gets_a_line_now_and_then() -> None:
    stream = io.StringIO()
    progress = Progress(stream, every_seconds=0.1)
    with progress.task("reading", total=1000, unit="files") as task:
        for _ in range(300):
            task.advance()
            time.sleep(0.001)
    progress.note("done")
    lines = stream.getvalue().splitlines()
    assert 2 <= len(lines) <= 8 and lines[-1].endswith("] done")
    assert "reading: " in lines[0] and " % " in lines[0] and "files" in lines[0] and lines[0].endswith(" left")
    assert "\x1b" not in stream.getvalue()


def test_quiet_is_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    progress = Progress(quiet=True, every_seconds=0.0)
    progress.note("x")
    with progress.task("t") as task:
        task.update(1)
    assert capsys.readouterr() == ("", "")


def test_nothing_goes_to_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    progress = Progress(every_seconds=0.0)
    progress.note("x")
    with progress.task("t", total=2) as task:
        task.advance(detail="one")
    out, err = capsys.readouterr()
    assert out == "" and "x" in err and "t: 50 % one" in err


def test_a_terminal_gets_a_live_line() -> None:
    stream = Terminal()
    progress = Progress(stream)
    with progress.task("reading [files]", total=10) as task:
        task.update(5, "half [way]")
        with progress.task("inner", total=2) as inner:  # a task inside a task does not disturb the line
            inner.advance()
        progress.note("a note [that] stays")
        time.sleep(0.3)
    text = stream.getvalue()
    assert "reading [files]" in text and "half [way]" in text and "a note [that] stays" in text
