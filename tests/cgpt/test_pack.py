"""Packing: lossless for any bytes, as small as `score` claims, and never wrong in silence."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cgpt.corpus import SourceFile
from cgpt.model import ConstructedLM
from cgpt.pack import _THE_MODEL, Decoder, Encoder, Packer, frequencies, model_checksum
from ontology.errors import ConstructibleError
from tests.cgpt.small import build_small, small_corpus
from tests.support import ROOT


def limit(claimed_bits: float) -> float:
    """The most bytes a packed file may have: 0.5 % and 32 bytes over what `score` claims."""
    return 1.005 * claimed_bits / 8 + 32


@pytest.fixture(scope="module")
def packer(model: ConstructedLM) -> Packer:
    return Packer(model)


symbols = st.lists(st.integers(0, 4), max_size=200)


@given(st.lists(st.floats(0.0, 1.0), min_size=5, max_size=5).filter(lambda w: sum(w) > 1e-3), symbols)
@example([0.0, 0.0, 1.0, 0.0, 0.0], [2] * 200 + [0] + [4] * 3)
@example([1.0, 0.0, 0.0, 0.0, 0.0], [0] * 200)
@example([0.0, 0.0, 0.0, 0.0, 1.0], [4] * 200 + [0, 4])
def test_the_coder_gives_back_what_it_was_given(weights: list[float], symbols: list[int]):
    """Certain, impossible and common symbols; the code is never longer than the frequencies say by two bytes."""
    p = np.array(weights) / sum(weights)
    cumulated = frequencies(p)
    total = int(cumulated[-1])
    encoder, bits = Encoder(), 0.0
    for symbol in symbols:
        begin, end = int(cumulated[symbol]), int(cumulated[symbol + 1])
        assert end > begin
        encoder.add(begin, end, total)
        bits -= np.log2((end - begin) / total)
    code = encoder.finish()
    assert len(code) <= bits / 8 + 2
    decoder = Decoder(code)
    for symbol in symbols:
        place = decoder.place(total)
        assert cumulated[symbol] <= place < cumulated[symbol + 1]
        decoder.take(int(cumulated[symbol]), int(cumulated[symbol + 1]))


def test_carries_run_through_whole_runs_of_full_bytes():
    """Random distributions with mass at both ends: carries over 255s, zeros at the end."""
    random_numbers = random.Random(3)
    for _ in range(300):
        n = random_numbers.randint(1, 40)
        rows = [random_numbers.choice([(0, 1), (1, 2**32), (2**32 - 1, 2**32), (7, 9)]) for _ in range(n)]
        encoder = Encoder()
        for begin, end in rows:
            encoder.add(begin, max(end, begin + 1), 2**32)
        decoder = Decoder(encoder.finish())
        for begin, end in rows:
            assert begin <= decoder.place(2**32) < max(end, begin + 1)
            decoder.take(begin, max(end, begin + 1))


@given(st.binary(max_size=60))
@settings(max_examples=25, deadline=None)
@example(b"")
@example(b"\0")
@example(b"\xff\xfe\x80 x = '\xe4'\r\n\t\ty\x0c\r")
@example("x = 'h\u00e9llo \U0001f642'\n".encode())
@example(b"def f(a, b):\r\n    return a\r\n")
@example(b"\n" * 50)
def test_any_bytes_come_back(packer: Packer, data: bytes):
    packed = packer.pack(data)
    assert packer.unpack(packed.data) == data
    assert len(packed.data) <= limit(packer.model.score_file(data).bits.sum())


def run_cli(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "ontology.main", "cgpt", *map(str, arguments)],
        cwd=ROOT, capture_output=True, text=True, timeout=300, env={**os.environ, **environment},
    )  # fmt: skip


def test_real_files_are_unpacked_in_a_fresh_process(model_folder: Path, unseen: list[SourceFile], tmp_path: Path):
    """The commands, on held-out files of the standard library: sizes as claimed, the original not at hand."""
    chosen = sorted(unseen, key=lambda file: len(file.data))[2:10:4]
    originals = {}
    for file in chosen:
        name = file.path.replace("/", "_")
        originals[name] = file.data
        (tmp_path / name).write_bytes(file.data)
    (tmp_path / "empty.py").write_bytes(b"")
    originals["empty.py"] = b""
    out = tmp_path / "packed"
    done = run_cli("pack", model_folder, *(tmp_path / name for name in originals), "--out", out, "--json")
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)["files"]
    assert len(rows) == len(originals)
    for row in rows:
        name = Path(row["file"]).name
        assert row["bytes"] == len(originals[name])
        assert row["packed_bytes"] == (out / f"{name}.cgp").stat().st_size
        assert row["packed_bytes"] <= limit(8 * row["score_bytes"])
        # The code itself cannot be shorter than the tokens' bits.
        assert row["packed_bytes"] >= row["score_bytes"]
        (tmp_path / name).unlink()
    for name, data in originals.items():
        done = run_cli("unpack", model_folder, out / f"{name}.cgp", "--out", tmp_path / name)
        assert done.returncode == 0, done.stderr
        assert (tmp_path / name).read_bytes() == data
    # One file into a folder that is there, as `cp` does it.
    done = run_cli("pack", model_folder, tmp_path / "empty.py", "--out", tmp_path)
    assert done.returncode == 0 and (tmp_path / "empty.py.cgp").read_bytes() == (out / "empty.py.cgp").read_bytes()


def test_damage_is_found(packer: Packer, unseen: list[SourceFile]):
    """Every byte of the packed file counts, and so does its end."""
    data = min(unseen, key=lambda file: len(file.data)).data[:400]
    packed = packer.pack(data).data
    for at in range(len(packed)):
        damaged = bytearray(packed)
        damaged[at] ^= 0x20
        with pytest.raises(ConstructibleError) as error:
            packer.unpack(bytes(damaged), "x.cgp")
        assert "x.cgp" in str(error.value) and "Fix:" in str(error.value)
    for part in (b"", packed[:3], packed[:4], packed[:24], packed[:25], packed[:-1], packed + b"\0"):
        with pytest.raises(ConstructibleError, match="not a packed file|damaged"):
            packer.unpack(part)


def test_another_model_is_refused(model_folder: Path, tmp_path: Path):
    build_small(tmp_path / "other", cut="plain", corpus=small_corpus(60_000))
    (tmp_path / "a.py").write_bytes(b"x = 1\n")
    done = run_cli("pack", model_folder, tmp_path / "a.py", "--out", tmp_path / "a.cgp")
    assert done.returncode == 0, done.stderr
    done = run_cli("unpack", tmp_path / "other", tmp_path / "a.cgp", "--out", tmp_path / "b.py")
    assert done.returncode == 1 and "packed with another model" in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "b.py").exists()


def test_a_variant_is_another_model(packer: Packer, model: ConstructedLM):
    data = b"import os\n"
    ablated = Packer(model.without("names"))
    packed = ablated.pack(data).data
    assert ablated.unpack(packed) == data
    with pytest.raises(ConstructibleError, match="packed with another model"):
        packer.unpack(packed)


def test_numbers_that_differ_are_an_error_and_not_another_file(packer: Packer, monkeypatch: pytest.MonkeyPatch):
    """A model that comes to slightly other numbers elsewhere: what comes out is checked."""
    packed = packer.pack(b"for name in names:\n    print(name, file=out)\n" * 3).data
    true = packer.model.next_distribution
    monkeypatch.setattr(type(packer.model), "next_distribution", lambda self, view: np.roll(true(view), 1))
    with pytest.raises(ConstructibleError, match="cannot be unpacked here"):
        packer.unpack(packed)


def test_another_machine_is_told(packer: Packer, model: ConstructedLM, monkeypatch: pytest.MonkeyPatch):
    packed = packer.pack(b"x = 1\n").data
    monkeypatch.setattr("cgpt.pack.cpu_model", lambda: "another processor")
    notes: list[str] = []
    assert Packer(model).unpack(packed, note=notes.append) == b"x = 1\n"
    assert len(notes) == 1 and "another machine" in notes[0]


def test_nothing_else_decides(model_folder: Path, model: ConstructedLM, unseen: list[SourceFile], tmp_path: Path):
    """A folder of the files in the checksum, and the names of sources, is the model."""
    for name in (*_THE_MODEL, "sources.json"):
        if (model_folder / name).is_file():
            (tmp_path / name).write_bytes((model_folder / name).read_bytes())
    assert model_checksum(tmp_path) == model_checksum(model_folder)
    (tmp_path / "sources.json").write_bytes((model_folder / "sources.json").read_bytes().replace(b"PSF-2.0", b"ISC"))
    data = unseen[0].data
    assert ConstructedLM(tmp_path).score_file(data).bits.tolist() == model.score_file(data).bits.tolist()


def test_the_checksum_is_over_what_decides(model_folder: Path, tmp_path: Path):
    before = model_checksum(model_folder)
    for path in model_folder.iterdir():
        if path.is_file():
            (tmp_path / path.name).write_bytes(path.read_bytes())
    assert model_checksum(tmp_path) == before
    (tmp_path / "README.md").write_text("other words")
    (tmp_path / "packed.cgp").write_bytes(b"what was packed into the model's own folder")
    assert model_checksum(tmp_path) == before
    (tmp_path / "mixer.json").write_bytes((tmp_path / "mixer.json").read_bytes().replace(b"0.1", b"0.2", 1))
    assert model_checksum(tmp_path) != before
