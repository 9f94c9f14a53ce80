"""Registries: lazy, without duplicates, with "did you mean"."""

from __future__ import annotations

import sys
from importlib.metadata import EntryPoint

import pytest

from ontology.errors import ConstructibleError, UsageError
from ontology.registry import COMMANDS, TRACKS, Registry
from ontology.track import Track, load_track
from tests.ontology.toy_track import ToyTrack


def test_what_is_registered_is_imported_only_when_asked_for() -> None:
    registry = Registry("thing", entries={"clock": "wave:open", "path": "os.path:join"})
    sys.modules.pop("wave", None)
    assert registry.names() == ["clock", "path"] and "wave" not in sys.modules
    assert registry.load("clock").__name__ == "open" and "wave" in sys.modules


def test_duplicates_and_crooked_targets_are_refused() -> None:
    registry = Registry("thing", entries={"a": "os:path"})
    registry.add("a", "os:path")  # the same again is no conflict
    with pytest.raises(ConstructibleError, match="'a' is registered twice: os:path and sys:path"):
        registry.add("a", "sys:path")
    for target in ("os.path", ":path", "os:", "a:b:c"):
        with pytest.raises(ConstructibleError, match='write "module:attribute"'):
            registry.add("b", target)


def test_unknown_names_and_broken_targets_say_what_to_do() -> None:
    registry = Registry("thing", entries={"first": "os:nothing", "second": "no.such.module:x"})
    with pytest.raises(UsageError, match="no thing 'frist'. Did you mean 'first'"):
        registry.load("frist")
    for name in registry.names():
        with pytest.raises(ConstructibleError, match=f"the thing '{name}' .* cannot be loaded"):
            registry.load(name)
    with pytest.raises(UsageError, match="None is registered"):
        Registry("thing").load("x")


def test_other_packages_add_entries_and_cannot_replace_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [EntryPoint("join", "os.path:join", "test.group")]
    monkeypatch.setattr("importlib.metadata.entry_points", lambda group: [e for e in found if e.group == group])
    assert Registry("thing", group="test.group").load("join").__name__ == "join"
    found.append(EntryPoint("join", "shutil:copy", "test.group"))
    with pytest.raises(ConstructibleError, match="registered twice"):
        Registry("thing", group="test.group").names()


def test_the_installed_commands_are_known() -> None:
    assert {"cgpt", "ontology", "doctor", "eval", "kernels", "vision"} <= set(COMMANDS.names())


def test_a_track_is_found_by_name_and_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    targets = {"toy": "tests.ontology.toy_track:ToyTrack", "odd": "collections:OrderedDict"}
    monkeypatch.setattr(TRACKS, "_targets", targets)
    monkeypatch.setattr(TRACKS, "_discovered", True)
    track = load_track("toy")
    assert isinstance(track, Track) and isinstance(track, ToyTrack)
    with pytest.raises(ConstructibleError, match="'odd' lacks name, ontology, router, state_of"):
        load_track("odd")
