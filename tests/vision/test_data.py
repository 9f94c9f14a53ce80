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


def photographs(labels: str, folder: Path) -> Path:
    """A Parquet file of twelve different photographs of each label."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    images = [encoded(value=7 * i + ord(label) % 7) for label in labels for i in range(12)]
    rows = {"image": [{"bytes": data, "path": None} for data in images], "name": [x for x in labels for _ in range(12)]}
    folder.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(rows), folder)
    return folder


def both_splits(source: str, cache: Path) -> tuple[set[str], set[str]]:
    """Fingerprints of the photographs to learn from and to validate on."""
    train, held = (read_images(source, split, cache=cache) for split in ("train", "validation"))
    return set(train.fingerprints), set(held.fingerprints)


@pytest.mark.parametrize("layout", ["train only", "validation beside classes", "train and val"])
def test_no_layout_of_folders_validates_on_what_is_learned_from(folder: Path, tmp_path: Path, layout: str):
    source = folder
    if layout != "validation beside classes":
        source = tmp_path / "split"
        source.mkdir()
        folder.rename(source / "train")
    if layout != "train only":
        side = "val" if layout == "train and val" else "test"
        for label in ("cat", "dog"):
            for i in range(3):
                put(source / side / label / f"{i}.jpg", encoded(value=200 + 10 * i + (5 if label == "cat" else 0)))
    train, held = both_splits(str(source), tmp_path / "c")
    assert train and held and not train & held
    assert (len(train), len(held)) == (24, 6) or layout == "train only" and len(train) + len(held) == 24
    assert list_classes(str(source)) == ("cat", "dog")


@pytest.mark.parametrize(
    "names", [("data", "test"), ("train", "validation"), ("train",), ("test",), ("values", "more")]
)
def test_no_layout_of_parquet_validates_on_what_is_learned_from(tmp_path: Path, names: tuple[str, ...]):
    for i, name in enumerate(names):
        photographs("ab" if i == 0 else "cd", tmp_path / "data" / f"{name}.parquet")
    train, held = both_splits(str(tmp_path / "data"), tmp_path / "c")
    assert train and held and not train & held and len(train) + len(held) == 24 * len(names)
    assert names[-1] not in ("test", "validation") or len(names) == 1 or len(held) == 24


@pytest.mark.parametrize("splits", [("train",), ("train", "test")])
def test_a_hub_dataset_is_streamed_and_split(tmp_path: Path, monkeypatch, splits: tuple[str, ...]):
    datasets = pytest.importorskip("datasets")
    load = datasets.load_dataset
    files = {split: str(photographs("ab" if split == "train" else "cd", tmp_path / f"{split}.parquet"))
             for split in splits}  # fmt: skip
    monkeypatch.setattr(datasets, "load_dataset", lambda _, **given: load("parquet", data_files=files, **given))
    train, held = both_splits("someone/pictures", tmp_path / "c")
    assert train and held and not train & held and len(train) + len(held) == 24 * len(splits)
    monkeypatch.setattr("vision.data.HUB_LIMIT", 20)
    found = read_images("someone/pictures", "train", cache=tmp_path / "d")
    assert [reason for _, reason in found.skipped] == ["only the first 20 rows are read"]


def test_a_camera_held_upright_gives_an_upright_picture():
    image = Image.new("RGB", (100, 80), (0, 0, 0))
    image.paste((255, 255, 255), (0, 0, 50, 80))  # the left half
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise: what lies left comes up
    file = io.BytesIO()
    image.save(file, "JPEG", exif=exif)
    pixels = decode(file.getvalue(), 64)[0]
    assert pixels[:24].min() > 200 and pixels[-24:].max() < 50


@pytest.mark.parametrize("box", [[[0, 0, 9, 9]] * 4, [None] * 4, [50, 50, 10, 10], {"a": 1, "b": 2, "c": 3, "d": 4}])
def test_a_box_of_another_form_is_no_box(tmp_path: Path, box):
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = {"image": [{"bytes": encoded(), "path": None}], "name": ["a"], "bbox": [box]}
    for split in ("train", "validation"):
        pq.write_table(pa.table(rows), tmp_path / f"{split}.parquet")
    assert np.isnan(read_images(str(tmp_path), "train", cache=tmp_path / "c").boxes).all()


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
