"""Small models for the tests of the harness: ours at three cuts, and a randomly drawn Hugging Face model."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from cgpt.build import Recipe, build
from eval.models import EvalModel, open_model, parse_spec
from ontology.fit import Budget
from ontology.io import write_text
from ontology.progress import Progress
from ontology.store import Store
from tests.cgpt.small import SHAPE, small_corpus, unseen_files

STEPS = 12


@dataclass(frozen=True)
class Models:
    """Folders of finished models, and a folder of files that none of them has seen."""

    constructed: Path
    plain: Path
    monolith: Path
    hugging_face: Path
    unseen: Path
    train: Path

    def open(self, spec: str) -> EvalModel:
        """Open `[KIND:]NAME`, the name that of a field."""
        kind, _, name = spec.rpartition(":")
        return open_model(parse_spec(f"{kind}:{getattr(self, name)}" if kind else str(getattr(self, name))))


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    """Bad but whole models of 120 kB of library code."""
    import torch

    torch.set_num_threads(1)
    root = tmp_path_factory.mktemp("harness")
    corpus = small_corpus(120_000)
    for folder, files in (("train", corpus.files), ("unseen", unseen_files(60_000))):
        for file in files:
            write_text(root / folder / file.project / Path(file.path).name, file.data.decode("utf-8"))
    store = Store(root / "store")
    for cut in ("leaves", "plain", "root"):
        recipe = Recipe(cut=cut, vocab_size=640, shape=SHAPE, parameters=30_000)
        build(corpus, root / cut, Budget(steps=STEPS), recipe, store=store, progress=Progress(quiet=True))
    save_hugging_face(root / "hugging-face", [file.data.decode("utf-8") for file in corpus.files[:4]])
    return Models(
        root / "leaves", root / "plain", root / "root", root / "hugging-face", root / "unseen", root / "train"
    )


def save_hugging_face(folder: Path, texts: list[str], context: int = 64) -> None:
    """A GPT-2 of random weights with a byte-level tokenizer, as anybody would save it."""
    import torch
    from tokenizers import ByteLevelBPETokenizer
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

    trained = ByteLevelBPETokenizer()
    trained.train_from_iterator(texts, vocab_size=400, special_tokens=["<|end|>"])
    folder.mkdir(parents=True, exist_ok=True)
    trained.save(str(folder / "raw.json"))
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_file=str(folder / "raw.json"),
        bos_token="<|end|>",
        eos_token="<|end|>",
        clean_up_tokenization_spaces=False,
    )
    (folder / "raw.json").unlink()
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=400, n_positions=context, n_embd=32, n_layer=2, n_head=2, bos_token_id=0, eos_token_id=0,
        # Large enough for random weights to have opinions.
        initializer_range=0.4,
    )  # fmt: skip
    GPT2LMHeadModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def copy_model(source: Path, target: Path) -> Path:
    """A model folder of one's own, to be changed."""
    shutil.copytree(source, target)
    for path in target.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
    return target
