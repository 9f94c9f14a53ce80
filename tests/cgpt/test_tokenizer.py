"""The tokenizer: lossless, inside lexical borders, deterministic."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cgpt import tokenizer as tk
from cgpt.check_lexer import lexer_spans
from cgpt.pieces import MAX_PIECE, pieces
from cgpt.tokenizer import KINDS, Tokenizer, token_kind
from ontology.errors import ConstructibleError
from tests.cgpt.test_lexer import any_bytes, code_like
from tests.support import ROOT

SOURCES = [path.read_bytes() for path in sorted((ROOT / "cgpt").glob("*.py"))]
ANYTHING = st.one_of(any_bytes, st.text(alphabet=st.characters(codec="utf-8"), max_size=80).map(str.encode))


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.train(SOURCES, 1500)


def cut(data: bytes) -> list[bytes]:
    starts = pieces(np.frombuffer(data, np.uint8)).tolist()
    return [data[i:j] for i, j in pairwise([*starts, len(data)])]


@settings(max_examples=400, deadline=None)
@given(ANYTHING)
def test_lossless(tokenizer: Tokenizer, data: bytes) -> None:
    ids = tokenizer.encode(data)
    assert ids.dtype == np.uint16
    assert tk.END not in ids
    assert tokenizer.decode(ids) == data


@settings(max_examples=300, deadline=None)
@given(ANYTHING)
def test_pieces_are_the_text(data: bytes) -> None:
    parts = cut(data)
    assert b"".join(parts) == data
    assert all(0 < len(part) <= MAX_PIECE for part in parts)


@settings(max_examples=200, deadline=None)
@given(code_like)
def test_pieces_never_cross_a_lexical_border(data: bytes) -> None:
    starts = set(pieces(np.frombuffer(data, np.uint8)).tolist())
    for kind, begin, end in lexer_spans(data):
        if begin == end or begin >= len(data):
            continue
        space = begin > 0 and begin - 1 in starts and data[begin - 1] == 32
        dots = data[begin : begin + 1] == b"." and data[begin - 1 : begin] == b"."  # `..` is one piece of two tokens
        assert begin in starts or space or dots, (kind, data[begin:end])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("def f(self, x=1):\n    return",
         ["def", " f", "(", "self", ",", " x", "=", "1", ")", ":", "\n    ", "return"]),
        ("x  ==  y", ["x", " ", " ==", " ", " y"]),
        ("x\n\n\n\t y", ["x", "\n\n\n\t ", "y"]),
        ("x = f\"a b{c!r:>5} \"", ["x", " =", ' f"', "a", " b", "{", "c", "!", "r", ":", ">", "5", "}", " ", '"']),
        ("'''It's \\n it.'''", ["'''", "It", "'", "s", " \\n", " it", ".", "'''"]),
        ("''", ["''"]),
        ("# note  this\ny", ["#", " note", " ", " this", "\n", "y"]),
        ("# a \r\n  b", ["#", " a", " ", "\r\n  ", "b"]),
        ("a<=b->c...", ["a", "<=", "b", "->", "c", "..."]),
        ("x = .5e-3j + 0x1F", ["x", " =", " .5e-3j", " +", " 0x1F"]),
        ("'\\\\'", ["'", "\\\\", "'"]),
        ("f'{{a}}'", ["f'", "{{", "a", "}}", "'"]),
        ("x \\\n  + y", ["x", " \\", "\n  ", "+", " y"]),
        ("a🙂é b", ["a🙂é", " b"]),
        ("  x", [" ", " x"]),
    ],
)  # fmt: skip
def test_pieces_of_known_text(text: str, expected: list[str]) -> None:
    assert [part.decode() for part in cut(text.encode())] == expected


def test_newline_with_its_indentation_is_one_token(tokenizer: Tokenizer) -> None:
    for text in (b"\n", b"\n    ", b"\n        ", b"\n\n    ", b"\n\n\n"):
        assert len(tokenizer.encode(b"x" + text + b"y")) == 3


def test_agrees_with_the_tokenizers_library(tokenizer: Tokenizer) -> None:
    from tokenizers import models

    characters = {i: "".join(chr(256 + byte) for byte in token) for i, token in enumerate(tokenizer.token_bytes)}
    merges = [(characters[left], characters[right]) for left, right in tokenizer.merges.tolist()]
    library = models.BPE({text: i for i, text in characters.items() if text}, merges)
    buffer = np.empty(MAX_PIECE, np.int32)
    for piece in sorted({piece for source in SOURCES for piece in cut(source)}):
        expected = [token.id for token in library.tokenize("".join(chr(256 + byte) for byte in piece))]
        array = np.frombuffer(piece, np.uint8)
        count = tk._merge_piece(array, 0, len(piece), *tokenizer._pairs, buffer)
        assert buffer[:count].tolist() == expected


def test_many_documents(tokenizer: Tokenizer) -> None:
    documents = [*SOURCES, b"", SOURCES[0]]
    ids, offsets = tokenizer.encode_many(documents)
    assert (ids.dtype, offsets.dtype, len(offsets)) == (np.uint16, np.int64, len(documents) + 1)
    for i, document in enumerate(documents):
        part = ids[offsets[i] : offsets[i + 1]]
        assert tokenizer.decode(part) == document
        np.testing.assert_array_equal(part, Tokenizer(tokenizer.merges).encode(document))
    empty, offsets = tokenizer.encode_many([])
    assert (len(empty), offsets.tolist()) == (0, [0])


def test_memory_of_pieces_may_overflow(tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tk._Memory, "SLOTS", 64)
    small = Tokenizer(tokenizer.merges)
    for source in SOURCES:
        np.testing.assert_array_equal(small.encode(source), tokenizer.encode(source))


def test_threads_share_the_memory_of_pieces(tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(0)
    words = [f"{word}{number}".encode() for word in ("value", "reader", "of_the", "count") for number in range(3000)]
    documents = [b" ".join(words[i] for i in random.integers(0, len(words), 20_000)) for _ in range(8)]
    expected = [tokenizer.encode(document) for document in documents]
    monkeypatch.setattr(tk._Memory, "SLOTS", 1 << 10)  # forgets all the time, so that everybody writes
    shared = copy.deepcopy(tokenizer)
    with ThreadPoolExecutor(4) as pool:
        for found, right in zip(pool.map(shared.encode, documents * 4), expected * 4, strict=True):
            np.testing.assert_array_equal(found, right)


def test_training_is_deterministic_across_processes_and_threads(tokenizer: Tokenizer, tmp_path: Path) -> None:
    tokenizer.save(tmp_path / "here")
    script = (
        "import sys, pathlib; from cgpt.tokenizer import Tokenizer; "
        "files = sorted(pathlib.Path(sys.argv[2]).glob('*.txt')); "
        "Tokenizer.train([f.read_bytes() for f in files], 1500).save(sys.argv[1])"
    )
    for i, source in enumerate(SOURCES):
        (tmp_path / f"{i:04}.txt").write_bytes(source)
    saved = (tmp_path / "here" / "tokenizer.json").read_bytes()
    for threads in ("1", "3"):
        folder = tmp_path / threads
        environment = os.environ | {"RAYON_NUM_THREADS": threads, "PYTHONHASHSEED": threads}
        command = [sys.executable, "-c", script, str(folder), str(tmp_path)]
        subprocess.run(command, check=True, cwd=ROOT, env=environment)
        assert (folder / "tokenizer.json").read_bytes() == saved


def test_a_large_corpus_is_sampled_by_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tk, "TRAINING_BYTES", 20_000)
    same = [Tokenizer.train(iter(SOURCES), 400, seed=seed).merges.tolist() for seed in (1, 1, 2)]
    assert same[0] == same[1] != same[2]


def test_save_and_load(tokenizer: Tokenizer, tmp_path: Path) -> None:
    tokenizer.save(tmp_path)
    loaded = Tokenizer.load(tmp_path)
    assert loaded.token_bytes == tokenizer.token_bytes
    np.testing.assert_array_equal(loaded.encode(SOURCES[0]), tokenizer.encode(SOURCES[0]))
    first = (tmp_path / "tokenizer.json").read_bytes()
    loaded.save(tmp_path)
    assert (tmp_path / "tokenizer.json").read_bytes() == first


def test_broken_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConstructibleError, match="no such file"):
        Tokenizer.load(tmp_path)
    path = tmp_path / "tokenizer.json"
    for text, message in (
        ("{", "not valid JSON"), ("[]", "not a tokenizer"), ('{"format": "constructible-tokenizer/1"}', "broken"),
        ('{"format": "constructible-tokenizer/1", "merges": ["1 x"]}', "broken"),
        ('{"format": "constructible-tokenizer/1", "merges": ["1 999"]}', "do not exist"),
    ):  # fmt: skip
        path.write_text(text, encoding="utf-8")
        with pytest.raises(ConstructibleError, match=message):
            Tokenizer.load(tmp_path)


@pytest.mark.parametrize("size", [256, 65536])
def test_impossible_vocabularies_are_refused(size: int) -> None:
    with pytest.raises(ConstructibleError, match="not possible"):
        Tokenizer.train([b"x = 1"], size)


def test_smallest_and_poorest_training() -> None:
    assert Tokenizer.train([b"x = 1\n" * 10], 257).vocab_size == 257
    assert Tokenizer.train([], 300).vocab_size == 257
    poor = Tokenizer.train([b"abc abc"], 5000)
    assert 257 < poor.vocab_size < 270


def test_all_bytes_are_in_the_vocabulary(tokenizer: Tokenizer) -> None:
    assert tokenizer.vocab_size == 1500
    assert tokenizer.token_bytes[0] == b""
    assert set(tokenizer.token_bytes[1:257]) == {bytes([byte]) for byte in range(256)}
    assert len(set(tokenizer.token_bytes)) == tokenizer.vocab_size
    np.testing.assert_array_equal(tokenizer.lengths, [len(token) for token in tokenizer.token_bytes])


def test_candidates(tokenizer: Tokenizer) -> None:
    found = tokenizer.candidates(b" r")
    expected = [i for i, token in enumerate(tokenizer.token_bytes) if token.startswith(b" r")]
    assert found.tolist() == expected and expected
    assert len(tokenizer.candidates(b"no token starts like this")) == 0
    assert len(tokenizer.candidates(b"")) == tokenizer.vocab_size - 1


@pytest.mark.parametrize(
    ("token", "kind"),
    [
        (b"", "end"), (b"\n    ", "newline"), (b"\r\n", "newline"), (b"  ", "space"), (b" (", "open"), (b"]", "close"),
        (b",", "comma"), (b":", "colon"), (b".", "dot"), (b" =", "assign"), (b" ==", "operator"), (b"->", "operator"),
        (b' f"', "quote"), (b'"""', "quote"), (b"rb'", "quote"), (b" #", "comment"), (b" return", "keyword"),
        (b"True", "keyword"), (b" name", "name"), (b"_x", "name"), (b" f", "name"), ("é".encode(), "name"),
        (b" Name", "capital"), (b" 12", "number"), (b"\\n", "escape"), (b"$", "punctuation"), (b"--", "punctuation"),
        (b"...", "operator"), (b"b", "name"),
    ],
)  # fmt: skip
def test_kinds(token: bytes, kind: str) -> None:
    assert token_kind(token) == kind


def test_kinds_are_a_partition(tokenizer: Tokenizer) -> None:
    assert tokenizer.kinds.dtype == np.uint8
    assert (tokenizer.kinds < len(KINDS)).all()
    assert np.flatnonzero(tokenizer.kinds == KINDS.index("end")).tolist() == [0]
