"""The GPU kernels of the per-module loss: logits are made, used and forgotten block by block, never written out.

Like triton_kernels.py: one program writes a number, in one order; no atomics.
"""

# pyright: reportMissingImports=false, reportPossiblyUnboundVariable=false, reportGeneralTypeIssues=false
from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def _rows(hidden, source, start, stop, width, TILE: tl.constexpr, P: tl.constexpr):
    """(row numbers, whether they exist, values [TILE, P]) of positions from start."""
    positions = start + tl.arange(0, TILE)
    alive = positions < stop
    rows = tl.load(source + positions, mask=alive, other=0).to(tl.int64)
    inner = tl.arange(0, P)
    at = hidden + rows[:, None] * width + inner[None, :]
    return rows, alive, tl.load(at, mask=alive[:, None] & (inner < width)[None, :], other=0.0)


@triton.jit
def _words(table, ids, low, first, count, width, IDS: tl.constexpr, BLOCK: tl.constexpr, P: tl.constexpr):
    """(entry numbers, whether they exist, table rows [BLOCK, P]) of a module's vocabulary from entry `first`."""
    entries = first + tl.arange(0, BLOCK)
    inside = entries < count
    tokens = low + entries
    if IDS:
        tokens = tl.load(ids + low + entries, mask=inside, other=0).to(tl.int64)
    inner = tl.arange(0, P)
    at = table + tokens[:, None] * width + inner[None, :]
    return entries, inside, tl.load(at, mask=inside[:, None] & (inner < width)[None, :], other=0.0)


@triton.jit
def _product(a, b, LOW: tl.constexpr, PRECISION: tl.constexpr):
    if LOW:
        a, b = a.to(tl.bfloat16), b.to(tl.bfloat16)
    return tl.dot(a, b, input_precision=PRECISION)


@triton.jit
def _logits(values, words, bias, low, entries, inside, BIAS: tl.constexpr, LOW: tl.constexpr, PRECISION: tl.constexpr):
    z = _product(values, tl.trans(words), LOW, PRECISION)
    if BIAS:
        z += tl.load(bias + low + entries, mask=inside, other=0.0).to(tl.float32)[None, :]
    return tl.where(inside[None, :], z, -float("inf"))


@triton.jit
def xent_loss(
    hidden, targets, table, bias, ids, starts, offsets, tile_module, tile_start, source, loss, peak, n_modules, width,
    IDS: tl.constexpr, BIAS: tl.constexpr, LOW: tl.constexpr, PRECISION: tl.constexpr, TILE: tl.constexpr,
    BLOCK: tl.constexpr, P: tl.constexpr,
):  # fmt: skip
    """loss and peak (log of the sum of exponentials) of each row of a tile; the softmax runs along the vocabulary."""
    tile = tl.program_id(0)
    module = tl.load(tile_module + tile)
    if module >= n_modules:
        return
    stop = tl.load(offsets + module + 1)
    rows, alive, values = _rows(hidden, source, tl.load(tile_start + tile), stop, width, TILE, P)
    goal = tl.load(targets + rows, mask=alive, other=0)
    low = tl.load(starts + module)
    count = (tl.load(starts + module + 1) - low).to(tl.int32)
    top = tl.full((TILE,), -float("inf"), tl.float32)
    total, reached = tl.zeros((TILE,), tl.float32), tl.zeros((TILE,), tl.float32)
    for first in range(0, count, BLOCK):
        entries, inside, words = _words(table, ids, low, first, count, width, IDS, BLOCK, P)
        z = _logits(values, words, bias, low, entries, inside, BIAS, LOW, PRECISION)
        higher = tl.maximum(top, tl.max(z, 1))
        total = total * tl.exp(top - higher) + tl.sum(tl.exp(z - higher[:, None]), 1)
        reached += tl.sum(tl.where(entries[None, :] == goal[:, None], z, 0.0), 1)
        top = higher
    found = top + tl.log(total)
    tl.store(peak + rows, found, mask=alive)
    tl.store(loss + rows, (found - reached).to(loss.dtype.element_ty), mask=alive)


@triton.jit
def xent_hidden(
    hidden, targets, table, bias, ids, starts, offsets, tile_module, tile_start, source, peak, grad, d_hidden,
    n_modules, width,
    IDS: tl.constexpr, BIAS: tl.constexpr, LOW: tl.constexpr, PRECISION: tl.constexpr, TILE: tl.constexpr,
    BLOCK: tl.constexpr, P: tl.constexpr,
):  # fmt: skip
    """d_hidden of a tile: (softmax minus one-hot) times the table, times grad of the row's loss."""
    tile = tl.program_id(0)
    module = tl.load(tile_module + tile)
    if module >= n_modules:
        return
    stop = tl.load(offsets + module + 1)
    rows, alive, values = _rows(hidden, source, tl.load(tile_start + tile), stop, width, TILE, P)
    goal = tl.load(targets + rows, mask=alive, other=0)
    level = tl.load(peak + rows, mask=alive, other=0.0)
    low = tl.load(starts + module)
    count = (tl.load(starts + module + 1) - low).to(tl.int32)
    total = tl.zeros((TILE, P), tl.float32)
    for first in range(0, count, BLOCK):
        entries, inside, words = _words(table, ids, low, first, count, width, IDS, BLOCK, P)
        z = _logits(values, words, bias, low, entries, inside, BIAS, LOW, PRECISION)
        excess = tl.exp(z - level[:, None]) - tl.where(entries[None, :] == goal[:, None], 1.0, 0.0)
        total += _product(excess.to(words.dtype), words, LOW, PRECISION)
    total *= tl.load(grad + rows, mask=alive, other=0.0).to(tl.float32)[:, None]
    inner = tl.arange(0, P)
    at = d_hidden + rows[:, None] * width + inner[None, :]
    tl.store(at, total.to(d_hidden.dtype.element_ty), mask=alive[:, None] & (inner < width)[None, :])


@triton.jit
def xent_table(
    hidden, targets, table, bias, ids, starts, offsets, block_module, block_first, source, peak, grad, d_entries,
    d_bias, width,
    IDS: tl.constexpr, BIAS: tl.constexpr, LOW: tl.constexpr, PRECISION: tl.constexpr, TILE: tl.constexpr,
    BLOCK: tl.constexpr, P: tl.constexpr,
):  # fmt: skip
    """Gradients of one block of a module's vocabulary entries (and their biases): a sum over the module's rows."""
    block = tl.program_id(0)
    module = tl.load(block_module + block)
    first = tl.load(block_first + block)
    low = tl.load(starts + module)
    count = (tl.load(starts + module + 1) - low).to(tl.int32)
    entries, inside, words = _words(table, ids, low, first, count, width, IDS, BLOCK, P)
    total, line = tl.zeros((BLOCK, P), tl.float32), tl.zeros((BLOCK,), tl.float32)
    start, stop = tl.load(offsets + module), tl.load(offsets + module + 1)
    for begin in range(start, stop, TILE):
        rows, alive, values = _rows(hidden, source, begin, stop, width, TILE, P)
        goal = tl.load(targets + rows, mask=alive, other=0)
        level = tl.load(peak + rows, mask=alive, other=0.0)
        share = tl.load(grad + rows, mask=alive, other=0.0).to(tl.float32)
        z = _logits(values, words, bias, low, entries, inside, BIAS, LOW, PRECISION)
        excess = tl.exp(z - level[:, None]) - tl.where(entries[None, :] == goal[:, None], 1.0, 0.0)
        excess = tl.where(alive[:, None], excess, 0.0)
        scaled = (values.to(tl.float32) * share[:, None]).to(values.dtype)
        total += _product(tl.trans(excess.to(words.dtype)), scaled, LOW, PRECISION)
        if BIAS:
            line += tl.sum(excess * share[:, None], 0)
    inner = tl.arange(0, P)
    at = d_entries + (low + entries)[:, None] * width + inner[None, :]
    tl.store(at, total.to(d_entries.dtype.element_ty), mask=inside[:, None] & (inner < width)[None, :])
    if BIAS:
        tl.store(d_bias + low + entries, line.to(d_bias.dtype.element_ty), mask=inside)


@triton.jit
def sum_entries(d_entries, order, token_offsets, d_table, width, P: tl.constexpr):
    """d_table[token] = sum of the gradients of the entries that are this token, in their order."""
    token = tl.program_id(0)
    start, stop = tl.load(token_offsets + token), tl.load(token_offsets + token + 1)
    inner = tl.arange(0, P)
    total = tl.zeros((P,), tl.float32)
    for j in range(start, stop):
        entry = tl.load(order + j).to(tl.int64)
        total += tl.load(d_entries + entry * width + inner, mask=inner < width, other=0.0)
    tl.store(d_table + token.to(tl.int64) * width + inner, total.to(d_table.dtype.element_ty), mask=inner < width)
