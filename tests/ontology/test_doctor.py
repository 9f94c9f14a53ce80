"""`constructible doctor`: finds the foreign `kernels`, wrong pairs and wrong settings, and names the repair."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from ontology import doctor
from ontology.main import constructible, run


def versions(monkeypatch: pytest.MonkeyPatch, **fixed: str | None) -> None:
    real = doctor._version
    monkeypatch.setattr(doctor, "_version", lambda name: fixed[name] if name in fixed else real(name))


def test_this_environment_is_in_order(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.delenv("CONSTRUCTIBLE_DATA", raising=False)
    assert run(constructible, ["doctor", "--json"]) == 0
    found = {item["subject"]: item for item in json.loads(capsys.readouterr().out)["findings"]}
    assert {"python", "packages", "kernels", "torch", "threads", "memory", "disk", "bfloat16", "data"} <= found.keys()
    assert found["data"]["state"] == "note" and "extra dev" in found


def test_a_foreign_kernels_is_found_with_the_repair(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    versions(monkeypatch, kernels="0.17.0")
    assert run(constructible, ["doctor"]) == 3
    out, err = capsys.readouterr()
    assert "bad   kernels: the foreign distribution `kernels` 0.17.0" in out
    assert "fix: pip uninstall kernels && pip install --force-reinstall --no-deps constructible" in out
    assert err.startswith("error: 1 to repair: kernels.") or "kernels" in err
    versions(monkeypatch, kernels=None)
    foreign = tmp_path / "__init__.py"
    foreign.write_text("")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: SimpleNamespace(origin=str(foreign)))
    assert "finds a foreign package" in doctor.look_at_kernels()[0].detail
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert doctor.look_at_kernels()[0].state == "bad"


@pytest.mark.parametrize(
    ("amx", "features", "state", "word"),
    [
        (True, {"amx-bf16": True, "avx512bf16": True}, "ok", "on a matrix unit"),
        (False, {"amx-bf16": True, "avx512bf16": True}, "ok", "by torch alone"),
        (False, {"avx512bf16": True}, "ok", "AVX-512"),
        (False, {}, "note", "not multiplied"),
    ],
)
def test_what_multiplies_is_told(
    amx: bool, features: dict[str, bool], state: str, word: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kernels.numba_amx.available", lambda: amx)
    monkeypatch.setattr("llvmlite.binding.get_host_cpu_features", lambda: features)
    [found] = doctor.look_at_processor()
    assert found.state == state and word in found.detail


@pytest.mark.parametrize(
    ("torch", "triton", "state"),
    [("2.13.0", "3.7.1", "ok"), ("2.13.0+cpu", None, "ok"), ("2.11.0", "3.6.0", "ok"), ("2.13.0", "3.6.0", "bad"),
     ("2.11.0", "3.7.1", "bad"), (None, None, "bad")],
)  # fmt: skip
def test_torch_and_triton_belong_together(
    torch: str | None, triton: str | None, state: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    versions(monkeypatch, torch=torch, triton=triton)
    monkeypatch.setattr("importlib.metadata.requires", lambda name: [])
    assert doctor.look_at_torch()[0].state == state
    # A CUDA build names its triton itself, and that counts.
    if torch is not None and triton == "3.7.1":
        monkeypatch.setattr("importlib.metadata.requires", lambda name: ["triton==3.9.0 ; platform_system == 'Linux'"])
        assert doctor.look_at_torch()[0].state == "bad"


@pytest.mark.parametrize(("setting", "state"), [("1", "ok"), ("0", "bad"), ("many", "bad"), ("100000", "bad")])
def test_thread_settings(setting: str, state: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", setting)
    assert doctor.look_at_machine()[0].state == state


def test_packages_out_of_range_and_missing_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    versions(monkeypatch, click="7.0", networkx=None)
    found = {finding.subject: finding for finding in doctor.look_at_packages()}
    assert found["click"].state == "bad" and "needed <9,>=8.1" in found["click"].detail
    assert found["networkx"].detail == "not installed" and "pip install 'networkx" in found["networkx"].fix
    assert "click" not in found["packages"].detail


def test_a_package_that_is_missing_does_not_hide_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    def look_at_machine() -> list[doctor.Finding]:
        raise ModuleNotFoundError("No module named 'psutil'", name="psutil")

    monkeypatch.setattr(doctor, "LOOKS", (look_at_machine, doctor.look_at_packages))
    found = {finding.subject: finding for finding in doctor.findings()}
    assert found["machine"].state == "bad" and "'psutil'" in found["machine"].detail and "packages" in found


def test_the_data_folder_is_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONSTRUCTIBLE_DATA", str(tmp_path))
    assert doctor.look_at_data()[0].state == "bad"
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "train.parquet").write_bytes(b"x" * 1000)
    assert doctor.look_at_data()[0].state == "ok"


def test_extras_that_are_missing_say_how_to_get_them(monkeypatch: pytest.MonkeyPatch) -> None:
    versions(monkeypatch, anthropic=None)
    llm = next(finding for finding in doctor.look_at_extras() if finding.subject == "extra llm")
    assert llm.state == "note" and llm.fix == "pip install 'constructible[llm]'"
