"""How well copied parts of test files are found, and how often a file is called copied that is not.

    python -m eval.studies.copies DATA

DATA is a folder with `train.parquet` and `validation.parquet`. Three measurements:

- planted: of validation files, a block is replaced by lines of a training file, indented anew and with remarks between
  them, and optionally every k-th line edited: the share of files found, by how much was planted;
- validation: which validation files are called partly copied at several thresholds; each is named, to be looked at;
- strangers: each of the training projects against all others, in the same way: projects do borrow from each other, so
  this bounds the false positives from above.

Writes docs/experiments/copies.json and copies.md.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from cgpt.corpus import SourceFile, read_corpus
from eval import copies
from eval.copies import MIN_LINES, MIN_SHARE, RUN, Known, counted_lines
from ontology.environment import describe
from ontology.io import read_json, write_json, write_text
from ontology.main import exit_code
from ontology.stats import bootstrap_ratio

RESULTS = Path("docs/experiments/copies.json")
SHARES, EDITED = (0.1, 0.2, 0.35, 0.5), (0, 20, 10, 5)
LIMITS = ((5, 0.1), (12, 0.1), (12, 0.2), (12, 0.3), (12, 0.5), (20, 0.3))
FILES = 200
PROJECT_FILES = 200
"""Of each training project at most so many files are held against the others."""


def planted(validation: list[SourceFile], train: list[SourceFile], known: Known) -> list[dict[str, Any]]:
    """Rows of share planted, edits, and how many files were found."""
    rng = np.random.default_rng(0)
    hosts = [file for file in validation if 60 <= len(counted_lines(file.data)) <= 400][:FILES]
    donors = [lines for file in train if len(lines := _counting(file.data)) >= 400]
    rows = []
    for share in SHARES:
        for edited in EDITED:
            found = 0
            for host in hosts:
                donor = donors[int(rng.integers(len(donors)))]
                own = host.data.decode().splitlines()
                take = min(round(len(counted_lines(host.data)) * share / (1 - share)), len(donor))
                begin = int(rng.integers(len(donor) - take + 1))
                block = []
                for i, line in enumerate(donor[begin : begin + take]):
                    text = "\t" + line.strip()
                    block += [f"{text} or other" if edited and i % edited == 0 else text]
                    block += ["# a remark"] if i % 7 == 0 else []
                found += known.shared("\n".join([*own, *block]).encode()).copied
            rows.append({"share": share, "edited": edited, "files": len(hosts), "found": found})
    return rows


def _counting(data: bytes) -> list[str]:
    """The lines of a file that count, as they stand."""
    return [line.decode() for line in data.splitlines() if counted_lines(line)]


def called(files: list[SourceFile], known: Known) -> dict[str, Any]:
    """How many files each threshold calls partly copied, and the ones that ours does."""
    rows = [(file, known.shared(file.data)) for file in files]
    return {
        "files": len(rows),
        "by_limit": [
            {"lines": lines, "share": share, "called": sum(r.shared >= lines and r.share >= share for _, r in rows)}
            for lines, share in LIMITS
        ],
        "named": [
            {"project": file.project, "path": file.path, "shared": row.shared, "counted": row.counted,
             "longest": row.longest}
            for file, row in rows if row.copied
        ],
    }  # fmt: skip


def strangers(train: list[SourceFile]) -> dict[str, Any]:
    """Files of each training project against all other projects."""
    prints = [copies.prints_of(file.data) for file in train]
    projects = sorted({file.project for file in train})
    place = {name: i for i, name in enumerate(projects)}
    of = np.repeat([place[file.project] for file in train], [len(one) for one in prints])
    every = np.concatenate(prints)
    order = np.argsort(every, kind="stable")
    every, of = every[order], of[order]
    first = np.flatnonzero(np.concatenate([[True], every[1:] != every[:-1]]))
    # A run known to one project alone is no stranger's; elsewhere there is another project that has it.
    alone = np.minimum.reduceat(of, first) == np.maximum.reduceat(of, first)
    known = Known([])
    known.prints = every[first][~alone]
    rng, rows = np.random.default_rng(0), []
    for name in projects:
        own = [file for file in train if file.project == name]
        chosen = [own[i] for i in rng.permutation(len(own))[:PROJECT_FILES].tolist()]
        found = called(chosen, known)
        rows.append({"project": name, "files": len(chosen), "called": len(found["named"]), "named": found["named"][:3]})
    n, hits = np.array([row["files"] for row in rows], float), np.array([row["called"] for row in rows], float)
    interval = bootstrap_ratio(hits, n).as_dict("share")
    return {"projects": rows, **interval, "median_project": float(np.median(hits / n))}


def page(made: dict[str, Any]) -> str:
    """The Markdown page."""
    git = made["environment"].get("git") or {}
    text = (
        "# Copied parts of test files\n\n"
        "What `eval run --train CORPUS` finds (`eval/copies.py`): a file is called partly copied from "
        f"{MIN_LINES} shared lines and {MIN_SHARE:.0%} of its counted lines on; a line is shared where it stands in a "
        f"run of {RUN} counted lines that training has, layout, comments and lines of punctuation aside.\n\n"
        f"`python -m eval.studies.copies DATA`, commit `{str(git.get('commit'))[:12]}`; {made['train_files']:,} "
        f"training files, {made['prints']:,} fingerprints in {made['seconds']:.0f} s on one core.\n\n"
        "## What is found\n\nA block of a random training file is put into validation files, indented anew and with "
        "remarks in between; found by its part of the file's counted lines, and by how many of its lines were "
        "edited:\n\n"
        "| part of the file | " + " | ".join("none edited" if not e else f"every {e}th" for e in EDITED) + " |\n"
        "| ---: |" + " ---: |" * len(EDITED) + "\n"
    )
    for share in SHARES:
        cells = [row for row in made["planted"] if row["share"] == share]
        text += f"| {share:.0%} | " + " | ".join(f"{row['found'] / row['files']:.0%}" for row in cells) + " |\n"
    text += f"\n{made['planted'][0]['files']} files each. A copy with every fifth line edited is mostly not found.\n\n"
    text += "## What is called a copy and is none\n\n| lines | share | validation files called | of |\n"
    text += "| ---: | ---: | ---: | ---: |\n"
    for row in made["validation"]["by_limit"]:
        text += f"| {row['lines']} | {row['share']:.0%} | {row['called']} | {made['validation']['files']} |\n"
    named = "; ".join(
        f"`{row['path'].split('/', 2)[-1]}` ({row['shared']} of {row['counted']} lines, longest run {row['longest']})"
        for row in made["validation"]["named"]
    )
    text += f"\nCalled at our threshold: {named or 'none'}. {made.get('looked_at', '')}\n\n"
    s = made["strangers"]
    text += (
        f"Each of the {len(s['projects'])} training projects against all others: {s['share']:.2%} "
        f"[{max(0.0, s['share_low']):.2%}, {s['share_high']:.2%}] of files are called copies (interval over projects), "
        f"{s['median_project']:.2%} in the median project. Projects do borrow from each other, so this is the most "
        f"that can be false, not what is. {s.get('looked_at', '')} The projects with most:\n\n"
        "| project | called | of | such as |\n| --- | ---: | ---: | --- |\n"
    )
    for row in sorted(s["projects"], key=lambda row: -row["called"] / row["files"])[:6]:
        such = "; ".join(f"{one['path'].split('/', 2)[-1]} ({one['shared']}/{one['counted']})" for one in row["named"])
        text += f"| {row['project']} | {row['called']} | {row['files']} | {such} |\n"
    return text


def main(arguments: list[str]) -> None:
    """Command line."""
    data = Path(arguments[0])
    before = read_json(RESULTS) if RESULTS.is_file() else {}
    train, validation = (read_corpus(str(data / f"{name}.parquet")).files for name in ("train", "validation"))
    started = time.monotonic()
    known = Known(train)
    made = {
        "environment": describe(), "train_files": len(train), "prints": len(known.prints),
        "seconds": time.monotonic() - started, "planted": planted(validation, train, known),
        "validation": called(validation, known),
        # What a person found when looking at the files that are named; it stays until somebody looks again.
        "strangers": strangers(train) | {"looked_at": before.get("strangers", {}).get("looked_at", "")},
        "looked_at": before.get("looked_at", ""),
    }  # fmt: skip
    write_json(RESULTS, made)
    write_text(RESULTS.with_suffix(".md"), page(made))


if __name__ == "__main__":
    sys.exit(exit_code(lambda: main(sys.argv[1:])))
