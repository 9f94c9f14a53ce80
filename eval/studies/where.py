"""Where contenders spend their bits, situation by situation: `python -m eval.studies.where DATA --minutes 5`.

Takes the models that `eval.studies.contenders` has built (same DATA, `--minutes`, `--sample` and `--out`; nothing is
trained here) and scores the fixed 2 MB sample of the validation projects. All of them have the same tokens, so the
situation at a token is the constructed model's word, and one model's bits can be laid beside another's. Intervals of
ratios by bootstrap over files. Writes docs/experiments/where.json and where.md.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np

from cgpt.corpus import read_corpus
from cgpt.model import HERE, load
from cgpt.score import FileScore, score_files
from eval.studies.contenders import load_joined
from eval.studies.forty_mb import sample_file
from ontology.environment import describe
from ontology.graph import leaves_under
from ontology.io import make_folder, write_json, write_text
from ontology.main import exit_code
from ontology.progress import Progress
from ontology.schema import Ontology
from ontology.stats import paired_ratio

RESULTS = Path("docs/experiments/where.json")
MODELS = ("constructed", "unrouted", "random", "gpt+tables", "plain", "gpt")


def run(data: Path, out: Path, minutes: float, seed: int, sample: bool) -> None:
    """Score all models that are there, then write both files."""
    progress = Progress()
    base = (out / "sample" if sample else out) / f"{minutes:g}"
    make_folder(out)
    judged = sample_file(data / "validation.parquet", "validation_2mb", out / "validation.parquet", progress)
    files = read_corpus(str(judged)).files
    scores: dict[str, list[FileScore]] = {}
    for name in MODELS:
        folder = base / f"{name}-{seed}"
        if folder.is_dir():
            progress.note(name)
            model = load_joined(folder, base, seed) if name == "gpt+tables" else load(folder)
            scores[name] = score_files(model, files).files
    concepts = load(base / f"constructed-{seed}").concepts
    result = {
        "minutes": minutes, "seed": seed, "corpus": "40 MB" if sample else "211 MB", "environment": describe(),
        "files": len(files), "bytes": sum(len(file.data) for file in files),
        "rows": rows(scores, concepts, Ontology.load(HERE / "ontology.yaml")),
    }  # fmt: skip
    write_json(RESULTS, result)
    write_text(RESULTS.with_suffix(".md"), page(result))


def rows(scores: dict[str, list[FileScore]], concepts: tuple[str, ...], ontology: Ontology) -> list[dict[str, Any]]:
    """A row for each group of situations, then for each of its situations that is in charge somewhere, and for all."""
    ours = scores["constructed"]
    size = np.array([file.n_bytes for file in ours], dtype=np.float64)
    tokens = sum(len(file.bits) for file in ours)
    groups = (ontology.root, *ontology[ontology.root].children)
    names = dict.fromkeys(groups[:1])
    for group in groups[1:]:
        names |= dict.fromkeys((group, *leaves_under(ontology, group)))
    found = []
    for name in names:
        inside = np.isin(concepts, leaves_under(ontology, name))
        here = [inside[file.concept] for file in ours]
        n = sum(int(mask.sum()) for mask in here)
        if not n:
            continue
        row: dict[str, Any] = {"situation": name, "group": name in groups, "share_of_tokens": n / tokens}
        bits = {
            model: np.array([file.bits[mask].sum() for file, mask in zip(own, here, strict=True)])
            for model, own in scores.items()
        }
        row["bits_per_byte"] = {model: float(own.sum() / size.sum()) for model, own in bits.items()}
        row["accuracy"] = {
            model: sum(int(file.correct[mask].sum()) for file, mask in zip(own, here, strict=True)) / n
            for model, own in scores.items()
        }
        row["constructed / it"] = {
            model: paired_ratio(bits["constructed"], own, size).as_dict("ratio")
            for model, own in bits.items()
            if model != "constructed"
        }
        found.append(row)
    return found


def page(result: dict[str, Any]) -> str:
    """The Markdown page."""
    rows = result["rows"]
    models = [model for model in MODELS if model in rows[0]["bits_per_byte"]]
    others = [model for model in models if model != "constructed"]
    head = ["situation", "tokens", *(f"{model}" for model in models), *(f"constructed / {model}" for model in others)]
    lines = ["| " + " | ".join(head) + " |", "| --- |" + " ---: |" * (len(head) - 1)]
    for row in rows:
        name = f"**{row['situation']}**" if row["group"] else row["situation"]
        cells = [name, f"{row['share_of_tokens']:.1%}", *(f"{row['bits_per_byte'][m]:.4f}" for m in models)]
        for model in others:
            ratio = row["constructed / it"][model]
            interval = f" [{ratio['ratio_low']:.3f}, {ratio['ratio_high']:.3f}]" if row["group"] else ""
            cells.append(f"{ratio['ratio']:.3f}{interval}")
        lines.append("| " + " | ".join(cells) + " |")
    git = result["environment"].get("git") or {}
    commit = str(git.get("commit"))[:12] + (", with changes" if git.get("changed") else "")
    options = f"--minutes {result['minutes']:g} --seed {result['seed']}"
    options += " --sample" if result["corpus"] == "40 MB" else ""
    return (
        f"""# Where the bits are

`python -m eval.studies.where DATA {options}`: contenders of {result["minutes"]:g} minutes on
{result["corpus"]} (built by `eval.studies.contenders`, seed {result["seed"]}), bits by situation on {result["files"]}
files, {result["bytes"]:,} bytes, of the validation projects. Columns of a model: bits of the situation's tokens by all
bytes, so that they add up to the model's bits per byte. Ratios below 1: the constructed model needs fewer bits there;
intervals resample files, groups of situations only. Commit {commit}.

"""
        + "\n".join(lines)
        + "\n"
    )


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--sample", action="store_true", help="Models of 40 MB in place of the whole corpus.")
    parser.add_argument("--out", type=Path, default=Path("runs/contenders"), help="Where the contenders were built.")
    options = parser.parse_args()
    run(options.data, options.out, options.minutes, options.seed, options.sample)


if __name__ == "__main__":
    sys.exit(exit_code(main))
