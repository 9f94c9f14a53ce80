"""Batched forward and training of many tiny modules chosen by a router.

Start with `route` (which module takes which row), then `ragged_linear`, `ragged_mlp`, `ragged_softmax_xent`,
`train_step_` or `adam_step_`. The CPU backend is in daily use; the Triton backend has not yet run on a GPU, and the
automatic choice checks it there first (docs/DESIGN.md, `explain`).

Importing this package loads neither torch nor numba nor triton: names load on first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

_HOME = {
    "Plan": "kernels.plan",
    "route": "kernels.plan",
    "Vocabulary": "kernels.vocabulary",
    "module_cnn": "kernels.cnn",
    "ragged_linear": "kernels.api",
    "ragged_mlp": "kernels.api",
    "ragged_softmax_xent": "kernels.api",
    "adam_step_": "kernels.api",
    "AdamRule": "kernels.adam",
    "AdamState": "kernels.adam",
    "bfloat16_products": "kernels.precision",
    "embedding_linear": "kernels.embedding",
    "keep_freed_memory": "kernels.memory",
    "train_step_": "kernels.api",
    "explain": "kernels.backends",
    "use_backend": "kernels.backends",
    "MLPStack": "kernels.stacking",
    "stack": "kernels.stacking",
    "unstack": "kernels.stacking",
}

__all__ = sorted(_HOME)  # pyright: ignore[reportUnsupportedDunderAll]

if TYPE_CHECKING:
    from kernels.adam import AdamRule as AdamRule
    from kernels.adam import AdamState as AdamState
    from kernels.api import adam_step_ as adam_step_
    from kernels.api import ragged_linear as ragged_linear
    from kernels.api import ragged_mlp as ragged_mlp
    from kernels.api import ragged_softmax_xent as ragged_softmax_xent
    from kernels.api import train_step_ as train_step_
    from kernels.backends import explain as explain
    from kernels.backends import use_backend as use_backend
    from kernels.cnn import module_cnn as module_cnn
    from kernels.embedding import embedding_linear as embedding_linear
    from kernels.memory import keep_freed_memory as keep_freed_memory
    from kernels.plan import Plan as Plan
    from kernels.plan import route as route
    from kernels.precision import bfloat16_products as bfloat16_products
    from kernels.stacking import MLPStack as MLPStack
    from kernels.stacking import stack as stack
    from kernels.stacking import unstack as unstack
    from kernels.vocabulary import Vocabulary as Vocabulary


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'kernels' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
