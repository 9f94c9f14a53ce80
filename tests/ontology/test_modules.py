"""Modules: declared reads and nothing else, folders that survive and that refuse what is broken."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ontology.errors import ConstructibleError
from ontology.modules import PLAIN_FUNCTIONS, Examples, HandedReads, Module, PlainModule, hand_reads, load_module
from ontology.nets import NetModule
from ontology.tables import CountTable


def greedy(reads: HandedReads) -> np.ndarray:
    """Plain code that looks at more than it may."""
    return np.asarray(reads["secret"], np.float64)[:, None]


def double(reads: HandedReads) -> np.ndarray:
    return np.stack([reads["x"], 2.0 * reads["x"]], axis=1)


def crooked(reads: HandedReads) -> np.ndarray:
    return np.zeros(3)


for _name in ("greedy", "double", "crooked"):
    if f"test-{_name}" not in PLAIN_FUNCTIONS.names():
        PLAIN_FUNCTIONS.add(f"test-{_name}", f"{__name__}:{_name}")


@pytest.fixture(autouse=True)
def _functions(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    # pytest's importlib mode gives test modules no importable name; the registry needs one.
    monkeypatch.setitem(sys.modules, __name__, sys.modules.get(__name__) or __import__(__name__))


READS = {"x": np.arange(4.0), "c": np.array([0, 1, 2, 0]), "secret": np.ones(4)}


def small_net(**options) -> NetModule:
    return NetModule("n", ["x", "c"], {"x": 0, "c": 3}, 2, hidden=4, **options)


def examples(rows: int = 300) -> Examples:
    rng = np.random.default_rng(0)
    reads = {
        "x": rng.normal(size=rows).astype(np.float32),
        "c": rng.integers(0, 3, rows),
        "secret": rng.normal(size=rows),
    }
    return Examples(reads, ((reads["x"] > 0) ^ (reads["c"] == 1)).astype(np.int64))


def test_a_module_is_handed_its_declared_reads_and_nothing_else() -> None:
    module = PlainModule("m", ["x"], "test-double")
    handed = hand_reads(module, READS)
    assert dict(handed).keys() == {"x"} and "secret" not in handed and len(handed) == 1 and handed.rows == 4
    with pytest.raises(ConstructibleError, match="'m' asks for the read 'secret', which it does not declare"):
        _ = handed["secret"]
    with pytest.raises(ConstructibleError, match="asks for the read 'secret'"):
        PlainModule("m", ["x"], "test-greedy").predict(READS)
    with pytest.raises(ValueError, match="read-only"):
        handed["x"][0] = 5.0


def test_nothing_can_be_reached_through_a_view() -> None:
    table = np.arange(8.0).reshape(4, 2)
    handed = hand_reads(PlainModule("m", ["x"], "test-double"), {"x": table[:, 0], "secret": table[:, 1]})
    base = handed["x"].base
    assert base is None or base.shape == (4,)


def test_missing_and_crooked_reads_are_named() -> None:
    module = small_net()
    with pytest.raises(ConstructibleError, match="declares the read 'c', which is not given"):
        module.predict({"x": np.zeros(3)})
    with pytest.raises(ConstructibleError, match=r"'c' has shape \[2\] where 3 rows are expected"):
        module.predict({"x": np.zeros(3), "c": np.zeros(2, np.int64)})
    with pytest.raises(ConstructibleError, match="outside of 0..2"):
        module.predict({"x": np.zeros(1), "c": np.array([3])})
    with pytest.raises(ConstructibleError, match="not finite"):
        module.predict({"x": np.array([np.nan]), "c": np.array([0])})
    with pytest.raises(ConstructibleError, match="declares a read twice"):
        PlainModule("m", ["x", "x"], "test-double")
    with pytest.raises(ConstructibleError, match=r"returned shape \[3\]"):
        PlainModule("m", ["x"], "test-crooked").predict(READS)


def fitted() -> list[Module]:
    table = CountTable("t", ["c"], {"c": 3}, 2)
    net = small_net()
    for module in (table, net):
        module.fit(examples())
    return [PlainModule("p", ["x"], "test-double"), table, net]


@pytest.mark.parametrize("index", range(3))
def test_a_folder_gives_the_same_module_again(index: int, tmp_path: Path) -> None:
    module = fitted()[index]
    module.save(tmp_path / "m", {"note": "made by a test"})
    again = load_module(tmp_path / "m")
    assert type(again) is type(module) and (again.name, again.reads) == (module.name, module.reads)
    assert np.array_equal(again.predict(READS), module.predict(READS))
    assert again.explain(READS) == module.explain(READS)
    assert (again.parameters, again.entries) == (module.parameters, module.entries)
    again.save(tmp_path / "again", {"note": "made by a test"})
    for path in (tmp_path / "m").iterdir():
        assert path.read_bytes() == (tmp_path / "again" / path.name).read_bytes()
    assert json.loads((tmp_path / "m" / "module.json").read_text())["metadata"] == {"note": "made by a test"}


def change(folder: Path, **values) -> None:
    path = folder / "module.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}), encoding="utf-8")


def test_a_broken_folder_is_refused_with_the_reason(tmp_path: Path) -> None:
    def fresh() -> Path:
        small_net().save(tmp_path / "m")
        return tmp_path / "m"

    with pytest.raises(ConstructibleError, match="no such file"):
        load_module(tmp_path / "nowhere")
    folder = fresh()
    tensors = folder / "tensors.safetensors"
    data = bytearray(tensors.read_bytes())
    data[-1] ^= 1
    tensors.write_bytes(bytes(data))
    with pytest.raises(ConstructibleError, match="do not fit their checksum"):
        load_module(folder)
    tensors.unlink()
    with pytest.raises(ConstructibleError, match="tensors.safetensors: no such file"):
        load_module(folder)
    for values, message in [
        ({"format": "constructible-module/2"}, "has the format 'constructible-module/2'; this version reads"),
        ({"format": "something"}, "not a module's description"),
        ({"class": "mpl"}, "'mpl' is not registered. Did you mean 'mlp'"),
        ({"class": "os:system"}, "'os:system' is not registered"),
        ({"settings": {}}, "do not make a NetModule"),
        ({"settings": {**small_net().settings(), "hidden": 5}}, "do not make a NetModule"),
    ]:
        folder = fresh()
        change(folder, **values)
        with pytest.raises(ConstructibleError, match=message):
            load_module(folder)
    (fresh() / "module.json").write_text("{", encoding="utf-8")
    with pytest.raises(ConstructibleError, match="not valid JSON"):
        load_module(tmp_path / "m")


def test_a_plain_function_must_be_registered(tmp_path: Path) -> None:
    """A folder cannot name code to run: only registered functions are known."""
    PlainModule("p", ["x"], "test-double").save(tmp_path)
    change(tmp_path, settings={"function": "os:system"})
    with pytest.raises(ConstructibleError, match="no plain function 'os:system'"):
        load_module(tmp_path)


def test_the_net_learns_and_explains() -> None:
    net, data = small_net(), examples()
    net.fit(data)
    log_probs = net.predict(data.reads)
    assert np.allclose(np.exp(log_probs).sum(1), 1.0, atol=1e-9)
    assert (log_probs.argmax(1) == data.targets).mean() > 0.9
    evidence = net.explain({name: values[:5] for name, values in data.reads.items()})
    assert len(evidence) == 5 and {item["text"].split(" ")[0] for item in evidence[0]} == {"x", "c"}
    assert abs(evidence[0][0]["value"]) >= abs(evidence[0][1]["value"])


@pytest.mark.parametrize("loss", ["logistic", "mse"])
def test_the_net_learns_scores(loss) -> None:
    data = examples()
    net = NetModule("n", ["x", "c"], {"x": 0, "c": 3}, 2, hidden=16, loss=loss, activation="silu")
    targets = np.stack([data.targets, 1 - data.targets], axis=1).astype(np.float32)
    net.fit(Examples(data.reads, targets))
    assert (net.predict(data.reads).argmax(1) == targets.argmax(1)).mean() > 0.9


def test_a_net_stays_below_its_limit_and_counts_its_floats() -> None:
    net = small_net()
    assert net.parameters == sum(array.size for array in net.weights) == (4 + 1) * 4 + (4 + 1) * 2
    small_net(max_params=30)
    with pytest.raises(ConstructibleError, match="would have 30 parameters, more than its 29"):
        small_net(max_params=29)
    with pytest.raises(ConstructibleError, match="no inputs"):
        NetModule("n", [], {}, 2)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2), st.integers(0, 4)), max_size=40),
    st.floats(0.01, 10.0),
)
def test_the_table_is_the_formula_it_states(rows: list[tuple[int, int, int]], strength: float) -> None:
    array = np.array(rows, np.int64).reshape(-1, 3)
    table = CountTable("t", ["a", "b"], {"a": 4, "b": 3}, 5, strength)
    table.fit(Examples({"a": array[:, 0], "b": array[:, 1]}, array[:, 2]))
    a, b = (grid.reshape(-1) for grid in np.meshgrid(np.arange(4), np.arange(3)))
    log_probs = table.predict({"a": a, "b": b})
    assert np.allclose(np.exp(log_probs).sum(1), 1.0, atol=1e-12)
    share = [(sum(r[2] == k for r in rows) + 1) / (len(rows) + 5) for k in range(5)]
    for i, given_reads in enumerate(zip(a, b, strict=True)):
        here = [r[2] for r in rows if (r[0], r[1]) == given_reads]
        expected = [(here.count(k) + strength * share[k]) / (len(here) + strength) for k in range(5)]
        assert np.allclose(np.exp(log_probs[i]), expected, rtol=1e-9)
    assert table.parameters == 0 and table.entries == len(set(rows))


def test_the_table_says_what_it_counted() -> None:
    table = CountTable("t", ["c"], {"c": 3}, 2)
    table.fit(Examples({"c": np.array([0, 0, 1])}, np.array([1, 1, 0])))
    told = table.explain({"c": np.array([0, 2])})
    assert told[0] == [{"kind": "count", "text": "answer 1 counted 2 of 2 times given c = 0", "value": 2.0}]
    assert told[1][0]["text"] == "never counted: c = 2"
    for reads, message in [({"c": np.array([3])}, "outside of 0..2"), ({"c": np.array([0.5])}, "integer codes")]:
        with pytest.raises(ConstructibleError, match=message):
            table.predict(reads)
    with pytest.raises(ConstructibleError, match="outside of 0..1"):
        table.fit(Examples({"c": np.array([0])}, np.array([2])))
    with pytest.raises(ConstructibleError, match="63 bits"):
        CountTable("t", list("abcd"), dict.fromkeys("abcd", 1 << 20), 2)
