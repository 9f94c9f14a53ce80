"""The same comparison as the quick start on library code: `python -m eval.studies.forty_mb DATA [--minutes 3]`.

DATA is a folder with `train.parquet` and `validation.parquet` (columns of the hub's GitHub-code sets). Both models are
built on the fixed 40 MB sample of the one (cgpt/samples/train_40mb.json) and scored on the fixed 2 MB sample of the
other; other projects on both sides. Writes docs/experiments/forty_mb.json and forty_mb.md; builds resume.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from cgpt.corpus import Corpus, load_sample, read_corpus
from cgpt.model import load
from cgpt.score import Score, score_files
from ontology.environment import describe
from ontology.io import make_folder, read_json, write_atomic, write_json, write_text
from ontology.main import exit_code
from ontology.progress import Progress
from ontology.stats import bootstrap_ratio, paired_ratio

RESULTS = Path("docs/experiments/forty_mb.json")


def run(data: Path, out: Path, minutes: float) -> None:
    """Build both, score both, write both files."""
    progress = Progress()
    make_folder(out)
    train = sample_file(data / "train.parquet", "train_40mb", out / "train_40mb.parquet", progress)
    validation = sample_file(data / "validation.parquet", "validation_2mb", out / "validation.parquet", progress)
    unseen = read_corpus(str(validation))
    rows: dict[str, dict[str, Any]] = {}
    scores: dict[str, Score] = {}
    parameters = 0
    for name, options in (("constructed", []), ("plain", ["--cut", "plain"]), ("baseline", ["--cut", "root"])):
        extra = ["--parameters", str(parameters)] if name == "baseline" else []
        command = [sys.executable, "-m", "ontology.main", "cgpt", "build", str(train), "--out", str(out / name)]
        command += ["--store", str(out / ".store"), "--minutes", f"{minutes:g}", *options, *extra]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        model = load(out / name)
        parameters = parameters or model.parameters
        with progress.task(f"score {name}", total=float(unseen.total_bytes), unit="bytes") as task:
            score = scores[name] = score_files(model, unseen.files, task.advance)
        rows[name] = {
            **bootstrap_ratio(score.bits, score.n_bytes).as_dict("bits_per_byte"),
            **bootstrap_ratio(score.n_correct, score.n_tokens).as_dict("accuracy"),
            "by_project": _by_project(score), "parameters": model.parameters, "table_entries": model.table_entries,
            "bytes_per_token": float(score.n_bytes.sum() / score.n_tokens.sum()),
            "seconds": read_json(out / name / "ledger.json")["seconds"],
            "peak_rss_bytes": read_json(out / name / "environment.json")["peak_rss_bytes"],
            "score_seconds": score.seconds,
        }  # fmt: skip
    ratio = paired_ratio(scores["constructed"].bits, scores["baseline"].bits, scores["constructed"].n_bytes)
    result = {
        "environment": describe(), "minutes": minutes, "created": time.strftime("%Y-%m-%d"), "rows": rows,
        "ratio": {"estimate": ratio.estimate, "low": ratio.low, "high": ratio.high}, "files": len(unseen.files),
    }  # fmt: skip
    write_json(RESULTS, result)
    write_text(RESULTS.with_suffix(".md"), _page(result))
    print(json.dumps(result["ratio"]))


def sample_file(source: Path, name: str, target: Path, progress: Progress) -> Path:
    """The sample as a Parquet file of its own, so that the builds' clock reads what they train on and no more."""
    if not target.exists():
        progress.note(f"taking the sample {name}")
        corpus: Corpus = load_sample(name, read_corpus(str(source)))
        columns = {
            "code": [file.data.decode("utf-8") for file in corpus.files],
            "repo_name": [file.project for file in corpus.files],
            "path": [file.path for file in corpus.files],
            "license": [file.licence for file in corpus.files],
        }
        write_atomic(target, lambda path: pq.write_table(pa.table(columns), path))
    return target


def _by_project(score: Score) -> dict[str, float]:
    projects = sorted({file.project for file in score.files})
    return {
        project: sum(float(f.bits.sum()) for f in score.files if f.project == project)
        / sum(f.n_bytes for f in score.files if f.project == project)
        for project in projects
    }


def _page(result: dict[str, Any]) -> str:
    def line(name: str, row: dict[str, Any]) -> str:
        projects = ", ".join(f"{project} {value:.3f}" for project, value in row["by_project"].items())
        return (
            f"| {name} | {row['bits_per_byte']:.3f} [{row['bits_per_byte_low']:.3f}, {row['bits_per_byte_high']:.3f}] "
            f"| {row['accuracy']:.1%} | {row['parameters']:,} | {row['seconds']:.0f} "
            f"| {row['peak_rss_bytes'] / 2**20:.0f} | {row['score_seconds']:.0f} | {projects} |"
        )

    ratio, git = result["ratio"], result["environment"].get("git") or {}
    rows = "\n".join(line(name, row) for name, row in result["rows"].items())
    return f"""# 40 MB of library code, {result["minutes"]:g} minutes each

`python -m eval.studies.forty_mb DATA --minutes {result["minutes"]:g}` at commit `{str(git.get("commit"))[:12]}`, one
seed, 95 % bootstrap intervals over {result["files"]} files of projects that no model has seen (asked: ratio <= 0.75).

Constructed / baseline in bits per byte, paired by file: **{ratio["estimate"]:.3f}** [{ratio["low"]:.3f},
{ratio["high"]:.3f}].

| model | bits/byte | accuracy | parameters | seconds | peak MiB | scoring s | by project |
| --- | ---: | ---: | ---: | ---: | ---: | ---: | --- |
{rows}

`plain` is the constructed model without nets: what counting alone gives.
"""


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--minutes", type=float, default=3.0)
    parser.add_argument("--out", type=Path, default=Path("runs/forty_mb"))
    options = parser.parse_args()
    run(options.data, options.out, options.minutes)


if __name__ == "__main__":
    sys.exit(exit_code(main))
