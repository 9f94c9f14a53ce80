"""The dynamic setting: a model learns from the files it is scored on as it goes, each file scored before it is learned.

A constructed model adds each file's tokens to the caches of its project and its directory (`cgpt.caches`); its nets and
corpus tables stay as they are, so what it learned can be listed and taken away again. A monolith takes a step of
gradient descent on each file (dynamic evaluation; Krause, Kahembwe, Murray and Renals 2018). Every project starts from
the model as it was built.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np

from cgpt import counts
from cgpt.caches import CACHE_LEVELS, N_CACHE_LEVELS, SCOPES, Cache, CacheArrays, CacheTables, cache_targets, no_cache
from cgpt.descent import Descent
from cgpt.mixer import N_CONFIDENCE
from ontology.errors import ConstructibleError
from ontology.io import read_json, write_json

if TYPE_CHECKING:
    from cgpt.corpus import SourceFile
    from cgpt.model import ConstructedLM, MonolithLM
    from cgpt.score import FileScore

SETTINGS = ("static", "dynamic")
_ROUNDS, _BATCH, _RATE, _PULL = 4, 1024, 2e-2, 1e-5
_STEPS = 200
MONOLITH_RATE = 0.3
"""Step size of the monolith's plain gradient descent, by the norm-clipped gradient of a window; chosen on validation
projects."""


class Scopes:
    """The caches of all projects and directories met so far."""

    def __init__(self) -> None:
        self._caches: dict[tuple[str, ...], Cache] = {}

    @staticmethod
    def _keys(path: str, project: str) -> tuple[tuple[str, ...], ...]:
        return (project,), (project, str(PurePosixPath(path).parent))

    def of(self, path: str, project: str) -> tuple[CacheArrays, ...]:
        """The caches for a file, in the order of `SCOPES`."""
        found = [self._caches.get(key) for key in self._keys(path, project)]
        return tuple(cache.arrays() if cache else no_cache() for cache in found)

    def add(self, path: str, project: str, ids: np.ndarray) -> None:
        """Learn a file's tokens uint16[n]."""
        for key in self._keys(path, project):
            self._caches.setdefault(key, Cache()).add(ids)


@dataclass(frozen=True)
class CachePositions:
    """Held-out positions: `concept`, `confidence` int64[m], `static` float64[m] probability of the target in the static
    setting, `buckets` uint8[m, N_CACHE_LEVELS], `shares` float32[m, N_CACHE_LEVELS] of the target."""

    concept: np.ndarray
    confidence: np.ndarray
    static: np.ndarray
    buckets: np.ndarray
    shares: np.ndarray


def said_by_caches(
    scopes: Scopes, file: tuple[str, str], history: np.ndarray, n: int, n_tokens: int
) -> tuple[np.ndarray, np.ndarray]:
    """(buckets, shares) of a file's n + 1 targets by the caches of `file` (path, project), which then learn it."""
    buckets = np.zeros((n + 1, N_CACHE_LEVELS), np.uint8)
    shares = np.zeros((n + 1, N_CACHE_LEVELS), np.float32)
    cache_targets(history, 1, n + 2, scopes.of(*file), n_tokens, buckets, shares)
    scopes.add(*file, history[1 : n + 1])
    return buckets, shares


def no_opinion(n_concepts: int) -> CacheTables:
    """The first guess: longer contexts are trusted more."""
    start = np.tile(np.linspace(-2.0, 1.0, counts.N_FILE_LEVELS), len(SCOPES))
    return CacheTables(
        np.repeat(start[:, None], counts.N_BUCKETS, 1), np.zeros((n_concepts, N_CACHE_LEVELS)),
        np.zeros((N_CONFIDENCE, N_CACHE_LEVELS)),
    )  # fmt: skip


def fit_tables(seen: CachePositions, n_concepts: int, seed: int = 0) -> tuple[CacheTables, dict[str, float]]:
    """The factors that make the targets most probable, the static distribution as it is; and bits per held-out token.

    Adam on batches, one thread: the same positions give the same numbers.
    """
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    first = [torch.from_numpy(table).float() for table in no_opinion(n_concepts)]
    tables = [table.clone().requires_grad_() for table in first]
    level, by_concept, by_confidence = tables
    absent = torch.from_numpy(seen.buckets == counts.ABSENT)
    place = np.where(seen.buckets == counts.ABSENT, 0, seen.buckets).astype(np.int64)
    cells = torch.from_numpy(place + np.arange(N_CACHE_LEVELS) * counts.N_BUCKETS)
    concept, confidence = torch.from_numpy(seen.concept.astype(np.int64)), torch.from_numpy(seen.confidence)
    static, shares = torch.from_numpy(seen.static).float(), torch.from_numpy(seen.shares)

    def mixed(i: torch.Tensor) -> torch.Tensor:
        logits = level.reshape(-1)[cells[i]] + by_concept[concept[i]] + by_confidence[confidence[i]]
        logits = torch.nn.functional.pad(logits.masked_fill(absent[i], -torch.inf), (1, 0))
        weights = logits.softmax(1)
        return weights[:, 0] * static[i] + (weights[:, 1:] * shares[i]).sum(1)

    try:
        descent = Descent(tables)
        generator = torch.Generator().manual_seed(seed)
        # Where no cache has anything to say there is nothing to learn.
        rows = torch.from_numpy(np.flatnonzero((seen.buckets != counts.ABSENT).any(1)))
        steps = max(_STEPS, _ROUNDS * len(rows) // _BATCH) if len(rows) else 0
        for done in range(steps):
            i = rows[torch.randint(len(rows), (_BATCH,), generator=generator)]
            loss = -torch.log(mixed(i)).mean()
            loss = loss + _PULL * sum((t - f).square().sum() for t, f in zip(tables, first, strict=True))
            descent.step(loss, _RATE * min(1.0, (1.0 - done / steps) / 0.7))
        with torch.no_grad():
            after = torch.cat([mixed(i) for i in torch.arange(len(static)).split(1 << 14)])
    finally:
        torch.set_num_threads(threads)
    bits = {"static": float(-np.log2(seen.static).mean()), "dynamic": float(-torch.log2(after).mean())}
    return CacheTables(*(table.detach().double().numpy() for table in tables)), bits


def save_tables(path: str | Path, tables: CacheTables, bits: dict[str, float]) -> None:
    """Write `dynamic.json`."""
    named = {name: getattr(tables, name).tolist() for name in CacheTables._fields}
    write_json(path, {"levels": list(CACHE_LEVELS), **named, "held_out_bits": bits})


def load_tables(path: str | Path, n_concepts: int) -> CacheTables:
    """Read what `save_tables` wrote; raises ConstructibleError for anything else."""
    shapes = ((N_CACHE_LEVELS, counts.N_BUCKETS), (n_concepts, N_CACHE_LEVELS), (N_CONFIDENCE, N_CACHE_LEVELS))
    try:
        value = read_json(path)
        tables = CacheTables(*(np.array(value[name], dtype=np.float64) for name in CacheTables._fields))
        # Compiled code does not look where a table ends.
        if tuple(value["levels"]) != CACHE_LEVELS or tuple(table.shape for table in tables) != shapes:
            raise ValueError("tables of other caches")
    except (KeyError, TypeError, ValueError) as error:
        raise ConstructibleError(
            f"not the factors of caches ({error!r}).", fix="build the model again", file=path
        ) from error
    return tables


class DynamicLM:
    """A constructed model whose caches learn each file after it was scored."""

    def __init__(self, model: ConstructedLM) -> None:
        self.model, self.config = model, model.config
        self.concepts, self.tokenizer = model.concepts, model.tokenizer
        self.tables = load_tables(model.folder / "dynamic.json", len(model.concepts))
        self.scopes = Scopes()

    def score_file(self, data: bytes, path: str = "", project: str = "") -> FileScore:
        """Score one file as `ConstructedLM.score_file` does, then learn it."""
        score = self.model.score_file(data, path, project, (self.scopes.of(path, project), self.tables))
        self.scopes.add(path, project, self.tokenizer.encode(data))
        return score


class DynamicMonolith:
    """A monolith that takes a step of gradient descent on each file after it was scored."""

    def __init__(self, model: MonolithLM, rate: float = MONOLITH_RATE) -> None:
        self.model, self.config = model, model.config
        self.concepts, self.tokenizer = model.concepts, model.tokenizer
        self.rate = rate
        self._start = {name: p.detach().clone() for name, p in model.baseline.network.named_parameters()}
        self._project: str | None = None

    def score_file(self, data: bytes, path: str = "", project: str = "") -> FileScore:
        """Score one file as `MonolithLM.score_file` does, then learn it."""
        import torch

        if project != self._project:
            with torch.no_grad():
                for name, parameter in self.model.baseline.network.named_parameters():
                    parameter.copy_(self._start[name])
            self._project = project
        score = self.model.score_file(data, path, project)
        self.model.baseline.learn(self.tokenizer.encode(data), self.rate)
        return score


def dynamic(model: Any, rate: float = MONOLITH_RATE) -> DynamicLM | DynamicMonolith:
    """The model in the dynamic setting."""
    from cgpt.model import MonolithLM

    return DynamicMonolith(model, rate) if isinstance(model, MonolithLM) else DynamicLM(model)


def in_order(files: Iterable[SourceFile]) -> list[SourceFile]:
    """Files as the dynamic setting reads them: project by project, by path."""
    return sorted(files, key=lambda file: (file.project, file.path))
