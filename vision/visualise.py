"""Feature visualisation: a picture made for a node, by climbing its evidence from grey (Erhan et al. 2009; jitter and
blur against high frequencies as in Olah, Mordvintsev and Schubert 2017).

The primitives are compiled loops without a gradient, so they stand here once more in torch, the same to a byte or two
(a test holds that). What a made picture shows is what the node reads, not what photographs look like: a node that
should see wings and makes a green plain has learned the meadow.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from vision.bank import CHANNELS, GRID, HUES, LEVELS
from vision.nodes import Node, NodeShape, node_maps, pool
from vision.plain import PlainNode

if TYPE_CHECKING:
    from torch import Tensor

SIDE = 64
STEPS = 24
STEP_SIZE = 6.0
"""Mean change of a pixel in a step, of 255."""
JITTER = 4
_TINY = 1e-6


def soft_primitives(pixels: Tensor) -> Tensor:
    """The maps of `vision.bank` as functions that have gradients.

    Args:
        pixels: float [n, 3, side, side] in [0, 1].

    Returns:
        float [n, channels, 16, 16] in [0, 1].
    """
    import torch
    import torch.nn.functional as F

    grey = pixels.mean(1, keepdim=True)
    half = F.avg_pool2d(grey, 2)
    planes = {"fine": grey, "middle": half, "coarse": F.avg_pool2d(half, 2)}
    edges = [_edges(planes[level], bins, period) for level, bins, period in LEVELS]
    return torch.cat([_colours(pixels, grey), *edges, _spots(grey), _spots(half)], 1).clamp(0, 1)


def visualise(
    nodes: Sequence[Node | PlainNode], *, steps: int = STEPS, seed: int = 0
) -> npt.NDArray[np.uint8]:  # fmt: skip
    """Make one picture for each node, uint8 [nodes, 64, 64, 3]: the best of `steps` steps of gradient ascent."""
    import torch
    import torch.nn.functional as F

    rng = np.random.default_rng((seed, 31))
    start = 127.5 + rng.normal(0, 6, (1, 3, SIDE, SIDE))
    pictures = torch.from_numpy(np.repeat(start, len(nodes), axis=0)).float()
    best, highest = pictures.clone(), torch.full((len(nodes),), -torch.inf)
    for step in range(steps + 1):
        dy, dx = (int(v) for v in rng.integers(-JITTER, JITTER + 1, 2))
        moved = torch.roll(pictures, (dy, dx), (2, 3)).requires_grad_()
        with torch.enable_grad():
            said = _evidence(nodes, soft_primitives(moved / 255))
            [gradient] = torch.autograd.grad(said.sum(), [moved])
        better = said.detach() > highest
        best[better], highest[better] = pictures[better], said.detach()[better]
        gradient = torch.nan_to_num(torch.roll(gradient, (-dy, -dx), (2, 3)))
        size = gradient.abs().mean((1, 2, 3), keepdim=True)
        pictures = (pictures + STEP_SIZE * gradient / (size + 1e-12)).clamp(0, 255)
        if step % 4 == 3 and step < steps - 4:
            soft = F.avg_pool2d(F.pad(pictures, (1, 1, 1, 1), mode="replicate"), 3, 1)
            pictures = 0.5 * pictures + 0.5 * soft
    return best.round().byte().permute(0, 2, 3, 1).contiguous().numpy()


def _evidence(nodes: Sequence[Node | PlainNode], maps: Tensor) -> Tensor:
    """Pooled evidence [nodes] of each node on its own picture's maps [nodes, channels, 16, 16]."""
    import torch

    groups: dict[NodeShape, list[int]] = {}
    parts: list[tuple[list[int], Tensor]] = []
    for i, node in enumerate(nodes):
        if isinstance(node, Node):
            groups.setdefault(node.shape, []).append(i)
        else:
            parts.append(([i], _plain_evidence(node, maps[i])[None]))
    for shape, places in groups.items():
        weights = [torch.from_numpy(np.stack([nodes[i].weights[t] for i in places])) for t in range(6)]  # type: ignore[union-attr]
        inputs = maps[places][:, torch.from_numpy(shape.channels)][None]
        parts.append((places, pool(node_maps(inputs, weights, shape), shape.pooling)[0]))
    order = np.argsort(np.concatenate([places for places, _ in parts]))
    return torch.cat([part for _, part in parts])[torch.from_numpy(order)]


def _plain_evidence(node: PlainNode, maps: Tensor) -> Tensor:
    total = maps.new_zeros(())
    for name, weight in node.coefficients.items():
        channel, where = name.rsplit("_", 1)
        cells = maps[CHANNELS.index(channel)]
        if where == "middle":
            cells = cells[GRID // 4 : -(GRID // 4), GRID // 4 : -(GRID // 4)]
        flat = cells.flatten()
        total = total + weight * (flat.topk(len(flat) // 4).values if where == "strongest" else flat).mean()
    return total


def _cells(plane: Tensor) -> Tensor:
    import torch.nn.functional as F

    return F.avg_pool2d(plane, plane.shape[-1] // GRID)


def _root(value: Tensor) -> Tensor:
    return (value.clamp(min=0) + _TINY).sqrt() - math.sqrt(_TINY)


def _colours(pixels: Tensor, light: Tensor) -> Tensor:
    import torch

    r, g, b = pixels[:, 0:1], pixels[:, 1:2], pixels[:, 2:3]
    red_green, blue_yellow = (r - g) * 0.5, b * 0.5 - (r + g) * 0.25
    means = [_cells(plane) for plane in (light, red_green, blue_yellow)]
    spreads = [
        _root(scale * (_cells(plane**2) - mean**2))
        for plane, mean, scale in zip((light, red_green, blue_yellow), means, (6.25, 64.0, 64.0), strict=True)
    ]
    high, low = pixels.amax(1, keepdim=True), pixels.amin(1, keepdim=True)
    vivid = (((high - low) / high.clamp(min=1e-3) - 0.12) * 3).clamp(0, 1) * (high * 4 - 0.4).clamp(0, 1)
    across, along = 1.7320508 * (g - b), 2 * r - g - b
    flat = (across.abs() + along.abs()) < 1e-5  # no hue, and no gradient of one
    angle = torch.rad2deg(torch.atan2(across, torch.where(flat, torch.ones_like(along), along)))

    def near(hue: float, width: float) -> Tensor:
        apart = (torch.remainder(angle - hue + 540.0, 360.0) - 180.0).abs()
        return (1 - apart / width).clamp(min=0) * vivid

    dark = (1.6 - 2.4 * high).clamp(0, 1)
    hues = [near(hue, 35.0) for _, hue in HUES]
    plain = 1 - vivid
    greys = [plain * (high * 4 - 2.8).clamp(0, 1), plain * (1 - (high - 0.5).abs() * 3.3).clamp(0, 1),
             (1.2 - 4 * high).clamp(0, 1)]  # fmt: skip
    shown = [means[0], 2 * means[1] + 0.5, 2 * means[2] + 0.5, *spreads]
    return torch.cat([*shown, *(_cells(plane) for plane in (*hues, near(25.0, 30.0) * dark, *greys))], 1)


def _edges(plane: Tensor, bins: int, period: float) -> Tensor:
    import torch
    import torch.nn.functional as F

    padded = F.pad(plane, (1, 1, 1, 1), mode="replicate")
    # Shifted sums: a convolution of one channel is slow, its gradient slower.
    rise = padded[..., 2:] - padded[..., :-2]
    dx = rise[..., :-2, :] + 2 * rise[..., 1:-1, :] + rise[..., 2:, :]
    fall = padded[..., 2:, :] - padded[..., :-2, :]
    dy = fall[..., :-2] + 2 * fall[..., 1:-1] + fall[..., 2:]
    size = (dx**2 + dy**2 + 1e-12).sqrt() / 8
    there = size >= 1e-4
    angle = torch.rad2deg(torch.atan2(dy, torch.where(there, dx, torch.ones_like(dx))))
    place = torch.remainder(angle, period) / (period / bins)
    apart = (place - torch.arange(bins).view(1, -1, 1, 1)).abs()
    share = (1 - torch.minimum(apart, bins - apart)).clamp(min=0)
    sums = _cells(share * size * there)
    return _root(sums / (sums.sum(1, keepdim=True) + 0.03))


def _spots(plane: Tensor) -> Tensor:
    import torch

    from vision.bank_kernel import NARROW, WIDE

    apart = _blur(plane, NARROW) - _blur(plane, WIDE)
    return 8 * torch.cat([_cells(apart.clamp(min=0)), _cells((-apart).clamp(min=0))], 1)


def _blur(plane: Tensor, weights: npt.NDArray[np.float32]) -> Tensor:
    import torch
    import torch.nn.functional as F

    reach = len(weights) - 1
    line = torch.from_numpy(np.concatenate([weights[:0:-1], weights]))
    padded = F.pad(plane, (reach, reach, reach, reach), mode="replicate")
    return F.conv2d(F.conv2d(padded, line.view(1, 1, 1, -1)), line.view(1, 1, -1, 1))
