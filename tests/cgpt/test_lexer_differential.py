"""The lexer against the standard library's `tokenize` on real code; all of it: `python -m cgpt.check_lexer`."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from cgpt import check_lexer
from cgpt.check_lexer import Agreement, Rejected, expected_spans, lexer_spans
from tests.support import data_path

TRICKY = '''\
# comment
@decorate(a, *b)
async def f(self, x: int = 0x1F, /, *, y=.5e-3, **kw) -> "str":
\t"""Doc with 'quotes' and \\""" escaped."""
\tif x <= 1_000 and not y != 2j: return [i async for i in x if i], {**kw, 'a': b}

\t# a comment that does not belong here
        # nor this
\treturn x[1:-1, ...] \\
\t\t+ (lambda a, *b: a @ b)(1, *c) // 2 ** 3 >> 4
class A(B, metaclass=C): pass; x = rb'\\'' Rb"\\\\" u'é🙂' '' """" '""" \'\'\'a
b\'\'\'
x: dict[str, list[int]] = {}
x //= y; x **= 2; x >>= 1; (y := 3); print(a.b.c, 1.real if 1.0 else 1..imag)
match x:
    case [1, *rest] if rest: ...
from ...a import (b as c, d)
f"{x!r:>{width}} {{literal}} {y['k']} {z:%H:%M} {'a' 'b'} {lambda_!s}" rf'\\d{n}' f"""
{a
 + b} text {c}""" f"" F'{x=}'
if x:
    pass
\x0c
else:
  y
'''


def test_tricky_code_agrees_exactly() -> None:
    data = TRICKY.encode()
    assert lexer_spans(data) == expected_spans(data)
    windows = TRICKY.replace("\n", "\r\n").encode()
    assert lexer_spans(windows) == expected_spans(windows)
    without_end = TRICKY.rstrip("\n").encode()
    assert lexer_spans(without_end) == expected_spans(without_end)


def test_disagreement_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    found = Agreement()
    found.add("good.py", b"x = 1\n")
    assert (found.agreement, found.worst) == (1.0, [])
    monkeypatch.setattr(check_lexer, "lexer_spans", lambda data: lexer_spans(data)[1:])
    found.add("bad.py", b"\ny = 1\n")
    assert found.agreement == 7 / 8
    assert found.worst == [("bad.py", 1, "line 2: name b'y'")]


@pytest.mark.parametrize("text", [b"x = (", b"'''", b"\xff\n", b"if x:\n    y\n  z\n"])
def test_what_tokenize_rejects_is_left_out(text: bytes) -> None:
    with pytest.raises(Rejected):
        expected_spans(text)
    found = Agreement()
    found.add("broken.py", text)
    assert found.files == 0
    assert [entry.split(":")[0] for entry in found.rejected] == ["broken.py"]


def agreement_on(files: list[tuple[str, bytes]]) -> Agreement:
    found = Agreement()
    for path, data in files:
        found.add(path, data)
    assert found.agreement >= 0.999, found.worst[:5]
    return found


def test_sample_of_the_library_agrees() -> None:
    library = Path(sysconfig.get_path("stdlib"))
    paths = sorted(path for path in library.rglob("*.py") if "site-packages" not in path.parts)
    found = agreement_on([(str(path), path.read_bytes()) for path in paths[::20]])
    assert found.files > 0.9 * len(paths[::20])


def test_validation_code_agrees() -> None:
    from cgpt.corpus import read_corpus

    files = read_corpus(str(data_path("code", "validation.parquet"))).files
    found = agreement_on([(source.path, source.data) for source in files[::2]])
    assert found.expected > 100_000


def test_command(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "a.py"
    path.write_text(TRICKY, encoding="utf-8")
    (tmp_path / "broken.py").write_text("x = (", encoding="utf-8")
    assert check_lexer.main([str(tmp_path)]) == 0
    assert "100.0000%" in capsys.readouterr().out
    assert check_lexer.main(["--json", str(path)]) == 0
    assert '"agreement": 1.0' in capsys.readouterr().out


def test_a_missing_path_is_one_line(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "cgpt.check_lexer", str(tmp_path / "nothing")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("error: ") and "nothing" in done.stderr and done.stderr.count("\n") == 1
