"""Keeps the README's result table: `python -m eval.readme RUN` files a quick start's figures and writes the table.

The figures go to docs/results/quickstart.json, and the leaderboard is made again; the table stands between two comments
in README.md, and tests check that both are made of those figures.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from eval.board import write_board
from eval.leaderboard import to_markdown
from ontology.errors import ConstructibleError, UsageError
from ontology.io import read_json, write_json, write_text
from ontology.main import exit_code

BEGIN, END = "<!-- quickstart table -->", "<!-- end of table -->"
RESULTS = Path("docs/results/quickstart.json")


def table(results: dict[str, Any]) -> str:
    """The Markdown between the two comments."""
    comparison, cpu = results["comparison"], results["environment"].get("cpu", "unknown CPU")
    low, high = comparison["low"], comparison["high"]
    return (
        f"{to_markdown(results['leaderboard'])}\n\n"
        f"Constructed / baseline: **{comparison['ratio']:.3f}** [{low:.3f}, {high:.3f}] in bits per byte, paired by "
        "file. "
        f"`{results['command']}` at commit `{results['commit'][:12]}{'+' * results['commit'].endswith('+')}`, "
        "one seed, Python "
        f"{results['environment'].get('python', '?')}, {cpu}; 95 % bootstrap intervals over {results['files']} files."
    )


def place_table(readme: str, text: str) -> str:
    """The README with the table replaced."""
    if BEGIN not in readme or END not in readme:
        fix = "put both comments where the table belongs"
        raise ConstructibleError(f"no {BEGIN} ... {END}.", fix=fix, file="README.md")
    before, rest = readme.split(BEGIN, 1)
    return f"{before}{BEGIN}\n{text}\n{END}{rest.split(END, 1)[1]}"


def main(arguments: list[str]) -> None:
    """File the results of the run folder given and write the table."""
    if len(arguments) != 1:
        raise UsageError("usage: python -m eval.readme RUN", fix="give the folder of a finished quick start")
    results = read_json(Path(arguments[0]) / "results.json")
    write_json(RESULTS, results)
    readme = Path("README.md")
    write_text(readme, place_table(readme.read_text(encoding="utf-8"), table(results)))
    # The leaderboard is made of the same file.
    write_board(RESULTS.parent, RESULTS.parent.parent)


if __name__ == "__main__":
    sys.exit(exit_code(lambda: main(sys.argv[1:])))
