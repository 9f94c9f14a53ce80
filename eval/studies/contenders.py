"""The constructed model against five others of the same budget: `python -m eval.studies.contenders DATA --minutes 5`.

DATA is a folder with `train.parquet` and `validation.parquet` (columns of the hub's GitHub-code sets). All are built on
the whole of the one (`--sample`: a fixed sample of 40 MB) and scored on the fixed 2 MB sample of the other
(`--split test` for the test set), each in a process of its own, with the whole budget from raw files to the last
artefact:

    gpt          a tuned transformer (the root cut)
    gpt+tables   the same transformer joined with the same tables, caches and names through the same kind of mixer;
                 the seconds of the tables are taken off its training
    constructed  a net for every situation, chosen by the router
    unrouted     one net with every read and the constructed model's number of parameters, the same tables
    random       as constructed, under a router of random questions
    plain        no nets at all

`--dynamic` scores gpt and constructed in the dynamic setting too, `--whole` all files of the split in place of the
sample. Rows go to docs/experiments/contenders.json and contenders.md as they are made; what is there is not made again.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from cgpt import lexer
from cgpt.baseline import Baseline, BaselineConfig, BaselineTrainer, train_for
from cgpt.corpus import read_corpus
from cgpt.data import TokenizedCorpus
from cgpt.dynamic import SETTINGS, dynamic, in_order
from cgpt.mixer import Mixer
from cgpt.model import HERE, ConstructedLM, load
from cgpt.reads import FileView
from cgpt.score import Score, score_files
from eval.controls import random_router
from eval.joined import JoinedLM, Transformer, fit_joined
from eval.studies.forty_mb import sample_file
from eval.tasks.language import whole_tokens
from kernels.memory import keep_freed_memory
from ontology.environment import describe, threads
from ontology.io import make_folder, read_json, write_json, write_text
from ontology.main import exit_code
from ontology.progress import Progress
from ontology.routers import Router
from ontology.stats import bootstrap_ratio, paired_ratio
from ontology.waiting import threads_wait_briefly

RESULTS = Path("docs/experiments/contenders.json")
NAMES = ("plain", "constructed", "gpt", "gpt+tables", "unrouted", "random")
ALL_FILES = ", all files"
"""After the name of a split of which every file was scored."""
STATE_FILES = 200
"""Training files whose lexer states the random questions divide."""


def run(options: argparse.Namespace) -> None:
    """Build and score what is missing, then write both files."""
    progress, data, out, minutes = Progress(), options.data, options.out, options.minutes
    make_folder(out)
    train, corpus = data / "train.parquet", "211 MB"
    if options.sample:
        train, corpus = sample_file(train, "train_40mb", out / "train_40mb.parquet", progress), "40 MB"
        out = out / "sample"
    split, judged = options.split, data / f"{options.split}.parquet"
    if options.whole:
        split += ALL_FILES
    else:
        judged = sample_file(judged, f"{split}_2mb", out / f"{split}.parquet", progress)
    unseen = read_corpus(str(judged)).files
    stored = read_json(RESULTS) if RESULTS.exists() else {"runs": {}}
    for seed in range(options.seeds):
        for name in options.only or NAMES:
            settings = SETTINGS if options.dynamic and name in ("gpt", "constructed") else SETTINGS[:1]
            for setting in settings:
                key = f"{corpus}, {split}, {minutes:g} min, {name}, {setting}, seed {seed}"
                if key in stored["runs"]:
                    continue
                progress.note(key)
                folder = out / f"{minutes:g}" / f"{name}-{seed}"
                model, seconds = _build(name, train, folder, out / f"{minutes:g}", minutes, seed)
                if setting == "dynamic":
                    score = score_files(dynamic(model), in_order(unseen))
                else:
                    score = score_files(model, unseen)
                facts = {"model": name, "minutes": minutes, "seed": seed, "split": split, "corpus": corpus,
                         "setting": setting, "seconds": seconds}  # fmt: skip
                texts = {(file.project, file.path): file.data for file in unseen}
                here = describe()
                git = here.get("git") or {}
                # Rows of several days stand in one file: each says by which code and where it was made.
                facts |= {"commit": str(git.get("commit") or "") + ("+" if git.get("changed") else ""),
                          "cpu": here["cpu"], "threads": here["threads"]}  # fmt: skip
                stored["runs"][key] = facts | _row(model, score, texts)
                stored["environment"] = here
                write_json(RESULTS, stored)
                write_text(RESULTS.with_suffix(".md"), page(stored))
    print(json.dumps({key: row["bits_per_byte"] for key, row in stored["runs"].items()}, indent=1))


def _build(name: str, train: Path, folder: Path, base: Path, minutes: float, seed: int) -> tuple[Any, float]:
    """(the model, its seconds from raw files to the last artefact)."""
    if name == "gpt+tables":
        return _joined(train, folder, base, minutes, seed)
    options: list[str] = []
    if name in ("gpt", "unrouted"):
        parameters = load(base / f"constructed-{seed}").parameters
        options = ["--cut", "root", "--parameters", str(parameters)]
        if name == "unrouted":
            options = [
                "--cut",
                "python",
                "--specialists",
                "0",
                "--hidden",
                str(_hidden_of(parameters, base / f"constructed-{seed}")),
            ]
    elif name == "plain":
        options = ["--cut", "plain"]
    elif name == "random":
        options = ["--router", str(_random_router(base / f"constructed-{seed}", train, folder.parent, seed))]
    _command(["build", str(train), "--out", str(folder), "--minutes", f"{minutes:g}", "--seed", str(seed), *options])
    return load(folder), float(read_json(folder / "ledger.json")["seconds"])


def _command(arguments: list[str]) -> None:
    subprocess.run(
        [sys.executable, "-m", "ontology.main", "cgpt", *arguments], check=True, stdout=subprocess.DEVNULL
    )  # fmt: skip


def _hidden_of(parameters: int, constructed: Path) -> int:
    """Width at which one net has about as many parameters as all the constructed model's together."""
    model = load(constructed)
    assert isinstance(model, ConstructedLM) and model.nets is not None
    nets = model.nets
    n_reads, d_in, hidden = nets.w1.shape
    fixed = nets.embeddings.size + nets.output.size + nets.bias.size
    # With one net the shared and its own answer projection are two of the same shape.
    each = n_reads * d_in + 1 + 2 * nets.w2_shared.shape[1] + nets.w_pointer.shape[1]
    return max(hidden, round((parameters - fixed) / each / 16) * 16)


def _random_router(constructed: Path, train: Path, folder: Path, seed: int) -> Path:
    model = load(constructed)
    states = []
    for file in read_corpus(str(train)).files[:STATE_FILES]:
        view: FileView = model.view(model.tokenizer.encode(file.data))
        states.append(view.fields[: view.n + 1].copy())
    router = Router.load(HERE / "router.py", lexer.FIELDS)
    path = folder / f"random-router-{seed}.py"
    write_text(path, random_router(router.concepts, lexer.FIELDS, np.concatenate(states), seed))
    return path


def _joined(train: Path, folder: Path, base: Path, minutes: float, seed: int) -> tuple[JoinedLM, float]:
    """Train on what is left of the budget after the tables, on the files that are not held out."""
    plain_folder = base / f"plain-{seed}"
    plain = load(plain_folder)
    assert isinstance(plain, ConstructedLM)
    (tokens,) = plain_folder.glob(".store/*/*/files/tokens.safetensors")
    done = folder / "done.json"
    if not done.exists():
        make_folder(folder)
        started = time.monotonic()
        tables = float(read_json(plain_folder / "ledger.json")["seconds"])
        corpus = TokenizedCorpus.load(tokens)
        keep = np.flatnonzero(~corpus.held_out)
        ids = np.concatenate([corpus.file(i) for i in keep.tolist()])
        offsets = np.concatenate([[0], np.cumsum(np.diff(corpus.offsets)[keep])])
        parameters = load(base / f"constructed-{seed}").parameters
        config = BaselineConfig.of_size(parameters, plain.tokenizer.vocab_size, seed=seed)
        trainer = BaselineTrainer(config, ids, offsets, threads=threads())
        # The plain model's seconds hold the fit of its mixer, which stands for the one made here.
        for _ in train_for(trainer, seconds=max(1.0, 60.0 * minutes - tables - (time.monotonic() - started))):
            pass
        baseline = trainer.model()
        baseline.save(folder / "transformer")
        seconds = tables + time.monotonic() - started
        write_json(folder / "mixer.json", fit_joined(tokens, plain, Transformer(baseline)).as_json())
        write_json(done, {"seconds": seconds})
    return load_joined(folder, base, seed), float(read_json(done)["seconds"])


def load_joined(folder: Path, base: Path, seed: int) -> JoinedLM:
    """The transformer with the tables of the plain model of the same seed, as it was built in `folder`."""
    plain = load(base / f"plain-{seed}")
    assert isinstance(plain, ConstructedLM)
    mixer = Mixer.from_json(read_json(folder / "mixer.json"))
    return JoinedLM(plain, Transformer(Baseline.load(folder / "transformer")), mixer)


def _row(model: Any, score: Score, texts: dict[tuple[str, str], bytes]) -> dict[str, Any]:
    order = sorted(range(len(score.files)), key=lambda i: (score.files[i].project, score.files[i].path))
    score = Score([score.files[i] for i in order], score.concepts, score.seconds)
    whole = np.array([whole_tokens(texts[file.project, file.path], file) for file in score.files])
    return {
        "parameters": model.parameters, "table_entries": model.table_entries,
        **bootstrap_ratio(score.bits, score.n_bytes).as_dict("bits_per_byte"),
        **bootstrap_ratio(score.n_correct, score.n_tokens).as_dict("accuracy"),
        "whole_token_accuracy": float(whole[:, 0].sum() / whole[:, 1].sum()),
        "specialists": len(model.nets.special_net) if isinstance(model, ConstructedLM) and model.nets else 0,
        "bytes_per_token": float(score.n_bytes.sum() / score.n_tokens.sum()), "score_seconds": score.seconds,
        "bits": [round(float(b), 2) for b in score.bits], "bytes": score.n_bytes.tolist(),
        "project": [file.project for file in score.files], "path": [file.path for file in score.files],
    }  # fmt: skip


def page(stored: dict[str, Any]) -> str:
    """The Markdown page of these runs."""
    runs, git, sections = stored["runs"], stored["environment"].get("git") or {}, []
    kinds = sorted({tuple(row[name] for name in ("split", "corpus", "minutes", "setting")) for row in runs.values()})
    for kind in kinds:
        rows = [
            row for row in runs.values() if tuple(row[n] for n in ("split", "corpus", "minutes", "setting")) == kind
        ]
        lines = [_line(row, rows) for row in sorted(rows, key=lambda row: (row["bits_per_byte"], row["seed"]))]
        split, corpus, minutes, setting = kind
        sections.append(
            f"## {minutes:g} minutes on {corpus}, judged on {split}, {setting}\n\n| model | seed | bits/byte "
            "| accuracy | whole tokens | constructed / it | parameters | seconds | scoring s |\n"
            "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n" + "\n".join(lines)
            + "\n\n" + _over_seeds(rows) + _by_project(rows)
        )  # fmt: skip
    return (
        "# Contenders at equal budgets\n\n"
        "`python -m eval.studies.contenders DATA --minutes M [--split test] [--sample] [--dynamic] [--whole]`:\n"
        "judged on projects that no model has seen, a fixed 2 MB of them where it does not say all files; 95 %\n"
        "intervals by bootstrap over files, ratios paired. What each model is stands at the head of\n"
        "`eval/studies/contenders.py`. Last run at commit "
        f"`{str(git.get('commit'))[:12]}`.\n\n" + "\n\n".join(sections) + "\n"
    )  # fmt: skip


def _line(row: dict[str, Any], rows: list[dict[str, Any]]) -> str:
    ours = next((r for r in rows if r["model"] == "constructed" and r["seed"] == row["seed"]), None)
    ratio = ""
    if ours is not None and row is not ours:
        paired = paired_ratio(np.array(ours["bits"]), np.array(row["bits"]), np.array(row["bytes"]))
        ratio = f"{paired.estimate:.3f} [{paired.low:.3f}, {paired.high:.3f}]"
    return (
        f"| {row['model']} | {row['seed']} | {row['bits_per_byte']:.4f} [{row['bits_per_byte_low']:.3f}, "
        f"{row['bits_per_byte_high']:.3f}] | {row['accuracy']:.1%} | {row['whole_token_accuracy']:.1%} | {ratio} "
        f"| {row['parameters']:,} | {row['seconds']:.0f} | {row['score_seconds']:.0f} |"
    )


def _over_seeds(rows: list[dict[str, Any]]) -> str:
    """Means of models with several training seeds, and constructed by each, the seeds as a random effect."""
    runs: dict[str, dict[int, dict[str, Any]]] = {}
    for row in rows:
        runs.setdefault(row["model"], {})[row["seed"]] = row
    bits = {name: np.array([own[seed]["bits"] for seed in sorted(own)]) for name, own in runs.items()}
    size, ours = np.array(rows[0]["bytes"]), bits.get("constructed")
    lines = []
    for name in sorted(bits, key=lambda name: bits[name].sum() / len(bits[name])):
        if len(bits[name]) < 2:
            continue
        figure, ratio = bootstrap_ratio(bits[name], size, seeds=True), ""
        if ours is not None and name != "constructed" and sorted(runs[name]) == sorted(runs["constructed"]):
            paired = paired_ratio(ours, bits[name], size, seeds=True)
            ratio = f"{paired.estimate:.3f} [{paired.low:.3f}, {paired.high:.3f}]"
        accuracy = np.mean([row["accuracy"] for row in runs[name].values()])
        lines.append(
            f"| {name} | {len(bits[name])} | {figure.estimate:.4f} [{figure.low:.3f}, {figure.high:.3f}] "
            f"| {accuracy:.1%} | {ratio} |"
        )
    if not lines:
        return ""
    head = (
        "| model, other seeds in the interval | seeds | bits/byte | accuracy | constructed / it |\n"
        "| --- | ---: | ---: | ---: | ---: |\n"
    )
    return head + "\n".join(lines) + "\n\n"


def _by_project(rows: list[dict[str, Any]]) -> str:
    """Bits per byte of each project, model by model, as means over seeds."""
    projects = sorted({name for row in rows for name in row["project"]})
    lines = ["| model | " + " | ".join(projects) + " |", "| --- |" + " ---: |" * len(projects)]
    of, size = np.array(rows[0]["project"]), np.array(rows[0]["bytes"])
    bits = {
        name: np.mean([row["bits"] for row in rows if row["model"] == name], 0)
        for name in {row["model"] for row in rows}
    }
    for name in sorted(bits, key=lambda name: bits[name].sum()):
        figures = [f"{bits[name][of == project].sum() / size[of == project].sum():.3f}" for project in projects]
        lines.append(f"| {name} | " + " | ".join(figures) + " |")
    return "\n".join(lines)


def main() -> None:
    """Command line."""
    threads_wait_briefly()
    keep_freed_memory()  # as the command that scores does
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--split", choices=("validation", "test"), default="validation")
    parser.add_argument("--only", nargs="*", default=[], choices=NAMES)
    parser.add_argument("--sample", action="store_true", help="Train on 40 MB in place of the whole corpus.")
    parser.add_argument("--dynamic", action="store_true", help="Score gpt and constructed in both settings.")
    parser.add_argument("--whole", action="store_true", help="Score all files of the split, not its fixed 2 MB.")
    parser.add_argument("--out", type=Path, default=Path("runs/contenders"))
    run(parser.parse_args())


if __name__ == "__main__":
    sys.exit(exit_code(main))
