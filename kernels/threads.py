"""How many threads a piece of work on the CPU gets."""

from __future__ import annotations

import numba
import torch


def threads_for(work: int, worth: int) -> int:
    """All that torch and numba may use; one where the work is less than what waking a second is worth."""
    return 1 if work < worth else min(torch.get_num_threads(), numba.get_num_threads())
