"""What compiled code may use of the processor."""

from __future__ import annotations

from collections.abc import Mapping

from llvmlite import binding


def features() -> Mapping[str, bool]:
    """LLVM's names of this processor's features; none where numba was told to compile for another one.

    LLVM ends the process over an instruction that its target lacks, so whoever asks for one by name looks here first.
    """
    from numba.core import config

    if any(getattr(config, name, None) is not None for name in ("CPU_NAME", "CPU_FEATURES")):
        return {}
    return binding.get_host_cpu_features()
