"""How quick a model is to type with: `python -m eval.studies.latency MODEL CORPUS [--core 0] [--out OUT.json]`.

On one core and one thread, in processes of their own. Prompts are beginnings of files of CORPUS (unseen code) that end
anywhere: within a line, within a word. Prints JSON: each figure with its distribution, asked beside reached.

* `load_seconds`: from the folder to an open model after all imports; median of several processes, page cache warm.
* `next_token_ms`: from the bytes of the prompt to the distribution of the next token (tokenizer, lexer, reads and all).
* `step_ms`: one more token on a file that is already read, as while typing or generating.
* `line_ms`: from the bytes of the prompt to the end of the line, greedy; `valid_ms`: to the end of a valid statement.
* `tokens_per_second`: greedy generation, 256 tokens at a time.
* `score_tokens_per_second`: prompts scored whole.
* `peak_mib`: the most memory held, with torch and transformers imported as well.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from ontology.io import write_json
from ontology.main import exit_code

ASKED = {
    "load_seconds": ("median", "<=", 1.0), "next_token_ms": ("p95", "<=", 10.0), "line_ms": ("p95", "<=", 50.0),
    "tokens_per_second": ("value", ">=", 100.0), "peak_mib": ("value", "<=", 600.0),
}  # fmt: skip
MAX_PROMPT_BYTES = 20_000
SUSTAINED = 256


def _distribution(values: list[float]) -> dict[str, float]:
    import numpy as np

    found = np.percentile(values, [50, 95, 99])
    return {"n": len(values), "median": float(found[0]), "p95": float(found[1]), "p99": float(found[2]),
            "max": max(values)}  # fmt: skip


def _timed(action: Any, *arguments: Any, **options: Any) -> tuple[float, Any]:
    started = time.perf_counter()
    result = action(*arguments, **options)
    return time.perf_counter() - started, result


def measure_load(folder: Path) -> dict[str, float]:
    """In a fresh process: seconds to open the model, and to the first token after that."""
    import networkx  # noqa: F401 - imports are not what is measured
    import numba  # noqa: F401
    import numpy as np

    import cgpt.complete
    import cgpt.model
    import cgpt.valid  # noqa: F401

    load_seconds, model = _timed(cgpt.model.load, folder)
    first_seconds, _ = _timed(lambda: model.next_distribution(model.view(np.zeros(0, np.uint16))))
    return {"load_seconds": load_seconds, "first_token_seconds": first_seconds}


def draw_prompts(corpus: str, n_prompts: int, seed: int) -> list[str]:
    """Beginnings of files, at most MAX_PROMPT_BYTES long, that end anywhere."""
    import numpy as np

    from cgpt.corpus import read_corpus

    random = np.random.default_rng(seed)
    files = [file.data for file in read_corpus(corpus).files if len(file.data) > 400]
    chosen = [files[int(random.integers(len(files)))] for _ in range(n_prompts)]
    cut = [data[: int(random.integers(200, min(len(data), MAX_PROMPT_BYTES)))] for data in chosen]
    return [data.decode("utf-8", "ignore") for data in cut]


def measure_typing(folder: Path, prompts_file: Path) -> dict[str, Any]:
    """In one process: everything that is asked again and again while somebody types."""
    import numpy as np
    import torch
    import transformers  # noqa: F401 - peak memory is with everything imported

    from cgpt.complete import complete
    from cgpt.model import load
    from ontology.environment import peak_rss_bytes

    torch.set_num_threads(1)
    before = peak_rss_bytes()
    model = load(folder)
    prompts = [text.encode("utf-8") for text in json.loads(prompts_file.read_text(encoding="utf-8"))]
    n_prompts = len(prompts)

    def next_token(prompt: bytes) -> Any:
        view = model.view(model.tokenizer.encode(prompt))
        return view, model.next_distribution(view)

    def step(view: Any, token: int) -> None:
        view.extend(np.array([token], dtype=np.uint16))
        model.next_distribution(view)

    for prompt in prompts[:3]:  # what is compiled or read from disk on first use is no latency
        complete(model, prompt, 8, line=True)
        complete(model, prompt, 8, valid=True)
        step(*[next_token(prompt)[0], 1])
    times: dict[str, list[float]] = {name: [] for name in ("next_token_ms", "step_ms", "line_ms", "valid_ms")}
    for prompt in prompts:
        seconds, (view, p) = _timed(next_token, prompt)
        times["next_token_ms"].append(1000 * seconds)
        for _ in range(4):
            seconds, _ = _timed(step, view, int(p.argmax()) or 1)
            times["step_ms"].append(1000 * seconds)
        times["line_ms"].append(1000 * _timed(complete, model, prompt, 64, line=True)[0])
        times["valid_ms"].append(1000 * _timed(complete, model, prompt, 64, valid=True)[0])
    generated = [_timed(complete, model, prompt, SUSTAINED) for prompt in prompts[: max(2, n_prompts // 20)]]
    scored = [_timed(model.score_file, prompt) for prompt in prompts[:40]]
    return {
        **{name: _distribution(values) for name, values in times.items()},
        "tokens_per_second": {"value": sum(len(m.steps) for _, m in generated) / sum(s for s, _ in generated)},
        "score_tokens_per_second": {"value": sum(len(f.bits) for _, f in scored) / sum(s for s, _ in scored)},
        "peak_mib": {"value": peak_rss_bytes() / 2**20, "imports_alone": before / 2**20},
        "prompt_bytes": _distribution([float(len(prompt)) for prompt in prompts]),
    }  # fmt: skip


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Start the processes one after the other, gather, compare with what is asked."""
    from ontology.environment import describe

    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
    environment = os.environ | dict.fromkeys(names, "1") | {"HF_HUB_OFFLINE": "1"}

    def child(what: str, source: str) -> dict[str, Any]:
        command = [sys.executable, "-m", "eval.studies.latency", str(options.model), source, "--only", what]
        command += ["--core", str(options.core)]
        done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE)
        return json.loads(done.stdout)

    child("load", "")  # warms the page cache and numba's cache
    loads = [child("load", "") for _ in range(options.processes)]
    result: dict[str, Any] = {
        name: _distribution([row[name] for row in loads]) for name in ("load_seconds", "first_token_seconds")
    }
    # Drawn here and handed over as a file, so that readers of corpora are not part of the other process' memory.
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "prompts.json"
        path.write_text(json.dumps(draw_prompts(options.corpus, options.prompts, options.seed)), encoding="utf-8")
        result |= child("typing", str(path))
    asked = {}
    for name, (figure, relation, limit) in ASKED.items():
        value = result[name][figure]
        asked[name] = {
            "figure": figure, "asked": f"{relation} {limit:g}", "reached": value,
            "holds": value <= limit if relation == "<=" else value >= limit,
        }  # fmt: skip
    return {"environment": describe(), "core": options.core, "asked": asked, **result}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("corpus", help="unseen files: a folder, a Parquet file, stdlib:held-out")
    parser.add_argument("--core", type=int, default=0, help="the processor to stay on; -1: any")
    parser.add_argument("--prompts", type=int, default=200)
    parser.add_argument("--processes", type=int, default=5, help="how often loading is measured")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--only", choices=("load", "typing"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.core >= 0 and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {options.core})
    if options.only == "load":
        result = measure_load(options.model)
    elif options.only == "typing":
        result = measure_typing(options.model, Path(options.corpus))
    else:
        result = run(options)
        if options.out is not None:
            write_json(options.out, result)
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    sys.exit(exit_code(main))
