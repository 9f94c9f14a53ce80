"""`constructible cgpt export`: a folder that Hugging Face `transformers` loads, with a model card of measured numbers.

The export holds the model's own folder as it is (`constructible/`), the code that puts it behind the interfaces of
transformers (`cgpt.hf_remote`), their JSON files and a card. Nothing is converted, so there is nothing to differ: the
same code predicts. It is data and that one file; loading it needs `trust_remote_code=True` and our package.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from cgpt.model import ConstructedLM
from cgpt.model_card import Measured, card
from ontology.errors import ConstructibleError
from ontology.io import make_folder, read_json, write_atomic, write_json, write_text

REMOTE_CODE = "constructible_hf"
SUBFOLDER = "constructible"
VOCABULARY = "constructible_tokenizer.json"
_CLASSES = {"AutoConfig": "ConstructibleConfig", "AutoModelForCausalLM": "ConstructibleForCausalLM"}
MAX_LENGTH = 1_000_000


def export(model: ConstructedLM, out: Path, measured: Measured | None = None) -> Path:
    """Write `model` to folder `out` in the form that AutoModelForCausalLM and AutoTokenizer load.

    Args:
        model: an open model.
        out: a new folder, an empty one, or an earlier export, which is written over.
        measured: figures for the card, beside those that the build wrote down.

    Raises:
        ConstructibleError: the folder holds something else, or cannot be written.
    """
    if out.resolve().is_relative_to(model.folder.resolve()):
        raise ConstructibleError("this folder is the model's own.", fix="give one outside of it", file=out)
    make_folder(out)
    if any(out.iterdir()) and not _is_export(out):
        raise ConstructibleError("this folder holds something else.", fix="give a new or empty folder", file=out)
    config = {
        "model_type": "constructible", "architectures": ["ConstructibleForCausalLM"], "use_cache": False,
        "auto_map": {name: f"{REMOTE_CODE}.{value}" for name, value in _CLASSES.items()}, "dtype": "float32",
        "vocab_size": model.tokenizer.vocab_size, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0,
    }  # fmt: skip
    tokenizer = {
        "tokenizer_class": "ConstructibleTokenizer", "model_max_length": MAX_LENGTH, "padding_side": "left",
        "auto_map": {"AutoTokenizer": [f"{REMOTE_CODE}.ConstructibleTokenizer", None]},
    }  # fmt: skip
    # A file that marks the folder as ours comes first, what makes it loadable last.
    write_json(out / "config.json", {"model_type": "constructible"})
    inside = {path.relative_to(model.folder): path for path in sorted(model.folder.rglob("*")) if path.is_file()}
    copied = {name: path for name, path in inside.items() if not any(part.startswith(".") for part in name.parts)}
    # What an earlier export had and this model has not must not stay: it may be what a model was made to forget.
    for path in sorted((out / SUBFOLDER).rglob("*")):
        if path.is_file() and path.relative_to(out / SUBFOLDER) not in copied:
            path.unlink()
    for name, path in copied.items():
        _copy(path, out / SUBFOLDER / name)
    _copy(model.folder / "tokenizer.json", out / VOCABULARY)
    _copy(Path(__file__).with_name("hf_remote.py"), out / f"{REMOTE_CODE}.py")
    write_json(out / "tokenizer_config.json", tokenizer)
    write_json(
        out / "generation_config.json",
        {"use_cache": False, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0},
    )
    write_text(out / "README.md", card(model, measured))
    write_json(out / "config.json", config)
    return out


def _is_export(folder: Path) -> bool:
    path = folder / "config.json"
    if not path.is_file():
        return False
    config = read_json(path)
    return isinstance(config, dict) and config.get("model_type") == "constructible"


def _copy(source: Path, target: Path) -> None:
    write_atomic(target, lambda path: _copy_bytes(source, path))


def _copy_bytes(source: Path, target: Path) -> None:
    shutil.copyfile(source, target)
