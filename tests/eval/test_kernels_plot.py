"""The figure of a kernels benchmark."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

import pytest

from eval.studies.kernels_plot import MODES, draw, means, read, write
from ontology.errors import ConstructibleError
from tests.support import ROOT

HEAD = "workload,mode,ratio_to_best_peer,best_peer,device,threads,load_average\n"


def test_every_ratio_is_a_dot_and_faster_is_further_right(tmp_path):
    source = tmp_path / "kernels-cpu.csv"
    rows = ["a/zipf,forward,0.5,loop,Chip <1>,2,0.5", "a/zipf,step,8,vmap,Chip <1>,2,1.5", "b,forward,,,Chip <1>,2,1"]
    source.write_text(HEAD + "\n".join(rows) + "\n")
    target = write(source)
    assert target == tmp_path / "kernels-cpu.svg"
    text = target.read_text()
    ET.fromstring(text)  # well-formed, the device's name included
    dots = re.findall(r'<circle cx="([\d.]+)" cy="[\d.]+" r="5" fill="(#\w+)" opacity', text)
    assert [colour for _, colour in dots] == [MODES["forward"], MODES["step"]]
    one = float(re.findall(r'class="one" x1="([\d.]+)"', text)[0])
    assert float(dots[0][0]) < one < float(dots[1][0])
    assert "Chip &lt;1&gt;, 2 threads, load 0.5 to 1.5" in text and "a/zipf, step: 8 times vmap" in text


def test_nothing_to_draw_is_said():
    with pytest.raises(ConstructibleError, match="no row has a ratio"):
        draw([{"workload": "a", "mode": "step", "ratio_to_best_peer": "", "best_peer": ""}], "x")


def test_means_are_geometric_and_of_the_workloads_they_name():
    rows = [
        {"workload": name, "mode": "step", "ratio_to_best_peer": best, "ratio_to_baddbmm": "3", "ratio_to_loop": loop}
        for name, best, loop in (
            ("1024x4x8-8/zipf", "2", "100"), ("64x4x8-8/empty", "8", "7"), ("64x4x8-8/uniform", "5", "7"),
            ("cnn-4096x1x8-8/own", "0.5", ""),
        )
    ]  # fmt: skip
    lines = means(rows).splitlines()[2:]
    assert [line.split(" | ")[-1] for line in lines] == [
        "4.0 (2.0 to 8.0) |", "3.0 (3.0 to 3.0) |", "5.0 (5.0 to 5.0) |", "100 (100 to 100) |", "0.5 (0.5 to 0.5) |",
    ]  # fmt: skip
    assert all(" | – | – | " in line for line in lines)


def test_committed_means_are_those_of_the_rows():
    page = (ROOT / "docs/benchmarks/README.md").read_text(encoding="utf-8")
    for name in ("xeon", "epyc"):
        assert means(read(ROOT / f"docs/benchmarks/kernels-cpu-{name}.csv")) in page
