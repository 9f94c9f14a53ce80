"""An independent checker of explanation records: rebuilds whole distributions from a record and the model's folder.

It shares no code with what predicts. What it is handed is evidence (slices of the match index, places in the file,
names offered, the net's reads); what it computes is the model as docs/cgpt_accountability.md defines it. The record
holds no probabilities; shares in bits that are not those found here are refused. `cgpt.check_evidence` looks whether
the evidence itself is true.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

SOURCES = ("net", "corpus", "file", "names", "unigram")
NET, CORPUS, FILE, NAMES, UNIGRAM = range(5)
RECENT, NAMES_BASE, NAME_ENDS = 48, 0.05, 65535
Followers = list[tuple[int, np.ndarray, int]]  # level, what followed there, source


class Refused(Exception):
    """A claim of the record does not hold."""


class Checker:
    """Checks records against one model folder; `index` are the tensors of its match index, if they are read already."""

    def __init__(self, folder: str | Path, index: dict[str, np.ndarray] | None = None) -> None:
        def read(name: str) -> Any:
            return json.loads((Path(folder) / name).read_text(encoding="utf-8"))

        self.mixer, self.ladder, self.ranks = read("mixer.json"), read("ladder.json"), read("names.json")["weights"]
        index = index or load_file(Path(folder) / "index.safetensors")
        self.followers, counts = index["followers"], index["unigram"] + 0.5
        self.unigram = 0.98 * counts / counts.sum() + 0.02 / len(counts)
        self.nets, self.net_of = {}, read("config.json")["owner"]
        if self.net_of:
            self.nets, self.outside = load_file(Path(folder) / "nets.safetensors"), read("outside.json")["outside"]
            self.members = self.nets["concept_names"].tobytes().decode().split("\n")

    def check(self, record: dict, token: dict) -> np.ndarray:
        """float64[V]: the distribution at one position; raises Refused where the shares claimed are not those found."""
        parts, target = self.rebuild(record, token), token["target"]
        distribution = parts.sum(0)
        if abs(distribution.sum() - 1.0) > 1e-6:
            raise Refused(f"the distribution sums to {distribution.sum()}")
        bits = -np.log2(distribution[target]) * parts[:, target] / distribution[target]
        for expert in token["experts"]:
            found = bits[SOURCES.index(expert["name"])]
            if abs(expert["bits"] - found) > 1e-3:
                raise Refused(f"{expert['name']} has a share of {found:.3f} bits, not {expert['bits']:.3f}")
        return distribution

    def rebuild(self, record: dict, token: dict) -> np.ndarray:
        """float64[5, V]: what each of SOURCES adds to the distribution at one position; it is their sum."""
        history, n_corpus = np.append(0, record["ids"]).astype(int), len(self.ladder["corpus_levels"])
        levels = [(n, self.followers[low:high], CORPUS) for n, (low, high) in enumerate(token["corpus"]["slices"])]
        levels += [(n_corpus + n, history[places], FILE) for n, places in enumerate(token["file"])]
        base, net = np.zeros((5, len(self.unigram))), np.zeros((5, len(self.unigram)))
        base[UNIGRAM] = self.unigram
        if token["concept"] in self.net_of:
            net[NET] = self.net(self.members.index(self.net_of[token["concept"]]), record["reads"], token["reads"])
        corpus = np.digitize(token["corpus"]["longest"], self.mixer["corpus_steps"])
        file = np.digitize(len(token["file"]), self.mixer["file_steps"])
        bucket = (corpus * (len(self.mixer["file_steps"]) + 1) + file) * 2 + bool(token["names"])
        weights = self.mixer["weights"][self.mixer["concepts"].index(token["concept"])][bucket]
        said = {"counts": self.climb(base, levels, "escape_counts"), "names": self.names(base, token["names"])}
        said |= {"refined": self.climb(net, levels, "escape_refined"), "net": net}
        return sum((w * said[name] for name, w in zip(self.mixer["experts"], weights, strict=True)), 0.0 * base)

    def climb(self, base: np.ndarray, levels: Followers, table: str) -> np.ndarray:
        """p = (1 - escape) * count / n + escape * p, level by level; escape by level and bucket of (n, distinct)."""
        p = base.copy()
        for level, followers, source in levels:
            count = np.bincount(followers)
            seen = np.flatnonzero(count)
            n, t = len(followers), len(seen)
            sure = 0 if t == 1 else 1 if 8 * t <= n else 2 if 4 * t <= n else 3 if 2 * t <= n else 4 if t < n else 5
            escape = self.ladder[table][level][min(n.bit_length() - 1, 9) * 6 + sure]
            p *= escape
            p[source, seen] += (1.0 - escape) * count[seen] / n
        return p

    def names(self, base: np.ndarray, claim: list[list[int]]) -> np.ndarray:
        """Names in scope by the weight of their rank; those that may end here, and a fixed share, are the base's."""
        if not claim:
            return base
        weights = np.array([self.ranks[slot] for _, slot in claim])
        p = NAMES_BASE * base
        for (offered, _), share in zip(claim, (1.0 - NAMES_BASE) * weights / weights.sum(), strict=True):
            if offered == NAME_ENDS:
                p += share * base
            else:
                p[NAMES, offered] += share
        return p

    def net(self, m: int, names: list[str], reads: dict[str, int]) -> np.ndarray:
        """float64[V] of network m, from the reads it was handed."""
        net, columns = self.nets, np.flatnonzero(self.nets["declared"][m])
        w1 = (net["gate"][m, columns, None, None] * net["w1"][columns]).reshape(-1, net["w1"].shape[2])
        x = net["embeddings"][[reads[names[column]] for column in columns]].reshape(1, -1) @ w1 + net["b1"][m]
        y = (x / (1.0 + np.exp(-np.clip(x, -80.0, 80.0)))) @ (net["w2_shared"] + net["w2"][m]) + net["b2"][m]
        own = slice(*net["offsets"][m : m + 2])
        logits = (y @ net["output"][net["ids"][own]].T + net["bias"][own])[0].astype(np.float64)
        p, powers = self.unigram.copy(), np.exp(logits - logits.max())
        p[net["ids"][own]] = 0.0
        p *= self.outside[m] / max(p.sum(), 1e-300)
        p[net["ids"][own]] = (1.0 - self.outside[m]) * powers / powers.sum()
        return p
