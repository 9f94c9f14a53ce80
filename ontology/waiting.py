"""How long threads that wait for each other spin; a module of its own, since it comes before all other imports."""

from __future__ import annotations

import os


def threads_wait_briefly() -> None:
    """Let threads that wait for each other spin for about a millisecond and then sleep; before torch is loaded.

    Spinning on made training 20 times slower on a busy machine; sleeping at once took up to half as long again on a
    free one that wakes threads slowly (docs/experiments/threads.md). Who has set OMP_WAIT_POLICY keeps what was set.
    Heeded by GNU's OpenMP, which torch brings along on Linux.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
        os.environ.setdefault("GOMP_SPINCOUNT", "20000")
