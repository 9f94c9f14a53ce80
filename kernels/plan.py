"""The ragged plan: which rows go to which module, in an order that puts each module's rows side by side."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from kernels.checks import check_choice

MAX_ROWS = 2**31 - 1


@dataclass(frozen=True, eq=False)
class Plan:
    """Rows sorted by module. Made by `route`; T rows, K choices per row, N = T * K pairs, M modules.

    Pair p = t * K + k is the k-th choice of row t. Position i is a place in the sorted order. All index tensors are
    int32 on the device of `choice`; address arithmetic with them must be done in int64.
    """

    n_rows: int
    n_choices: int
    n_modules: int
    many: bool  # the choice was given as [T, K], so results keep the K axis unless combined
    order: Tensor  # [N] position -> pair; ascending within a module (stable sort)
    inverse: Tensor  # [N] pair -> position
    rows: Tensor  # [N] position -> row (order // K)
    offsets: Tensor  # [M + 1] module m owns positions offsets[m] : offsets[m + 1]
    gate: Tensor | None  # [T, K] weight of each pair, may require grad
    cache: dict = field(default_factory=dict, repr=False)

    @property
    def n_pairs(self) -> int:
        return self.n_rows * self.n_choices

    @property
    def device(self) -> torch.device:
        return self.order.device

    @property
    def counts(self) -> Tensor:
        """int32 [M]: pairs per module."""
        return self.offsets[1:] - self.offsets[:-1]

    @property
    def touched(self) -> Tensor:
        """bool [M]: modules with at least one row; the fused update leaves all others exactly as they are."""
        return self.counts > 0

    @property
    def identity(self) -> bool:
        """True if sorting changes nothing and every row has one choice (no gather is needed)."""
        if "identity" not in self.cache:
            same = self.n_choices == 1 and self.device.type == "cpu"
            natural = torch.arange(self.n_pairs, dtype=torch.int32)
            self.cache["identity"] = same and bool(torch.equal(self.order, natural))
        return self.cache["identity"]

    def shaped(self, pairs: Tensor, combine: bool) -> Tensor:
        """Answers [N, D] in pair order -> [T, D] (combined by the gate, or one choice) or [T, K, D]."""
        answers = pairs.reshape(self.n_rows, self.n_choices, pairs.shape[1])
        if combine:
            assert self.gate is not None
            return (answers * self.gate[:, :, None]).sum(1)
        return answers if self.many else answers[:, 0]

    def sum_choices(self, pairs: Tensor) -> Tensor:
        """[N, D] in pair order -> [T, D]: what a row gets that all its choices read."""
        return pairs.reshape(self.n_rows, self.n_choices, pairs.shape[1]).sum(1)

    def host_offsets(self) -> list[int]:
        """The offsets as Python ints. On a GPU this waits for the device once; the Triton backend never calls it."""
        if "offsets" not in self.cache:
            self.cache["offsets"] = self.offsets.tolist()
        return self.cache["offsets"]

    def tile_bound(self, tile_rows: int) -> int:
        """How many tiles of `tile_rows` rows there can be at most, known without looking at device memory."""
        return self.n_pairs // tile_rows + min(self.n_modules, self.n_pairs)

    def tiles(self, tile_rows: int) -> tuple[Tensor, Tensor]:
        """int32 [B] module and int32 [B] first position of each tile, B = tile_bound; unused tiles have module M.

        A tile never crosses a module's border. No device-to-host sync.
        """
        key = ("tiles", tile_rows)
        if key not in self.cache:
            per_module = (self.counts + (tile_rows - 1)) // tile_rows
            ends = torch.cumsum(per_module, 0, dtype=torch.int32)
            index = torch.arange(self.tile_bound(tile_rows), dtype=torch.int32, device=self.device)
            module = torch.searchsorted(ends, index, right=True, out_int32=True)
            known = module.clamp(max=self.n_modules - 1)
            first = ends[known] - per_module[known]
            start = self.offsets[known] + (index - first) * tile_rows
            start = torch.where(module < self.n_modules, start, torch.full_like(start, self.n_pairs))
            self.cache[key] = (module, start.to(torch.int32))
        return self.cache[key]


def route(choice: Tensor, gate: Tensor | None = None, n_modules: int | None = None) -> Plan:
    """Sort rows by the module that was chosen for them.

    Args:
        choice: integer [T] or [T, K], module of each row (K modules per row), each in 0 .. n_modules - 1.
        gate: float, same shape as choice; weights of the combination of the K answers. May require grad.
        n_modules: M, number of modules; needed, since the largest choice need not occur.

    Returns:
        A Plan on the device of `choice`. On a CPU out-of-range choices raise IndexError here; on a GPU they stop the
        device with an assertion (no sync is made to look at them).

    Raises:
        TypeError, ValueError, IndexError: a choice of wrong type, shape, size or range.
    """
    check_choice(choice, gate, n_modules)
    assert n_modules is not None
    many = choice.dim() == 2
    n_rows, n_choices = (choice.shape[0], choice.shape[1]) if many else (choice.shape[0], 1)
    if n_rows * n_choices > MAX_ROWS:
        raise ValueError(
            f"{n_rows} rows x {n_choices} choices is more than a plan can index ({MAX_ROWS}): split the batch"
        )
    flat = choice.detach().reshape(-1).to(torch.int32)
    chosen, order = torch.sort(flat, stable=True)
    order = order.to(torch.int32)
    inverse = torch.empty_like(order)
    inverse[order.long()] = torch.arange(len(order), dtype=torch.int32, device=order.device)
    # A search in the sorted choices gives the borders without the atomics (and the sync) of a bincount.
    borders = torch.arange(n_modules + 1, dtype=torch.int32, device=order.device)
    offsets = torch.searchsorted(chosen, borders, out_int32=True)
    rows = order // n_choices if n_choices > 1 else order
    weights = None if gate is None else gate.reshape(n_rows, n_choices)
    return Plan(n_rows, n_choices, n_modules, many, order, inverse, rows, offsets, weights)
