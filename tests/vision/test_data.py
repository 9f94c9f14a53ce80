"""Photographs of every kind that people have, broken ones among them."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ontology.errors import ConstructibleError, UsageError
from vision.data import decode, list_classes, read_images, require


def encoded(size: tuple[int, int] = (80, 64), mode: str = "RGB", kind: str = "JPEG", value: int = 120) -> bytes:
    file = io.BytesIO()
    image = Image.effect_noise(size, 40).convert("RGB") if value < 0 else Image.new("RGB", size, (value, value, value))
    image.convert(mode).save(file, kind)
    return file.getvalue()


def put(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for label in ("cat", "dog"):
        for i in range(12):
            put(tmp_path / "data" / label / f"{i}.jpg", encoded(value=10 * i + (5 if label == "cat" else 0)))
    return tmp_path / "data"


def test_a_folder_splits_by_content_and_nothing_is_on_both_sides(folder: Path, tmp_path: Path):
    train = read_images(str(folder), "train", cache=tmp_path / "c")
    held = read_images(str(folder), "validation", cache=tmp_path / "c")
    assert train.classes == ("cat", "dog") and len(train) + len(held) == 24 and len(held) > 0
    assert not set(train.paths) & set(held.paths)
    assert train.pixels.shape == (len(train), 64, 64, 3) and train.data_hash != held.data_hash
    # A renamed file stays on its side: its bytes decide.
    name = held.paths[0]
    (folder / name).rename(folder / name.replace(".jpg", "_renamed.jpg"))
    again = read_images(str(folder), "validation", cache=tmp_path / "c")
    assert len(again) == len(held) and any("_renamed" in path for path in again.paths)


def test_every_kind_of_broken_photograph_is_counted_with_its_reason(folder: Path, tmp_path: Path):
    whole = encoded((300, 200), value=-1)
    put(folder / "cat" / "truncated.jpg", whole[: len(whole) // 3])
    put(folder / "cat" / "empty.jpg", b"")
    put(folder / "cat" / "one_pixel.png", encoded((1, 1), kind="PNG"))
    put(folder / "cat" / "text.jpg", b"this is no picture at all")
    put(folder / "cat" / "notes.txt", b"hello")
    put(folder / "cat" / "narrow.png", encoded((3000, 9), kind="PNG"))
    (folder / "bird").mkdir()
    found = [read_images(str(folder), split, cache=tmp_path / "c") for split in ("train", "validation")]
    reasons = dict(found[0].skipped) | dict(found[1].skipped)
    assert set(reasons) == {
        "cat/truncated.jpg", "cat/empty.jpg", "cat/one_pixel.png", "cat/text.jpg", "cat/notes.txt", "cat/narrow.png",
        "bird",
    }  # fmt: skip
    assert "too small" in reasons["cat/one_pixel.png"] and "too narrow" in reasons["cat/narrow.png"]
    assert "by its name" in reasons["cat/notes.txt"] and "empty" in reasons["bird"]
    assert "can be read" in reasons["cat/truncated.jpg"] and "can be read" in reasons["cat/text.jpg"]
    assert len(found[0]) + len(found[1]) == 24
    assert list_classes(str(folder)) == ("cat", "dog")


def test_a_picture_of_too_many_pixels_is_refused_before_it_is_decoded():
    # The header of a PNG says 60,000 x 60,000; there are no pixels behind it.
    data = bytearray(encoded((64, 64), kind="PNG"))
    data[16:24] = (60_000).to_bytes(4, "big") * 2
    import zlib

    data[29:33] = zlib.crc32(bytes(data[12:29])).to_bytes(4, "big")
    with pytest.raises(ConstructibleError, match="60000 x 60000 pixels is too large"):
        decode(bytes(data), 64)


@pytest.mark.parametrize(
    ("mode", "kind"), [("CMYK", "JPEG"), ("L", "JPEG"), ("P", "PNG"), ("1", "PNG"), ("RGB", "WEBP")]
)
def test_every_colour_mode_becomes_rgb(mode: str, kind: str):
    pixels, _ = decode(encoded((100, 70), mode, kind, value=200), 64)
    assert pixels.shape == (64, 64, 3) and pixels.dtype == np.uint8
    expected = 255 if mode == "1" else 200
    assert abs(float(pixels.mean()) - expected) < (60 if mode in ("1", "P") else 6)


def test_alpha_lies_over_grey_and_sixteen_bits_are_stretched():
    file = io.BytesIO()
    Image.new("RGBA", (64, 64), (255, 0, 0, 0)).save(file, "PNG")
    assert np.array_equal(np.unique(decode(file.getvalue(), 64)[0]), [128])
    file = io.BytesIO()
    Image.fromarray((np.arange(4096, dtype=np.uint16) * 15).reshape(64, 64)).save(file, "PNG")
    pixels = decode(file.getvalue(), 64)[0]
    assert pixels.min() == 0 and pixels.max() == 255


def test_boxes_follow_scaling_and_cropping(tmp_path: Path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    image = Image.new("RGB", (128, 64), (0, 0, 0))
    image.paste((255, 255, 255), (48, 16, 80, 48))
    file = io.BytesIO()
    image.save(file, "PNG")
    rows = {"image": [{"bytes": file.getvalue(), "path": "a.png"}], "name": ["box"], "box": [[48, 16, 79, 47]]}
    for split in ("train", "validation"):  # both, so that nothing is held out of either
        pq.write_table(pa.table(rows), tmp_path / f"{split}.parquet")
    found = read_images(str(tmp_path), "train", cache=tmp_path / "c")
    x0, y0, x1, y1 = np.round(found.boxes[0] * 64).astype(int)
    assert (found.pixels[0, y0:y1, x0:x1] > 200).all() and found.pixels[0].mean() < 80


def test_parquet_with_wrong_columns_or_labels(tmp_path: Path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    good = encoded()
    rows = {"image": [{"bytes": good, "path": None}] * 3, "name": ["a", None, " "]}
    for split in ("train", "validation"):  # both, so that nothing is held out of either
        pq.write_table(pa.table(rows), tmp_path / f"{split}.parquet")
    found = read_images(str(tmp_path), "train", cache=tmp_path / "c")
    assert (
        found.classes == ("a",) and [reason for _, reason in found.skipped] == ["no label, or one without a name"] * 2
    )
    pq.write_table(pa.table({"picture": [good], "kind": ["a"]}), tmp_path / "other.parquet")
    with pytest.raises(ConstructibleError, match="no column of labels.*columns: picture, kind"):
        read_images(str(tmp_path / "other.parquet"), cache=tmp_path / "c")
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 nothing")
    with pytest.raises(ConstructibleError, match="not a Parquet file"):
        read_images(str(tmp_path / "broken.parquet"), cache=tmp_path / "c")


def test_integer_labels_get_their_names_from_the_files_own_metadata(tmp_path: Path):
    import json

    import pyarrow as pa
    import pyarrow.parquet as pq

    features = {"label": {"names": ["tench, Tinca", "goldfish"], "_type": "ClassLabel"}, "image": {"_type": "Image"}}
    table = pa.table({"image": [{"bytes": encoded(), "path": None}] * 3, "label": [1, 0, 7]})
    table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    for split in ("train", "validation"):
        pq.write_table(table, tmp_path / f"{split}.parquet")
    found = read_images(str(tmp_path), "train", cache=tmp_path / "c")
    assert found.classes == ("goldfish", "tench") and len(found.skipped) == 1


def test_too_few_photographs_and_unknown_sources_are_clear_errors(folder: Path, tmp_path: Path):
    put(folder / "bird" / "only.jpg", encoded())
    put(folder / "bird" / "broken.jpg", b"x")
    both = [read_images(str(folder), split, cache=tmp_path / "c") for split in ("train", "validation")]
    images = next(found for found in both if "bird" in found.classes)
    with pytest.raises(ConstructibleError, match="'bird' has 1 usable photograph in .*; 10 are needed"):
        require(images, 10)
    with pytest.raises(UsageError, match="no photographs of 'dogg'. Did you mean 'dog'"):
        read_images(str(folder), "train", classes=["dogg", "dog", "cat"], cache=tmp_path / "c")
    for source in ("no/such/place/at/all", str(folder / "cat" / "0.jpg"), str(tmp_path / "absent.parquet")):
        with pytest.raises(UsageError):
            read_images(source, cache=tmp_path / "c")
    (tmp_path / "bare").mkdir()
    with pytest.raises(UsageError, match="no folders of classes"):
        read_images(str(tmp_path / "bare"), cache=tmp_path / "c")


def test_a_damaged_cache_is_an_error_that_names_it(folder: Path, tmp_path: Path):
    read_images(str(folder), "train", cache=tmp_path / "c")
    (pixels,) = (tmp_path / "c").glob("*/pixels.u8")
    pixels.write_bytes(pixels.read_bytes()[:-5])
    with pytest.raises(ConstructibleError, match="incomplete. Fix: delete this folder"):
        read_images(str(folder), "train", cache=tmp_path / "c")
