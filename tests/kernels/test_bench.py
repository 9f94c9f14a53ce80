"""The benchmark: every peer computes what we compute, and the command's rows have what is promised."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace

import pytest
import torch
from click.testing import CliRunner

from kernels import bench as kernels_bench
from kernels import bench_cnn, ragged_mlp, route
from kernels.bench import Settings, Workload, workloads
from kernels.cli import kernels
from kernels.peers import PEERS
from kernels.stacking import MLPStack


@pytest.mark.parametrize("spread", ["uniform", "zipf", "empty"])
def test_peers_compute_the_same(spread):
    work = Workload(12, 6, (8, 8, 4), spread)
    stacked = MLPStack.init(12, work.widths)
    plan = route(work.choice(1), n_modules=12)
    x, goal = torch.randn(72, 8), torch.randn(72, 4)
    want = ragged_mlp(x, stacked.weights, stacked.biases, plan, backend="reference")[plan.rows.long()]
    seen = []
    for peer in PEERS:
        if peer.compiled or peer.name == "loop" or not peer.fits(work, Settings(quick=True)):
            continue
        given, _ = peer.inputs(x, goal, plan)
        got = peer.network(given, stacked.weights, stacked.biases)
        if peer.name == "padded_bmm":
            got = torch.cat([rows[: int(n)] for rows, n in zip(got, plan.counts, strict=True)])
        torch.testing.assert_close(got.reshape(72, 4), want, rtol=1e-4, atol=1e-5)
        seen.append(peer.name)
    assert seen == (
        ["vmap", "baddbmm", "bucketed_bmm", "grouped_mm"]
        if spread == "uniform"
        else ["padded_bmm", "bucketed_bmm", "grouped_mm"]
    )


def test_spreads_are_what_they_say():
    counts = {s: torch.bincount(Workload(1000, 20, (4, 4), s).choice(0), minlength=1000) for s in kernels_bench.SPREADS}
    assert set(counts["uniform"].tolist()) == {20}
    assert (counts["empty"] == 0).float().mean() == pytest.approx(0.3, abs=0.01)
    assert counts["zipf"][0] > 50 * counts["zipf"][200:].float().mean()
    assert all(int(c.sum()) == 20_000 for c in counts.values())


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(kernels_bench, "QUICK", [Workload(20, 4, (5, 8, 3))])
    monkeypatch.setattr(bench_cnn, "QUICK", [(3, 2)])
    monkeypatch.setattr(kernels_bench, "timed", lambda function, seconds, device: (function(), (2.0, 0.1))[1])


def test_rows_have_the_promised_keys(small):
    result = CliRunner().invoke(kernels, ["bench", "--quick", "--json"])
    assert result.exit_code == 0, result.output
    rows = json.loads(result.stdout)
    assert len(rows) == 9 + 6
    for row in rows:
        assert {"workload", "mode", "dtype", "ratio_to_best_peer", "device", "torch"} <= set(row)
        assert row["ratio_to_best_peer"] == 1.0 and row["error_against_float64"] < 1e-5
        assert row["failures"] == "" and row["ratio_to_loop"]
    assert {row["mode"] for row in rows} == {"forward", "forward+backward", "step"}
    assert {row["best_peer"] for row in rows if row["workload"].startswith("cnn-3x2")} <= set(bench_cnn.PEERS)


def test_csv_and_table(small):
    result = CliRunner().invoke(kernels, ["bench", "--quick", "--csv"])
    rows = list(csv.DictReader(io.StringIO(result.stdout)))
    assert len(rows) == 15 and rows[0]["workload"] == "20x4x5-8-3/uniform" and rows[0]["backend"] == "cpu"
    assert "ratio_to_best_peer" in CliRunner().invoke(kernels, ["bench", "--quick"]).stdout


@pytest.mark.parametrize("shared", [True, False])
def test_peers_of_the_nodes_compute_the_same(shared):
    images, weights, biases, goal = bench_cnn.Nodes(5, 3, shared).inputs(0, "cpu")
    want = bench_cnn._ours(images, weights, biases)
    assert want.shape == (3, 5, 1, 8, 8) and goal.shape == (3, 5)
    for network, compiled in bench_cnn.PEERS.values():
        if not compiled:
            torch.testing.assert_close(network(images, weights, biases), want, rtol=1e-4, atol=1e-5)
    run, scale = bench_cnn._loop("forward", images, [*weights, *biases], goal)
    assert scale == 1.0
    torch.testing.assert_close(torch.cat(run(), 1), want, rtol=1e-4, atol=1e-5)


def test_a_peer_that_fails_says_so_and_the_others_count():
    def broken():
        raise RuntimeError("no compiler\nmore")

    times, failures = kernels_bench.peer_times({"a": broken, "b": lambda: (lambda: None, 2.0)}, 0.001, "cpu")
    assert list(times) == ["b"] and failures == "a: RuntimeError no compiler"


def test_only_some_workloads(small):
    result = CliRunner().invoke(kernels, ["bench", "--quick", "--json", "--only", "zipf"])
    assert {row["workload"] for row in json.loads(result.stdout)} == {"20x4x5-8-3/zipf"}
    none = CliRunner().invoke(kernels, ["bench", "--quick", "--only", "nothing"])
    assert none.exit_code == 2 and "no workload has this in its name" in none.output


def test_refusals():
    both = CliRunner().invoke(kernels, ["bench", "--json", "--csv"])
    assert both.exit_code == 2 and "one of --json and --csv" in both.output
    if not torch.cuda.is_available():
        none = CliRunner().invoke(kernels, ["bench", "--device", "cuda"])
        assert none.exit_code == 2 and "no CUDA device here" in none.output


def test_a_quick_run_leaves_out_what_takes_minutes():
    zipf = next(w for w in workloads("cpu", True) if w.spread == "zipf")
    left_out = {p.name for p in PEERS if p.fits(zipf, Settings()) and not p.fits(zipf, Settings(quick=True))}
    assert left_out == {"padded_bmm"}
    even = replace(zipf, spread="uniform")
    ways = [{p.name for p in PEERS if p.fits(even, s)} for s in (Settings(), Settings(compiled=False))]
    assert ways[0] - ways[1] == {"vmap_compiled", "baddbmm_compiled"}


def test_selection():
    assert len(workloads("cpu", False)) == 18 and workloads("cuda", False)[0].n_modules == 1024
