"""Feature visualisation: the primitives with gradients are the primitives, and made pictures show what a node reads."""

from __future__ import annotations

import numpy as np
import torch

from tests.vision.small import SmallWorld
from vision.bank import CHANNELS, primitives
from vision.model import Constructed, load
from vision.plain import PlainNode, PlainShape
from vision.visualise import SIDE, soft_primitives, visualise


def test_the_primitives_with_gradients_are_the_primitives(world: SmallWorld):
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (4, 64, 64, 3), dtype=np.uint8)
    flat = np.repeat(rng.integers(0, 256, (4, 1, 1, 3), dtype=np.uint8), 64, 1).repeat(64, 2)
    pixels = np.concatenate([np.array(world.validation.pixels[:24]), noise, flat])
    exact = primitives(pixels).astype(float)
    with torch.no_grad():
        soft = soft_primitives(torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255).numpy() * 255
    apart = np.abs(soft - exact)
    assert apart.mean() < 0.6  # bytes are rounded
    for c, name in enumerate(CHANNELS):
        assert np.quantile(apart[:, c], 0.99) < 2.5, name


def test_gradients_are_finite_everywhere():
    grey = torch.full((1, 3, 64, 64), 0.5, requires_grad=True)
    black = torch.zeros((1, 3, 64, 64), requires_grad=True)
    for picture in (grey, black):
        [gradient] = torch.autograd.grad(soft_primitives(picture).sum(), [picture])
        assert torch.isfinite(gradient).all()


def test_made_pictures_show_what_plain_nodes_read():
    shape = PlainShape(1.0)
    said = {
        "red": "p.red_everywhere + 0.3 * p.lightness_everywhere", "dark": "-p.lightness_everywhere",
        "lines": "p.edge_fine_0_everywhere + p.edge_fine_180_everywhere",
    }  # fmt: skip
    nodes = [PlainNode(name, shape, f"def evidence(p):\n    return {text}\n") for name, text in said.items()]
    made = visualise(nodes, steps=40)
    assert made.shape == (3, SIDE, SIDE, 3) and made.dtype == np.uint8
    found = primitives(made)
    mean = {name: found[:, CHANNELS.index(name)].mean((1, 2)) / 255 for name in ("red", "lightness", "edge_fine_0")}
    assert mean["red"][0] > 0.5 and mean["red"][0] > 2 * mean["red"][1:].max()
    assert mean["lightness"][1] < 0.2 < mean["lightness"][0]
    assert mean["edge_fine_0"][2] > 1.3 * mean["edge_fine_0"][:2].max()
    # Upright edges for a node that reads a change from left to right.
    grey = made[2].astype(float).mean(2)
    assert np.abs(np.diff(grey, axis=1)).mean() > 1.5 * np.abs(np.diff(grey, axis=0)).mean()


def test_made_pictures_excite_their_own_nets_and_repeat(world: SmallWorld, model_folder):
    model = load(model_folder)
    assert isinstance(model, Constructed)
    made = visualise(model.bank.nodes, steps=60)
    assert np.array_equal(made[:3], visualise(model.bank.nodes[:3], steps=60))
    own = np.diag(model.bank.pooled(primitives(made)))
    pictures = model.bank.pooled(primitives(np.array(world.validation.pixels)))
    assert (own > np.median(pictures, axis=0)).all() and np.mean(own > np.quantile(pictures, 0.95, axis=0)) > 0.8
