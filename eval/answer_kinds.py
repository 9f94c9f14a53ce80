"""Situations split by answer kind: P(token) = P(kind | reads) * P(token | kind, reads), every factor a net of its own.

A cut below the situations, for the decomposition curve. Each situation has one net for the kind of the answer (name,
operator, closing bracket ...) and one for each kind that it meets often; a kind that a situation meets seldom is
answered by a net for that kind in all situations. A kind with a single token needs no net.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

import kernels
from cgpt.nets import Examples, Nets, NetShape, NetTrainer, declared_reads
from cgpt.reads import READS
from cgpt.tokenizer import KINDS
from ontology.io import load_tensors, save_tensors

OFTEN = 1000
"""Training positions from which on a kind has a net of its own in a situation."""


@dataclass(frozen=True)
class Split:
    """Which net answers what.

    `order` int64[V] tokens, kind by kind; `bounds` int64[K + 1] slices of it; `net_of` int64[situations, K] the net of
    each kind (-1: a single token, no net); nets 0 to situations - 1 tell the kind. `names` and `reads` are those of the
    nets. Answers are numbered as rows of the output layer: the tokens in this order, then the K kinds.
    """

    order: np.ndarray
    bounds: np.ndarray
    net_of: np.ndarray
    names: tuple[str, ...]
    reads: tuple[tuple[str, ...], ...]

    @property
    def sizes(self) -> list[int]:
        """Answers of each vocabulary: those of each kind, then the kinds."""
        return [*np.diff(self.bounds).tolist(), len(self.bounds) - 1]

    @cached_property
    def place(self) -> np.ndarray:
        """int64[V]: row of the output layer of each token."""
        place = np.empty(len(self.order), np.int64)
        place[self.order] = np.arange(len(self.order))
        return place

    @cached_property
    def kind(self) -> np.ndarray:
        """int64[V]: kind of each token, 0 to K - 1."""
        return np.searchsorted(self.bounds, self.place, side="right") - 1

    @staticmethod
    def of(
        kinds: np.ndarray, situations: Sequence[str], reads: Sequence[Sequence[str]], situation: np.ndarray,
        targets: np.ndarray,
    ) -> Split:  # fmt: skip
        """The split for an alphabet and training positions.

        Args:
            kinds: [V], the kind of each token as a code into `KINDS`.
            situations: their names.
            reads: what each declares.
            situation, targets: [N], of the training positions.
        """
        used, kind = np.unique(kinds, return_inverse=True)
        order = np.argsort(kind, kind="stable")
        bounds = np.concatenate([[0], np.cumsum(np.bincount(kind))])
        n = len(used)
        met = np.bincount(situation.astype(np.int64) * n + kind[targets], minlength=len(situations) * n)
        met = met.reshape(len(situations), n)
        names, declared = [f"{name}: kind" for name in situations], [tuple(row) for row in reads]
        net_of = np.full((len(situations), n), -1)
        for k in np.flatnonzero(np.diff(bounds) > 1).tolist():
            seldom = met[:, k] < OFTEN
            for s in np.flatnonzero(~seldom).tolist():
                net_of[s, k] = len(names)
                names.append(f"{situations[s]}: {KINDS[used[k]]}")
                declared.append(tuple(reads[s]))
            if seldom.any():
                net_of[seldom, k] = len(names)
                names.append(f"anywhere: {KINDS[used[k]]}")
                declared.append(READS)
        return Split(order, bounds, net_of, tuple(names), tuple(declared))

    def examples(self, reads: np.ndarray, situation: np.ndarray, targets: np.ndarray) -> tuple[Examples, np.ndarray]:
        """Two examples for each training position where its kind has several tokens, else one.

        Returns:
            the examples, their targets rows of the output layer, and int64[examples] the vocabulary each answers from.
        """
        n = len(self.bounds) - 1
        kind = self.kind[targets]
        net = self.net_of[situation, kind]
        several = np.flatnonzero(net >= 0)
        rows = np.concatenate([reads, reads[several]])
        module = np.concatenate([situation, net[several]]).astype(np.int16)
        answers = np.concatenate([len(self.order) + kind, self.place[targets[several]]]).astype(np.uint16)
        vocabulary = np.concatenate([np.full(len(targets), n), kind[several]])
        return Examples(rows, module, answers), vocabulary


class KindTrainer(NetTrainer):
    """Trains all nets of a split together; a step looks at as many positions as one of `NetTrainer`."""

    pointer_columns = NetTrainer.pointer_columns[:0]
    """None: its rows of the output layer are kinds and places within a kind."""

    def __init__(
        self, split: Split, examples: Examples, vocabulary: np.ndarray, positions: int, shape: NetShape, seed: int = 0
    ) -> None:
        self.split, self._asked = split, vocabulary
        rows = round(shape.batch_rows * len(vocabulary) / max(positions, 1))
        n_answers = sum(split.sizes)
        super().__init__(
            split.names, declared_reads(split.reads), examples, n_answers, replace(shape, batch_rows=rows), seed
        )
        # The output layer's first rows are known by their place in it, each vocabulary's by its place there.
        starts = np.concatenate([[0], np.cumsum(split.sizes)])
        self.examples = replace(examples, targets=(examples.targets - starts[vocabulary]).astype(np.uint16))
        self.vocabulary = kernels.Vocabulary.own(split.sizes)

    def answers(self, rows: np.ndarray) -> kernels.Plan:
        """See NetTrainer."""
        import torch

        return kernels.route(torch.from_numpy(self._asked[rows]), n_modules=len(self.split.sizes))


class KindNets:
    """Finished nets of a split, with what `RoutedNets` needs: `powers` by situation, and `parameters`."""

    def __init__(self, split: Split, nets: Nets) -> None:
        self.split, self.nets, self.parameters = split, nets, nets.parameters
        n, bounds = len(split.bounds) - 1, split.bounds
        ends = [(bounds[k], bounds[k + 1]) for k in range(n)] + [(bounds[-1], bounds[-1] + n)]
        self._parts = [replace(nets, output=nets.output[a:b], bias=nets.bias[a:b]) for a, b in ends]

    def powers(self, situation: int, reads: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """As `cgpt.nets.Nets.powers`, of all tokens."""
        split, n = self.split, len(self.split.bounds) - 1
        known = self.nets.with_terms(reads)  # the parts differ in their output layers alone
        kinds = _softmax(self._parts[n].logits(situation, known))
        out = np.empty((len(reads), len(split.order)), np.float32)
        for k in range(n):
            tokens, net = split.order[split.bounds[k] : split.bounds[k + 1]], int(split.net_of[situation, k])
            inside = _softmax(self._parts[k].logits(net, known)) if net >= 0 else np.float32(1.0)
            out[:, tokens] = kinds[:, k : k + 1] * inside
        out /= out.max(1, keepdims=True)
        return out, out.sum(1, dtype=np.float64)

    def save(self, path: Path) -> None:
        """Write `path` and, beside it, the split."""
        self.nets.save(path)
        rows = [f"{name}\t{' '.join(reads)}" for name, reads in zip(self.split.names, self.split.reads, strict=True)]
        tensors = {"order": self.split.order, "bounds": self.split.bounds, "net_of": self.split.net_of}
        tensors["names"] = np.frombuffer("\n".join(rows).encode(), dtype=np.uint8)
        save_tensors(path.with_suffix(".split.safetensors"), tensors)

    @staticmethod
    def load(path: Path) -> KindNets:
        """Read what `save` wrote."""
        tensors = load_tensors(path.with_suffix(".split.safetensors"))
        rows = [row.split("\t") for row in tensors.pop("names").tobytes().decode().split("\n")]
        names, reads = tuple(row[0] for row in rows), tuple(tuple(row[1].split()) for row in rows)
        return KindNets(Split(**tensors, names=names, reads=reads), Nets.load(path))


def _softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)
