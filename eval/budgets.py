"""What a model cost, read from what its build measured: seconds, memory, data, parameters, counted FLOPs.

Nothing here is declared by whoever reports a figure; what was not measured is None, and a comparison says so.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from eval import flops
from ontology.io import read_json


@dataclass(frozen=True)
class Budget:
    """A model's cost.

    Attributes:
        seconds: wall clock from raw files to the last artefact; work taken over counts with its original seconds.
        jobs: seconds by job.
        peak_rss_bytes: most memory the building process held.
        parameters: trained numbers in nets.
        table_entries: counts and stored positions.
        data_hash, data_bytes, data_files: the corpus it was built from.
        train_rows: positions or photographs that training saw, as often as it saw them, all jobs together.
        train_flops: of the matrix products of training, forward and backward (see `eval.flops`).
        forward_flops_per_token: of one prediction, averaged over positions.
        cpu, threads: the machine it was built on.
        commit: of the code that built it; "+" where files were changed.
        cut, seed: of the recipe.
    """

    seconds: float | None = None
    jobs: Mapping[str, float] | None = None
    peak_rss_bytes: int | None = None
    parameters: int | None = None
    table_entries: int | None = None
    data_hash: str | None = None
    data_bytes: int | None = None
    data_files: int | None = None
    train_rows: float | None = None
    train_flops: float | None = None
    forward_flops_per_token: float | None = None
    cpu: str | None = None
    threads: int | None = None
    commit: str | None = None
    cut: str | None = None
    seed: int | None = None

    def as_json(self) -> dict[str, Any]:
        """All fields."""
        return asdict(self)

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> Budget:
        """What `as_json` gave; keys of other versions are passed over."""
        known = {field.name for field in fields(Budget)}
        return Budget(**{key: item for key, item in value.items() if key in known})


def measured_budget(folder: Path, parameters: int, table_entries: int) -> Budget:
    """Read a model folder's ledger, environment, configuration and training log.

    Raises:
        ConstructibleError: one of them is broken.
    """
    ledger, environment, config = (_json(folder / name) for name in ("ledger.json", "environment.json", "config.json"))
    corpus = config.get("corpus") or config.get("photographs") or {}
    git = environment.get("git") or {}
    commit = git.get("commit")
    forward = flops.forward_per_token(folder)
    rows = trained_rows(folder)
    return Budget(
        seconds=ledger.get("seconds"),
        jobs={name: job["seconds"] for name, job in ledger["jobs"].items()} if "jobs" in ledger else None,
        peak_rss_bytes=environment.get("peak_rss_bytes"),
        parameters=parameters,
        table_entries=table_entries,
        data_hash=corpus.get("hash"),
        data_bytes=corpus.get("bytes"),
        data_files=corpus.get("files", corpus.get("used")),
        train_rows=rows,
        train_flops=None if forward is None or rows is None else 3.0 * forward * rows,
        forward_flops_per_token=forward,
        cpu=environment.get("cpu"),
        threads=environment.get("threads"),
        commit=None if commit is None else commit + ("+" if git.get("changed") else ""),
        cut=config.get("cut"),
        seed=config.get("seed"),
    )


def trained_rows(folder: Path) -> float | None:
    """Examples that training saw, all jobs together: from the last line of each job in `metrics.jsonl`; 0 where nothing
    was trained, None where there is no log. Jobs of an earlier plan in the same folder do not count."""
    path = folder / "metrics.jsonl"
    if not path.is_file():
        return 0.0 if (folder / "index.safetensors").is_file() and not (folder / "nets.safetensors").is_file() else None
    last: dict[str, dict[str, Any]] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            continue  # a killed process may leave a last line unfinished
        if {"job", "seconds", "rows_per_second"} <= row.keys():
            last[row["job"]] = row
    jobs = _json(folder / "fit.json").get("jobs") or {}
    names = {*jobs, *(job["group"] for job in jobs.values() if "group" in job)}
    # Jobs of a group log as "nodes (37 jobs)".
    mine = [row for name, row in last.items() if not names or {name, name.partition(" (")[0]} & names]
    # Logs of before had no `rows`; the product is wrong where a build was stopped and went on at another speed.
    return float(sum(row.get("rows", row["rows_per_second"] * row["seconds"]) for row in mine))


def _json(path: Path) -> dict[str, Any]:
    found = read_json(path) if path.is_file() else {}
    return found if isinstance(found, dict) else {}
