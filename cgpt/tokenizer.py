"""The tokenizer: byte-pair encoding inside lexical pieces, lossless for any bytes.

Merges are learned by the `tokenizers` library from the pieces of `cgpt.pieces`; encoding is done here, in numba, with
a bounded memory of the pieces met before. Token 0 is the end of a file, tokens 1 to 256 are the single bytes.
"""

from __future__ import annotations

import random
import threading
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from functools import cached_property
from itertools import pairwise
from pathlib import Path

import numpy as np

from cgpt.compiled import compiled
from cgpt.lexer_tables import LAST_HARD, WORDS
from cgpt.pieces import MAX_PIECE, pieces
from ontology.errors import ConstructibleError
from ontology.io import read_json, write_json

__all__ = ["KINDS", "MAX_VOCAB", "TRAINING_BYTES", "Tokenizer", "token_kind"]

FORMAT = "constructible-tokenizer/1"
FILE_NAME = "tokenizer.json"
END = 0
FIRST_BYTE = 1  # token of byte b is FIRST_BYTE + b
BASE = 257
MAX_VOCAB = 65535
TRAINING_BYTES = 12_000_000  # merges are learned from at most this many bytes

KINDS = (
    "end", "newline", "space", "open", "close", "comma", "colon", "dot", "assign", "operator", "quote", "comment",
    "keyword", "name", "capital", "number", "escape", "punctuation",
)  # fmt: skip
_KEYWORDS = {word.encode() for word, number in WORDS.items() if number <= LAST_HARD}
_SINGLE = {b",": "comma", b":": "colon", b".": "dot", b"=": "assign", b"#": "comment"}
_OPERATORS = set(
    b"+ - * ** / // % @ << >> & | ^ ~ < > <= >= == != -> += -= *= /= //= %= @= &= |= ^= >>= <<= **= := ... ; !".split()
)


def token_kind(token: bytes) -> str:
    """Return the answer kind of a token: a plain partition of the alphabet by its bytes (see KINDS)."""
    if not token:
        return "end"
    if not token.strip(b" \t\r\n\f"):
        return "newline" if b"\n" in token or b"\r" in token else "space"
    text = token[1:] if token[0] == 32 else token
    first = text[0]
    if text in _SINGLE:
        return _SINGLE[text]
    if len(text) == 1 and first in b"([{":
        return "open"
    if len(text) == 1 and first in b")]}":
        return "close"
    if text in _OPERATORS:
        return "operator"
    quotes = text.lstrip(b"rRbBfFuU") if len(text) > 1 else text
    if not quotes.strip(b"\"'") and len(text) - len(quotes) <= 2:
        return "quote" if quotes else "name"
    if first == 92:
        return "escape"
    if text in _KEYWORDS:
        return "keyword"
    if 65 <= first <= 90:
        return "capital"
    if 97 <= first <= 122 or first == 95 or first >= 128:
        return "name"
    return "number" if 48 <= first <= 57 else "punctuation"


class Tokenizer:
    """A vocabulary with its merges.

    Attributes:
        token_bytes: the bytes of each token; `token_bytes[0]` is empty (end of file).
        merges: int32 [vocab_size - 257, 2], the pair of tokens that token 257 + i joins, by rank.
        vocab_size: number of tokens, 257 to 65535.
    """

    def __init__(self, merges: Sequence[Sequence[int]] | np.ndarray) -> None:
        self.merges = np.asarray(merges, np.int32).reshape(-1, 2)
        self.token_bytes = [b""] + [bytes([byte]) for byte in range(256)]
        for left, right in self.merges.tolist():
            if not 0 < min(left, right) <= max(left, right) < len(self.token_bytes):
                raise ConstructibleError(
                    f"merge {len(self.token_bytes) - BASE} joins tokens that do not exist yet.",
                    fix="restore the tokenizer's file or build again",
                )
            self.token_bytes.append(self.token_bytes[left] + self.token_bytes[right])
        self.vocab_size = len(self.token_bytes)
        if self.vocab_size > MAX_VOCAB:
            raise ConstructibleError(f"{self.vocab_size} tokens do not fit uint16.", fix=f"use at most {MAX_VOCAB}")
        self._pairs = _pair_table(self.merges)
        self._memory = _Memory()

    @classmethod
    def train(cls, documents: Iterable[bytes], vocab_size: int, seed: int = 0) -> Tokenizer:
        """Learn merges from a seeded sample of at most TRAINING_BYTES.

        The same documents, size and seed give the same tokenizer, whatever the number of threads. The vocabulary is
        smaller than asked where the documents hold no more repeated pairs.

        Raises:
            ConstructibleError: `vocab_size` is outside of 257 to 65535.
        """
        if not BASE <= vocab_size <= MAX_VOCAB:
            raise ConstructibleError(
                f"a vocabulary of {vocab_size} tokens is not possible.", fix=f"choose {BASE} to {MAX_VOCAB}"
            )
        from tokenizers import Tokenizer as Trainable
        from tokenizers import models, pre_tokenizers, trainers

        chosen = _sample(documents, seed)
        model = Trainable(models.BPE())
        model.pre_tokenizer = pre_tokenizers.CharDelimiterSplit("\n")
        trainer = trainers.BpeTrainer(
            vocab_size=vocab_size - 1,  # the end of a file is not text
            min_frequency=2,
            show_progress=False,
            initial_alphabet=[_to_char(byte) for byte in range(256)],
            special_tokens=[],
        )
        model.train_from_iterator((_joined_pieces(document) for document in chosen), trainer=trainer)
        import json

        learned = json.loads(model.to_str())["model"]["merges"]
        ids = {_to_char(byte): FIRST_BYTE + byte for byte in range(256)}
        merges: list[tuple[int, int]] = []
        for entry in learned:
            left, right = entry.split(" ") if isinstance(entry, str) else entry
            if left + right in ids:  # two ways to the same bytes: the first one stands
                continue
            ids[left + right] = BASE + len(merges)
            merges.append((ids[left], ids[right]))
        return cls(merges)

    def encode(self, data: bytes) -> np.ndarray:
        """Return the uint16 [n] tokens of `data`; the end token is not appended."""
        array = np.frombuffer(data, np.uint8)
        starts = pieces(array)
        out = np.empty(len(array), np.uint16)
        return out[: self._memory.encode(array, starts, self._pairs, out)].copy()

    def encode_many(self, documents: Iterable[bytes]) -> tuple[np.ndarray, np.ndarray]:
        """Encode documents one after the other.

        Returns:
            uint16 [n] tokens, and int64 [documents + 1] offsets: document i is `ids[offsets[i]:offsets[i + 1]]`.
        """
        parts = [self.encode(document) for document in documents]
        offsets = np.zeros(len(parts) + 1, np.int64)
        np.cumsum([len(part) for part in parts], out=offsets[1:])
        return (np.concatenate(parts) if parts else np.empty(0, np.uint16)), offsets

    def decode(self, ids: Iterable[int] | np.ndarray) -> bytes:
        """Return the bytes of tokens; the end token has none."""
        return b"".join([self.token_bytes[int(token)] for token in ids])

    @cached_property
    def kinds(self) -> np.ndarray:
        """The uint8 [vocab_size] answer kinds, codes into KINDS."""
        return np.array([KINDS.index(token_kind(token)) for token in self.token_bytes], np.uint8)

    @cached_property
    def lengths(self) -> np.ndarray:
        """The int32 [vocab_size] lengths of the tokens in bytes."""
        return np.array([len(token) for token in self.token_bytes], np.int32)

    @cached_property
    def _sorted(self) -> list[tuple[bytes, int]]:
        return sorted((token, number) for number, token in enumerate(self.token_bytes) if token)

    def candidates(self, prefix: bytes) -> np.ndarray:
        """Return the ascending int32 ids of the tokens whose bytes start with `prefix` (for healing)."""
        found, at = [], bisect_left(self._sorted, (prefix, 0))
        while at < len(self._sorted) and self._sorted[at][0].startswith(prefix):
            found.append(self._sorted[at][1])
            at += 1
        return np.array(sorted(found), np.int32)

    def save(self, folder: str | Path) -> Path:
        """Write `tokenizer.json` into the folder; equal tokenizers give equal bytes."""
        value = {
            "format": FORMAT,
            "merges": [f"{left} {right}" for left, right in self.merges.tolist()],
            "tokens": [token.decode("utf-8", "backslashreplace") for token in self.token_bytes[BASE:]],
        }
        return write_json(Path(folder) / FILE_NAME, value)

    @classmethod
    def load(cls, folder: str | Path, name: str = FILE_NAME) -> Tokenizer:
        """Read `tokenizer.json`, or a copy of it under another name, from the folder.

        Raises:
            ConstructibleError: the file is missing, broken or of another format.
        """
        path = Path(folder) / name
        value = read_json(path)
        if not isinstance(value, dict) or value.get("format") != FORMAT:
            raise ConstructibleError(f"not a tokenizer of format {FORMAT!r}.", fix="build the model again", file=path)
        try:
            return cls([[int(number) for number in merge.split(" ")] for merge in value["merges"]])
        except (KeyError, ValueError, AttributeError) as error:
            raise ConstructibleError("the list of merges is broken.", fix="build again", file=path) from error


def _to_char(byte: int) -> str:
    """A character for each byte, none of which `tokenizers` treats in a special way."""
    return chr(0x100 + byte)


_CHARACTERS = {byte: _to_char(byte) for byte in range(256)}


def _joined_pieces(document: bytes) -> str:
    """The document's pieces as mapped characters, a newline between two."""
    text = document.decode("latin-1").translate(_CHARACTERS)
    starts = pieces(np.frombuffer(document, np.uint8)).tolist()
    return "\n".join([text[i:j] for i, j in pairwise([*starts, len(text)])])


def _sample(documents: Iterable[bytes], seed: int) -> list[bytes]:
    """All documents where they are few; else a seeded choice of TRAINING_BYTES, the last one cut to fit."""
    known = list(documents)
    if sum(map(len, known)) <= TRAINING_BYTES:
        return known
    random.Random(seed).shuffle(known)
    chosen, left = [], TRAINING_BYTES
    for document in known:
        if left <= 0:
            break
        chosen.append(document[:left])
        left -= len(document)
    return chosen


def _pair_table(merges: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Open-addressing table from a pair of tokens to the token that joins them: int64 keys, int32 tokens."""
    size = 1 << max(10, int(len(merges) * 3).bit_length())
    keys, values = np.full(size, -1, np.int64), np.zeros(size, np.int32)
    _fill_pairs(keys, values, merges)
    return keys, values


@compiled
def _pair_place(keys, key):
    place = ((key * 0x9E3779B1) ^ (key >> 15)) & (len(keys) - 1)
    while keys[place] != key and keys[place] >= 0:
        place = (place + 1) & (len(keys) - 1)
    return place


@compiled
def _fill_pairs(keys, values, merges):
    for i in range(len(merges)):
        key = (np.int64(merges[i, 0]) << 16) | np.int64(merges[i, 1])
        place = _pair_place(keys, key)
        if keys[place] < 0:
            keys[place] = key
            values[place] = BASE + i


@compiled
def _merge_piece(data, begin, end, keys, values, buffer):
    """Apply the merges, lowest rank first, leftmost first, to one piece; returns the number of tokens."""
    count = end - begin
    for i in range(count):
        buffer[i] = FIRST_BYTE + data[begin + i]
    while count > 1:
        best = 1 << 30
        for i in range(count - 1):
            place = _pair_place(keys, (np.int64(buffer[i]) << 16) | np.int64(buffer[i + 1]))
            if keys[place] >= 0 and values[place] < best:
                best = values[place]
                left, right = buffer[i], buffer[i + 1]
        if best == 1 << 30:
            break
        write = 0
        read = 0
        while read < count:
            if read + 1 < count and buffer[read] == left and buffer[read + 1] == right:
                buffer[write] = best
                read += 2
            else:
                buffer[write] = buffer[read]
                read += 1
            write += 1
        count = write
    return count


@compiled
def _encode(data, starts, keys, values, slots, entries, pool, tokens, used, out):
    """Encode the pieces; `slots`, `entries`, `pool`, `tokens` and `used` remember pieces met before.

    entries rows: begin in pool, length in bytes, begin in tokens, number of tokens.
    """
    buffer = np.empty(MAX_PIECE, np.int32)
    mask = len(slots) - 1
    count = 0
    for i in range(len(starts)):
        begin = starts[i]
        end = starts[i + 1] if i + 1 < len(starts) else len(data)
        size = end - begin
        if size == 1:
            out[count] = FIRST_BYTE + data[begin]
            count += 1
            continue
        key = np.int64(size)
        for p in range(begin, end):
            key = (key * 1099511628211) ^ np.int64(data[p])
        place = (key ^ (key >> 29)) & mask
        while True:
            entry = slots[place]
            if entry < 0:
                break
            if entries[entry, 1] == size:
                at = entries[entry, 0]
                same = True
                for p in range(size):
                    if pool[at + p] != data[begin + p]:
                        same = False
                        break
                if same:
                    break
            place = (place + 1) & mask
        entry = slots[place]
        if entry >= 0:
            at = entries[entry, 2]
            for j in range(entries[entry, 3]):
                out[count + j] = tokens[at + j]
            count += entries[entry, 3]
            continue
        n = _merge_piece(data, begin, end, keys, values, buffer)
        for j in range(n):
            out[count + j] = buffer[j]
        count += n
        if used[0] >= len(entries) or used[1] + size > len(pool):  # full: forget everything, start again
            slots[:] = -1
            used[:] = 0
            place = (key ^ (key >> 29)) & mask
        entry = used[0]
        slots[place] = entry
        entries[entry, 0] = used[1]
        entries[entry, 1] = size
        entries[entry, 2] = used[1]  # never more tokens than bytes, so one cursor serves both pools
        entries[entry, 3] = n
        for p in range(size):
            pool[used[1] + p] = data[begin + p]
        for j in range(n):
            tokens[used[1] + j] = buffer[j]
        used[0] += 1
        used[1] += size
    return count


class _Memory:
    """Pieces met before and their tokens, bounded; filled by `_encode`, for one thread at a time."""

    SLOTS = 1 << 18

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.slots = np.full(self.SLOTS, -1, np.int32)
        self.entries = np.empty((self.SLOTS // 2, 4), np.int32)
        self.pool = np.empty(self.SLOTS * 8, np.uint8)
        self.tokens = np.empty(self.SLOTS * 8, np.uint16)
        self.used = np.zeros(2, np.int64)

    def encode(
        self, data: np.ndarray, starts: np.ndarray, pairs: tuple[np.ndarray, np.ndarray], out: np.ndarray
    ) -> int:
        # Compiled code lets go of the interpreter's lock, and a piece that is half written down is no answer.
        with self._lock:
            return _encode(data, starts, *pairs, self.slots, self.entries, self.pool, self.tokens, self.used, out)

    def __reduce__(self) -> tuple:
        """Copies start empty."""
        return _Memory, ()
