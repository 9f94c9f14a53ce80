"""The command line: instant help, exit codes, one line per error."""

from __future__ import annotations

import errno
import subprocess
import sys
import time

import click
import pytest

from ontology.errors import CheckFailed, ConstructibleError, UsageError
from ontology.main import LazyGroup, constructible, run
from ontology.registry import Registry

HEAVY = ("torch", "transformers", "numba", "datasets", "pyarrow")


def command(error: BaseException | None) -> click.Command:
    def work() -> None:
        if error is not None:
            raise error

    return click.Command("work", callback=work)


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (None, 0, ""),
        (
            ConstructibleError("it broke.", fix="mend it", file="a.py", line=3),
            1,
            "error: a.py:3: it broke. Fix: mend it\n",
        ),
        (UsageError("no."), 2, "error: no.\n"),
        (CheckFailed("2 bad."), 3, "error: 2 bad.\n"),
        (KeyboardInterrupt(), 130, "\nerror: stopped; the same command again resumes where it can.\n"),
        (MemoryError(), 1, "error: out of memory. Fix: use less data, or a machine with more memory\n"),
        (
            OSError(errno.EIO, "Input/output error", "x.py"),
            1,
            "error: x.py: Input/output error. Fix: check the path, its permissions and free space\n",
        ),
        (ConstructibleError("over\ntwo lines"), 1, "error: over two lines\n"),
    ],
)
def test_errors_become_one_line_and_an_exit_code(
    error: BaseException | None, code: int, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(command(error), []) == code
    assert capsys.readouterr() == ("", line)


def test_a_defect_of_ours_is_not_hidden() -> None:
    with pytest.raises(ZeroDivisionError):
        run(command(ZeroDivisionError()), [])


def test_the_traceback_is_shown_on_request(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("CONSTRUCTIBLE_DEBUG", "1")
    assert run(command(UsageError("no.")), []) == 2
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["ontolgy"], "No such command 'ontolgy'. Did you mean 'ontology'?"),
        (["--nothing"], "No such option"),
        (["ontology", "chek"], "No such command 'chek'"),
        (["ontology", "show", "--jsn"], "No such option"),
        (["ontology", "show"], "no ontology is named"),
    ],
)
def test_bad_usage_is_exit_code_two(arguments: list[str], line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(constructible, arguments) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("error: ") and line in err and err.count("\n") == 1


@pytest.mark.parametrize("arguments", [[], ["ontology"], ["vision"]])
def test_no_command_is_bad_usage_and_shows_the_commands(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(constructible, arguments) == 2
    out, err = capsys.readouterr()
    assert err == "" and "Usage: " in out and out.count("\n") > 5


def test_a_broken_command_hides_no_other(capsys: pytest.CaptureFixture[str]) -> None:
    group = LazyGroup("tool")
    group.registry = Registry("command", entries={"bad": "no.such:thing", "doctor": "ontology.doctor:doctor"})
    assert run(group, ["--help"]) == 0
    out = capsys.readouterr().out
    assert "(broken: the command 'bad'" in out and "what to repair" in " ".join(out.split())
    assert run(group, ["bad"]) == 1
    assert "cannot be loaded" in capsys.readouterr().err


def test_help_is_instant_and_loads_nothing_heavy() -> None:
    code = (
        "import sys\nfrom ontology.main import constructible, run\n"
        f"run(constructible, ['--help'])\nprint('loaded', *[n for n in {HEAVY} if n in sys.modules], file=sys.stderr)"
    )
    begun = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert time.monotonic() - begun < 5.0  # about 0.3 s on an idle machine
    assert done.stderr.strip() == "loaded"
    for name in ("cgpt", "ontology", "doctor", "vision"):
        assert f"  {name} " in done.stdout


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(constructible, ["--version"]) == 0
    assert capsys.readouterr().out.startswith("constructible 0.")


def test_a_reader_that_goes_away_leaves_no_traceback() -> None:
    code = "from ontology.main import main; import sys; sys.argv = ['constructible', '--help']; main()"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    assert process.wait(timeout=60) == 1 and process.stderr.read() == ""
