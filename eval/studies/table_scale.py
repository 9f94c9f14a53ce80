"""How long tables take as the corpus grows: `python -m eval.studies.table_scale DATA`.

Builds the tables and the match index (`--cut plain`) of the first 10, 50 and all megabytes of DATA (a Parquet file, or
anything `cgpt build` reads), each in a process of its own and from nothing; seconds are the build's own ledger, from
raw files to the last artefact, peak memory is the process' resident set. Writes docs/experiments/table_scale.json and
table_scale.md.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from ontology.environment import describe
from ontology.io import make_folder, read_json, write_json, write_text
from ontology.main import exit_code
from ontology.progress import Progress
from ontology.waiting import threads_wait_briefly

RESULTS = Path("docs/experiments/table_scale.json")
SIZES_MB: tuple[float | None, ...] = (10, 50, None)


def run(data: Path, out: Path) -> list[dict[str, Any]]:
    """Build each size once, write both files and return the rows."""
    progress, rows = Progress(), []
    for size in SIZES_MB:
        folder = out / f"{size or 'all'}"
        shutil.rmtree(folder, ignore_errors=True)
        make_folder(folder)
        progress.note(f"{size or 'all'} MB")
        command = [
            sys.executable,
            "-m",
            "ontology.main",
            "cgpt",
            "build",
            str(data),
            "--cut",
            "plain",
            "--out",
            str(folder),
        ]
        process = subprocess.Popen(
            [*command, *(["--limit-mb", str(size)] if size else [])],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        _, status, usage = os.wait4(process.pid, 0)
        if status:
            raise RuntimeError(f"the build of {size or 'all'} MB failed")
        config, ledger = read_json(folder / "config.json"), read_json(folder / "ledger.json")
        rows.append({
            "bytes": config["corpus"]["bytes"], "files": config["corpus"]["files"], "seconds": ledger["seconds"],
            "peak_mib": usage.ru_maxrss / 1024, "vocab_size": config["vocab_size"],
            "jobs": {name: job["seconds"] for name, job in ledger["jobs"].items()},
        })  # fmt: skip
        shutil.rmtree(folder)
    stored = {"environment": describe(), "rows": rows}
    write_json(RESULTS, stored)
    write_text(RESULTS.with_suffix(".md"), page(stored))
    return rows


def page(stored: dict[str, Any]) -> str:
    """The Markdown page: seconds, and how they grow beside the bytes."""
    rows, git = stored["rows"], stored["environment"].get("git") or {}
    jobs = [name for name in rows[0]["jobs"] if name != "corpus"]
    lines = [
        "| MB | files | tokens in the alphabet | seconds | seconds / MB by those of the row above | peak MiB | "
        + " | ".join(jobs) + " |",
        "| ---: | ---: | ---: | ---: | ---: | ---: |" + " ---: |" * len(jobs),
    ]  # fmt: skip
    for k, row in enumerate(rows):
        growth = ""
        if k:
            above = rows[k - 1]
            growth = f"{row['seconds'] / row['bytes'] * above['bytes'] / above['seconds']:.2f}"
        lines.append(
            f"| {row['bytes'] / 1e6:.0f} | {row['files']:,} | {row['vocab_size']:,} | {row['seconds']:.0f} | {growth} "
            f"| {row['peak_mib']:,.0f} | " + " | ".join(f"{row['jobs'][name]:.1f}" for name in jobs) + " |"
        )
    return (
        "# Tables and match index as the corpus grows\n\n`python -m eval.studies.table_scale DATA` at commit "
        f"`{str(git.get('commit'))[:12]}`, {stored['environment'].get('cpus', '?')} cores, one run each. Seconds from "
        "raw files to\nthe last artefact; the mixer's are those of a model without nets.\n\n" + "\n".join(lines) + "\n"
    )


def main() -> None:
    """Command line."""
    threads_wait_briefly()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, default=Path("runs/table_scale"))
    options = parser.parse_args()
    for row in run(options.data, options.out):
        print(f"{row['bytes'] / 1e6:.0f} MB: {row['seconds']:.0f} s, {row['peak_mib']:,.0f} MiB")


if __name__ == "__main__":
    sys.exit(exit_code(main))
