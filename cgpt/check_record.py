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


class Refused(Exception):
    """A claim of the record does not hold."""


class Checker:
    """Checks records against one model folder; `index` are the tensors of its match index, if they are read already."""

    def __init__(self, folder: str | Path, index: dict[str, np.ndarray] | None = None) -> None:
        def read(name: str) -> Any:
            return json.loads((Path(folder) / name).read_text(encoding="utf-8"))

        self.mixer, self.ranks = read("mixer.json"), read("names.json")["weights"]
        index = index or load_file(Path(folder) / "index.safetensors")
        self.followers, counts = index["followers"], index["unigram"] + 0.5
        self.unigram = 0.98 * counts / counts.sum() + 0.02 / len(counts)
        self.nets, self.net_of = {}, read("config.json")["owner"]
        if self.net_of:
            self.nets = load_file(Path(folder) / "nets.safetensors")
            self.members = self.nets["concept_names"].tobytes().decode().split("\n")

    def check(self, record: dict, token: dict) -> np.ndarray:
        """float64[V]: the distribution at one position; raises Refused where the shares claimed are not those found."""
        parts, target = self.rebuild(record, token), token["target"]
        distribution = parts.sum(0)
        if abs(distribution.sum() - 1.0) > 1e-6:
            raise Refused(f"the distribution sums to {distribution.sum()}")
        bits = -np.log2(distribution[target]) * parts[:, target] / distribution[target]
        claimed = {expert["name"]: expert["bits"] for expert in token["experts"]}
        for name, found in zip(SOURCES, bits, strict=True):
            if abs(claimed.get(name, 0.0) - found) > 1e-3:
                raise Refused(f"{name} has a share of {found:.3f} bits, not {claimed.get(name, 0.0):.3f}")
        return distribution

    def rebuild(self, record: dict, token: dict) -> np.ndarray:
        """float64[5, V]: what each of SOURCES adds to the distribution at one position; it is their sum."""
        history, n_corpus = np.append(0, record["ids"]).astype(int), len(self.mixer["corpus_levels"])
        levels = [(n, self.followers[low:high], CORPUS) for n, (low, high) in enumerate(token["corpus"]["slices"])]
        levels += [(n_corpus + n, history[places], FILE) for n, places in enumerate(token["file"])]
        n_contexts, places = n_corpus + len(self.mixer["file_levels"]), token["places"]
        kinds = enumerate(kind["name"] for kind in self.mixer["file_places"])
        levels += [(n_contexts + n, history[places[kind]], FILE) for n, kind in kinds if kind in places]
        base = np.zeros((5, len(self.unigram)))
        base[UNIGRAM] = self.unigram
        said, strength, step = {"unigram": base}, {"unigram": 0.0}, 0
        if token["concept"] in self.net_of:
            m, said["net"] = self.members.index(self.net_of[token["concept"]]), np.zeros_like(base)
            said["net"][NET] = self.net(m, record["reads"], token["reads"])
            step, steps = token["confidence"], len(self.mixer["by_confidence"])
            # On the border between two steps the last bit decides, and that bit is the model's.
            if step not in {min(int(said["net"].max() * steps + slack), steps - 1) for slack in (-1e-5, 1e-5)}:
                raise Refused(f"the net is not as sure of its first choice as step {step} says")
        for level, followers, source in levels:
            name, said_here = self.mixer["experts"][2 + level], np.zeros_like(base)
            said_here[source], bucket = self.level(followers)
            said[name], strength[name] = said_here, self.mixer["level"][level][bucket]
        if token["names"]:
            said["names"] = self.names(base, token["names"])
        weights = self.weights(token, strength, step, said)
        return sum((weights[name] * said[name] for name in said), 0.0 * base)

    def weights(self, token: dict, strength: dict[str, float], step: int, said: dict) -> dict[str, float]:
        """Of those who have something to say: the product of their factors, over the sum of all."""
        first = token["names"][0][1] if token["names"] else len(self.mixer["by_names"]) - 1
        row = self.mixer["concepts"].index(token["concept"])
        rows = (self.mixer["by_concept"][row], self.mixer["by_confidence"][step], self.mixer["by_names"][first])
        power = {}
        for name in said:
            logs = [table[self.mixer["experts"].index(name)] for table in rows]
            power[name] = 0.0 if None in logs else float(np.exp(sum(logs) + strength.get(name, 0.0)))
        return {name: value / sum(power.values()) for name, value in power.items()}

    def level(self, followers: np.ndarray) -> tuple[np.ndarray, int]:
        """(float64[V] share of each token among what followed a context, bucket of how often and how surely)."""
        count, n = np.bincount(followers, minlength=len(self.unigram)), len(followers)
        t = int((count > 0).sum())
        sure = 0 if t == 1 else 1 if 8 * t <= n else 2 if 4 * t <= n else 3 if 2 * t <= n else 4 if t < n else 5
        return count / n, min(n.bit_length() - 1, 9) * 6 + sure

    def names(self, base: np.ndarray, claim: list[list[int]]) -> np.ndarray:
        """Names in scope by the weight of their rank; those that may end here, and a fixed share, are the base's."""
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
        gate, b1, b2 = net["gate"][m], net["b1"][m], net["b2"][m]
        value = reads[names[net["split"][m]]] if net["split"][m] >= 0 else -1
        for s in np.flatnonzero((net["special_net"] == m) & (net["special_value"] == value)):
            gate, b1, b2 = gate + net["special_gate"][s], b1 + net["special_b1"][s], b2 + net["special_b2"][s]
        w1 = (gate[columns, None, None] * net["w1"][columns]).reshape(-1, net["w1"].shape[2])
        x = net["embeddings"][[reads[names[column]] for column in columns]].reshape(1, -1) @ w1 + b1
        h = x / (1.0 + np.exp(-np.clip(x, -80.0, 80.0)))
        y = h @ (net["w2_shared"] + net["w2"][m]) + b2
        logits = (y @ net["output"].T + net["bias"])[0].astype(np.float64)
        gates = np.logaddexp(0.0, (h @ net["w_pointer"])[0] + net["b_pointer"][m])
        for column, gate in zip(net["pointer_columns"], gates, strict=True):
            if net["declared"][m][column] and reads[names[column]] < len(logits):
                logits[reads[names[column]]] += gate
        powers = np.exp(logits - logits.max())
        return powers / powers.sum()
