"""Packing: a file as the arithmetic code of its tokens under a model, the score that cannot be faked.

The model steps from left to right, token by token, through the same calls when it packs and when it unpacks
(`FileView.extend`, then `next_distribution`), so both see the same numbers. Each distribution is rounded to integer
frequencies in one well-defined way, and an integer range coder does the rest.

A packed file is a header of 29 bytes or less, then the code:

    4 bytes   magic "cgp" and the format's version
    8 bytes   start of the SHA-256 of the model (all files of its folder that decide a distribution)
    4 bytes   CRC-32 of the machine and versions that packed it
    4 bytes   CRC-32 of the original bytes
    4 bytes   CRC-32 of all the rest of the packed file
    1-5 bytes length of the original, seven bits a byte, low ones first

**A packed file is for the machine and the versions that made it**: floating-point sums may differ in their last bit
elsewhere, and one such bit can change everything after it. Elsewhere `unpack` says so, tries, and hands out nothing
but the original bytes: their checksum decides.

Method: range coding (Martin 1979) with carries as in Schindler's coder; no code was taken over.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import platform
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cgpt.index import SEPARATOR
from cgpt.model import ConstructedLM
from ontology.environment import cpu_model, threads
from ontology.errors import ConstructibleError
from ontology.io import sha256_file, sha256_json
from ontology.store import code_hash

MAGIC, VERSION = b"cgp", 1
_SCALE = 1 << 32
"""A distribution is rounded to frequencies that sum to about this much; every token gets at least one."""
_TOP, _BOTTOM = 1 << 64, 1 << 48
"""The coder's interval is below `_TOP` and kept above `_BOTTOM`, so that its share per unit of frequency is >= 2^15."""
_THE_MODEL = (
    "config.json", "dynamic.json", "index.safetensors", "mixer.json", "names.json", "nets.safetensors", "ontology.yaml",
    "router.py", "tokenizer.json",
)  # fmt: skip
"""Files of a model's folder that decide its distributions; what else lies there does not matter."""


@dataclass(frozen=True)
class Packed:
    """A packed file: its `data`, the length of the original, and the bits of all its tokens before rounding."""

    data: bytes
    n_bytes: int
    bits: float


def model_checksum(folder: str | Path) -> bytes:
    """SHA-256 over the names and contents of the files of a model that decide its distributions."""
    files = {name: sha256_file(Path(folder, name)) for name in _THE_MODEL if Path(folder, name).is_file()}
    return bytes.fromhex(sha256_json(files))


def machine() -> dict[str, Any]:
    """What a distribution's last bits may depend on beside the model: processor, threads, versions, our own code."""
    return {
        "python": platform.python_version(), "implementation": platform.python_implementation(), "cpu": cpu_model(),
        "threads": threads(), "numpy": importlib.metadata.version("numpy"),
        "numba": importlib.metadata.version("numba"), "code": code_hash("cgpt", "kernels"),
    }  # fmt: skip


def frequencies(distribution: np.ndarray) -> np.ndarray:
    """int64[V + 1] cumulated frequencies of a distribution float64[V]: `floor(p * 2^32) + 1` each.

    One multiplication, one truncation, integer sums: nothing here depends on the order of floating-point additions.
    """
    each = (distribution * float(_SCALE)).astype(np.int64) + 1
    cumulated = np.zeros(len(each) + 1, dtype=np.int64)
    np.cumsum(each, out=cumulated[1:])
    return cumulated


class Encoder:
    """Integer range coder: `add` one symbol after another, then `finish`."""

    def __init__(self) -> None:
        self._low, self._range = 0, _TOP
        self._out = bytearray()

    def add(self, begin: int, end: int, total: int) -> None:
        """Narrow the interval to [begin, end) of `total`."""
        step = self._range // total
        self._low += step * begin
        self._range = step * (end - begin)
        if self._low >= _TOP:
            self._low -= _TOP
            self._carry()
        while self._range < _BOTTOM:
            self._out.append(self._low >> 56)
            self._low = (self._low << 8) & (_TOP - 1)
            self._range <<= 8

    def finish(self) -> bytes:
        """The code: as few bytes as tell the interval; those that are missing at the end count as zero."""
        for n_bytes in range(9):
            unit = 1 << (64 - 8 * n_bytes)
            value = -(-self._low // unit) * unit
            if value < self._low + self._range:
                break
        if value >= _TOP:
            value -= _TOP
            self._carry()
        self._out += value.to_bytes(8, "big")[:n_bytes]
        return bytes(self._out).rstrip(b"\0")

    def _carry(self) -> None:
        at = len(self._out) - 1
        while self._out[at] == 255:
            self._out[at] = 0
            at -= 1
        self._out[at] += 1


class Decoder:
    """The other way round: `place` says where in `total` the next symbol lies, `take` removes it."""

    def __init__(self, code: bytes) -> None:
        self._code, self._at = code, 8
        self._value, self._range = int.from_bytes(code[:8].ljust(8, b"\0"), "big"), _TOP
        self._step = 0

    def place(self, total: int) -> int:
        """A number in [0, total): inside of the next symbol's frequencies."""
        self._step = self._range // total
        return min(self._value // self._step, total - 1)

    def take(self, begin: int, end: int) -> None:
        """Go on after the symbol whose frequencies are [begin, end)."""
        self._value -= self._step * begin
        self._range = self._step * (end - begin)
        while self._range < _BOTTOM:
            following = self._code[self._at] if self._at < len(self._code) else 0
            self._value = (self._value << 8) | following
            self._at += 1
            self._range <<= 8


class Packer:
    """Packs and unpacks files with one model."""

    def __init__(self, model: ConstructedLM) -> None:
        self.model = model
        whole = model_checksum(model.folder)
        # A variant of a model is another model.
        self._checksum = (hashlib.sha256(whole + model.variant.encode()).digest() if model.variant else whole)[:8]
        self._machine = zlib.crc32(sha256_json(machine()).encode())

    def pack(self, data: bytes, advance: Callable[[int], None] | None = None) -> Packed:
        """Pack the bytes of one file, whatever they are; `advance` is told the bytes done after each token."""
        model, encoder, bits = self.model, Encoder(), 0.0
        view = model.view(np.zeros(0, dtype=np.uint16))
        for token in [*model.tokenizer.encode(data).tolist(), SEPARATOR]:
            distribution = model.next_distribution(view)
            bits -= float(np.log2(distribution[token]))
            cumulated = frequencies(distribution)
            encoder.add(int(cumulated[token]), int(cumulated[token + 1]), int(cumulated[-1]))
            if token != SEPARATOR:
                view.extend(np.array([token], dtype=np.uint16))
                if advance is not None:
                    advance(len(model.tokenizer.token_bytes[token]))
        header = _Header(self._checksum, self._machine, zlib.crc32(data), len(data), encoder.finish())
        return Packed(header.write(), len(data), bits)

    def unpack(
        self,
        packed: bytes,
        file: str | Path = "",
        advance: Callable[[int], None] | None = None,
        note: Callable[[str], None] | None = None,
    ) -> bytes:
        """Give back the bytes that `pack` was given.

        Args:
            file: the packed file's name, for errors.
            advance: is told the bytes done after each token.
            note: is told where machine or versions are not those that packed.

        Raises:
            ConstructibleError: it is no packed file, it is damaged, it was packed with another model, or another
                machine or version comes to other numbers. Bytes that are not the original's are never returned.
        """
        model, header = self.model, _Header.read(packed, file)
        if header.model != self._checksum:
            raise ConstructibleError(
                "packed with another model.", fix=f"unpack with the model that packed it, which is not {model.folder}",
                file=file,
            )  # fmt: skip
        same_machine = header.machine == self._machine
        if not same_machine and note is not None:
            note("packed on another machine, with other versions or another number of threads; trying all the same")
        decoder, view = Decoder(header.code), model.view(np.zeros(0, dtype=np.uint16))
        while view.n_bytes <= header.n_bytes:
            cumulated = frequencies(model.next_distribution(view))
            place = decoder.place(int(cumulated[-1]))
            token = int(np.searchsorted(cumulated, place, side="right")) - 1
            decoder.take(int(cumulated[token]), int(cumulated[token + 1]))
            if token == SEPARATOR:
                break
            view.extend(np.array([token], dtype=np.uint16))
            if advance is not None:
                advance(len(model.tokenizer.token_bytes[token]))
        data = view.text
        if len(data) != header.n_bytes or zlib.crc32(data) != header.original:
            raise ConstructibleError(
                "cannot be unpacked here: the model's numbers are not those of the machine that packed it.",
                fix="unpack with the same machine, versions and number of threads", file=file,
            )  # fmt: skip
        return data


@dataclass(frozen=True)
class _Header:
    """What stands before the code, and the code."""

    model: bytes
    machine: int
    original: int
    n_bytes: int
    code: bytes

    def write(self) -> bytes:
        fixed = MAGIC + bytes([VERSION]) + self.model + self.machine.to_bytes(4, "big")
        fixed += self.original.to_bytes(4, "big")
        length, left = bytearray(), self.n_bytes
        while left >= 128:
            length.append(left & 127 | 128)
            left >>= 7
        rest = bytes([*length, left]) + self.code
        return fixed + zlib.crc32(fixed + rest).to_bytes(4, "big") + rest

    @staticmethod
    def read(packed: bytes, file: str | Path) -> _Header:
        if packed[:3] != MAGIC:
            raise ConstructibleError(
                "not a packed file.", fix="give a file that `constructible cgpt pack` wrote", file=file
            )
        if packed[3:4] not in (b"", bytes([VERSION])):
            raise ConstructibleError(
                f"packed in version {packed[3]} of the format; this program knows version {VERSION}.",
                fix="unpack with the version that packed it", file=file,
            )  # fmt: skip
        fixed, check, rest = packed[:20], int.from_bytes(packed[20:24], "big"), packed[24:]
        if not rest or zlib.crc32(fixed + rest) != check:
            raise ConstructibleError("damaged: a part is missing or changed.", fix="restore the packed file", file=file)
        at, n_bytes = 0, 0
        for at, byte in enumerate(rest):
            n_bytes |= (byte & 127) << (7 * at)
            if byte < 128:
                break
        machine_crc, original = int.from_bytes(fixed[12:16], "big"), int.from_bytes(fixed[16:20], "big")
        return _Header(fixed[4:12], machine_crc, original, n_bytes, rest[at + 1 :])
