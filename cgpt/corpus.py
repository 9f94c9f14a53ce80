"""Where code comes from: folders, single files, Parquet files, hub datasets and the interpreter's own library.

One reader for all of them. A file that cannot be used is counted and listed with its reason, never fatal; a corpus
in which nothing can be used is an error that says what to do.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from cgpt import stdlib
from cgpt.stdlib import stdlib_split as stdlib_split
from ontology.errors import ConstructibleError, UsageError

MAX_FILE_BYTES = 1_000_000
HUB_LIMIT_BYTES = 256_000_000  # a hub dataset can be endless: this much is streamed where no limit was given
SKIPPED_FOLDERS = frozenset({"site-packages", "dist-packages", "__pycache__", "node_modules"})

# Column names in use on the hub for the same thing, the preferred one first.
_COLUMNS = {
    "code": ("code", "content", "text"),
    "project": ("repo_name", "repo", "max_stars_repo_name", "repository_name"),
    "path": ("path", "file_path", "max_stars_repo_path", "func_path_in_repository"),
    "language": ("language", "lang", "programming_language"),
    "licence": ("license", "licenses", "max_stars_repo_licenses", "license_type"),
}
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One file: `path` as shown to a person (relative), its raw bytes (valid UTF-8), project and SPDX licence."""

    path: str
    data: bytes
    project: str
    licence: str

    @property
    def sha256(self) -> str:
        """Hex SHA-256 of the bytes: the file's identity in samples and duplicates."""
        return hashlib.sha256(self.data).hexdigest()

    @property
    def fingerprint(self) -> str:
        """16 hex digits that do not change with indentation, line ends or blank lines: finds a file again in another
        corpus although it was reformatted a little."""
        lines = [line.strip() for line in self.data.splitlines()]
        return hashlib.sha256(b"\n".join(line for line in lines if line)).hexdigest()[:16]


@dataclass(frozen=True)
class Corpus:
    """Files in a fixed order, what was left out and why, and a hash of all of it.

    `skipped` holds (path, reason). `data_hash` covers path, bytes, project and licence of every file, in order.
    """

    files: list[SourceFile]
    skipped: list[tuple[str, str]]
    name: str
    data_hash: str = field(default="")

    def __post_init__(self) -> None:
        if not self.data_hash:
            object.__setattr__(self, "data_hash", _hash_files(self.files))

    @property
    def total_bytes(self) -> int:
        """Bytes of text in all files."""
        return sum(len(file.data) for file in self.files)

    @property
    def projects(self) -> list[str]:
        """Names of the projects, sorted."""
        return sorted({file.project for file in self.files})

    def select(self, keep: Callable[[SourceFile], bool], name: str) -> Corpus:
        """The files for which `keep` holds, in the same order, as a corpus of that name."""
        return Corpus([file for file in self.files if keep(file)], list(self.skipped), name)


class _Collector:
    """Takes files one by one, refuses those that cannot be used, and knows when enough was read."""

    def __init__(self, limit_bytes: int | None, max_file_bytes: int, together: bool = False) -> None:
        self.limit_bytes, self.max_file_bytes, self.together = limit_bytes, max_file_bytes, together
        self.files: list[SourceFile] = []
        self.skipped: list[tuple[str, str]] = []
        self.bytes = 0
        self.limit_reached = False
        self._first_path: dict[bytes, str] = {}

    def skip(self, path: str, reason: str) -> None:
        self.skipped.append((path, reason))

    def fits(self, path: str, size: int) -> bool:
        if size > self.max_file_bytes:
            self.skip(path, f"larger than {self.max_file_bytes:,} bytes ({size:,})")
        return size <= self.max_file_bytes

    def add(self, path: str, data: bytes, project: str, licence: str) -> bool:
        """Take a file or note why not; False once the limit is reached and nothing more will be taken."""
        if not self.fits(path, len(data)):
            return True
        reason = unusable(data)
        digest = hashlib.sha256(data).digest()
        if reason is None and digest in self._first_path:
            reason = f"the same bytes as {self._first_path[digest]}"
        if reason is not None:
            self.skip(path, reason)
            return True
        if self.limit_bytes is not None and self.bytes + len(data) > self.limit_bytes:
            self.limit_reached = True
            return False
        self._first_path[digest] = path
        self.bytes += len(data)
        self.files.append(SourceFile(path, data, project, licence))
        return True

    def corpus(self, name: str) -> Corpus:
        if not self.files:
            reasons = "; ".join(f"{path}: {reason}" for path, reason in self.skipped[:3])
            if self.limit_reached:
                raise ConstructibleError(
                    f"no file fits into {self.limit_bytes:,} bytes.", fix="raise the limit", file=name
                )
            if not self.skipped:
                raise ConstructibleError("no Python files here.", fix="give a folder that holds .py files", file=name)
            raise ConstructibleError(
                f"no file can be used; {len(self.skipped)} left out ({reasons}).",
                fix="give Python files in UTF-8 of at most " + f"{self.max_file_bytes:,} bytes",
                file=name,
            )
        return Corpus(self.files, self.skipped, name)


def unusable(data: bytes) -> str | None:
    """Why these bytes cannot be used as source text, or None: empty, binary (a NUL byte), not UTF-8."""
    if not data.strip():
        return "empty"
    if b"\0" in data:
        return "binary (a NUL byte)"
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as error:
        return f"not UTF-8 (byte {error.start})"
    return None


def read_corpus(spec: str, limit_bytes: int | None = None, *, max_file_bytes: int = MAX_FILE_BYTES) -> Corpus:
    """Read a corpus.

    Args:
        spec: a folder (searched recursively; hidden folders, installed packages and environments are passed over), a
            .py file, a .parquet file, `stdlib`, `stdlib:train`, `stdlib:held-out`, or a hub dataset id such as
            `owner/name`, streamed.
        limit_bytes: stop before the text would exceed this; for a hub id 256 MB where None.
        max_file_bytes: larger files are left out and listed.

    Returns:
        The corpus. Exact duplicates keep their first copy. `project` is the top-level package (folder, stdlib) or
        the repository (Parquet, hub).

    Raises:
        UsageError: the spec is none of these.
        ConstructibleError: it cannot be read, or nothing in it can be used.
    """
    collector = _Collector(limit_bytes, max_file_bytes)
    _read_into(spec, collector)
    return collector.corpus(spec)


def read_corpora(specs: Sequence[str], *, max_file_bytes: int = MAX_FILE_BYTES) -> Corpus:
    """Read several corpora as one, for scoring: what cannot be used is listed, also where one spec has nothing else.

    As `read_corpus`, but for files that lie directly in a folder that is named, or are named themselves: their project
    is that folder, so that files beside each other are of one project.

    Raises:
        UsageError: a spec is none of those that `read_corpus` knows.
        ConstructibleError: one cannot be read, or nothing in all of them can be used.
    """
    collector = _Collector(None, max_file_bytes, together=True)
    for spec in specs:
        _read_into(spec, collector)
        collector.limit_bytes = None  # a hub dataset's own
    return collector.corpus(", ".join(specs))


def _read_into(spec: str, collector: _Collector) -> None:
    if spec.partition(":")[0] == "stdlib" and not Path(spec).exists():
        return _read_stdlib(spec, collector)
    path = Path(spec).expanduser()
    try:
        is_folder, is_file = path.is_dir(), path.is_file()
    except OSError as error:
        raise _unreadable(path, error) from error
    if is_folder:
        _read_folder(path, collector)
    elif is_file and path.suffix == ".parquet":
        _read_rows(_parquet_batches(path), collector, str(path))
    elif is_file and path.suffix == ".py":
        _read_single(path, collector)
    elif is_file:
        raise UsageError("neither a .py nor a .parquet file.", fix="give a folder, a .py or a .parquet file", file=spec)
    elif _HUB_ID.fullmatch(spec) and not path.parent.exists():  # `src/pkg` beside an existing src is a slip, not an id
        collector.limit_bytes = HUB_LIMIT_BYTES if collector.limit_bytes is None else collector.limit_bytes
        _read_rows(_hub_rows(spec), collector, spec)
    else:
        raise UsageError(
            "no such folder or file.",
            fix="give a folder, a .py or .parquet file, a hub id (owner/name) or stdlib",
            file=spec,
        )


# Folders and files


def _read_folder(root: Path, collector: _Collector) -> None:
    def failed(error: OSError) -> None:
        if Path(error.filename or root) == root:
            raise _unreadable(root, error) from error
        collector.skip(_shown(os.path.relpath(error.filename, root)), f"unreadable ({error.strerror})")

    licences: dict[str, str] = {}
    for folder, subfolders, names in os.walk(root, onerror=failed):
        subfolders[:] = sorted(name for name in subfolders if not _passed_over(Path(folder, name)))
        for name in sorted(names):
            if not name.endswith(".py"):
                continue
            path = Path(folder, name)
            relative = path.relative_to(root)
            parts = relative.as_posix().split("/")
            alone = root.resolve().name if collector.together else relative.stem
            project = _shown(parts[0] if len(parts) > 1 else alone)
            if project not in licences:
                licences[project] = _licence_of(root / parts[0], root)
            if not _add_file(path, _shown(relative.as_posix()), project, licences[project], collector):
                return


def _passed_over(folder: Path) -> bool:
    """Hidden folders, installed packages, virtual environments under any name, and models that we made: a router in one
    is no code of the repository around it."""
    named = folder.name.startswith(".") or folder.name in SKIPPED_FOLDERS
    return named or (folder / "pyvenv.cfg").is_file() or _is_model(folder / "config.json")


def _is_model(config: Path) -> bool:
    try:
        said = json.loads(config.read_bytes())
    except (OSError, ValueError):
        return False
    if not isinstance(said, dict):
        return False
    return str(said.get("format")).startswith("constructible") or said.get("model_type") == "constructible"


def _read_single(path: Path, collector: _Collector) -> None:
    project = path.resolve().parent.name if collector.together else path.stem
    _add_file(path, _shown(path.name), _shown(project), "unknown", collector)


def _read_stdlib(spec: str, collector: _Collector) -> None:
    keep: dict[str, Callable[[str], bool]] = {
        "stdlib": lambda package: True,
        "stdlib:train": lambda package: package not in stdlib.HELD_OUT,
        "stdlib:held-out": lambda package: package in stdlib.HELD_OUT,
    }
    if spec not in keep:
        raise UsageError(f"unknown corpus {spec!r}.", fix=f"use one of {', '.join(keep)}")
    root = stdlib.stdlib_folder()
    for package, relative in stdlib.stdlib_paths():
        if keep[spec](package) and not _add_file(root / relative, relative, package, stdlib.LICENCE, collector):
            return


def _add_file(path: Path, shown: str, project: str, licence: str, collector: _Collector) -> bool:
    try:
        if not path.is_file():
            collector.skip(shown, "not a regular file")
            return True
        # Looked at before it is read: a file of many gigabytes must not be loaded to be refused.
        if not collector.fits(shown, path.stat().st_size):
            return True
        data = path.read_bytes()
    except OSError as error:
        collector.skip(shown, f"unreadable ({error.strerror})")
        return True
    return collector.add(shown, data, project, licence)


def _shown(path: str) -> str:
    """A path as valid UTF-8: file names on disk can be any bytes."""
    return os.fsencode(path).decode("utf-8", "replace")


def _unreadable(path: Path, error: OSError) -> ConstructibleError:
    return ConstructibleError(
        f"cannot be read ({error.strerror or error}).", fix="check its permissions or give another corpus", file=path
    )


_LICENCE_HEADINGS = (
    (re.compile(r"SPDX-License-Identifier:[ \t]*([\w.+() -]*[\w.+)])"), None),
    (re.compile(r"Apache License\s+Version 2\.0"), "Apache-2.0"),
    (re.compile(r"\bMIT License\b"), "MIT"),
    (re.compile(r"BSD 3-Clause"), "BSD-3-Clause"),
    (re.compile(r"BSD 2-Clause"), "BSD-2-Clause"),
)


def _licence_of(*folders: Path) -> str:
    """SPDX name read from the heading of a LICENSE file in the first folder that has one, else "unknown"."""
    for folder in folders:
        for name in ("LICENSE", "LICENSE.txt", "LICENSE.md", "LICENCE", "COPYING"):
            try:
                heading = (folder / name).read_bytes()[:600].decode("utf-8", "replace")
            except OSError:
                continue
            for pattern, identifier in _LICENCE_HEADINGS:
                if match := pattern.search(heading):
                    return identifier or match.group(1)
            return "unknown"
    return "unknown"


# Tables: Parquet files and hub datasets, one row per file


def _read_rows(rows: Iterable[dict[str, Any]], collector: _Collector, name: str) -> None:
    """Take rows with any of the known column names until the collector has enough."""
    columns: dict[str, str | None] | None = None
    other_languages = 0
    for number, row in enumerate(rows):
        if columns is None:
            columns = _columns(list(row), name)
        get = {key: row.get(column) if column else None for key, column in columns.items()}
        if str(get["language"] or "python").lower() not in ("python", "py"):
            other_languages += 1
            continue
        project, licence = str(get["project"] or "unknown"), get["licence"]
        if isinstance(licence, (list, tuple)):
            # Each was found somewhere in the project: who may use only some of them may not use the file.
            licence = " AND ".join(sorted(map(str, licence)))
        path = str(get["path"] or f"row-{number}.py")
        shown = path if project == "unknown" or path.startswith(project + "/") else f"{project}/{path}"
        code = get["code"]
        if code is None:
            collector.skip(shown, "empty")
            continue
        if not isinstance(code, str | bytes):
            raise ConstructibleError(
                f"the column {columns['code']!r} holds {type(code).__name__} where code is expected.",
                fix="give a column of text", file=name,
            )  # fmt: skip
        data = code.encode("utf-8", "surrogatepass") if isinstance(code, str) else code
        if not collector.add(shown, data, project, str(licence or "unknown")):
            return
    if other_languages:
        collector.skip(name, f"{other_languages:,} rows are in another language")


def _columns(names: list[str], source: str) -> dict[str, str | None]:
    found = {key: next((name for name in known if name in names), None) for key, known in _COLUMNS.items()}
    if found["code"] is None:
        raise ConstructibleError(
            f"no column holds code; it has {', '.join(names) or 'no columns'}.",
            fix=f"name the column of file contents one of {', '.join(_COLUMNS['code'])}",
            file=source,
        )
    return found


def _parquet_batches(path: Path) -> Iterator[dict[str, Any]]:
    """Rows of a Parquet file, a few hundred at a time, so that memory holds the text once."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            names = file.schema_arrow.names
            wanted = [name for name in _columns(names, str(path)).values() if name is not None]
            for batch in file.iter_batches(batch_size=256, columns=wanted):
                arrays = []
                for column in batch.columns:
                    # As bytes: text that claims to be UTF-8 and is not must be listed, not crash the reader.
                    is_text = pa.types.is_string(column.type) or pa.types.is_large_string(column.type)
                    arrays.append(column.cast(pa.large_binary()) if is_text else column)
                for values in zip(*(array.to_pylist() for array in arrays), strict=True):
                    row = dict(zip(batch.schema.names, values, strict=True))
                    yield {name: _text(name, value) for name, value in row.items()}
    except OSError as error:
        raise _unreadable(path, error) from error
    except pa.ArrowException as error:
        raise ConstructibleError(
            f"not a readable Parquet file ({error}).", fix="download or write it again", file=path
        ) from error


def _text(name: str, value: Any) -> Any:
    is_label = name not in _COLUMNS["code"]
    return value.decode("utf-8", "replace") if is_label and isinstance(value, bytes) else value


def _hub_rows(identifier: str) -> Iterator[dict[str, Any]]:
    """Rows of a hub dataset's `train` split, streamed: nothing is downloaded beyond what is read."""
    import datasets

    try:
        yield from datasets.load_dataset(identifier, split="train", streaming=True)
    except ConstructibleError:
        raise
    except Exception as error:  # the library raises many kinds: network, permission, format
        reason = str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
        raise ConstructibleError(
            f"neither a folder or file here nor a dataset that the hub gives ({reason}).",
            fix="check the name and the network, or download the dataset and give its .parquet file",
            file=identifier,
        ) from error


def _hash_files(files: list[SourceFile]) -> str:
    digest = hashlib.sha256()
    for file in files:
        for part in (file.path.encode(), file.data, file.project.encode(), file.licence.encode()):
            digest.update(len(part).to_bytes(8, "little"))
            digest.update(part)
    return digest.hexdigest()


# Fixed samples


def sample_by_hash(corpus: Corpus, total_bytes: int, by: Literal["file", "project"] = "file") -> Corpus:
    """A sample that depends on the files' contents alone, in the corpus' order.

    Files are taken in the order of their SHA-256; one that no longer fits is passed over.

    Args:
        corpus: what to draw from.
        total_bytes: how much text at most.
        by: `file` draws from all files alike; `project` gives every project an equal share of the bytes.
    """
    groups: dict[str, list[SourceFile]] = {}
    for file in corpus.files:
        groups.setdefault("" if by == "file" else file.project, []).append(file)
    chosen: set[str] = set()
    for files in groups.values():
        left = total_bytes // len(groups)
        for digest, file in sorted((file.sha256, file) for file in files):
            if len(file.data) <= left:
                left -= len(file.data)
                chosen.add(digest)
    return corpus.select(lambda file: file.sha256 in chosen, f"{corpus.name} (sample of {total_bytes:,} bytes by {by})")


def load_sample(name: str, corpus: Corpus) -> Corpus:
    """The files of a committed list (`cgpt/samples/NAME.json`) out of a corpus, in the corpus' order.

    Raises:
        UsageError: no list has that name.
        ConstructibleError: the corpus lacks files of the list, so it is not the one the list was made from.
    """
    wanted = set(read_sample_record(name)["files"])
    sample = corpus.select(lambda file: file.sha256[:16] in wanted, f"{corpus.name} ({name})")
    if len(sample.files) != len(wanted):
        raise ConstructibleError(
            f"{len(wanted) - len(sample.files)} of the {len(wanted)} files of sample {name!r} are not in this corpus.",
            fix="give the file that the sample was drawn from",
            file=corpus.name,
        )
    return sample


def read_sample_record(name: str) -> dict[str, Any]:
    """The committed list `cgpt/samples/NAME.json`, as `sample_record` made it; raises UsageError for another name."""
    from ontology.io import read_json

    folder = Path(__file__).parent / "samples"
    names = sorted(path.stem for path in folder.glob("*.json"))
    if name not in names:
        raise UsageError(f"no sample {name!r}.", fix=f"use one of {', '.join(names)}")
    return read_json(folder / f"{name}.json")


def sample_record(corpus: Corpus, source: str, rule: str) -> dict[str, Any]:
    """What `cgpt/samples/NAME.json` holds: the files by the first 16 hex digits of their SHA-256, sorted."""
    hashes = sorted(file.sha256[:16] for file in corpus.files)
    return {
        "source": source,
        "rule": rule,
        "bytes": corpus.total_bytes,
        "files": hashes,
        "sha256": hashlib.sha256("\n".join(hashes).encode()).hexdigest(),
    }
