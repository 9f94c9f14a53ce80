"""Build the Triton kernels for an H200 without one: registers, spills, tensor-core instructions, shared memory."""

# pyright: reportMissingImports=false
from __future__ import annotations

import itertools
import os
import re
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from kernels.triton_backend import UPDATE_BLOCK, fused_tile
from kernels.triton_xent import blocks

POINTER = {"float32": "*fp32", "bfloat16": "*bf16", "float16": "*fp16"}
SHARED_LIMIT = 227 * 1024  # bytes of shared memory that one block may use on sm_90
TILES = (16, 32, 64)
GELU = 2  # the activation that needs most registers


@dataclass(frozen=True)
class Built:
    """What the assembler says about one configuration.

    Attributes:
        tensor_core: products of matrices by tensor-core instructions (HMMA, or HGMMA for whole warp groups).
        spill_bytes: registers that did not fit, in bytes of local memory.
    """

    kernel: str
    dtype: str
    configuration: str
    registers: int
    spill_bytes: int
    shared_bytes: int
    tensor_core: int

    @property
    def row(self) -> dict[str, Any]:
        return asdict(self)


def _tool(name: str) -> str:
    import triton

    return str(Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / name)


def build(function: Any, dtype: str, signature: dict[str, str], constants: dict[str, Any]) -> Built:
    """Compile one configuration for sm_90 and read the result.

    Raises:
        RuntimeError: under the interpreter (nothing is compiled there), or where a tool of triton's is missing.
    """
    if os.environ.get("TRITON_INTERPRET") == "1":
        raise RuntimeError("TRITON_INTERPRET is set: nothing is compiled in the interpreter. Fix: unset it")
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    every = signature | dict.fromkeys(constants, "constexpr")
    # Pointers from torch are aligned; the compiler may load in vectors, as it does at run time.
    attributes = {(i,): [["tt.divisibility", 16]] for i, kind in enumerate(every.values()) if kind.startswith("*")}
    source = ASTSource(fn=function, signature=every, constexprs=constants, attrs=attributes)
    compiled = triton.compile(source, target=GPUTarget("cuda", 90, 32), options={"num_warps": 4})
    with tempfile.TemporaryDirectory() as folder:
        cubin = Path(folder, "kernel.cubin")
        cubin.write_bytes(compiled.asm["cubin"])
        usage = subprocess.run(
            [_tool("cuobjdump"), "-res-usage", str(cubin)], capture_output=True, text=True, check=True
        ).stdout
        code = subprocess.run(
            [_tool("cuobjdump"), "-sass", str(cubin)], capture_output=True, text=True, check=True
        ).stdout
    found = re.search(r"REG:(\d+) STACK:(\d+)", usage)
    if found is None:
        raise RuntimeError(f"cuobjdump said nothing about registers: {usage[:200]!r}")
    return Built(
        kernel=function.__name__,
        dtype=dtype,
        configuration=" ".join(f"{k}={v}" for k, v in constants.items()),
        registers=int(found[1]),
        spill_bytes=int(found[2]),
        shared_bytes=int(compiled.metadata.shared),
        tensor_core=len(re.findall(r"\bHG?MMA\b", code)),
    )


def _names(names: str, kind: str) -> dict[str, str]:
    return dict.fromkeys(names.split(), kind)


def configurations(quick: bool = False) -> Iterator[tuple[Any, str, dict[str, str], dict[str, Any]]]:
    """(kernel, dtype, signature, constants) of what triton_backend, triton_xent and triton_cnn launch.

    Blocks that differ between the two widths need no more than the larger of them on both sides, which is here. quick:
    only the hungriest of each kernel, in float32 and bfloat16.
    """
    for dtype in ("float32", "bfloat16") if quick else tuple(POINTER):
        yield from _linears(dtype, quick)
        yield from _networks(dtype, quick)
        yield from _losses(dtype, quick)
        yield from _convolutions(dtype, quick)


def _linears(dtype: str, quick: bool) -> Iterator[tuple[Any, str, dict[str, str], dict[str, Any]]]:
    from kernels import triton_kernels as tk

    index, number = "*i32", "i32"
    forward = _names("x weight bias before out", POINTER[dtype])
    forward |= _names("offsets tile_module tile_start source target", index)
    forward |= _names("n_modules n_in n_out weight_module weight_in weight_out", number)
    gradient = _names("x grad d_weight d_bias", POINTER[dtype])
    gradient |= _names("offsets source target", index) | _names("n_in n_out", number)
    update = _names("x grad weight weight_first weight_second bias bias_first bias_second", POINTER[dtype])
    update |= _names("offsets source target", index) | _names("rates scales keeps", "*fp32")
    update |= _names("n_in n_out", number) | _names("beta1 beta2 eps", "fp32")
    for tile, block in itertools.product(TILES[-1:] if quick else TILES, (64,) if quick else (16, 32, 64)):
        sizes = {"PRECISION": "ieee", "TILE": tile, "BLOCK_IN": block, "BLOCK_OUT": block}
        moves = {"GATHER": True, "SCATTER": True}
        yield tk.linear_tiles, dtype, forward, moves | {"BIAS": True, "ACTIVATION": GELU, "SLOPE": 0} | sizes
        yield tk.linear_tiles, dtype, forward, moves | {"BIAS": False, "ACTIVATION": 0, "SLOPE": GELU} | sizes
        yield tk.weight_gradient, dtype, gradient, moves | {"BIAS": True, "ACTIVATION": GELU} | sizes
        sizes |= {"BLOCK_IN": min(block, UPDATE_BLOCK), "BLOCK_OUT": min(block, UPDATE_BLOCK)}
        if quick or block <= UPDATE_BLOCK:
            yield tk.weight_update, dtype, update, moves | {"BIAS": True, "ACTIVATION": GELU} | sizes


def _networks(dtype: str, quick: bool) -> Iterator[tuple[Any, str, dict[str, str], dict[str, Any]]]:
    from kernels import triton_kernels as tk

    signature = _names("x w0 b0 w1 b1 w2 b2 w3 b3 out", POINTER[dtype])
    signature |= _names("offsets tile_module tile_start source target", "*i32")
    signature |= _names("n_modules d0 d1 d2 d3 d4", "i32")
    seen = set()
    for tile, width, layers in itertools.product(TILES, (16, 32, 64, 128), (2, 4)):
        used = fused_tile(tile, width, dtype != "float32")
        if used is None or (used, width, layers) in seen:
            continue
        seen.add((used, width, layers))
        if quick and (layers == 4 or fused_tile(used, 2 * width, dtype != "float32") == used):
            continue
        fixed = {"LAYERS": layers, "BIASES": 2**layers - 1, "ACTIVATION": GELU, "GATHER": True, "PRECISION": "ieee"}
        yield tk.network_tiles, dtype, signature, fixed | {"TILE": used} | {f"P{i}": width for i in range(5)}


def _losses(dtype: str, quick: bool) -> Iterator[tuple[Any, str, dict[str, str], dict[str, Any]]]:
    from kernels import triton_xent_kernels as tx

    first = _names("hidden", POINTER[dtype]) | _names("targets", "*i64") | _names("table bias", POINTER[dtype])
    first |= _names("ids", "*i32") | _names("starts", "*i64") | _names("offsets", "*i32")
    tiles, sizes = _names("tile_module tile_start source", "*i32"), _names("n_modules width", "i32")
    grads = _names("peak", "*fp32") | _names("grad", POINTER[dtype])
    loss = first | tiles | _names("loss", POINTER[dtype]) | _names("peak", "*fp32") | sizes
    hidden = first | tiles | grads | _names("d_hidden", POINTER[dtype]) | sizes
    table = first | _names("block_module block_first source", "*i32") | grads | _names("d_entries", "*fp32")
    table |= _names("d_bias", POINTER[dtype]) | _names("width", "i32")
    seen = set()
    for low, tile, padded in itertools.product((False, True), TILES, (16, 32, 64, 128)):
        if low and dtype != "float32":
            continue
        used = blocks(tile, padded, low or dtype != "float32")
        if (low, used, padded) in seen or (quick and padded < 128):
            continue
        seen.add((low, used, padded))
        fixed = {"IDS": True, "BIAS": True, "LOW": low, "PRECISION": "ieee", "TILE": used[0], "BLOCK": used[1]}
        for kernel, names in ((tx.xent_loss, loss), (tx.xent_hidden, hidden), (tx.xent_table, table)):
            yield kernel, dtype, names, fixed | {"P": padded}
    for padded in (128,) if quick else (16, 32, 64, 128):
        names = _names("d_entries", "*fp32") | _names("order token_offsets", "*i32")
        yield tx.sum_entries, dtype, names | _names("d_table", POINTER[dtype]) | _names("width", "i32"), {"P": padded}


def _convolutions(dtype: str, quick: bool) -> Iterator[tuple[Any, str, dict[str, str], dict[str, Any]]]:
    from kernels import triton_cnn
    from kernels import triton_kernels as tk

    names = _names("x weight bias out", POINTER[dtype])
    names |= _names("n_modules n_in height width n_out high wide stride image_step module_step", "i32")
    for kernel, block in itertools.product((3,) if quick else (1, 3, 5), (16, 32)):
        widest = triton_cnn.widest_block(dtype != "float32")
        if block > widest or (quick and block < widest):
            continue
        fixed = {"KERNEL": kernel, "BIAS": True, "ACTIVATION": GELU, "PRECISION": "ieee", "TILE": triton_cnn.TILE}
        yield tk.convolution, dtype, names, fixed | {"BLOCK_IN": block, "BLOCK_OUT": block}


def build_all(quick: bool = False) -> Iterator[Built]:
    """Build the configurations one after the other (a second or more each)."""
    for function, dtype, signature, constants in configurations(quick):
        yield build(function, dtype, signature, constants)
