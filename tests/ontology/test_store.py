"""The store: finished work appears at once and whole, and is not trusted when its files changed."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import threading
import time
from pathlib import Path

import pytest

from ontology.errors import ConstructibleError
from ontology.store import Entry, Store, code_hash, default_store_folder, materialise, store_key

KEY = store_key(name="test")


def publish(store: Store, text: str = "hello", key: str = KEY) -> Entry:
    with store.work(key) as work:
        work.clear()
        (work.files / "sub").mkdir()
        (work.files / "sub" / "a.txt").write_text(text)
        (work.checkpoint / "c.bin").write_bytes(b"state")
        return store.publish(work, "test", 1.5)


def test_finished_work_is_found_and_work_in_progress_is_not(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    with store.work(KEY) as work:
        work.clear()
        (work.files / "a.txt").write_text("half")
        assert store.find(KEY) is None
    entry = publish(store)
    found = Store(tmp_path / "store").find(KEY)
    assert found == entry and found is not None
    assert (found.name, found.seconds, list(found.files)) == ("test", 1.5, ["sub/a.txt"])
    assert not list((tmp_path / "store" / "work").iterdir())
    assert stat.S_IMODE((found.folder / "sub/a.txt").stat().st_mode) == 0o444


def test_a_checkpoint_survives_and_unfinished_files_do_not(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with store.work(KEY) as work:
        work.clear()
        (work.files / "a.txt").write_text("half")
        (work.checkpoint / "c.bin").write_bytes(b"state")
    with store.work(KEY) as work:
        work.clear()
        assert not list(work.files.iterdir()) and (work.checkpoint / "c.bin").read_bytes() == b"state"


@pytest.mark.parametrize("damage", ["changed", "gone"])
def test_damaged_work_is_removed_so_that_it_is_done_again(damage: str, tmp_path: Path) -> None:
    store = Store(tmp_path)
    path = publish(store).folder / "sub" / "a.txt"
    path.unlink()
    if damage == "changed":
        path.write_text("hellp")
    assert store.find(KEY) is None
    assert publish(store).files and store.find(KEY) is not None


def test_an_entry_of_another_version_is_refused(tmp_path: Path) -> None:
    store = Store(tmp_path)
    entry = publish(store).folder.parent / "entry.json"
    entry.write_text(entry.read_text().replace("store/1", "store/9"))
    with pytest.raises(ConstructibleError, match="not a store entry of this version"):
        store.find(KEY)


def test_links_are_not_published(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with store.work(KEY) as work:
        work.clear()
        os.symlink("/etc/passwd", work.files / "a.txt")
        with pytest.raises(ConstructibleError, match="not a plain file"):
            store.publish(work, "test", 0.0)


@pytest.mark.parametrize("key", ["", "abc", "../" * 21 + "x", "G" * 64])
def test_what_is_no_key_is_refused(key: str, tmp_path: Path) -> None:
    with pytest.raises(ConstructibleError, match="not a store key"):
        Store(tmp_path).find(key)


def test_materialising_replaces_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = publish(Store(tmp_path / "store"))
    out = tmp_path / "out"
    (out / "x" / "sub").mkdir(parents=True)
    (out / "x" / "sub" / "a.txt").write_text("old")
    assert materialise(entry, out, "x") == ["x/sub/a.txt"]
    assert (out / "x" / "sub" / "a.txt").samefile(entry.folder / "sub" / "a.txt")

    def no_links(*paths: object) -> None:
        raise OSError(errno.EXDEV, "cross-device link")

    monkeypatch.setattr(os, "link", no_links)
    materialise(entry, tmp_path / "copied")
    copied = tmp_path / "copied" / "sub" / "a.txt"
    assert copied.read_text() == "hello" and not copied.samefile(entry.folder / "sub" / "a.txt")
    assert [path.name for path in copied.parent.iterdir()] == ["a.txt"]


def test_a_full_disk_is_one_clear_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = publish(Store(tmp_path / "store"))

    def full(*arguments: object, **options: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "link", full)
    monkeypatch.setattr(shutil, "copyfile", full)
    with pytest.raises(ConstructibleError, match="the disk is full. Fix: free space"):
        materialise(entry, tmp_path / "out")


def test_a_folder_that_cannot_be_made_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConstructibleError, match="file"):
        Store(tmp_path / "file" / "store")


def test_a_second_worker_waits_for_the_first(tmp_path: Path) -> None:
    store, order = Store(tmp_path), []

    def second() -> None:
        with Store(tmp_path).work(KEY):
            order.append("second")

    with store.work(KEY) as work:
        thread = threading.Thread(target=second)
        thread.start()
        time.sleep(0.2)
        work.clear()
        (work.files / "a.txt").write_text("x")
        store.publish(work, "test", 0.0)
        order.append("first")
    thread.join(timeout=10)
    assert order == ["first", "second"]


def test_old_work_in_progress_is_swept(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for age, key in ((30, store_key(n=1)), (1, store_key(n=2))):
        with store.work(key) as work:
            work.clear()
        then = time.time() - age * 86400
        os.utime(tmp_path / "work" / key, (then, then))
    store.sweep()
    assert [path.name for path in (tmp_path / "work").iterdir()] == [store_key(n=2)]


def test_keys_and_code_hashes_change_with_what_they_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert store_key(a=1, b=[2]) == store_key(b=[2], a=1) != store_key(a=1, b=[3])
    assert code_hash("ontology.store") == code_hash("ontology.store") != code_hash("ontology.fit")
    assert code_hash("ontology") != code_hash("ontology.store")
    with pytest.raises(ConstructibleError, match="no module 'ontology.nothing'"):
        code_hash("ontology.nothing")
    monkeypatch.setenv("CONSTRUCTIBLE_STORE", str(tmp_path))
    assert default_store_folder() == tmp_path
    monkeypatch.delenv("CONSTRUCTIBLE_STORE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert default_store_folder() == tmp_path / "cache" / "constructible" / "store"
