"""What is made ready for the nets: every position of the files."""

import numpy as np
import pytest

from cgpt import data, lexer
from cgpt.model import HERE
from cgpt.reads import Alphabet
from cgpt.tokenizer import Tokenizer
from ontology.routers import Router

TEXTS = [b"import os\n", b"def f(a, b):\n    return a + b\n" * 9, b"", b"x = [1, 2, 3]\nprint(x)\n" * 4]


@pytest.fixture(scope="module")
def world():
    tokenizer = Tokenizer.train(TEXTS, 600)
    ids, offsets = tokenizer.encode_many(TEXTS)
    corpus = data.TokenizedCorpus(ids, offsets, np.zeros(len(TEXTS), np.bool_))
    return corpus, Alphabet.of(tokenizer), Router.load(HERE / "router.py", lexer.FIELDS)


def test_every_position_once_in_the_order_of_the_files(world) -> None:
    corpus, alphabet, router = world
    files = [3, 0, 1]
    reads, concept, targets = data.training_rows(corpus, files, alphabet, router)
    at = 0
    for view in data.views(corpus, files, alphabet):
        rows = slice(at, at + view.n + 1)
        assert np.array_equal(reads[rows], view.reads[: view.n + 1])
        assert np.array_equal(concept[rows], router.route(view.fields[: view.n + 1]))
        assert np.array_equal(targets[rows], [*view.history[1 : view.n + 1], 0])  # each token, then the end
        at += view.n + 1
    assert at == len(targets)
