"""The graph of an ontology and cuts through it."""

from __future__ import annotations

import networkx as nx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ontology.errors import ConstructibleError, UsageError
from ontology.graph import (
    cut,
    depths,
    digraph,
    is_tree,
    leaves,
    leaves_under,
    paths,
    problems,
    reading_order,
    reads_under,
    topological_order,
)
from ontology.schema import Concept, Ontology


def make(children: dict[str, str], **reads: str) -> Ontology:
    """An ontology from {"name": "children by space"}; the first is the root."""
    concepts = tuple(
        Concept(name=n, question="Q?", children=tuple(c.split()), reads=tuple(reads.get(n, "").split()))
        for n, c in children.items()
    )
    return Ontology(name="made", root=next(iter(children)), concepts=concepts)


TREE = make({"r": "a b", "a": "c d", "c": "", "d": "e f", "e": "", "f": "", "b": ""}, a="x", c="y x", b="z", r="w")
DAG = make({"r": "a b", "a": "p q", "b": "q s", "p": "", "q": "", "s": ""})


def test_order_leaves_depth_and_shape() -> None:
    assert leaves(TREE) == ("c", "e", "f", "b")
    assert reading_order(TREE) == ("r", "a", "c", "d", "e", "f", "b")
    assert depths(TREE) == {"r": 0, "a": 1, "b": 1, "c": 2, "d": 2, "e": 3, "f": 3}
    assert is_tree(TREE) and not is_tree(DAG)
    assert paths(TREE, "e") == [("r", "a", "d", "e")] and paths(TREE, "r") == [("r",)]
    assert sorted(paths(DAG, "q")) == [("r", "a", "q"), ("r", "b", "q")]
    assert leaves_under(TREE, "a") == ("c", "e", "f") and leaves_under(TREE, "b") == ("b",)
    assert reads_under(TREE, "a") == ("x", "y") and reads_under(TREE, "r") == ("w", "x", "y", "z")


def test_depth_is_the_longest_path() -> None:
    assert depths(make({"r": "a b", "a": "b", "b": ""})) == {"r": 0, "a": 1, "b": 2}


def test_circles_and_orphans_are_named() -> None:
    broken = make({"r": "a", "a": "b", "b": "c", "c": "a", "lost": ""})
    messages = [problem.message for problem in problems(broken)]
    assert "the concepts form a circle: a -> b -> c -> a." in messages
    assert "the concept 'lost' cannot be reached from the root 'r'." in messages


@pytest.mark.parametrize(
    ("spec", "members"),
    [
        ("root", "r"), ("0", "r"), (0, "r"), ("1", "a b"), (2, "c d b"), ("3", "c e f b"), ("leaves", "c e f b"),
        ("plain", "c e f b"), ("b,a", "a b"), (" c , d,b ", "c d b"), ("r", "r"),
    ],
)  # fmt: skip
def test_cuts(spec: str | int, members: str) -> None:
    found = cut(TREE, spec)
    assert found.concepts == tuple(members.split())
    assert found.nets == (spec != "plain")
    for leaf, owner in found.owner.items():
        assert leaf in leaves_under(TREE, owner)
    assert set(found.owner) == set(leaves(TREE))


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        ("4", "use 0 .the root. to 3"), ("-1", "does not exist"), ("a", "leaves out b"), ("a,c,b", "lies below it"),
        ("leafs", "Did you mean 'leaves'"), ("a,bb", "names no concept"), ("", "empty"), (",", "empty"),
        ("²", "names no concept"), ("1.5", "names no concept"),
    ],
)  # fmt: skip
def test_what_is_no_cut_is_refused_with_the_reason(spec: str, reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        cut(TREE, spec)


def test_in_a_dag_a_leaf_may_have_several_owners() -> None:
    found = cut(DAG, "1")
    assert found.owners == {"p": ("a",), "q": ("a", "b"), "s": ("b",)}
    with pytest.raises(ConstructibleError, match="'q' lies below 2 members of the cut: a, b"):
        _ = found.owner
    assert cut(DAG, "leaves").owner == {"p": "p", "q": "q", "s": "s"}


@st.composite
def _dag(draw: st.DrawFn) -> Ontology:
    count = draw(st.integers(1, 9))
    names = [f"n{i}" for i in range(count)]
    parents = {
        i: {draw(st.integers(0, i - 1))} | draw(st.sets(st.integers(0, i - 1), max_size=2)) for i in range(1, count)
    }
    return make({n: " ".join(names[j] for j in range(1, count) if i in parents[j]) for i, n in enumerate(names)})


@settings(max_examples=80, deadline=None)
@given(_dag())
def test_every_depth_is_a_cut_of_any_dag(ontology: Ontology) -> None:
    graph = digraph(ontology)
    deepest = max(depths(ontology).values())
    assert problems(ontology) == [] and deepest == nx.dag_longest_path_length(graph)
    order = {name: i for i, name in enumerate(topological_order(ontology))}
    assert all(order[upper] < order[lower] for upper, lower in graph.edges)
    for spec in ("root", "leaves", "plain", *range(deepest + 1)):
        found = cut(ontology, spec)
        assert all(found.owners.values()) and set(found.owners) == set(leaves(ontology))
        assert not any(b in nx.descendants(graph, a) for a in found.concepts for b in found.concepts)
        assert cut(ontology, ",".join(found.concepts)).concepts == found.concepts
    assert cut(ontology, deepest).concepts == cut(ontology, "leaves").concepts
