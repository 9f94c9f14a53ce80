"""The content-addressed store: finished work under the hash of all it depends on, so that it is never done twice.

Layout: `<root>/<key[:2]>/<key>/entry.json` and `files/` hold finished work and never change; `<root>/work/<key>/` holds
work in progress (`checkpoint/` survives a kill). Finished work appears by one rename.
"""

from __future__ import annotations

import fcntl
import importlib.util
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ontology.errors import ConstructibleError
from ontology.io import explain_os_errors, make_folder, read_json, sha256_file, sha256_json, write_json

FORMAT = "constructible-store/1"


def default_store_folder() -> Path:
    """Return the store of this user: $CONSTRUCTIBLE_STORE, or `constructible/store` in the cache folder."""
    if chosen := os.environ.get("CONSTRUCTIBLE_STORE"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "constructible" / "store"


def store_key(**parts: Any) -> str:
    """Return the hex SHA-256 of JSON values in canonical form; equal parts give equal keys."""
    return sha256_json(parts)


def code_hash(*modules: str) -> str:
    """Return one hash of the source text of Python modules given by import name, without importing them.

    A package counts with all `.py` files below it.
    """
    texts: dict[str, str] = {}
    for name in modules:
        spec = importlib.util.find_spec(name)
        if spec is None or spec.origin is None:
            raise ConstructibleError(f"no module {name!r} to hash.", fix="correct the name")
        if spec.submodule_search_locations:
            folder = Path(next(iter(spec.submodule_search_locations)))
            texts.update({f"{name}/{p.relative_to(folder).as_posix()}": sha256_file(p) for p in folder.rglob("*.py")})
        else:
            texts[name] = sha256_file(spec.origin)
    return sha256_json(texts)


@dataclass(frozen=True)
class Entry:
    """Finished work: its `folder` of files, their SHA-256 by relative path, and the seconds it took at the time."""

    key: str
    name: str
    folder: Path
    files: dict[str, str]
    seconds: float


@dataclass(frozen=True)
class Work:
    """Work in progress under a key: `files` to publish, and a `checkpoint` folder that survives a kill."""

    key: str
    folder: Path

    @property
    def files(self) -> Path:
        return self.folder / "ready" / "files"

    @property
    def checkpoint(self) -> Path:
        return self.folder / "checkpoint"

    def clear(self) -> None:
        """Empty the files of an earlier, unfinished attempt; the checkpoint stays."""
        with explain_os_errors(self.files):
            shutil.rmtree(self.folder / "ready", ignore_errors=True)
            self.files.mkdir(parents=True)
            self.checkpoint.mkdir(parents=True, exist_ok=True)


class Store:
    """Finished work by key in a folder; several builds may share it."""

    def __init__(self, root: str | Path) -> None:
        self.root = make_folder(root)

    def find(self, key: str) -> Entry | None:
        """Return the finished work under a key, or None. Work whose files are gone or changed is removed and not
        returned, so that it is done again."""
        folder = self._place(key)
        if not (folder / "entry.json").exists():
            return None
        described = read_json(folder / "entry.json")
        if not isinstance(described, dict) or described.get("format") != FORMAT:
            raise ConstructibleError(
                "not a store entry of this version.", fix="delete the store's folder or choose another", file=folder
            )
        entry = Entry(key, described["name"], folder / "files", described["files"], float(described["seconds"]))
        damaged = [
            path for path, digest in entry.files.items()
            if not (entry.folder / path).is_file() or sha256_file(entry.folder / path) != digest
        ]  # fmt: skip
        if damaged:
            with explain_os_errors(folder):
                shutil.rmtree(folder)
            return None
        return entry

    @contextmanager
    def work(self, key: str) -> Iterator[Work]:
        """Take the work under a key for this process; another process that asks for it waits until then."""
        folder = make_folder(self.root / "work" / key)
        lock = folder.with_suffix(".lock")
        with explain_os_errors(lock):
            handle = _lock(lock)
        try:
            make_folder(folder)
            with explain_os_errors(folder):
                os.utime(folder)
            yield Work(key, folder)
        finally:
            lock.unlink(missing_ok=True)
            os.close(handle)

    def publish(self, work: Work, name: str, seconds: float | Callable[[], float]) -> Entry:
        """Make the files of finished work permanent, by one rename, and drop its checkpoint.

        Args:
            seconds: how long the work took; a callable is asked once the files are safely on the disk.
        """
        ready, target = work.folder / "ready", self._place(work.key)
        files: dict[str, str] = {}
        with explain_os_errors(ready):
            for path in sorted(work.files.rglob("*")):
                if path.is_symlink() or not (path.is_file() or path.is_dir()):
                    raise ConstructibleError(
                        "a job left something that is not a plain file.", fix="write files", file=path
                    )
                if path.is_file():
                    with open(path, "rb") as handle:
                        os.fsync(handle.fileno())
                    os.chmod(path, 0o444)  # shared with run folders by hard links: nobody may write into it
                    files[path.relative_to(work.files).as_posix()] = sha256_file(path)
        spent = round(seconds() if callable(seconds) else seconds, 3)
        write_json(
            ready / "entry.json",
            {"format": FORMAT, "key": work.key, "name": name, "seconds": spent, "files": files},
        )
        make_folder(target.parent)
        with explain_os_errors(target):
            if target.exists():  # what `find` could not read: half removed, or by another version
                shutil.rmtree(target)
            os.rename(ready, target)
            _sync_folder(target.parent)
            shutil.rmtree(work.folder, ignore_errors=True)
        return Entry(work.key, name, target / "files", files, spent)

    def discard(self, work: Work) -> None:
        """Drop work in progress that led to other entries, its checkpoint included."""
        shutil.rmtree(work.folder, ignore_errors=True)

    def sweep(self, days: float = 14.0) -> None:
        """Remove work in progress that nobody has touched for so many days."""
        work = self.root / "work"
        for folder in sorted(work.iterdir()) if work.is_dir() else []:
            if folder.is_dir() and time.time() - folder.stat().st_mtime > days * 86400:
                shutil.rmtree(folder, ignore_errors=True)
                folder.with_suffix(".lock").unlink(missing_ok=True)

    def _place(self, key: str) -> Path:
        if len(key) != 64 or any(c not in "0123456789abcdef" for c in key):
            raise ConstructibleError(f"{key!r} is not a store key.", fix="make keys with `store_key`")
        return self.root / key[:2] / key


def materialise(entry: Entry, out: Path, place: str = "") -> list[str]:
    """Put an entry's files into `out`/`place` by hard link, or by copy across file systems; return their paths."""
    paths: list[str] = []
    for path in sorted(entry.files):
        source, target = entry.folder / path, out / place / path
        paths.append((Path(place) / path).as_posix())
        make_folder(target.parent)
        with explain_os_errors(target):
            if target.exists() and os.path.samefile(source, target):
                continue
            temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
            temporary.unlink(missing_ok=True)
            try:
                _link_or_copy(source, temporary)
                os.replace(temporary, target)
            finally:
                temporary.unlink(missing_ok=True)
    return paths


def _lock(path: Path) -> int:
    """Lock a file that its holder removes at the end: a lock on a removed file is no lock, so look again."""
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        fcntl.flock(handle, fcntl.LOCK_EX)
        try:
            if os.path.samestat(os.fstat(handle), os.stat(path)):
                return handle
        except FileNotFoundError:
            pass  # removed by the process that held it: take a new one
        os.close(handle)


def _link_or_copy(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without hard links
        shutil.copyfile(source, target)


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
