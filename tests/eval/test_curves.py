"""Curves: steps between cuts, power laws whose truth is known, and figures that are whole SVGs."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest

from eval.cli import eval_
from eval.curves import control_words, curve_plot, decomposition
from eval.plots import Point, Series, dot_plot, line_plot
from eval.scale import gaps, power_law, read_raw, scale_plots, scaling, take_along
from eval.scale_page import write_pages
from ontology.errors import ConstructibleError, UsageError
from ontology.main import run as run_command
from tests.eval.results import bits_rows, make_results

LEVELS = {"root": 1.0, "1": 1.02, "2": 1.15, "leaves": 1.16, "plain": 1.17}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Five cuts with two seeds each; the large step is from 1 to 2."""
    for cut, level in LEVELS.items():
        for seed in range(2):
            rows = bits_rows(level, noise_seed=10 * seed + len(cut), noise=0.01)
            parameters = 0 if cut == "plain" else 1_000_000
            make_results(tmp_path, f"cut {cut}", rows, budget={"cut": cut, "parameters": parameters}, seed=seed)
    return tmp_path


def test_the_largest_drop_is_found(run: Path) -> None:
    (curve,) = decomposition(run)
    assert [point.cut for point in curve.points] == list(LEVELS)
    for point in curve.points:
        assert point.value == pytest.approx(LEVELS[point.cut] * curve.points[0].value, rel=0.03)
    assert curve.worst is not None and curve.worst.part == "1 to 2"
    assert "the largest drop is from 1 to 2 (0.1" in curve.words and not curve.warnings
    # Lower cut minus upper cut: what decomposing costs.
    assert curve.worst.comparison.estimate == pytest.approx(curve.points[2].value - curve.points[1].value, abs=1e-9)


def test_the_neural_part_alone_is_a_curve_of_its_own(run: Path) -> None:
    for cut in ("1", "2", "leaves"):
        for seed in range(2):
            model = {"name": f"nets {cut}", "kind": "nets-only", "seed": seed, "fingerprint": cut}
            make_results(run, f"nets {cut}", bits_rows(1.5), budget={"cut": cut}, seed=seed, model=model)
    whole, nets = decomposition(run)
    assert nets.name == "neural part alone" and [point.cut for point in nets.points] == ["root", "1", "2", "leaves"]
    assert nets.worst is not None and nets.worst.part == "root to 1"
    assert whole.points[0].value == nets.points[0].value
    ET.fromstring(curve_plot([whole, nets]))


def test_unequal_cuts_are_named(run: Path) -> None:
    for seed in range(2):
        make_results(run, "cut 2", bits_rows(1.1), budget={"cut": "2", "parameters": 5_000_000, "seconds": 900.0,
                                                          "data_hash": "x"}, seed=seed)  # fmt: skip
    (curve,) = decomposition(run)
    text = " ".join(curve.warnings)
    assert "5,000,000" in text and "same corpus" in text and "180 to 900" in text
    make_results(run, "cut 1", bits_rows(1.0, n=20), budget={"cut": "1"}, seed=0)
    with pytest.raises(ConstructibleError, match="same files"):
        decomposition(run)
    make_results(run, "again", budget={"cut": "root"})
    with pytest.raises(UsageError, match="both at the cut 'root'"):
        decomposition(run)


def test_controls_stand_beside_the_curve(run: Path) -> None:
    for seed in range(2):
        model = {"name": "random", "kind": "", "seed": seed, "fingerprint": "r", "control": "random router"}
        make_results(run, "random", bits_rows(1.3, noise_seed=seed), budget={"cut": "leaves"}, seed=seed, model=model)
    (curve,) = decomposition(run)
    assert len(curve.points) == 5, "a control is no cut of its own"
    (control,) = curve.controls
    assert control.part == "random router at leaves" and control.comparison.estimate > 0.1
    assert control_words(control).startswith("random router at leaves: 0.")


def test_a_step_that_is_chance_is_called_so(tmp_path: Path) -> None:
    for number, cut in enumerate(("root", "1")):
        make_results(tmp_path, cut, bits_rows(1.0 + 0.001 * number, noise_seed=number), budget={"cut": cut})
    (curve,) = decomposition(tmp_path)
    assert "not told from none" in curve.words or "no step loses" in curve.words


def test_power_laws_of_known_truth_are_covered() -> None:
    rng = np.random.default_rng(0)
    x = np.array([1e6, 3e6, 1e7, 3e7])
    hits = 0
    for repeat in range(100):
        size = rng.lognormal(8, 1, 60)
        hard = np.exp(rng.normal(0, 0.2, 60))
        noise = np.exp(rng.normal(0, 0.1, (4, 60)))
        bits = 5.0 * x[:, None] ** -0.1 * size * hard * noise
        exponent, low, high, _, residual = power_law(x, bits, size, seed=repeat)
        hits += low <= 0.1 <= high
        assert abs(exponent - 0.1) < 0.05 and residual < 0.2
    assert 85 <= hits <= 99
    exact = power_law(x, 5.0 * x[:, None] ** -0.1 * np.ones((4, 60)), np.ones(60))
    assert exact[0] == pytest.approx(0.1) and exact[3] == pytest.approx(5.0) and exact[4] < 1e-9
    with pytest.raises(ValueError, match="two different"):
        power_law(x[:1], np.ones((1, 60)), np.ones(60))


def test_scaling_finds_laws_and_turns(tmp_path: Path, capsys) -> None:
    sizes = (1e6, 4e6, 16e6, 64e6)
    for i, size in enumerate(sizes):
        budget = {"data_bytes": int(size), "cut": "leaves", "parameters": 100 * int(size**0.5), "train_flops": None}
        make_results(tmp_path, f"ours {i}", bits_rows(4 * size**-0.1, noise=0.005, noise_seed=i), budget=budget)
        level = (1.9, 1.5, 1.2, 1.6)[i]  # turns back up
        make_results(tmp_path, f"root {i}", bits_rows(level, noise_seed=i), budget=budget | {"cut": "root"})
    laws = {(law.kind, law.axis): law for law in scaling(tmp_path)}
    ours, root = laws["constructed", "training bytes"], laws["monolith", "training bytes"]
    assert ours.exponent == pytest.approx(0.1, abs=0.01) and ours.low < 0.1 < ours.high and not ours.turns
    assert len(root.turns) == 1 and root.turns[0].startswith("1.6e+07 to 6.4e+07")
    assert ("constructed", "seconds") not in laws, "one size only"
    assert ("constructed", "training FLOPs") not in laws
    for _, svg in scale_plots(list(laws.values())):
        assert len(ET.fromstring(svg).findall(".//{*}circle")) == 8 + 2
    assert ours.beside == ["parameters"] and ours.seeds == 1 and ours.lows[0] is not None
    assert run_command(eval_, ["scale", str(tmp_path), "--out", str(tmp_path / "figures")]) == 0
    text = capsys.readouterr().out
    assert "no turn back beyond chance" in text and "turns back at" in text
    assert (tmp_path / "figures" / "training_bytes.svg").is_file()
    # The same from the one file that is kept, with its page.
    raw, pages = tmp_path / "kept" / "scale.json", tmp_path / "pages"
    assert run_command(eval_, ["scale", str(tmp_path), "--raw", str(raw), "--pages", str(pages)]) == 0
    assert {(law.kind, law.axis): law.exponent for law in scaling(raw)} == {k: law.exponent for k, law in laws.items()}
    text = (pages / "scale.md").read_text()
    assert "exponent 0.1" in text and "turns back at" in text and "double descent" not in text
    assert len(list(pages.glob("*.svg"))) == len({law.axis for law in laws.values()})
    one = tmp_path / "one.json"
    asked = ["scale", str(tmp_path), "--axis", "training bytes", "--note", "How.", "--raw", str(one)]
    assert run_command(eval_, asked) == 0
    assert {law.axis for law in scaling(one)} == {"training bytes"} and read_raw(one)["method"] == ["How."]
    assert run_command(eval_, ["scale", str(one), "--axis", "parameters"]) == 2, "what is kept keeps its axes"
    assert run_command(eval_, ["scale", str(tmp_path), "--pages", str(pages)]) == 2
    assert "add --raw FILE" in capsys.readouterr().err
    # Sweeps of earlier results come along where there are none of that name; on other files they are refused.
    for size in sizes:
        make_results(
            tmp_path / "more" / "work", f"ours {size}", bits_rows(4 * size**-0.1), budget={"data_bytes": int(size)}
        )
    both = tmp_path / "both.json"
    assert run_command(eval_, ["scale", str(tmp_path / "more"), "--also", str(raw), "--raw", str(both)]) == 0
    assert {law.sweep for law in scaling(both)} == {"", "work"}
    assert "Taken along from earlier results" in write_pages(both, pages)[0].read_text()
    assert take_along(read_raw(raw), read_raw(both))["earlier"][-1]["sweeps"] == ["work"]
    assert take_along(read_raw(both), read_raw(raw)) == read_raw(both)
    make_results(tmp_path / "fewer", "one", bits_rows(n=3))
    with pytest.raises(ConstructibleError, match="same files"):
        take_along(read_raw(raw), read_raw(tmp_path / "fewer"))
    found = gaps(read_raw(raw))
    assert [gap.x for gap in found if gap.axis == "training bytes"] == list(sizes)
    assert found[0].ratio.estimate < 1 and "Constructed / monolith" in text
    with pytest.raises(UsageError, match="three sizes"):
        make_results(tmp_path / "other", "one")
        scaling(tmp_path / "other")


def test_sweeps_are_fitted_apart_and_seeds_widen_the_interval(tmp_path: Path) -> None:
    for sweep, exponent in (("data", 0.1), ("work", 0.2)):
        for i, size in enumerate((1e6, 4e6, 16e6)):
            for seed in range(3):
                # Each seed is a line of its own: steeper and flatter ones.
                level = 4 * size ** -(exponent + 0.02 * (seed - 1)) * 1e6 ** (0.02 * (seed - 1))
                budget = {"data_bytes": int(size), "cut": "leaves"}
                make_results(tmp_path / sweep, f"ours {i}", bits_rows(level, noise=0.001, noise_seed=i), budget=budget,
                             seed=seed)  # fmt: skip
    laws = {law.sweep: law for law in scaling(tmp_path)}
    assert laws["data"].exponent == pytest.approx(0.1, abs=0.01)
    assert laws["work"].exponent == pytest.approx(0.2, abs=0.01) and laws["work"].seeds == 3
    # 0.02 / sqrt(3) times Student's t with two degrees of freedom.
    assert laws["data"].high - laws["data"].low == pytest.approx(2 * 4.30 * 0.02 / 3**0.5, rel=0.3)


def test_the_commands(run: Path, capsys) -> None:
    assert run_command(eval_, ["curve", str(run), "--svg", str(run / "curve.svg")]) == 0
    assert "largest drop" in capsys.readouterr().out
    ET.parse(run / "curve.svg")
    assert run_command(eval_, ["curve", str(run), "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert len(row["cuts"]) == 5 and len(row["steps"]) == 4 and row["cuts"][0]["seeds"] == 2
    assert run_command(eval_, ["curve", str(run / "cut-1")]) in (0, 2)


def test_plots_hold_what_they_are_given() -> None:
    hostile = "<script>&\"'"
    svg = line_plot([Series(hostile, [Point(1, 2, 1.5, 2.5, hostile), Point(2, 1)])], hostile, hostile, title=hostile)
    root = ET.fromstring(svg)
    assert len(root.findall(".//{*}circle")) == 3 and not root.findall(".//{*}script")
    assert line_plot([], "x", "y") == "" == dot_plot([], "x")
    dots = ET.fromstring(dot_plot([(hostile, 1.0, 0.9, 1.1, True), ("x" * 90, 2.0, None, None, False)], hostile))
    assert len(dots.findall(".//{*}circle")) == 2 and not dots.findall(".//{*}script")
    ET.fromstring(line_plot([Series("flat", [Point(1, 3.0), Point(10, 3.0)])], "x", "y", log_x=True))
    with pytest.raises(ValueError, match="above 0"):
        line_plot([Series("zero", [Point(0, 1.0)])], "x", "y", log_x=True)
