"""Where photographs come from: a folder per class, Parquet files, a hub dataset, or the generated part world.

One reader for all of them. A photograph that cannot be used is counted and listed with its reason, never fatal; a set
in which a class has too few is an error that says what to do. Decoded pixels are kept in a memory-mapped cache.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from ontology.errors import ConstructibleError, UsageError, did_you_mean
from ontology.io import explain_os_errors, load_tensors, make_folder, read_json, save_tensors, sha256_json, write_json
from ontology.store import code_hash, default_store_folder

FORMAT = "constructible-images/2"
Split = Literal["train", "validation"]
MIN_SIDE = 8
"""A photograph with a shorter side than this shows nothing to learn from and is left out."""
MAX_PIXELS = 100_000_000
"""A photograph of more pixels is not decoded: it would need over a gigabyte."""
VALIDATION_SHARE = 0.2
"""Share held out where a source has no split of its own; a photograph's bytes decide, so it never changes sides."""
HUB_LIMIT = 50_000
FINGERPRINT_SIDE = 64
"""Photographs are told apart by their pixels at this side, whatever side they are read at."""
SUFFIXES = frozenset(".jpg .jpeg .png .webp .bmp .gif .tif .tiff .ppm .pgm".split())
PART_WORLD = re.compile(r"part-world(?::(\d+))?")
_ORIENTATION = 0x0112
"""The EXIF tag that says how a camera was held."""

_SPLIT_FOLDERS = {"train": ("train", "training"), "validation": ("validation", "val", "valid", "test")}
_COLUMNS = {
    "image": ("image", "img", "picture"),
    "label": ("name", "label", "class", "labels", "fine_label", "wnid"),
    "box": ("box", "bbox"),
}
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")


@dataclass(frozen=True)
class Picture:
    """One item of a source before decoding: its name for a person, encoded bytes (or why there are none), label."""

    path: str
    data: bytes | None
    label: str | None
    box: tuple[float, float, float, float] | None = None
    problem: str = ""


@dataclass(frozen=True)
class ImageSet:
    """Decoded photographs of equal size, in a fixed order.

    Attributes:
        pixels: uint8 [n, size, size, 3], memory-mapped.
        labels: int64 [n], indices into `classes`.
        classes: names, sorted.
        paths: what each photograph is called at its source.
        boxes: float32 [n, 4], x0 y0 x1 y1 as fractions of the side, nan where a photograph has none.
        skipped: (path, reason) of what was left out.
        data_hash: of pixels, labels and classes.
        seconds: that decoding took, when it was done.
        fingerprints: of each photograph, see `fingerprint`.
    """

    name: str
    split: str
    pixels: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]
    classes: tuple[str, ...]
    paths: tuple[str, ...]
    boxes: npt.NDArray[np.float32]
    skipped: list[tuple[str, str]] = field(default_factory=list)
    data_hash: str = ""
    seconds: float = 0.0
    fingerprints: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.labels)

    def labels_in(self, classes: Sequence[str]) -> npt.NDArray[np.int64]:
        """The class of each photograph as its place among these names, -1 where it is none of them, int64 [n]."""
        place = {name: i for i, name in enumerate(classes)}
        return np.array([place.get(name, -1) for name in self.classes], dtype=np.int64)[self.labels]

    @property
    def size(self) -> int:
        """Pixels of a side."""
        return int(self.pixels.shape[1])

    def part(self, rows: npt.NDArray[np.int64]) -> ImageSet:
        """Some of the photographs, copied; the hash says which."""
        digest = sha256_json({"whole": self.data_hash, "rows": rows.tolist()})
        return replace(
            self, pixels=self.pixels[rows], labels=self.labels[rows], paths=tuple(self.paths[i] for i in rows),
            boxes=self.boxes[rows], fingerprints=tuple(self.fingerprints[i] for i in rows) if self.fingerprints else (),
            data_hash=digest,
        )  # fmt: skip

    def rows_of(self, label: str) -> npt.NDArray[np.int64]:
        """Rows of one class, int64."""
        return np.flatnonzero(self.labels == self.classes.index(label))

    def rows_of_classes(self, classes: Sequence[str]) -> npt.NDArray[np.int64]:
        """Rows of several classes, in order, int64."""
        return np.flatnonzero(np.isin(self.labels, [self.classes.index(name) for name in classes]))


def read_images(
    source: str,
    split: Split = "train",
    *,
    size: int = 64,
    classes: Sequence[str] | None = None,
    limit_per_class: int | None = None,
    cache: str | Path | None = None,
) -> ImageSet:
    """Read, decode and cache one split of a source.

    Args:
        source: a folder with one folder per class (optionally below `train` and `validation`), a Parquet file or a
            folder of them, the id of a hub dataset, or `part-world` (`part-world:SEED`).
        size: side in pixels; photographs are scaled to cover it and cropped in the middle.
        classes: only these (default: all).
        limit_per_class: take at most so many of each, in the order of the source.
        cache: folder of decoded pixels; the user's cache folder by default.

    Raises:
        UsageError: the source is of no known kind, or does not hold a class that was asked for.
        ConstructibleError: nothing in it can be used, or columns are missing.
    """
    if not 16 <= size <= 512:
        raise UsageError(f"a side of {size} pixels is not supported.", fix="use 16 to 512")
    key = sha256_json(
        {"format": FORMAT, "source": _fingerprint(source, split), "split": split, "size": size,
         "classes": None if classes is None else sorted(classes), "limit": limit_per_class,
         "code": code_hash("vision.data", "vision.part_world")}
    )  # fmt: skip
    folder = Path(cache) if cache is not None else default_store_folder().parent / "images"
    place = folder / key[:32]
    if not (place / "images.json").exists():
        wanted = None if classes is None else set(classes)
        _decode(source, split, size, wanted, limit_per_class, place)
    found = _open(place, source, split)
    if classes is not None:
        for name in classes:
            if name not in found.classes:
                raise UsageError(
                    f"{source} ({split}) has no photographs of {name!r}." + did_you_mean(name, list(found.classes)),
                    fix="name classes of the source",
                )
    return found


def fingerprint(pixels: npt.NDArray[np.uint8], label: str) -> str:
    """What says that two photographs are the same one: 16 hex digits of a hash of its pixels at `FINGERPRINT_SIDE`,
    uint8 [64, 64, 3], and its class."""
    return hashlib.sha256(np.ascontiguousarray(pixels).tobytes() + label.encode()).hexdigest()[:16]


def list_classes(source: str) -> tuple[str, ...]:
    """Return the names of all classes of a source, sorted, without decoding a photograph."""
    items = pictures(source, "train", names_only=True)
    return tuple(sorted({item.label for item in items if item.label and not item.problem}))


def require(images: ImageSet, at_least: int, classes: Sequence[str] | None = None) -> None:
    """Refuse a set in which a class has too few photographs.

    Raises:
        ConstructibleError: naming the class, how many it has, and how many were left out.
    """
    counts = Counter(images.labels.tolist())
    for name in classes or images.classes:
        have = counts[images.classes.index(name)] if name in images.classes else 0
        if have < at_least:
            out = sum(f"{os.sep}{name}{os.sep}" in f"{os.sep}{path}" for path, _ in images.skipped)
            left = f" ({out} could not be used)" if out else ""
            raise ConstructibleError(
                f"{images.name}: the class {name!r} has {have} usable photograph{'s' * (have != 1)} in {images.split}"
                f"{left}; {at_least} are needed.",
                fix="add photographs, or leave the class out with --classes",
            )


def decode(data: bytes, size: int) -> tuple[npt.NDArray[np.uint8], tuple[float, float, float]]:
    """Decode one photograph to RGB [size, size, 3], scaled to cover the square and cropped in the middle.

    Alpha is laid over mid grey; CMYK, palettes, 16-bit and grey pictures become RGB; of an animation the first frame
    counts. The second value is (scale, left, top): a source point (x, y) lands at (x * scale - left, y * scale - top).

    Raises:
        ConstructibleError: it cannot be decoded, with the reason.
    """
    image_module = pillow_image()
    try:
        with image_module.open(io.BytesIO(data)) as opened:
            width, height = opened.size
            if width * height > MAX_PIXELS:
                raise ConstructibleError(f"{width} x {height} pixels is too large.", fix="scale it down")
            if min(width, height) < MIN_SIDE:
                raise ConstructibleError(f"{width} x {height} pixels is too small.", fix="use a larger picture")
            if max(width, height) > 20 * min(width, height):
                raise ConstructibleError(f"{width} x {height} pixels is too narrow.", fix="crop it")
            if min(width, height) > 4 * size:
                opened.draft("RGB" if opened.mode != "CMYK" else "CMYK", (2 * size, 2 * size))  # JPEG: decode less
            rgb = _to_rgb(_upright(opened), image_module)
    except ConstructibleError:
        raise
    except Exception as error:  # Pillow raises a dozen kinds for broken files
        reason = str(error).split(" <")[0][:80] or type(error).__name__
        raise ConstructibleError(f"not a picture that can be read ({reason}).", fix="replace it") from error
    scale = size / min(rgb.size)
    if scale != 1.0:
        shape = (max(size, round(rgb.width * scale)), max(size, round(rgb.height * scale)))
        rgb = rgb.resize(shape, image_module.Resampling.BILINEAR, reducing_gap=2.0)
    left, top = (rgb.width - size) // 2, (rgb.height - size) // 2
    rgb = rgb.crop((left, top, left + size, top + size))
    return np.asarray(rgb, dtype=np.uint8), (size / min(width, height), float(left), float(top))


def _upright(opened: Any) -> Any:
    """A camera's picture turned as its EXIF data say; as it is where they say nothing."""
    from PIL import ImageOps

    try:
        turned = opened.getexif().get(_ORIENTATION, 1) != 1
    except Exception:  # broken EXIF data do not make a picture unusable
        turned = False
    return ImageOps.exif_transpose(opened) if turned else opened


def _to_rgb(opened: Any, image_module: Any) -> Any:
    if opened.mode.startswith("I;16") or opened.mode in ("I", "F"):
        values = np.asarray(opened, dtype=np.float64)
        spread = float(values.max() - values.min()) or 1.0
        return image_module.fromarray(((values - values.min()) * (255.0 / spread)).astype(np.uint8)).convert("RGB")
    if opened.mode in ("RGBA", "LA", "PA") or "transparency" in opened.info:
        over = opened.convert("RGBA")
        ground = image_module.new("RGBA", over.size, (128, 128, 128, 255))
        ground.alpha_composite(over)
        return ground.convert("RGB")
    return opened.convert("RGB")


def pillow_image() -> Any:
    """Pillow's Image module, imported when the first photograph is decoded."""
    try:
        from PIL import Image
    except ImportError as error:
        raise ConstructibleError("the package 'pillow' is not installed.", fix="pip install pillow") from error
    Image.MAX_IMAGE_PIXELS = None  # our own limit is checked before anything is decoded
    return Image


def pictures(source: str, split: Split, *, names_only: bool = False) -> Iterator[Picture]:
    """Go through the items of one split of a source, undecoded (`names_only`: without their bytes)."""
    if match := PART_WORLD.fullmatch(source):
        from vision.part_world import CLASSES, encoded_pictures

        if names_only:
            yield from (Picture(name, None, name) for name in CLASSES)
        else:
            yield from (Picture(*item) for item in encoded_pictures(split, int(match[1] or 0)))
        return
    path = Path(source)
    if path.is_dir():
        files, chosen = _parquet_files(path, split)
        if files:
            yield from _split(_from_parquet(files, names_only), split, own=chosen, names_only=names_only)
        else:
            yield from _from_folder(path, split, names_only)
    elif path.is_file():
        if path.suffix != ".parquet":
            raise UsageError(f"{path} is no Parquet file.", fix="give a folder, a .parquet file or a dataset's id")
        yield from _split(_from_parquet([path], names_only), split, own=False, names_only=names_only)
    elif _HUB_ID.fullmatch(source) and not source.endswith(".parquet"):
        yield from _from_hub(source, split, names_only)
    else:
        raise UsageError(
            f"no such data: {source!r}.", fix="give a folder of class folders, Parquet, a dataset's id, or part-world"
        )


def _parquet_files(path: Path, split: Split) -> tuple[list[Path], bool]:
    """Parquet files of a split in a folder, and whether the folder itself says which are of the split; where it has
    none to validate on, or nothing else, a share of each file's photographs is held out."""
    files = sorted(path.glob("*.parquet")) + sorted(path.glob("data/*.parquet"))
    named = {side: [f for f in files if re.match(f"(?:{'|'.join(names)})(?![a-z])", f.name)]
             for side, names in _SPLIT_FOLDERS.items()}  # fmt: skip
    train = named["train"] or [file for file in files if file not in named["validation"]]
    if train and named["validation"]:
        return (train if split == "train" else named["validation"]), True
    return train or files, False


def _in_split(data: bytes, split: Split) -> bool:
    share = int.from_bytes(hashlib.sha256(data).digest()[:4], "big") / 2**32
    return (share < VALIDATION_SHARE) == (split == "validation")


def _split(items: Iterable[Picture], split: Split, *, own: bool, names_only: bool) -> Iterator[Picture]:
    for item in items:
        if own or names_only or item.data is None or _in_split(item.data, split):
            yield item


def _from_parquet(files: Sequence[Path], names_only: bool) -> Iterator[Picture]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    for path in files:
        try:
            opened = pq.ParquetFile(path)
        except (pa.ArrowInvalid, OSError) as error:
            raise ConstructibleError(
                f"not a Parquet file that can be read ({str(error)[:80]}).", fix="replace it", file=path
            ) from error
        columns = {role: next((n for n in names if n in opened.schema_arrow.names), None)
                   for role, names in _COLUMNS.items()}  # fmt: skip
        for role in ("image", "label"):
            if columns[role] is None:
                raise ConstructibleError(
                    f"has no column of {role}s (columns: {', '.join(opened.schema_arrow.names)}).",
                    fix=f"name one of its columns {_COLUMNS[role][0]!r}", file=path,
                )  # fmt: skip
        names = _label_names(opened.schema_arrow)
        wanted = [str(c) for role, c in columns.items() if c and not (names_only and role != "label")]
        row = 0
        for batch in opened.iter_batches(batch_size=256, columns=wanted):
            for item in batch.to_pylist():
                label = _label(item[columns["label"]], names)
                image = None if names_only else item[columns["image"]]
                yield _picture(image, f"{path.name}#{row}", label, item.get(columns["box"] or ""))
                row += 1


def _label_names(schema: Any) -> list[str] | None:
    """Names of integer labels, where a Parquet file written by `datasets` says them."""
    import json

    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        return next(list(f["names"]) for n, f in features.items() if n in _COLUMNS["label"] and "names" in f)
    except (KeyError, StopIteration, ValueError, TypeError):
        return None


def _label(value: Any, names: Sequence[str] | None) -> str | None:
    """A label as a name; None where it is missing or outside of the names."""
    if value is None or (isinstance(value, float) and value != value):
        return None
    if isinstance(value, int) and names is not None:
        return names[value].split(",")[0].strip() if 0 <= value < len(names) else None
    text = str(value).strip()
    return text or None


def _picture(image: Any, path: str, label: str | None, box: Any = None) -> Picture:
    data, problem = None, ""
    if isinstance(image, dict):
        data, path = image.get("bytes"), f"{path} {image.get('path') or ''}".strip()
    elif isinstance(image, bytes):
        data = image
    elif image is not None:
        problem = f"holds {type(image).__name__} where bytes are expected"
    corners = None
    if isinstance(box, list) and len(box) == 4 and all(isinstance(value, int | float) for value in box):
        x0, y0, x1, y1 = map(float, box)
        if x0 <= x1 and y0 <= y1:  # false for what is not a number, and for most boxes of corner and size
            corners = (x0, y0, x1, y1)
    return Picture(path, data, label, corners, problem)


def _from_folder(path: Path, split: Split, names_only: bool) -> Iterator[Picture]:
    sides = {side: next((path / n for n in names if _folders(path / n)), None)
             for side, names in _SPLIT_FOLDERS.items()}  # fmt: skip
    base = sides[split] or sides["train"] or path
    own = sides["validation"] is not None
    labels = [folder for folder in _folders(base) if folder not in sides.values()]
    if not labels:
        raise UsageError(
            f"{base} holds no folders of classes.", fix="make one folder per class, with its photographs in it"
        )
    for folder in labels:
        files = sorted(p for p in folder.rglob("*") if p.is_file() and not p.name.startswith("."))
        if not files:
            yield Picture(folder.name, None, folder.name, problem="the folder is empty")
        for file in files:
            name = file.relative_to(base).as_posix()
            if file.suffix.lower() not in SUFFIXES:
                yield Picture(name, None, folder.name, problem="not a picture by its name")
            elif names_only:
                yield Picture(name, None, folder.name)
            else:
                try:
                    data = file.read_bytes()
                except OSError as error:
                    yield Picture(name, None, folder.name, problem=f"cannot be read ({error.strerror})")
                    continue
                if own or _in_split(data, split):
                    yield Picture(name, data, folder.name)


def _folders(path: Path) -> list[Path]:
    """The folders in a folder, hidden ones left out; none where there is no such folder."""
    return sorted(p for p in path.iterdir() if p.is_dir() and not p.name.startswith(".")) if path.is_dir() else []


def _hub_split(source: str, names: Sequence[str]) -> Any:
    """The first of these splits that a hub dataset has, streamed; None where it has none."""
    from datasets import load_dataset

    for name in names:
        try:
            return load_dataset(source, split=name, streaming=True)
        except ValueError as error:
            if "split" not in str(error).lower():
                raise
    return None


def _from_hub(source: str, split: Split, names_only: bool) -> Iterator[Picture]:
    """Stream a hub dataset; its own decoder is switched off, so that broken pictures are counted, not fatal."""
    from datasets import Image

    try:
        validation = _hub_split(source, _SPLIT_FOLDERS["validation"])
        own = validation is not None
        streamed = validation if own and split == "validation" else _hub_split(source, _SPLIT_FOLDERS["train"])
        if streamed is None:
            raise ConstructibleError(f"the dataset {source!r} has no {split} split.", fix="use another")
    except ConstructibleError:
        raise
    except Exception as error:
        raise ConstructibleError(
            f"the dataset {source!r} cannot be opened ({str(error).splitlines()[0][:120] or type(error).__name__}).",
            fix="check its id, your network and your access to it",
        ) from error
    columns = {role: next((n for n in names if n in streamed.features), None) for role, names in _COLUMNS.items()}
    if columns["image"] is None or columns["label"] is None:
        raise ConstructibleError(
            f"the dataset {source!r} lacks a column of images or labels (it has {', '.join(streamed.features)}).",
            fix="use a dataset with `image` and `label`",
        )
    names = getattr(streamed.features[columns["label"]], "names", None)
    if names_only and names:
        yield from (Picture(name, None, name.split(",")[0].strip()) for name in names)
        return
    streamed = streamed.cast_column(columns["image"], Image(decode=False))
    items = (
        _picture(item[columns["image"]], f"{source}#{row}", _label(item[columns["label"]], names))
        if row < HUB_LIMIT
        else Picture(f"{source}#{row}", None, None, problem=f"only the first {HUB_LIMIT:,} rows are read")
        for row, item in enumerate(streamed.take(HUB_LIMIT + 1))
    )
    yield from _split(items, split, own=own, names_only=names_only)


def _fingerprint(source: str, split: Split) -> Any:
    """What says whether a source has changed: names, sizes and times of its files; a hub id stands for itself."""
    path = Path(source)
    if path.is_file():
        files = [path]
    elif path.is_dir():
        files = _parquet_files(path, split)[0] or sorted(p for p in path.rglob("*") if p.is_file())
    else:
        return source
    with explain_os_errors(path):
        return [[str(file.resolve()), file.stat().st_size, file.stat().st_mtime_ns] for file in files]


def _decode(
    source: str, split: Split, size: int, classes: set[str] | None, limit: int | None, place: Path
) -> None:  # fmt: skip
    """Decode a split into a folder that appears when it is whole."""
    make_folder(place.parent)
    working = Path(tempfile.mkdtemp(prefix=".images.", dir=place.parent))
    kept: list[tuple[str, str]] = []
    boxes: list[tuple[float, ...]] = []
    prints: list[str] = []
    skipped: list[tuple[str, str]] = []
    counts: Counter[str] = Counter()
    digest = hashlib.sha256()
    started = time.monotonic()
    try:
        with explain_os_errors(working / "pixels.u8"), open(working / "pixels.u8", "wb") as file:
            for item in pictures(source, split):
                label = item.label
                if label is None:
                    skipped.append((item.path, item.problem or "no label, or one without a name"))
                    continue
                if (classes is not None and label not in classes) or (limit is not None and counts[label] >= limit):
                    continue
                if item.problem or not item.data:
                    skipped.append((item.path, item.problem or "holds no bytes"))
                    continue
                try:
                    pixels, (scale, left, top) = decode(item.data, size)
                    small = pixels if size == FINGERPRINT_SIDE else decode(item.data, FINGERPRINT_SIDE)[0]
                except ConstructibleError as error:
                    skipped.append((item.path, error.message))
                    continue
                if item.box is None:
                    boxes.append((np.nan,) * 4)
                else:
                    x0, y0, x1, y1 = item.box  # inclusive corners, in pixels of the source
                    corners = (x0 * scale - left, y0 * scale - top, (x1 + 1) * scale - left, (y1 + 1) * scale - top)
                    boxes.append(tuple(min(1.0, max(0.0, value / size)) for value in corners))
                counts[label] += 1
                kept.append((item.path, label))
                prints.append(fingerprint(small, label))
                digest.update(pixels.tobytes())
                file.write(pixels.tobytes())
        if not kept:
            why = f" (first reason: {skipped[0][0]}: {skipped[0][1]})" if skipped else ""
            asked = "" if classes is None else f" of {', '.join(sorted(classes)[:5])}"
            raise ConstructibleError(f"{source} ({split}) has no usable photograph{asked}{why}.", fix="check the data")
        names = sorted(counts)
        labels = np.array([names.index(label) for _, label in kept], dtype=np.int64)
        digest.update(labels.tobytes() + "\0".join(names).encode())
        save_tensors(working / "rows.safetensors", {"labels": labels, "boxes": np.array(boxes, dtype=np.float32)})
        write_json(
            working / "images.json",
            {"format": FORMAT, "size": size, "classes": names, "paths": [path for path, _ in kept],
             "fingerprints": prints, "skipped": skipped, "data_hash": digest.hexdigest(),
             "seconds": round(time.monotonic() - started, 3)},
        )  # fmt: skip
        with explain_os_errors(place):
            if place.exists():
                shutil.rmtree(place)
            os.replace(working, place)
    finally:
        shutil.rmtree(working, ignore_errors=True)


def _open(place: Path, source: str, split: Split) -> ImageSet:
    about = read_json(place / "images.json")
    rows = load_tensors(place / "rows.safetensors")
    size, n = int(about["size"]), len(about["paths"])
    with explain_os_errors(place / "pixels.u8"):
        pixels = np.memmap(place / "pixels.u8", dtype=np.uint8, mode="r")
    if pixels.size != n * size * size * 3:
        raise ConstructibleError("the cached pixels are incomplete.", fix="delete this folder", file=place)
    return ImageSet(
        Path(source).name if Path(source).exists() else source, split, pixels.reshape(n, size, size, 3),
        np.array(rows["labels"]), tuple(about["classes"]), tuple(about["paths"]), np.array(rows["boxes"]),
        [(str(path), str(reason)) for path, reason in about["skipped"]], about["data_hash"],
        float(about["seconds"]), tuple(about["fingerprints"]),
    )  # fmt: skip
