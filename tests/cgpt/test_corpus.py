"""Reading corpora: order, what is left out and why, every source, samples."""

from __future__ import annotations

import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cgpt import corpus as corpus_module
from cgpt import stdlib
from cgpt.corpus import (
    Corpus,
    SourceFile,
    load_sample,
    read_corpora,
    read_corpus,
    sample_by_hash,
    sample_record,
    unusable,
)
from ontology.errors import ConstructibleError, UsageError
from tests.support import data_path


def write(root: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return root


def paths(corpus: Corpus) -> list[str]:
    return [file.path for file in corpus.files]


# Folders


def test_folder_is_recursive_ordered_and_passes_over_what_is_not_the_users_code(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "z.py": b"z = 1\n",
            "pkg/b.py": b"b = 1\n",
            "pkg/a.py": b"a = 1\n",
            "pkg/deep/er/c.py": b"c = 1\n",
            "pkg/notes.txt": b"text\n",
            ".hidden/h.py": b"h = 1\n",
            ".venv/lib/v.py": b"v = 1\n",
            "pkg/__pycache__/p.py": b"p = 1\n",
            "env/pyvenv.cfg": b"",
            "env/lib/e.py": b"e = 1\n",
            "lib/site-packages/s.py": b"s = 1\n",
            "node_modules/n.py": b"n = 1\n",
            "runs/mine/config.json": b'{"format": "constructible-code/1"}',
            "runs/mine/router.py": b"r = 1\n",
            "export/config.json": b'{"model_type": "constructible"}',
            "export/constructible_hf.py": b"r = 2\n",
            "pkg/config.json": b"[1]",
            "pkg/deep/config.json": b"{broken",
        },
    )
    corpus = read_corpus(str(tmp_path))
    assert paths(corpus) == ["z.py", "pkg/a.py", "pkg/b.py", "pkg/deep/er/c.py"]
    assert [file.project for file in corpus.files] == ["z", "pkg", "pkg", "pkg"]
    assert {file.licence for file in corpus.files} == {"unknown"}
    assert corpus.skipped == []


def test_bad_files_are_listed_with_their_reason_and_are_not_fatal(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "good.py": b"x = 1\n",
            "copy.py": b"x = 1\n",
            "binary.py": b"x = 1\0\n",
            "latin.py": "# é\n".encode("latin-1"),
            "blank.py": b" \n\n",
            "big.py": b"x = 1\n" * 30,
        },
    )
    os.symlink(tmp_path / "nowhere.py", tmp_path / "dangling.py")
    corpus = read_corpus(str(tmp_path), max_file_bytes=100)
    assert paths(corpus) == ["copy.py"]
    assert dict(corpus.skipped) == {
        "big.py": "larger than 100 bytes (180)",
        "binary.py": "binary (a NUL byte)",
        "blank.py": "empty",
        "dangling.py": "not a regular file",
        "good.py": "the same bytes as copy.py",
        "latin.py": "not UTF-8 (byte 2)",
    }


def test_a_50_mb_file_is_refused_before_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, {"small.py": b"x = 1\n"})
    with open(tmp_path / "huge.py", "wb") as file:
        file.truncate(50_000_000)
    read: list[str] = []
    original = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda self: read.append(self.name) or original(self))
    corpus = read_corpus(str(tmp_path))
    assert corpus.skipped == [("huge.py", "larger than 1,000,000 bytes (50,000,000)")]
    assert "huge.py" not in read and "small.py" in read


def test_file_names_that_are_not_utf8_are_shown_as_utf8(tmp_path: Path) -> None:
    with open(os.fsencode(tmp_path) + b"/\xff.py", "wb") as file:
        file.write(b"x = 1\n")
    (path,) = paths(read_corpus(str(tmp_path)))
    assert path.encode("utf-8").decode() == "\ufffd.py"


def test_unreadable_file_is_listed_and_unreadable_folder_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, {"a.py": b"a = 1\n", "b.py": b"b = 1\n"})
    original = Path.read_bytes

    def read(self: Path) -> bytes:
        if self.name == "a.py":
            raise PermissionError(13, "Permission denied")
        return original(self)

    monkeypatch.setattr(Path, "read_bytes", read)
    assert read_corpus(str(tmp_path)).skipped == [("a.py", "unreadable (Permission denied)")]

    def refuse(path: object) -> None:  # root may read every folder, so the refusal itself is played
        raise PermissionError(13, "Permission denied", os.fspath(path))  # type: ignore[call-overload]

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(ConstructibleError, match="cannot be read .Permission denied.*Fix:"):
        read_corpus(str(tmp_path))


@pytest.mark.parametrize(
    ("files", "message"),
    [({}, "no Python files"), ({"readme.txt": b"x"}, "no Python files"), ({"a.py": b""}, "1 left out .a.py: empty")],
)
def test_nothing_to_use_is_an_error_with_a_fix(tmp_path: Path, files: dict[str, bytes], message: str) -> None:
    with pytest.raises(ConstructibleError, match=message) as caught:
        read_corpus(str(write(tmp_path, files)))
    assert caught.value.fix and caught.value.exit_code == 1


@pytest.mark.parametrize("spec", ["no such thing", "stdlib:everything", "/nowhere/at/all"])
def test_unknown_specs_are_usage_errors(spec: str) -> None:
    with pytest.raises(UsageError):
        read_corpus(spec)


def test_a_path_below_an_existing_folder_is_never_taken_for_a_hub_id(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "src").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="no such folder"):
        read_corpus("src/package")


def test_single_file_and_other_kinds_of_file(tmp_path: Path) -> None:
    write(tmp_path, {"one.py": b"x = 1\n", "one.txt": b"x"})
    (file,) = read_corpus(str(tmp_path / "one.py")).files
    assert (file.path, file.project, file.data) == ("one.py", "one", b"x = 1\n")
    with pytest.raises(UsageError, match="neither"):
        read_corpus(str(tmp_path / "one.txt"))


def test_several_are_read_as_one_and_what_lies_side_by_side_is_of_one_project(tmp_path: Path) -> None:
    write(
        tmp_path, {"app/__init__.py": b"", "app/a.py": b"x = 1\n", "app/b.py": b"y = 1\n", "app/sub/c.py": b"z = 1\n"}
    )
    files = [str(tmp_path / "app" / name) for name in ("__init__.py", "a.py", "b.py")]
    corpus = read_corpora([*files, str(tmp_path / "app")])
    assert [(file.path, file.project) for file in corpus.files] == [
        ("a.py", "app"), ("b.py", "app"), ("sub/c.py", "sub"),
    ]  # fmt: skip
    reasons = [reason for _, reason in corpus.skipped]
    assert reasons == ["empty", "empty", "the same bytes as a.py", "the same bytes as b.py"]
    with pytest.raises(ConstructibleError, match="no file can be used; 1 left out"):
        read_corpora(files[:1])
    with pytest.raises(UsageError, match="no such folder"):
        read_corpora([*files, str(tmp_path / "absent.py")])


@pytest.mark.parametrize(
    ("text", "licence"),
    [
        (b"MIT License\n\nCopyright", "MIT"),
        (b"                 Apache License\n           Version 2.0, January 2004", "Apache-2.0"),
        (b"SPDX-License-Identifier: MPL-2.0\n", "MPL-2.0"),
        (b"# SPDX-License-Identifier: MIT AND (GPL-3.0-only OR ISC)\nmore", "MIT AND (GPL-3.0-only OR ISC)"),
        (b"/* SPDX-License-Identifier: MIT */\n", "MIT"),
        (b"All rights reserved.", "unknown"),
    ],
)
def test_licence_is_read_from_a_heading_or_left_unknown(tmp_path: Path, text: bytes, licence: str) -> None:
    write(tmp_path, {"LICENSE": text, "pkg/a.py": b"a = 1\n"})
    assert read_corpus(str(tmp_path)).files[0].licence == licence


def test_limit_stops_before_the_text_exceeds_it(tmp_path: Path) -> None:
    write(tmp_path, {f"f{n}.py": b"x = %d\n" % n for n in range(5)})
    corpus = read_corpus(str(tmp_path), limit_bytes=20)
    assert paths(corpus) == ["f0.py", "f1.py", "f2.py"] and corpus.total_bytes == 18
    with pytest.raises(ConstructibleError, match="no file fits into 3 bytes"):
        read_corpus(str(tmp_path), limit_bytes=3)


def test_hash_tells_content_names_and_order_apart_and_nothing_else(tmp_path: Path) -> None:
    first = SourceFile("a.py", b"a", "p", "MIT")
    second = SourceFile("b.py", b"b", "p", "MIT")
    base = Corpus([first, second], [], "one").data_hash
    assert Corpus([first, second], [("x", "y")], "two").data_hash == base
    others = [
        [second, first],
        [first],
        [first, SourceFile("b.py", b"c", "p", "MIT")],
        [first, SourceFile("c.py", b"b", "p", "MIT")],
        [first, SourceFile("b.py", b"b", "q", "MIT")],
        [SourceFile("a.pyb", b".pya", "p", "MIT"), second],
    ]
    hashes = [Corpus(files, [], "n").data_hash for files in others]
    assert len({base, *hashes}) == len(others) + 1


@given(st.binary(max_size=40))
def test_usable_means_text_that_decodes(data: bytes) -> None:
    if unusable(data) is None:
        assert data.decode("utf-8").strip("\t\n\v\f\r ") and "\0" not in data.decode("utf-8")
    else:
        decodes = True
        try:
            data.decode("utf-8")
        except UnicodeDecodeError:
            decodes = False
        assert not decodes or b"\0" in data or not data.strip()


# Tables


def rows() -> dict[str, list[object]]:
    return {
        "code": ["x = 1\n", "y = 2\n", "int z;\n", "x = 1\n", None],
        "repo_name": ["o/a", "o/b", "o/b", "o/c", "o/d"],
        "path": ["m.py", "n.py", "n.c", "m.py", "e.py"],
        "language": ["Python", "Python", "C", "Python", "Python"],
        "license": ["MIT", "BSD-3-Clause", "MIT", "MIT", "MIT"],
        "size": [6, 6, 7, 6, 0],
    }


def test_parquet_gives_project_path_and_licence_per_row(tmp_path: Path) -> None:
    pq.write_table(pa.table(rows()), tmp_path / "code.parquet")
    corpus = read_corpus(str(tmp_path / "code.parquet"))
    assert [(file.path, file.project, file.licence, file.data) for file in corpus.files] == [
        ("o/a/m.py", "o/a", "MIT", b"x = 1\n"),
        ("o/b/n.py", "o/b", "BSD-3-Clause", b"y = 2\n"),
    ]
    assert corpus.skipped[:2] == [("o/c/m.py", "the same bytes as o/a/m.py"), ("o/d/e.py", "empty")]
    assert corpus.skipped[2][1] == "1 rows are in another language"


def test_hub_spellings_of_the_columns(tmp_path: Path) -> None:
    table = pa.table(
        {
            "content": pa.array([b"x = 1\n", b"\xff\n"], pa.binary()),
            "max_stars_repo_name": ["o/a", "o/a"],
            "max_stars_repo_path": ["o/a/m.py", "n.py"],
            "max_stars_repo_licenses": [["MIT", "Apache-2.0"], ["MIT"]],
        }
    )
    pq.write_table(table, tmp_path / "hub.parquet")
    corpus = read_corpus(str(tmp_path / "hub.parquet"))
    assert [(file.path, file.licence) for file in corpus.files] == [("o/a/m.py", "Apache-2.0 AND MIT")]
    assert corpus.skipped == [("o/a/n.py", "not UTF-8 (byte 0)")]


def test_text_column_that_is_not_utf8_is_listed(tmp_path: Path) -> None:
    bad = pa.array([b"ok = 1\n", b"\xff\xfe\n"], pa.binary()).view(pa.string())
    pq.write_table(pa.table({"code": bad, "path": ["a.py", "b.py"]}), tmp_path / "bad.parquet")
    assert read_corpus(str(tmp_path / "bad.parquet")).skipped == [("b.py", "not UTF-8 (byte 0)")]


def test_broken_parquet_and_missing_column_say_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 but not really")
    with pytest.raises(ConstructibleError, match="not a readable Parquet file"):
        read_corpus(str(tmp_path / "broken.parquet"))
    pq.write_table(pa.table({"code": [["x", "y"]], "language": [3]}), tmp_path / "lists.parquet")
    with pytest.raises(ConstructibleError, match="no file can be used"):  # a number is no name of a language
        read_corpus(str(tmp_path / "lists.parquet"))
    pq.write_table(pa.table({"code": [["x", "y"]]}), tmp_path / "lists.parquet")
    with pytest.raises(ConstructibleError, match="column 'code' holds list"):
        read_corpus(str(tmp_path / "lists.parquet"))
    pq.write_table(pa.table({"source": ["x"]}), tmp_path / "other.parquet")
    with pytest.raises(ConstructibleError, match="no column holds code; it has source"):
        read_corpus(str(tmp_path / "other.parquet"))


def test_hub_dataset_is_streamed_and_stopped_at_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The hub itself is out of reach of a test: the same streaming reader is pointed at a local Parquet file."""
    import datasets

    count = 5000
    table = pa.table({"code": [f"x = {n:04d}\n" for n in range(count)], "path": [f"{n}.py" for n in range(count)]})
    pq.write_table(table, tmp_path / "hub.parquet", row_group_size=50)
    original, asked = datasets.load_dataset, []

    def local(identifier: str, **options: object) -> object:
        asked.append((identifier, options))
        return original("parquet", data_files=str(tmp_path / "hub.parquet"), **options)  # type: ignore[arg-type]

    monkeypatch.setattr(datasets, "load_dataset", local)
    corpus = read_corpus("owner/name", limit_bytes=90)
    assert paths(corpus) == [f"{n}.py" for n in range(10)]
    assert asked == [("owner/name", {"split": "train", "streaming": True})]
    assert read_corpus("owner/name").total_bytes == 9 * count


def test_hub_failure_is_one_error_that_names_the_id(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    def fail(*_: object, **__: object) -> None:
        raise ConnectionError("no route to host\nwith details")

    monkeypatch.setattr(datasets, "load_dataset", fail)
    with pytest.raises(ConstructibleError, match=r"owner/name: neither .*\(no route to host\)"):
        read_corpus("owner/name")


# The interpreter's own library


def test_stdlib_split_is_fixed_disjoint_and_about_85_to_15() -> None:
    whole, train, held_out = (read_corpus(name) for name in ("stdlib", "stdlib:train", "stdlib:held-out"))
    names = stdlib.stdlib_split()
    # Packages of empty files only are in the split and in no corpus.
    assert set(train.projects) <= set(names[0]) and set(held_out.projects) <= set(names[1])
    assert not set(names[0]) & set(names[1]) and set(names[1]) == stdlib.HELD_OUT
    assert 0.13 < held_out.total_bytes / (held_out.total_bytes + train.total_bytes) < 0.18
    assert whole.total_bytes <= held_out.total_bytes + train.total_bytes  # duplicates across the border are dropped
    assert {file.licence for file in whole.files} == {"PSF-2.0"}


def test_stdlib_leaves_out_tests_generated_and_installed_code() -> None:
    corpus = read_corpus("stdlib")
    parts = {part for file in corpus.files for part in file.path.split("/")}
    assert not parts & {"test", "tests", "idle_test", "_bundled", "site-packages", "pydoc_data", "encodings"}
    assert not any("sysconfigdata" in file.path or file.path.startswith("config-") for file in corpus.files)
    assert {"argparse.py", "json/decoder.py", "unittest/case.py"} <= set(paths(corpus))


def test_stdlib_without_sources_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stdlib.sysconfig, "get_paths", lambda: {"stdlib": str(tmp_path)})
    with pytest.raises(ConstructibleError, match="not there as source files"):
        read_corpus("stdlib")


# Samples

small_files = st.lists(st.tuples(st.binary(min_size=1, max_size=30), st.sampled_from("abc")), unique_by=lambda f: f[0])


@given(small_files, st.integers(1, 200), st.sampled_from(["file", "project"]), st.randoms())
def test_sample_depends_on_contents_alone(files, total_bytes, by, random) -> None:
    corpus = Corpus([SourceFile(f"{n}.py", data, project, "MIT") for n, (data, project) in enumerate(files)], [], "c")
    sample = sample_by_hash(corpus, total_bytes, by)
    assert sample.total_bytes <= total_bytes
    shuffled = random.sample(corpus.files, len(corpus.files))
    again = sample_by_hash(Corpus(shuffled, [], "c"), total_bytes, by)
    assert {file.data for file in again.files} == {file.data for file in sample.files}
    kept = set(paths(sample))
    assert paths(sample) == [path for path in paths(corpus) if path in kept]
    if by == "project" and files:
        share = total_bytes // len(corpus.projects)
        assert all(
            sum(len(file.data) for file in sample.files if file.project == project) <= share
            for project in corpus.projects
        )


@pytest.mark.parametrize(
    ("name", "source", "total_bytes", "by"),
    [
        ("train_40mb", "train", 40_000_000, "file"),
        ("validation_2mb", "validation", 2_000_000, "project"),
        ("test_2mb", "test", 2_000_000, "project"),
    ],
)
def test_committed_lists_are_what_the_rule_gives(name: str, source: str, total_bytes: int, by) -> None:
    corpus = read_corpus(str(data_path("code", f"{source}.parquet")))
    listed = load_sample(name, corpus)
    drawn = sample_by_hash(corpus, total_bytes, by)
    assert listed.data_hash == drawn.data_hash
    record = corpus_module.read_sample_record(name)
    assert record == sample_record(drawn, record["source"], record["rule"])


def test_sample_of_another_corpus_is_refused() -> None:
    with pytest.raises(ConstructibleError, match="files of sample 'test_2mb' are not in this corpus"):
        load_sample("test_2mb", read_corpus("stdlib:held-out"))
    with pytest.raises(UsageError, match="no sample 'nothing'"):
        load_sample("nothing", read_corpus("stdlib:held-out"))
