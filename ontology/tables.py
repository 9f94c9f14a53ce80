"""The shipped table module: counts of answers given one tuple of discrete reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from jaxtyping import Float64, Int64

from ontology.errors import ConstructibleError
from ontology.modules import Arrays, HandedReads, Module


class CountTable(Module):
    """P(answer | reads) from counts, with additive smoothing towards the answers' overall shares.

    P(a | r) = (count(r, a) + strength * share(a)) / (count(r) + strength), where share(a) = (count(a) + 1) /
    (rows + answers). A tuple of reads that was never counted gets share(a).

    Args:
        sizes: for each read the number of its values; codes are 0 .. size - 1.
        n_answers: number of answers.
        strength: how many imagined examples pull towards the overall shares; above 0.
    """

    kind = "table"
    registered = "count-table"

    def __init__(
        self, name: str, reads: Sequence[str], sizes: Mapping[str, int], n_answers: int, strength: float = 1.0
    ) -> None:
        super().__init__(name, reads)
        self.sizes = {read: int(sizes[read]) for read in self.reads}
        self.n_answers, self.strength = int(n_answers), float(strength)
        if not self.strength > 0 or self.n_answers < 1 or min(self.sizes.values(), default=1) < 1:
            raise ConstructibleError(
                f"the table {name!r} has an empty alphabet or no smoothing.", fix="use sizes above 0"
            )
        if int(np.prod([float(size) for size in self.sizes.values()])) >= 2**63:
            raise ConstructibleError(
                f"the table {name!r} has more tuples than 63 bits can name.", fix="declare fewer reads"
            )
        self._keys = np.empty(0, np.int64)  # sorted tuples that were seen
        self._counts = np.zeros((0, self.n_answers), np.int64)

    @property
    def entries(self) -> int:
        return int(np.count_nonzero(self._counts))

    def _fit(self, reads: HandedReads, targets: npt.NDArray[Any]) -> None:
        answers = np.asarray(targets)
        if len(answers) and not 0 <= int(answers.min()) <= int(answers.max()) < self.n_answers:
            raise ConstructibleError(
                f"an answer of {self.name!r} is outside of 0..{self.n_answers - 1}.", fix="check the track"
            )
        self._keys, inverse = np.unique(self._pack(reads), return_inverse=True)
        flat = np.bincount(inverse.reshape(-1) * self.n_answers + answers, minlength=len(self._keys) * self.n_answers)
        self._counts = flat.reshape(len(self._keys), self.n_answers).astype(np.int64)

    def _predict(self, reads: HandedReads) -> Float64[np.ndarray, "rows answers"]:
        counts, share = self._look_up(reads)
        return np.log((counts + self.strength * share) / (counts.sum(1, keepdims=True) + self.strength))

    def _explain(self, reads: HandedReads) -> list[list[dict[str, Any]]]:
        counts, _ = self._look_up(reads)
        told: list[list[dict[str, Any]]] = []
        for i, row in enumerate(counts):
            given = ", ".join(f"{read} = {int(reads[read][i])}" for read in self.reads) or "nothing"
            best = [a for a in np.argsort(-row, kind="stable")[:3] if row[a] > 0]
            items = [
                {"kind": "count", "text": f"answer {a} counted {int(row[a])} of {int(row.sum())} times given {given}",
                 "value": float(row[a])} for a in best
            ]  # fmt: skip
            told.append(items or [{"kind": "count", "text": f"never counted: {given}", "value": 0.0}])
        return told

    def _look_up(self, reads: HandedReads) -> tuple[Int64[np.ndarray, "rows answers"], Float64[np.ndarray, " answers"]]:
        totals = self._counts.sum(0)
        share = (totals + 1.0) / (totals.sum() + self.n_answers)
        keys = self._pack(reads)
        counts = np.zeros((len(keys), self.n_answers), np.int64)
        if len(self._keys):
            place = np.minimum(np.searchsorted(self._keys, keys), len(self._keys) - 1)
            known = self._keys[place] == keys
            counts[known] = self._counts[place[known]]
        return counts, share

    def _pack(self, reads: HandedReads) -> Int64[np.ndarray, " rows"]:
        packed = np.zeros(reads.rows, np.int64)
        for read, size in self.sizes.items():
            codes = reads[read]
            if codes.ndim != 1 or codes.dtype.kind not in "iub":
                raise ConstructibleError(
                    f"the table {self.name!r} needs integer codes [rows] in {read!r}.", fix="use a net"
                )
            if len(codes) and not 0 <= int(codes.min()) <= int(codes.max()) < size:
                raise ConstructibleError(
                    f"the read {read!r} has a code outside of 0..{size - 1}.", fix="check the track"
                )
            packed = packed * size + codes
        return packed

    def settings(self) -> dict[str, Any]:
        return {"sizes": self.sizes, "n_answers": self.n_answers, "strength": self.strength}

    def _tensors(self) -> dict[str, npt.NDArray[Any]]:
        return {"keys": self._keys, "counts": self._counts}

    @classmethod
    def _restore(cls, name: str, reads: Sequence[str], settings: dict[str, Any], tensors: Arrays) -> CountTable:
        table = cls(name, reads, settings["sizes"], settings["n_answers"], settings["strength"])
        table._keys, table._counts = tensors["keys"], tensors["counts"]
        return table
