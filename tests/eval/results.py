"""Results files as `eval run` writes them, made up: for tests of what reads them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from eval.records import FORMAT, read_results, write_rows
from eval.runner import result_path, summary
from eval.tasks.base import Task
from eval.tasks.language import BITS

BUDGET = {
    "seconds": 180.0, "peak_rss_bytes": 8e8, "parameters": 1_500_000, "table_entries": 10, "data_hash": "d" * 64,
    "data_bytes": 8_000_000, "data_files": 500, "train_rows": 3e5, "train_flops": 1e12, "forward_flops_per_token": 2e6,
    "cpu": "a CPU", "threads": 2, "commit": "c" * 40, "cut": "leaves", "seed": 0,
}  # fmt: skip


def bits_rows(scale: float = 1.2, n: int = 40, noise_seed: int = 0, noise: float = 0.03) -> list[dict[str, Any]]:
    """Rows of the task `bits`: files of log-normal sizes with two situations each."""
    rng, own = np.random.default_rng(1), np.random.default_rng(noise_seed)
    sizes = np.round(rng.lognormal(8.5, 0.8, n))
    bits = sizes * scale * np.exp(rng.normal(0, 0.2, n)) * np.exp(own.normal(0, noise, n))
    rows = []
    for i in range(n):
        fixed = {"example": f"p{i % 5}/f{i}.py", "cluster": f"p{i % 5}", "sha256": f"{i:064d}", "detail": ""}
        tokens, values = round(sizes[i] / 3), {"bytes_said": sizes[i], "opaque": 10.0 * sizes[i]}
        for part, share in (("", 1.0), ("argument", 0.25), ("comment", 0.75)):
            values |= {"bits": bits[i] * share, "bytes": sizes[i] * share, "tokens": tokens * share}
            values |= {"correct": round(tokens * share * 0.5), "whole_correct": tokens // 2, "whole_tokens": tokens}
            rows.append({**fixed, "part": part, **values})
    return rows


def make_results(
    out: Path, name: str, rows: Sequence[Mapping[str, Any]] | None = None, *, task: Task = BITS,
    budget: Mapping[str, Any] | None = None, seed: int | None = None, **header: Any,
) -> Path:  # fmt: skip
    """Write OUT/NAME/TASK.parquet; `budget` and further keywords replace parts of the header."""
    rows = bits_rows() if rows is None else rows
    path = result_path(out, name, seed, task.name)
    whole = [row for row in rows if row["part"] == ""]
    made = {
        "format": FORMAT, "key": name, "task": task.name, "task_version": task.version, "question": task.question,
        "metrics": [asdict(metric) for metric in task.metrics], "options": {"data": "some files", "limit": None},
        "model": {"name": name, "kind": "", "seed": seed, "fingerprint": f"{name} {seed}"},
        "budget": {**BUDGET, "seed": seed or 0, **(budget or {})}, "examples": len(whole), "examples_hash": "e" * 64,
        "leaked": [], "copied": {}, "code": "the same", "command": "constructible eval run ...",
        "environment": {"cpu": "a CPU", "threads": 2, "python": "3.11.7", "git": {"commit": "c" * 40}},
        "created": "2026-11-21T12:00:00+00:00", "measured_seconds": 1.0, "measured_examples": len(whole),
    } | header  # fmt: skip
    write_rows(path, rows, task, made)
    write_rows(path, rows, task, made | summary(read_results(path)))
    return path
