"""Channels for a wanted number of trained numbers: what makes the cuts of one model comparable.

A cut has few nets or many, so channels that go by four miss a wanted size by a tenth or more. Here every whole number
of channels is tried, and of the shapes that come near enough the one closest to the usual form is taken.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import TypeVar

from vision.nodes import NodeShape, Pooling

NEAR = 0.004
"""Share of the wanted size that is near enough to choose by form instead."""
_WIDEST = 256
Shape = TypeVar("Shape")


def nearest(
    shapes: Iterable[Shape], size: Callable[[Shape], int], wanted: float, odd: Callable[[Shape], float]
) -> Shape:  # fmt: skip
    """The shape whose size is nearest to the wanted one; among those within `NEAR` the least odd.

    Raises:
        ValueError: there are no shapes.
    """

    def rank(shape: Shape) -> tuple[float, float]:
        off = abs(size(shape) / wanted - 1)
        return max(off, NEAR), odd(shape)

    return min(shapes, key=rank)


@lru_cache(maxsize=256)
def upper_shape(scale: float, wanted: float, pooling: Pooling) -> NodeShape:
    """The net above the leaves of about so many trained numbers: half as many channels again in its second layer, or
    what comes near that."""
    # Sizes grow in both layers: below a first layer there is one second layer that fits best, and its neighbours.
    shapes = []
    for first in range(2, _WIDEST + 1):
        small, large = (_size(scale, first, second) for second in (1, 2))
        second = round((wanted - small) / (large - small)) + 1
        if first / 2 <= second <= 4 * first:
            shapes.append(NodeShape(scale, (first, second), pooling, capped=False))
    shapes = shapes or [NodeShape(scale, (w, w + w // 2), pooling, capped=False) for w in range(2, _WIDEST + 1)]
    return nearest(shapes, lambda s: s.parameters, wanted, lambda s: abs(math.log(s.hidden[1] / s.hidden[0] / 1.5)))


def _size(scale: float, first: int, second: int) -> int:
    return NodeShape(scale, (first, second), capped=False).parameters


def leaf_channels(
    usual: tuple[int, int], total: Callable[[tuple[int, int]], int | None], wanted: int
) -> tuple[int, int]:  # fmt: skip
    """Channels of the leaves for so many trained numbers in all, near the usual ones.

    Args:
        total: trained numbers of all leaves with these channels; None where a leaf would be too large.
    """
    sizes = {
        (first, second): size
        for first in range(max(2, usual[0] // 2), 2 * usual[0] + 1)
        for second in range(max(2, usual[1] // 2), 2 * usual[1] + 1)
        if (size := total((first, second))) is not None
    }
    return nearest(
        sizes, lambda s: sizes[s], wanted, lambda s: sum(abs(math.log(a / b)) for a, b in zip(s, usual, strict=True))
    )
