"""The figures of the harness against a direct evaluation of the same models by transformers, file by file to 1e-4."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cgpt.model import MonolithLM
from cgpt.score import read_paths
from eval.models import Ours, open_specs
from eval.records import read_header, read_results
from eval.runner import run
from eval.tasks import Options, load_tasks
from ontology.progress import Progress
from tests.eval.conftest import Models

CLOSE = 1e-4


def direct_bits(network: Any, ids: list[int], context: int) -> float:
    """Bits of ids[1:] under one forward pass for each window: the first whole, then half a context at a time."""
    import torch

    total, done = 0.0, 1
    while done < len(ids):
        last = min(len(ids), context + 1 if done == 1 else done + context // 2)
        window = torch.tensor([ids[max(0, last - 1 - context) : last - 1]])
        with torch.inference_mode():
            logits = network(window).logits[0].double()
        wanted = torch.tensor(ids[done:last])
        log_probs = torch.log_softmax(logits[-len(wanted) :], -1)
        total -= float(log_probs[torch.arange(len(wanted)), wanted].sum()) / math.log(2)
        done = last
    return total


@pytest.mark.parametrize("name", ["monolith", "hugging_face"])
def test_bits_per_byte_are_those_of_transformers(name: str, models: Models, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = getattr(models, name)
    options = Options(str(models.unseen), limit=4)
    (path,) = run(open_specs([str(folder)]), load_tasks("bits"), options, tmp_path, progress=Progress(quiet=True))
    results = read_results(path)
    opened = models.open(name)
    if isinstance(opened, Ours):
        assert isinstance(opened.model, MonolithLM)
        network = AutoModelForCausalLM.from_pretrained(str(folder / "transformer"))
        encode, context = opened.model.tokenizer.encode, opened.model.baseline.context
    else:
        network, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)

        def encode(data: bytes) -> Any:
            return tokenizer(data.decode())["input_ids"]

        context = network.config.n_positions
    network.eval()
    by_hash = {file.sha256: file.data for file in read_paths([str(models.unseen)]).files}
    ours, theirs, n_bytes, long = [], [], 0, 0
    for i, digest in enumerate(results.sha256):
        ids = [0, *(int(token) for token in encode(by_hash[digest])), 0]
        long += len(ids) > context + 1
        ours.append(float(results.values["bits"][i]))
        theirs.append(direct_bits(network, ids, context))
        n_bytes += len(by_hash[digest])
    assert len(ours) == 4 and long >= 1, "a file that is longer than a window is among them"
    sizes = np.array([len(by_hash[digest]) for digest in results.sha256])
    assert np.abs(np.array(ours) - theirs).max() / sizes.min() < CLOSE
    assert read_header(path)["figures"]["bits per byte"]["value"] == pytest.approx(sum(theirs) / n_bytes, abs=CLOSE)
