"""The README's commands and snippets are run, in the order in which they stand, after one quick start.

`console` blocks: lines that begin with `$ `; `sh` blocks: the whole block; `python` blocks: as a script. Left out are
`make test` (this is it), what fetches the project or its extras from the network, and blocks right after a comment
`<!-- not run: REASON -->`. `make run` is the quick start, which the fixture has run.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import Quickstart
from tests.support import ROOT

README = ROOT / "README.md"
LANGUAGES = ("console", "sh", "python")
NOT_RUN = re.compile(r"^(make (test|run|bench|clean)|git clone|cd constructible|(python -m )?pip install)\b")


@dataclass(frozen=True)
class Block:
    line: int
    language: str
    text: str


def blocks(text: str) -> list[Block]:
    """The fenced blocks that are to be run."""
    found: list[Block] = []
    lines = text.splitlines()
    number = 0
    while number < len(lines):
        fence = re.fullmatch(r"```(\w*)\s*", lines[number])
        if fence:
            end = next((n for n in range(number + 1, len(lines)) if lines[n].startswith("```")), len(lines))
            before = [line for line in lines[:number] if line.strip()][-1:]
            exempt = bool(before and re.fullmatch(r"<!-- not run: \S.* -->", before[0].strip()))
            if fence.group(1) in LANGUAGES and not exempt:
                found.append(Block(number + 1, fence.group(1), "\n".join(lines[number + 1 : end])))
            number = end
        number += 1
    return found


def script(block: Block) -> str:
    """What a block runs, with the commands of NOT_RUN taken out; may be empty."""
    if block.language == "python":
        return block.text
    lines = block.text.splitlines()
    if block.language == "console":
        joined, continued = [], False
        for line in lines:
            if line.startswith("$ ") or continued:
                joined.append(line.removeprefix("$ "))
                continued = line.endswith("\\")
        lines = joined
    return "\n".join(line for line in lines if line.strip() and not NOT_RUN.match(line.strip()))


SAMPLE = """
```console
$ make run
some output
$ echo one \\
    two
$ make test
```
<!-- not run: needs a GPU -->

```sh
exit 1
```
```python
print("hi")
```
```json
{}
```
"""


def test_blocks_are_found_and_the_right_lines_are_run() -> None:
    found = blocks(SAMPLE)
    assert [(block.language, script(block)) for block in found] == [
        ("console", "echo one \\\n    two"),
        ("python", 'print("hi")'),
    ]


FOUND = blocks(README.read_text(encoding="utf-8"))


def test_readme_shows_both_commands_and_a_python_example() -> None:
    shell = "\n".join(block.text for block in FOUND if block.language != "python")
    assert "make run" in shell and "make test" in shell
    assert any(block.language == "python" for block in FOUND)


@pytest.mark.slow
@pytest.mark.timeout(1500)
@pytest.mark.xdist_group("quickstart")
@pytest.mark.parametrize("block", FOUND, ids=lambda block: f"line{block.line}-{block.language}")
def test_readme_block_runs(block: Block, quickstart: Quickstart) -> None:
    text = script(block)
    command = [sys.executable, "-c", text] if block.language == "python" else ["bash", "-euo", "pipefail", "-c", text]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    done = subprocess.run(
        command,
        cwd=quickstart.folder,
        env={**os.environ, "PATH": path},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, f"README.md:{block.line}\n{text}\n{done.stdout[-2000:]}\n{done.stderr[-3000:]}"
