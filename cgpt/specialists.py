"""Specialists: a concept split by what stands in one of its reads, where the data say that the split pays.

A specialist is the smallest module there is: which reads count for it, and two biases, on top of its concept's net
(`cgpt.nets`). It acts where one read of the concept, always the same, has one value: attributes after `np.`, arguments
of `print`, members of one class. Which read splits a concept is found by counting: the one whose values tell most about
the tokens that follow, on positions that were not counted. Reads that a person can name are asked: not the plain tokens
before, nor what followed the same tokens in this file or the names in scope. After training, specialists that did not
earn bits on held-out files are taken out again. What the others earn is reported on those same files, so it flatters
them; docs/experiments/specialists_curve.md judges whole models on files that nothing was chosen by.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cgpt.reads import READS, Alphabet
from ontology.io import write_json

if TYPE_CHECKING:
    from cgpt.nets import Examples, Nets

MIN_ROWS = 100
"""A value gets a specialist where at least this many training positions have it."""
MAX_SPECIALISTS = 6000
_COUNTED, _ASKED = 60_000, 30_000
"""Positions of a concept that are counted, and others that the counts are judged on."""
_PARENT = 20.0
"""Positions that the concept's own distribution stands for in a value's counts."""
SPLITTERS = tuple(
    column for column, name in enumerate(READS) if not name.startswith(("previous_", "file_", "names_"))
) + (READS.index("previous_line_first"), READS.index("previous_line_second"), READS.index("previous_argument"))
"""Columns of the reads that may split a concept."""


@dataclass(frozen=True)
class Split:
    """`column` int32[M]: the read that net m is split by, or -1; specialists in ascending order of (`net`, `value`),
    int32[S] both, with `rows` int64[S] training positions."""

    column: np.ndarray
    net: np.ndarray
    value: np.ndarray
    rows: np.ndarray

    @staticmethod
    def none(n_nets: int) -> Split:
        """No concept is split."""
        return Split(np.full(n_nets, -1, np.int32), *(np.zeros(0, t) for t in (np.int32, np.int32, np.int64)))

    def at(self, net: np.ndarray, reads: np.ndarray) -> np.ndarray:
        """int64[rows]: the specialist in charge where nets int[rows] read `reads` uint16[rows, R]; -1: none."""
        column = self.column[net]
        value = reads[np.arange(len(reads)), np.maximum(column, 0)]
        return find(self.net, self.value, net, np.where(column >= 0, value, -1))


def find(nets: np.ndarray, values: np.ndarray, net: np.ndarray, value: np.ndarray) -> np.ndarray:
    """int64[rows]: place of (net, value) among specialists sorted by both, or -1."""
    if not len(nets):
        return np.full(len(net), -1, dtype=np.int64)
    keys, asked = _key(nets, values), _key(net, value)
    place = np.minimum(np.searchsorted(keys, asked), len(keys) - 1)
    return np.where(keys[place] == asked, place, -1)


def _key(net: np.ndarray, value: np.ndarray) -> np.ndarray:
    return net.astype(np.int64) * (1 << 20) + value + 1


def grow(
    examples: Examples, declared: np.ndarray, vocab_size: int, min_rows: int = MIN_ROWS, most: int = MAX_SPECIALISTS
) -> Split:
    """Choose each net's read and its values from the training positions.

    Args:
        examples: reads, nets in charge and targets.
        declared: bool[M, R]; a net is split by one of its own reads.
        vocab_size: tokens.
        min_rows: fewer positions than this make no specialist.
        most: the values with most positions are kept.
    """
    split = np.full(len(declared), -1, dtype=np.int32)
    found: list[tuple[int, int, int]] = []
    order = np.argsort(examples.module, kind="stable")
    borders = np.searchsorted(examples.module[order], np.arange(len(declared) + 1))
    for m in range(len(declared)):
        rows = order[borders[m] : borders[m + 1]]
        if len(rows) < 4 * min_rows:
            continue
        counted, asked = rows[0::2][:_COUNTED], rows[1::2][:_ASKED]
        columns = [column for column in SPLITTERS if declared[m, column]]
        gains = [_gain(examples, counted, asked, column, vocab_size, min_rows * len(counted) / len(rows))
                 for column in columns]  # fmt: skip
        if not gains or max(gains) <= 0.0:
            continue
        split[m] = columns[int(np.argmax(gains))]
        values, n = np.unique(examples.reads[rows, split[m]], return_counts=True)
        found += [(m, int(v), int(k)) for v, k in zip(values, n, strict=True) if k >= min_rows]
    found = sorted(sorted(found, key=lambda one: -one[2])[:most])
    net, value, n = np.array(found, dtype=np.int64).reshape(-1, 3).T
    return Split(split, net.astype(np.int32), value.astype(np.int32), n)


def _gain(
    examples: Examples, counted: np.ndarray, asked: np.ndarray, column: int, vocab_size: int, least: float
) -> float:
    """Bits that a table for each frequent value of one read saves at `asked`, counted at `counted`."""
    targets, values = examples.targets, examples.reads[counted, column]
    whole = np.bincount(targets[counted], minlength=vocab_size) + 0.1
    base = whole / whole.sum()
    other = examples.reads[asked, column]
    saved = 0.0
    present, n = np.unique(values, return_counts=True)
    for value in present[n >= least].tolist():
        own, new = targets[counted[values == value]], targets[asked[other == value]]
        p = (np.bincount(own, minlength=vocab_size)[new] + _PARENT * base[new]) / (len(own) + _PARENT)
        saved += float(np.log2(p / base[new]).sum())
    return saved


@dataclass(frozen=True)
class Earned:
    """What each specialist did on held-out positions: `tokens` int64[S], `bits` float64[S] fewer than without it."""

    tokens: np.ndarray
    bits: np.ndarray


def earnings(nets: Nets, module: np.ndarray, reads: np.ndarray, targets: np.ndarray) -> Earned:
    """Bits that every specialist earns over its concept's net alone; `module` int[m] is the net in charge, -1: none."""
    size = len(nets.special_net)
    special = find(nets.special_net, nets.special_value, module, nets.split_values(module, reads))
    alone = replace(nets, special_net=nets.special_net[:0], special_value=nets.special_value[:0])
    gain = np.zeros(len(targets))
    for m in np.unique(module[special >= 0]).tolist():
        rows = np.flatnonzero((module == m) & (special >= 0))
        for some in np.array_split(rows, 1 + len(rows) // 512):
            gain[some] = alone.bits(m, reads[some], targets[some]) - nets.bits(m, reads[some], targets[some])
    there = special >= 0
    return Earned(
        np.bincount(special[there], minlength=size), np.bincount(special[there], gain[there], minlength=size)
    )  # fmt: skip


def prune(nets: Nets, split: Split, earned: Earned) -> tuple[Nets, Split, Earned]:
    """Without the specialists that did not earn anything."""
    keep = earned.bits > 0.0
    parts = ("special_net", "special_value", "special_gate", "special_b1", "special_b2")
    kept = replace(nets, **{name: getattr(nets, name)[keep] for name in parts})
    return (
        kept, replace(split, net=split.net[keep], value=split.value[keep], rows=split.rows[keep]),
        Earned(earned.tokens[keep], earned.bits[keep]),
    )  # fmt: skip


def write_report(
    path: str | Path, names: Sequence[str], split: Split, earned: Earned, tried: int, held_out: int, alphabet: Alphabet
) -> None:
    """Write `specialists.json`: every specialist in words and what it earned on `held_out` positions."""

    def text(value: int) -> str:
        if value >= alphabet.n_tokens:
            return "nothing" if value == alphabet.n_tokens else str(value - alphabet.n_tokens - 1)
        return alphabet.token_bytes[value].decode("utf-8", "replace") or "<start>"

    rows: list[dict[str, Any]] = [
        {
            "concept": names[m], "read": READS[split.column[m]], "value": text(int(v)), "training_positions": int(n),
            "held_out_positions": int(tokens), "bits_earned": round(float(bits), 4),
        }
        for m, v, n, tokens, bits in zip(split.net, split.value, split.rows, earned.tokens, earned.bits, strict=True)
    ]  # fmt: skip
    rows.sort(key=lambda row: -row["bits_earned"])
    write_json(
        path,
        {"tried": tried, "kept": len(rows), "held_out_positions": held_out,
         "bits_earned": round(float(earned.bits.sum()), 2), "specialists": rows},
    )  # fmt: skip
