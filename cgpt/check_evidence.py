"""Checks what an explanation record claims to rest on: contexts, places, files, lines, licences.

`cgpt.check_record` rebuilds distributions from the evidence in a record; this looks whether the evidence is true and
whole, from the record's own tokens and the model's folder alone, and shares no code with what predicts.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

from cgpt.check_record import RECENT, Refused


def require(holds: object, claim: str) -> None:
    if not holds:
        raise Refused(claim)


class EvidenceChecker:
    """Checks the evidence of records against one model folder; `index` as for `Checker`."""

    def __init__(self, folder: str | Path, index: dict[str, np.ndarray] | None = None) -> None:
        index = index or load_file(Path(folder) / "index.safetensors")
        self.tokens, self.order, self.first = index["tokens"], index["order"], index["first"]
        self.borders = np.flatnonzero(self.tokens == 0)
        names = ("sources.json", "tokenizer.json", "mixer.json")
        sources, tokenizer, self.mixer = (json.loads((Path(folder) / name).read_text("utf-8")) for name in names)
        self.sources = sources["files"]
        texts = ["", *(chr(b) if b < 128 else f"\\x{b:02x}" for b in range(256)), *tokenizer["tokens"]]
        self.breaks = np.array([text.count("\n") for text in texts])
        number = {text: token for token, text in enumerate(texts)}
        bare = [text[1:] if text[:1] == " " and len(text) > 1 and text[1:] in number else text for text in texts]
        is_break = [text[:1] in ("\n", "\r") and not text.strip(" \t\n\r\x0b\f") for text in texts]
        self.plain = np.array([number["\n" if is_break[token] else text] for token, text in enumerate(bare)])

    def check(self, record: dict, token: dict) -> None:
        """Check one position; raises Refused with what is not so."""
        ids, at = record["ids"], token["at"]
        history = np.append(0, ids[:at]).astype(np.uint16)
        require(token["target"] == (ids[at] if at < len(ids) else 0), "the target is another token")
        self.corpus(history, token["corpus"])
        self.file(history, token["file"])
        self.places(history, record["surroundings"], token)
        for expert in token["experts"]:
            for place in expert["evidence"]:
                if place["file"] is not None:
                    self.place(token, place)

    def corpus(self, history: np.ndarray, claim: dict) -> None:
        """Each level's slice is whole: all inside agree with the text, none outside; and no level is missing."""
        longest, slices, lengths = claim["longest"], claim["slices"], self.mixer["corpus_levels"]

        def agrees(entry: int, k: int) -> bool:
            end = int(self.order[entry])
            return np.array_equal(self.tokens[max(end - k, 0) : end], history[-k:])

        require(len(slices) == sum(k <= longest for k in lengths), "levels of the corpus are missing")
        for k, (low, high) in zip(lengths, slices, strict=False):
            more = any(agrees(j, k) for j in (low - 1, high) if 0 <= j < len(self.order))
            whole = low < high and agrees(low, k) and agrees(high - 1, k) and not more
            require(whole, f"{low}:{high} are not all the places where the last {k} tokens stood")
        low, high = slices[-1] if slices else self.first[history[-1] : history[-1] + 2]
        left = self.order[low:high].astype(np.int64)
        for k in range(1, longest + 1):
            left = left[self.tokens[left - k] == history[-k]]
        over = longest in (lengths[-1], len(history)) or history[-longest - 1] not in self.tokens[left - longest - 1]
        require(over and (len(left) or not longest), f"the longest match is not of {longest} tokens")

    def file(self, history: np.ndarray, claim: list[list[int]]) -> None:
        """Each level names the last RECENT places of this file where the same tokens stood, latest first."""
        found, known = [], 0
        left = np.arange(1, len(history))
        for k in (k for k in self.mixer["file_levels"] if k < len(history)):
            for length in range(known + 1, k + 1):
                left = left[left >= length]
                left = left[history[left - length] == history[-length]]
            known = k
            found.append(left[::-1][:RECENT].tolist())
        require([places for places in found if places] == claim, "these are not the places where the same tokens stood")

    def places(self, history: np.ndarray, said: dict, token: dict) -> None:
        """Each kind of place names the last positions of this file with the same surroundings, latest first."""
        at = token["at"]
        for name, value in token["reads"].items():
            same = said["reads"].get(name, {at: value})[at] == value
            require(same, f"read {name} is not the one of its surroundings")
        for place in self.mixer["file_places"]:
            keys = [said["reads"][name] if name in said["reads"] else self.plain[history] for name in place["reads"]]
            keys += [said["state"]] if place["lexer"] else []
            same = np.all([np.asarray(key)[:at] == key[at] for key in keys], axis=0)
            found = (1 + np.flatnonzero(same))[::-1][: place["recent"]].tolist()
            require(found == token["places"].get(place["name"], []), f"wrong places of {place['name']!r}")

    def place(self, token: dict, place: dict) -> None:
        """A place in the corpus: it is one of those counted, and file, line and licence are its own."""
        at, target = place["position"], token["target"]
        counted = any(at in self.order[low:high] for low, high in token["corpus"]["slices"])
        require(counted and self.tokens[at] == target, f"position {at} of the corpus was not counted for it")
        file = int(np.searchsorted(self.borders, at)) - 1
        path, _, licence = self.sources[file]
        require(place["file"].endswith(path) and place["licence"] == licence, f"{at} is in {path} under {licence}")
        line = 1 + self.breaks[self.tokens[self.borders[file] : at]].sum()
        require(line <= place["line"] <= line + self.breaks[target], f"{at} is on line {line}, not {place['line']}")
