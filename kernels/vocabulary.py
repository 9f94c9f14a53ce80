"""Output vocabularies of different size per module, as one CSR list of token ids."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """Module m may answer with the tokens ids[offsets[m] : offsets[m + 1]] and no others.

    Attributes:
        offsets: int64 [M + 1], from 0, ascending.
        ids: int32 [offsets[M]], rows of a shared output table, each at most once per module; or None: every module
            has output rows of its own, and the table has offsets[M] rows.
        n_tokens: rows of the shared table; offsets[M] when ids is None.
    """

    offsets: Tensor
    ids: Tensor | None
    n_tokens: int
    cache: dict = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        if self.offsets.dtype != torch.int64 or self.offsets.dim() != 1 or len(self.offsets) < 2:
            raise TypeError("Vocabulary.offsets must be int64 [n_modules + 1]")
        host = self.offsets.tolist()
        if host[0] != 0 or any(b < a for a, b in zip(host, host[1:], strict=False)):
            raise ValueError("Vocabulary.offsets must start at 0 and never fall")
        self.cache["offsets"] = host
        if self.ids is None:
            if self.n_tokens != host[-1]:
                raise ValueError(f"without ids the table has {host[-1]} rows, but n_tokens is {self.n_tokens}")
            return
        if self.ids.dtype != torch.int32 or self.ids.dim() != 1 or len(self.ids) != host[-1]:
            raise TypeError(f"Vocabulary.ids must be int32 [{host[-1]}] (the last offset)")
        if self.ids.device != self.offsets.device:
            raise ValueError("Vocabulary.ids and offsets must be on one device")
        if len(self.ids) == 0:
            return
        if int(self.ids.min()) < 0 or int(self.ids.max()) >= self.n_tokens:
            raise IndexError(f"Vocabulary.ids must lie in 0 .. {self.n_tokens - 1}")
        self._refuse_repeats()

    def _keys(self) -> tuple[Tensor, Tensor]:
        """(int64 module * n_tokens + id in ascending order, entry of each)."""
        assert self.ids is not None
        sizes = self.offsets[1:] - self.offsets[:-1]
        module = torch.repeat_interleave(torch.arange(len(sizes), device=self.ids.device), sizes)
        return torch.sort(module * self.n_tokens + self.ids)

    def _refuse_repeats(self) -> None:
        keys, _ = self._keys()
        same = torch.nonzero(keys[1:] == keys[:-1])
        if len(same):
            key = int(keys[int(same[0])])
            raise ValueError(
                f"token {key % self.n_tokens} occurs twice in the vocabulary of module {key // self.n_tokens}"
            )

    @classmethod
    def of(cls, lists: Sequence[Sequence[int] | Tensor], n_tokens: int) -> Vocabulary:
        """Make a vocabulary from one list of token ids per module over a shared table of n_tokens rows."""
        parts = [torch.as_tensor(ids, dtype=torch.int32).reshape(-1) for ids in lists]
        sizes = torch.tensor([0] + [len(p) for p in parts], dtype=torch.int64)
        ids = torch.cat(parts) if parts else torch.empty(0, dtype=torch.int32)
        return cls(torch.cumsum(sizes, 0), ids, n_tokens)

    @classmethod
    def own(cls, sizes: Sequence[int]) -> Vocabulary:
        """Make a vocabulary in which module m has sizes[m] output rows of its own."""
        offsets = torch.cumsum(torch.tensor([0, *sizes], dtype=torch.int64), 0)
        return cls(offsets, None, int(offsets[-1]))

    @property
    def n_modules(self) -> int:
        return len(self.offsets) - 1

    def host_offsets(self) -> list[int]:
        return self.cache["offsets"]

    def locate(self, module: Tensor, token: Tensor) -> Tensor:
        """Index of each token within its module's own vocabulary; -1 where the module does not have it.

        Args:
            module: integer [T], module of each row.
            token: integer [T], row of the shared table.

        Returns:
            int64 [T].
        """
        if self.ids is None:
            raise ValueError("locate needs a shared table: this vocabulary has own rows per module")
        if module.shape != token.shape or module.dim() != 1:
            raise ValueError(f"module {tuple(module.shape)} and token {tuple(token.shape)} must both be [T]")
        if "keys" not in self.cache:
            keys, entry = self._keys()
            self.cache["keys"] = (keys, entry - self.offsets[keys // self.n_tokens])
        keys, local = self.cache["keys"]
        if len(keys) == 0:
            return torch.full_like(token, -1, dtype=torch.int64)
        wanted = module.long() * self.n_tokens + token.long()
        at = torch.searchsorted(keys, wanted).clamp(max=len(keys) - 1)
        return torch.where(keys[at] == wanted, local[at], torch.full_like(at, -1))

    def to(self, device: torch.device | str) -> Vocabulary:
        """The same vocabulary on another device."""
        ids = None if self.ids is None else self.ids.to(device)
        return Vocabulary(self.offsets.to(device), ids, self.n_tokens)
