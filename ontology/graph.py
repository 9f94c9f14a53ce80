"""The ontology as a graph: order, leaves, depth, what is wrong with it, and cuts through it."""

from __future__ import annotations

import re
from dataclasses import dataclass

import networkx as nx

from ontology.errors import ConstructibleError, UsageError, did_you_mean
from ontology.schema import Ontology, OntologyError


def digraph(ontology: Ontology) -> nx.DiGraph:
    """Return the graph with an edge from each concept to each of its children, in file order."""
    graph = nx.DiGraph()
    graph.add_nodes_from(ontology.names)
    graph.add_edges_from((concept.name, child) for concept in ontology.concepts for child in concept.children)
    return graph


def problems(ontology: Ontology) -> list[ConstructibleError]:
    """List what is wrong with the graph: cycles (with their path) and concepts that the root does not reach."""
    graph = digraph(ontology)
    found: list[ConstructibleError] = []
    for component in nx.strongly_connected_components(graph):
        if len(component) == 1 and not graph.has_edge(*(tuple(component) * 2)):
            continue
        first = min(component, key=ontology.names.index)
        cycle = [edge[0] for edge in nx.find_cycle(graph.subgraph(component), first)]
        path = " -> ".join([*cycle, cycle[0]])
        found.append(
            OntologyError(
                f"the concepts form a circle: {path}.", fix="remove one of these children",
                file=ontology.file, line=ontology.line(cycle[0], "children"),
            )
        )  # fmt: skip
    for name in orphans(ontology):
        found.append(
            OntologyError(
                f"the concept {name!r} cannot be reached from the root {ontology.root!r}.",
                fix="make it somebody's child or remove it", file=ontology.file, line=ontology.line(name),
            )
        )  # fmt: skip
    return sorted(found, key=lambda problem: problem.line or 0)


def orphans(ontology: Ontology) -> tuple[str, ...]:
    """Return the concepts that the root does not reach, in file order."""
    reached = nx.descendants(digraph(ontology), ontology.root) | {ontology.root}
    return tuple(name for name in ontology.names if name not in reached)


def leaves(ontology: Ontology) -> tuple[str, ...]:
    """Return the concepts without children, in reading order (see `reading_order`)."""
    return tuple(name for name in reading_order(ontology) if not ontology[name].children)


def reading_order(ontology: Ontology) -> tuple[str, ...]:
    """Return all concepts reachable from the root, each parent before its children, children in declared order."""
    return tuple(nx.dfs_preorder_nodes(digraph(ontology), ontology.root))


def topological_order(ontology: Ontology) -> tuple[str, ...]:
    """Return all concepts, every concept before each of its children, ties in file order."""
    place = {name: i for i, name in enumerate(ontology.names)}
    return tuple(nx.lexicographical_topological_sort(digraph(ontology), key=place.__getitem__))


def is_tree(ontology: Ontology) -> bool:
    """Whether every concept but the root has exactly one parent."""
    return nx.is_arborescence(digraph(ontology))


def depths(ontology: Ontology) -> dict[str, int]:
    """Return each concept's depth: the number of edges on the longest path from the root."""
    graph = digraph(ontology)
    depth = {ontology.root: 0}
    for name in topological_order(ontology):
        for child in graph.successors(name):
            if name in depth:
                depth[child] = max(depth.get(child, 0), depth[name] + 1)
    return depth


def paths(ontology: Ontology, name: str) -> list[tuple[str, ...]]:
    """Return every path from the root down to a concept (one in a tree)."""
    if name == ontology.root:
        return [(name,)]
    ontology[name]  # reports an unknown name
    return [tuple(path) for path in nx.all_simple_paths(digraph(ontology), ontology.root, name)]


def leaves_under(ontology: Ontology, name: str) -> tuple[str, ...]:
    """Return the leaves at or below a concept, in reading order."""
    below = nx.descendants(digraph(ontology), ontology[name].name) | {name}
    return tuple(leaf for leaf in leaves(ontology) if leaf in below)


def reads_under(ontology: Ontology, name: str) -> tuple[str, ...]:
    """Return the reads declared by a concept and by all below it, in reading order: what a module at it may see."""
    below = nx.descendants(digraph(ontology), ontology[name].name) | {name}
    reads = (read for concept in reading_order(ontology) if concept in below for read in ontology[concept].reads)
    return tuple(dict.fromkeys(reads))


@dataclass(frozen=True)
class Cut:
    """A cut: no member is above another, and every leaf is at or below at least one.

    Attributes:
        spec: what was asked for, for example "root" or "2".
        concepts: the members, in reading order.
        owners: for each leaf the members at or above it. One in a tree; in a DAG a leaf may have several.
        nets: False for the cut `plain`, which trains no nets; its members are the leaves.
    """

    spec: str
    concepts: tuple[str, ...]
    owners: dict[str, tuple[str, ...]]
    nets: bool = True

    @property
    def owner(self) -> dict[str, str]:
        """The one member at or above each leaf.

        Raises:
            ConstructibleError: a leaf has several (only in a DAG): use `owners`.
        """
        for leaf, members in self.owners.items():
            if len(members) != 1:
                raise ConstructibleError(
                    f"the leaf {leaf!r} lies below {len(members)} members of the cut: {', '.join(members)}.",
                    fix="use `owners`, which lists them all",
                )
        return {leaf: members[0] for leaf, members in self.owners.items()}


def cut(ontology: Ontology, spec: str | int) -> Cut:
    """Return the cut that `spec` names.

    Args:
        spec: "root", "leaves", "plain" (the leaves, without nets), a depth (0 is the root; a leaf above that depth
            stands for itself), or concepts separated by commas.

    Raises:
        UsageError: an unknown spec, a depth below the deepest leaf, or names that are no cut, with the reason.
    """
    text = str(spec).strip()
    order = reading_order(ontology)
    if text in ("leaves", "plain"):
        members: tuple[str, ...] = leaves(ontology)
    elif text == "root":
        members = (ontology.root,)
    elif re.fullmatch("-?[0-9]{1,9}", text):
        depth = depths(ontology)
        level, deepest = int(text), max(depth.values())
        if not 0 <= level <= deepest:
            raise UsageError(
                f"the cut depth {level} does not exist.", fix=f"use 0 (the root) to {deepest} (the deepest leaf)"
            )
        members = tuple(n for n in order if depth[n] == level or (depth[n] < level and not ontology[n].children))
    else:
        members = _named(ontology, text, order)
    below = {name: set(leaves_under(ontology, name)) for name in members}
    owners = {leaf: tuple(name for name in members if leaf in below[name]) for leaf in leaves(ontology)}
    missing = [leaf for leaf, found in owners.items() if not found]
    if missing:
        raise UsageError(
            f"the cut {text!r} leaves out {', '.join(missing[:5])}{' ...' if len(missing) > 5 else ''}.",
            fix="add these leaves or concepts above them",
        )
    return Cut(text, members, owners, nets=text != "plain")


def _named(ontology: Ontology, text: str, order: tuple[str, ...]) -> tuple[str, ...]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise UsageError("the cut is empty.", fix="use root, leaves, plain, a depth or concepts' names")
    for name in names:
        if name not in ontology:
            hint = did_you_mean(name, [*ontology.names, "root", "leaves", "plain"])
            raise UsageError(
                f"the cut names no concept: {name!r}.{hint}", fix="use root, leaves, plain, a depth or names"
            )
    graph = digraph(ontology)
    for upper in names:
        for lower in names:
            if lower in nx.descendants(graph, upper):
                raise UsageError(
                    f"the cut holds {upper!r} and {lower!r}, which lies below it.", fix="keep one of the two"
                )
    return tuple(name for name in order if name in set(names))
