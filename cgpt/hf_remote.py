"""A constructed model behind the interfaces of Hugging Face `transformers`: the code that an export carries.

`constructible cgpt export` copies this file into the folder it writes, as `constructible_hf.py`; it is loaded from
there with `trust_remote_code=True` and imports the package `constructible`, which does the predicting. Logits are
natural logarithms of probabilities. Token 0 is the border between files: it begins and ends a text, and a row of input
that holds one goes on as a new file after it, so padding with it changes nothing to its right.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import GenerationConfig, GenerationMixin, PretrainedConfig, PreTrainedModel, PreTrainedTokenizer
from transformers.modeling_outputs import CausalLMOutput

# In a `try`, since transformers looks through the imports of such a file and would name the wrong package to install.
try:
    from cgpt.model import ConstructedLM
    from cgpt.tokenizer import Tokenizer
except ImportError as error:
    raise ImportError(
        f"this model is run by the package `constructible`, which is not installed or not whole ({error}). "
        "Fix: pip install constructible"
    ) from error

SUBFOLDER = "constructible"
VOCABULARY = "constructible_tokenizer.json"
END_TEXT = "<|end|>"
_KEPT_VIEWS = 64


class ConstructibleConfig(PretrainedConfig):
    """What transformers wants to know; all that matters is in the model's own folder, SUBFOLDER."""

    model_type = "constructible"

    def __init__(self, vocab_size: int = 257, **options: Any) -> None:
        self.vocab_size = vocab_size
        self.hidden_size = 1  # asked for by tools that reckon with memory; there are no layers of this kind
        self.num_hidden_layers = 0
        for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
            options.setdefault(name, 0)
        options.setdefault("tie_word_embeddings", False)
        super().__init__(**options)


class ConstructibleForCausalLM(PreTrainedModel, GenerationMixin):
    """Next-token log probabilities of a constructed model, on the CPU, without gradients."""

    config_class = ConstructibleConfig
    main_input_name = "input_ids"
    _is_stateful = True  # no assisted generation: nothing here can be rolled back

    def __init__(self, config: ConstructibleConfig, model: ConstructedLM | None = None) -> None:
        super().__init__(config)
        self.constructed = model
        # Not trained and not saved: tools ask a model for the device and type of its parameters.
        self.anchor = torch.nn.Parameter(torch.zeros(1), requires_grad=False)
        self.generation_config = GenerationConfig(use_cache=False, bos_token_id=0, eos_token_id=0, pad_token_id=0)
        self._views: list[tuple[np.ndarray, Any]] = []

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *args: Any, config: Any = None, **options: Any) -> Any:
        """Open an export: a folder, or the name of a repository on the hub; weights are mapped, not loaded."""
        folder = Path(pretrained_model_name_or_path)
        revision, cache = options.get("revision"), options.get("cache_dir")
        if not folder.is_dir():
            from huggingface_hub import snapshot_download

            folder = Path(snapshot_download(str(pretrained_model_name_or_path), revision=revision, cache_dir=cache))
        if config is None:
            config = ConstructibleConfig.from_pretrained(folder)
        model = cls(config, ConstructedLM(folder / SUBFOLDER))
        return model.eval()

    def save_pretrained(self, save_directory: Any, *args: Any, **options: Any) -> None:
        """Write the export again, to another folder."""
        from cgpt.export_hf import export

        assert self.constructed is not None
        export(self.constructed, Path(save_directory))

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        logits_to_keep: int = 0,
        return_dict: bool | None = None,
        **options: Any,
    ) -> Any:
        """Log probabilities float32[B, T, V] of the token after each one of `input_ids` int64[B, T].

        Positions that `attention_mask` leaves out (padding, on either side) get a uniform answer. With
        `logits_to_keep` k only the last k positions are answered, [B, k, V].
        """
        assert self.constructed is not None, "open an export with from_pretrained"
        rows, length = input_ids.shape
        first = max(0, length - logits_to_keep) if logits_to_keep else 0
        size = int(self.config.vocab_size)
        logits = np.full((rows, length - first, size), -np.log(size), dtype=np.float32)
        mask = np.ones((rows, length), bool) if attention_mask is None else attention_mask.cpu().numpy() != 0
        ids = input_ids.cpu().numpy()
        for b in range(rows):
            places = np.flatnonzero(mask[b])
            self._answer(ids[b, places].astype(np.uint16), places, first, logits[b])
        found = torch.from_numpy(logits)
        loss = None
        if labels is not None:
            loss = torch.nn.functional.cross_entropy(
                found[:, :-1].reshape(-1, size), labels[:, first + 1 :].reshape(-1).cpu(), ignore_index=-100
            )
        found = found.to(input_ids.device)
        if return_dict is False:
            return (found,) if loss is None else (loss, found)
        return CausalLMOutput(loss=loss, logits=found)  # type: ignore[arg-type]

    def _answer(self, row: np.ndarray, places: np.ndarray, first: int, out: np.ndarray) -> None:
        """Fill `out` float32[T - first, V] at `places` of the real tokens `row` of one line of the input."""
        model = self.constructed
        assert model is not None
        start = 0
        for end in (*np.flatnonzero(row == 0).tolist(), len(row)):
            # One file: the tokens from `start` on, which answer at their own places; before them stands a border.
            view = None
            boundaries = range(start, min(end + 1, len(row) + 1))
            for at in boundaries:
                place = int(places[at - 1]) if at else -1
                if place < first:
                    continue
                if view is None:
                    view = self._view(row[start:end])
                out[place - first] = np.log(model.position(view, at - start).distribution)
            start = end + 1

    def _view(self, file: np.ndarray) -> Any:
        """A view that has read these tokens; one that has read the first of them is taken up again and reads on."""
        assert self.constructed is not None
        for k, (known, view) in enumerate(self._views):
            if len(known) <= len(file) and np.array_equal(known, file[: len(known)]):
                view.extend(file[len(known) :])
                del self._views[k]
                break
        else:
            view = self.constructed.view(file)
        self._views = [*self._views[-_KEPT_VIEWS + 1 :], (file.copy(), view)]
        return view


class ConstructibleTokenizer(PreTrainedTokenizer):
    """The model's own tokenizer: any text, byte for byte; each byte of a token is shown as the character 256 above."""

    vocab_files_names = {"vocab_file": VOCABULARY}
    model_input_names = ["input_ids", "attention_mask"]

    def __init__(self, vocab_file: str, **options: Any) -> None:
        self.vocab_file = vocab_file
        self.own = Tokenizer.load(Path(vocab_file).parent, Path(vocab_file).name)
        self._names = [END_TEXT, *("".join(chr(256 + byte) for byte in token) for token in self.own.token_bytes[1:])]
        self._ids = {name: number for number, name in enumerate(self._names)}
        for name in ("bos_token", "eos_token", "pad_token"):
            options.setdefault(name, END_TEXT)
        options.setdefault("padding_side", "left")
        options.setdefault("clean_up_tokenization_spaces", False)
        super().__init__(**options)

    @property
    def vocab_size(self) -> int:
        """Number of tokens."""
        return len(self._names)

    def get_vocab(self) -> dict[str, int]:
        """Token names and their ids."""
        return dict(self._ids)

    def tokenize(self, text: str, **options: Any) -> list[str]:
        """Names of the tokens of `text`; text is text, also where it reads like END_TEXT."""
        return self._tokenize(text)

    def _tokenize(self, text: str, **options: Any) -> list[str]:
        return [self._names[token] for token in self.own.encode(text.encode("utf-8", "surrogatepass")).tolist()]

    def _convert_token_to_id(self, token: str) -> int:
        return self._ids.get(token, 0)

    def _convert_id_to_token(self, index: int) -> str:
        return self._names[index]

    def convert_tokens_to_string(self, tokens: list[str]) -> str:
        """The text of tokens; bytes that are no UTF-8 become the replacement character."""
        data = b"".join(bytes(ord(character) - 256 for character in token) for token in tokens if token != END_TEXT)
        return data.decode("utf-8", "replace")

    def save_vocabulary(self, save_directory: str, filename_prefix: str | None = None) -> tuple[str]:
        """Copy the tokenizer's file."""
        target = Path(save_directory) / (f"{filename_prefix}-" if filename_prefix else "")
        path = Path(f"{target}{VOCABULARY}") if filename_prefix else Path(save_directory) / VOCABULARY
        if path.resolve() != Path(self.vocab_file).resolve():
            shutil.copyfile(self.vocab_file, path)
        return (str(path),)
