"""Photograph tasks: the figures of the track's own score, corruptions, and classifiers from elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eval.imitations import SLOPE, WORDS, Imitator, terms
from eval.models import open_specs
from eval.records import read_header, read_results
from eval.runner import run
from eval.tasks import Options, load_tasks
from eval.tasks.image_simulation import divergences, imitate, others
from eval.tasks.images import BINS, CORRUPTIONS, judge_all
from eval.vision_models import OurImages
from ontology.errors import UsageError
from ontology.progress import Progress
from tests.vision.small import SmallWorld, build_small, make_world
from vision.bank import CHANNELS, primitives
from vision.concepts import load_library
from vision.data import read_images
from vision.model import load, probabilities
from vision.part_world import PARTS
from vision.score import score

QUIET = Progress(quiet=True)
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> SmallWorld:
    return make_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def folders(world: SmallWorld, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A constructed model, a monolith, and a randomly drawn classifier as transformers saves it."""
    import torch
    from transformers import ViTConfig, ViTForImageClassification

    root = tmp_path_factory.mktemp("image-models")
    build_small(world, root / "ours", steps=4)
    build_small(world, root / "root", steps=4, cut="root", parameters=20_000)
    torch.manual_seed(0)
    config = ViTConfig(
        image_size=32, patch_size=8, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        id2label={0: "bee", 1: "bus", 2: "unheard of"}, label2id={"bee": 0, "bus": 1, "unheard of": 2},
    )  # fmt: skip
    ViTForImageClassification(config).save_pretrained(root / "vit")
    (root / "vit" / "preprocessor_config.json").write_text('{"size": {"height": 32, "width": 32}}')
    return [root / "ours", root / "root", root / "vit"]


def test_the_figures_are_those_of_the_tracks_own_score(world: SmallWorld, folders: list[Path], tmp_path: Path) -> None:
    options = Options(data=str(world.folder))
    paths = run(open_specs([str(f) for f in folders[:2]]), load_tasks("images"), options, tmp_path, progress=QUIET)
    for folder, path in zip(folders, paths, strict=False):
        theirs = score(load(folder), world.validation).figures
        header = read_header(path)
        assert header["figures"]["accuracy"]["value"] == pytest.approx(theirs["accuracy"])
        found = np.mean([row["one_vs_rest"]["found"] for row in theirs["per_class"].values()])
        assert header["figures"]["own class found"]["value"] == pytest.approx(found), "as many of each class"
        assert header["figures"]["macro F1"]["value"] == pytest.approx(theirs["macro_f1"])
        balanced = header["figures"]["one against all, balanced"]["value"]
        assert balanced == pytest.approx(theirs["balanced_one_vs_rest"])
        for name, part in header["parts"].items():
            assert ("accuracy" in part) == (name in load(folder).classes) and "macro F1" not in part
        assert set(header["parts"]) == set(world.validation.classes)
        assert header["budget"]["data_hash"] and header["budget"]["seconds"] > 0
        assert header["examples"] == len(world.validation)


def test_a_classifier_from_elsewhere_knows_some_of_the_classes(
    world: SmallWorld, folders: list[Path], tmp_path: Path
) -> None:
    options = Options(data=str(world.folder))
    (path,) = run(open_specs([str(folders[2])]), load_tasks("images"), options, tmp_path, progress=QUIET)
    values = read_results(path).values
    assert values["known"].sum() == sum(len(world.validation.rows_of(name)) for name in ("bee", "bus"))
    assert np.isnan(values["correct"]).sum() == (values["known"] == 0).sum()
    assert read_header(path)["figures"]["accuracy"]["value"] is not None
    with pytest.raises(UsageError, match="cannot do what the task 'bits' needs"):
        run(open_specs([str(folders[2])]), load_tasks("bits"), Options(), tmp_path, progress=QUIET)


def test_a_classifiers_figures_are_those_of_transformers(
    world: SmallWorld, folders: list[Path], tmp_path: Path
) -> None:
    import torch
    from transformers import AutoModelForImageClassification

    options = Options(data=str(world.folder))
    (path,) = run(open_specs([str(folders[2])]), load_tasks("images"), options, tmp_path, progress=QUIET)
    network = AutoModelForImageClassification.from_pretrained(folders[2]).eval()
    images = read_images(str(world.folder), "validation", size=32)
    names = [images.classes[i] for i in images.labels]
    index = {name: i for i, name in network.config.id2label.items()}
    known = np.array([name in index for name in names])
    wanted = torch.tensor([index[name] for name in names if name in index])
    pixels = torch.from_numpy((images.pixels[known] / 255.0 - 0.5) / 0.5).float().permute(0, 3, 1, 2)
    with torch.inference_mode():
        logits = network(pixel_values=pixels).logits.double()
    bits = torch.nn.functional.cross_entropy(logits, wanted) / np.log(2)
    figures = read_header(path)["figures"]
    assert figures["log loss in bits"]["value"] == pytest.approx(float(bits), abs=1e-4)
    assert figures["accuracy"]["value"] == pytest.approx(float((logits.argmax(1) == wanted).double().mean()))


def test_corruptions_change_pictures_and_repeat(world: SmallWorld, folders: list[Path], tmp_path: Path) -> None:
    pictures = np.array(world.validation.pixels[:3])
    for name, apply in CORRUPTIONS.items():
        made = apply(pictures)
        assert made.shape == pictures.shape and made.dtype == np.uint8 and (made != pictures).mean() > 0.3, name
        assert (apply(pictures) == made).all()
        assert (apply(pictures[1:2]) == made[1:2]).all(), "whatever the batch"
    options = Options(data=str(world.folder), limit=6)
    (path,) = run(open_specs([str(folders[0])]), load_tasks("corrupted"), options, tmp_path, progress=QUIET)
    assert set(read_header(path)["parts"]) == set(CORRUPTIONS)


def test_weights_make_the_usual_figures_of_uneven_classes() -> None:
    """Macro-F1, the balanced figure and the calibration error against their definitions, an unknown class included."""
    rng = np.random.default_rng(0)
    labels = rng.choice(4, 300, p=[0.5, 0.3, 0.15, 0.05])
    own = np.where(labels < 3, labels, -1)
    values = rng.normal(0, 1, (300, 3)) + 2 * np.eye(4)[labels][:, :3]
    made = judge_all(values, probabilities(values), own, labels)
    said, known = values.argmax(1), own >= 0
    f1s, balanced = [], []
    for c in range(3):
        true, claimed = own[known] == c, said[known] == c
        f1s.append(2 * (true & claimed).sum() / (true.sum() + claimed.sum()))
        rejected = np.mean([(values[labels == d, c] <= 0).mean() for d in range(4) if d != c])
        balanced.append(((values[own == c, c] > 0).mean() + rejected) / 2)
    assert made.f1.sum() / made.f1_weight.sum() == pytest.approx(np.mean(f1s))
    assert made.balanced.sum() / made.balanced_weight.sum() == pytest.approx(np.mean(balanced))
    confidence, right = made.shares.max(1)[known], (said == own)[known]
    bins = np.minimum((confidence * BINS).astype(int), BINS - 1)
    error = sum(abs((confidence[bins == b] - right[bins == b]).sum()) for b in np.unique(bins)) / known.sum()
    assert made.calibration.sum() / known.sum() == pytest.approx(error)


def test_predictions_replay_and_few_photographs_do(world: SmallWorld, folders: list[Path], tmp_path: Path) -> None:
    options = Options(data=str(world.folder))
    paths = run(open_specs([str(folders[0])]), load_tasks("image-replay,few-shot"), options, tmp_path, progress=QUIET)
    replay, few = (read_header(path) for path in paths)
    assert replay["figures"]["predictions replayed"]["value"] == 1.0
    assert replay["examples"] == len(world.validation)
    assert set(few["parts"]) == {"1 each", "5 each"}
    share = few["parts"]["5 each"]["right"]["value"]
    assert 0.2 < share < 1.0, "better than a draw among five"
    with pytest.raises(UsageError, match="cannot do what the task 'image-replay' needs"):
        run(open_specs([str(folders[1])]), load_tasks("image-replay"), options, tmp_path, progress=QUIET)


def test_a_prediction_that_does_not_follow_is_found(
    world: SmallWorld, folders: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from eval.tasks import image_replay

    image_replay._failed.cache_clear()
    right = image_replay.record

    def wrong(*given: Any) -> dict[str, Any]:
        made = right(*given)
        made["pictures"][1]["label"] = "unheard of"
        return made

    monkeypatch.setattr(image_replay, "record", wrong)
    options = Options(data=str(world.folder), limit=100)
    (path,) = run(open_specs([str(folders[0])]), load_tasks("image-replay"), options, tmp_path, progress=QUIET)
    values = read_results(path).values
    assert (values["replayed"] == 0).sum() == 1


def test_imitations_are_of_primitives_that_exist_and_of_the_concepts_that_ship() -> None:
    shipped = load_library().features
    assert len(set(WORDS) & set(shipped)) >= 0.9 * len(shipped), "a new concept wants a line in eval/imitations.py"
    assert set(PARTS) <= set(WORDS)
    for name in WORDS:
        for sign, channels, _ in terms(name):
            assert sign in (-1, 1) and set(channels) <= set(CHANNELS), name


def test_an_imitation_sees_what_its_line_says_and_only_what_the_node_reads() -> None:
    rng = np.random.default_rng(0)
    maps = rng.integers(0, 200, (40, len(CHANNELS), 16, 16), dtype=np.uint8)
    maps[:20, CHANNELS.index("red")] = 255
    maps[:20, CHANNELS.index("red_green")] = 255
    imitator, everything = Imitator(maps), list(range(len(CHANNELS)))
    seen = imitator.evidence("red", maps, everything)
    assert seen[:20].min() > 0.5 > -0.5 > seen[20:].max()
    blind = [i for i in everything if CHANNELS[i] not in ("red", "red_green")]
    assert (imitator.evidence("red", maps, blind) == 0).all()
    against = imitator.evidence("under_water", maps, everything)  # red speaks against it
    assert against[:20].mean() < against[20:].mean()


def test_a_perfect_imitation_of_nodes_correlates_fully_and_changes_nothing(
    world: SmallWorld, folders: list[Path], tmp_path: Path, monkeypatch
) -> None:
    options = Options(data=str(world.folder))
    spec, task = open_specs([str(folders[0])]), load_tasks("image-simulation")
    (path,) = run(spec, task, options, tmp_path / "words", progress=QUIET)
    figures = read_header(path)["figures"]
    assert set(read_header(path)["parts"]) == set(load(folders[0]).bank.names) & set(WORDS)  # type: ignore[union-attr]
    assert -1 <= figures["correlation with the node"]["value"] <= 1
    assert 0 < figures["change of the classes in bits"]["value"] < 1
    direct = score(load(folders[0]), world.validation).figures["accuracy"]
    assert figures["accuracy"]["value"] == pytest.approx(direct)
    # By hand, for one node: Pearson's correlation over all photographs.
    model = OurImages("m", folders[0])
    name = imitate(model, str(world.folder)).names[0]
    inner: Any = model.model
    column = inner.bank.names.index(name)
    maps = primitives(np.array(world.validation.pixels))
    reads = inner.bank.nodes[column].shape.channels.tolist()
    seen = Imitator(primitives(np.array(inner.evidence.pixels))).evidence(name, maps, reads)
    expected = np.corrcoef(seen, inner.bank.pooled(maps)[:, column])[0, 1]
    found = read_header(path)["parts"][name]["correlation with the node"]["value"]
    assert found == pytest.approx(expected, abs=1e-9)

    # An imitator that says what the node says.
    def knows(self, name: str, values: Any, reads: Any) -> np.ndarray:
        node = inner.bank.nodes[inner.bank.names.index(name)]
        return (inner.bank.pooled(maps)[:, inner.bank.names.index(name)] * node.slope + node.offset) / SLOPE

    monkeypatch.setattr(Imitator, "evidence", knows)
    imitate.cache_clear()
    (path,) = run(spec, task, options, tmp_path / "knowing", progress=QUIET)
    figures = read_header(path)["figures"]
    assert figures["correlation with the node"]["value"] == pytest.approx(1.0)
    nothing = ("divergence from the node in bits", "change of the classes in bits", "change with all imitated at once")
    for name in nothing:
        assert figures[name]["value"] == pytest.approx(0.0, abs=1e-6)
    assert figures["the same, shuffled names"]["value"] < 0.999
    assert figures["divergence, shuffled names"]["value"] > 0.01
    assert figures["accuracy with all imitated"]["value"] == figures["accuracy"]["value"]


def test_only_nets_are_imitated(folders: list[Path]) -> None:
    assert "imitate" not in OurImages("root", folders[1]).abilities
    p, q = np.array([[1.0, 0.0]]), np.array([[0.0, 1.0]])
    assert divergences(p, q) == pytest.approx(1.0) and divergences(p, p) == pytest.approx(0.0)
    assert others(("b", "a", "c")) == {"a": "b", "b": "c", "c": "a"}
