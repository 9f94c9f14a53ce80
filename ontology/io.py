"""The one writer of artefacts: atomic, checksummed, data only (JSON and safetensors, never pickle)."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from ontology.errors import ConstructibleError


def _explain_os_error(error: OSError, path: Path) -> ConstructibleError:
    fixes = {
        errno.ENOSPC: ("the disk is full.", "free space or choose another folder, then run the same command again"),
        errno.EDQUOT: (
            "the disk quota is used up.",
            "free space or choose another folder, then run the same command again",
        ),
        errno.EROFS: ("the file system is read-only.", "choose a folder that can be written"),
        errno.EACCES: ("permission denied.", "choose a folder that you may write, or change its permissions"),
        errno.EPERM: ("operation not permitted.", "choose a folder that you may write"),
        errno.ENOTDIR: ("a part of this path is a file, not a folder.", "choose another folder"),
        errno.EEXIST: ("a file is in the way.", "choose another folder or move that file"),
    }
    message, fix = fixes.get(error.errno or 0, (f"cannot be written ({error.strerror or error}).", "check the path"))
    return ConstructibleError(message, fix=fix, file=path)


@contextmanager
def explain_os_errors(path: str | Path) -> Iterator[None]:
    """Turn operating-system errors of a block that works on `path` into ConstructibleError with the fix."""
    try:
        yield
    except OSError as error:
        raise _explain_os_error(error, Path(path)) from error


def make_folder(path: str | Path) -> Path:
    """Create a folder and its parents; raise ConstructibleError where that cannot be done."""
    path = Path(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _explain_os_error(error, path) from error
    return path


def write_atomic(path: str | Path, write: Callable[[Path], None]) -> Path:
    """Let `write` fill a temporary file beside `path`, flush it to disk, then rename it over `path`.

    A reader sees the old file or the new one, never a part; a killed process leaves the old one (and its temporary
    file, which `remove_leftovers` takes away).
    """
    path = Path(path)
    make_folder(path.parent)
    temporary: Path | None = None
    try:
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.{os.getpid()}.", suffix=".tmp", dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        write(temporary)
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except OSError as error:
        raise _explain_os_error(error, path) from error
    finally:
        if temporary is not None and temporary.exists():
            temporary.unlink()
    return path


def remove_leftovers(folder: str | Path) -> list[Path]:
    """Remove what killed writers left in a folder, files named `.NAME.PID.….tmp`; those of living processes stay."""
    removed = []
    for path in sorted(Path(folder).glob(".*.tmp")):
        process = re.search(r"\.(\d+)\.(?:[^.]*\.)?tmp$", path.name)
        if process and not _is_running(int(process[1])):
            with explain_os_errors(path):
                path.unlink(missing_ok=True)
            removed.append(path)
    return removed


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):  # another user's; or no process number at all
        return True
    return True


def write_bytes(path: str | Path, data: bytes) -> Path:
    """Write bytes atomically."""
    return write_atomic(path, lambda temporary: _write_all(temporary, data))


def write_text(path: str | Path, text: str) -> Path:
    """Write UTF-8 text atomically."""
    return write_bytes(path, text.encode("utf-8"))


def write_json(path: str | Path, value: Any) -> Path:
    """Write JSON atomically, with sorted keys so that equal values give equal bytes."""
    return write_text(path, json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False) + "\n")


def read_json(path: str | Path) -> Any:
    """Read JSON; a file that is missing or broken is reported by name."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConstructibleError("no such file.", fix="check the folder's name", file=path) from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ConstructibleError(
            f"not valid JSON ({error}).", fix="restore the file or build again", file=path
        ) from error


def save_tensors(
    path: str | Path, tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str] | None = None
) -> Path:
    """Write named arrays as safetensors, atomically; equal arrays give equal bytes."""
    from safetensors.numpy import save

    ordered = {name: np.ascontiguousarray(tensors[name]) for name in sorted(tensors)}
    return write_bytes(path, save(ordered, metadata=dict(metadata) if metadata else None))


def load_tensors(path: str | Path) -> dict[str, np.ndarray]:
    """Read named arrays from safetensors, memory-mapped and read-only.

    Arrays are views of the mapped file: a table that is not touched costs no memory.
    """
    path = Path(path)
    try:
        # As a plain array: slicing one of class memmap takes ten times as long, and the mapping is kept either way.
        mapped = np.memmap(path, dtype=np.uint8, mode="r").view(np.ndarray)
        header_bytes = int(mapped[:8].view("<u8")[0])
        header = json.loads(bytes(mapped[8 : 8 + header_bytes]))
        tensors = {}
        for name, entry in header.items():
            if name != "__metadata__":
                begin, end = (8 + header_bytes + offset for offset in entry["data_offsets"])
                dtype = np.dtype(_DTYPES[entry["dtype"]])
                tensors[name] = mapped[begin:end].view(dtype).reshape(entry["shape"])
    except FileNotFoundError as error:
        raise ConstructibleError("no such file.", fix="build the model again", file=path) from error
    except (ValueError, IndexError, KeyError, TypeError, AttributeError) as error:
        raise ConstructibleError(
            "not a safetensors file, or not all of one.", fix="build the model again", file=path
        ) from error
    return tensors


_DTYPES = {
    "BOOL": "?", "U8": "u1", "I8": "i1", "U16": "<u2", "I16": "<i2", "U32": "<u4", "I32": "<i4",
    "U64": "<u8", "I64": "<i8", "F16": "<f2", "F32": "<f4", "F64": "<f8",
}  # fmt: skip


def sha256_file(path: str | Path) -> str:
    """Hex SHA-256 of a file's bytes."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def sha256_json(value: Any) -> str:
    """Hex SHA-256 of a JSON value in canonical form."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def _write_all(path: Path, data: bytes) -> None:
    with open(path, "wb") as file:
        file.write(data)
