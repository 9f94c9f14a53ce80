"""What is made ready for the nets: every position of the files, or the same share of each."""

import numpy as np
import pytest

from cgpt import data, lexer
from cgpt.build import MIN_NET_TOKENS, net_tokens
from cgpt.model import HERE
from cgpt.nets import NetShape
from cgpt.reads import Alphabet
from cgpt.tokenizer import Tokenizer
from ontology.fit import Budget
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


@pytest.mark.parametrize("most", [1, 7, 100, 10_000])
def test_of_too_many_the_same_share_of_every_file(world, most: int) -> None:
    corpus, alphabet, router = world
    files = [0, 1, 2, 3]
    everything = data.training_rows(corpus, files, alphabet, router)
    lengths = np.diff(corpus.offsets) + 1
    rows = data.training_rows(corpus, files, alphabet, router, most)
    assert len(rows[2]) == min(most, len(everything[2]))
    for one, again in zip(rows, data.training_rows(corpus, files, alphabet, router, most), strict=True):
        assert np.array_equal(one, again)
    whole = [row.tobytes() for row in np.column_stack([everything[0], everything[2]])]
    assert all(row.tobytes() in whole for row in np.column_stack([rows[0], rows[2]]))
    if most == 100:
        # One after another in each file, so the second file's share is where its reads are.
        share = len(rows[2]) / lengths.sum()
        second = data.training_rows(corpus, [1], alphabet, router)[0]
        inside = {row.tobytes() for row in second}
        begin, end = int(lengths[0] * share), int(lengths[:2].sum() * share)
        assert end - begin == pytest.approx(share * lengths[1], abs=1)
        assert all(row.tobytes() in inside for row in rows[0][begin:end])


def test_how_many_tokens_are_made_ready() -> None:
    shape = NetShape()
    assert net_tokens(Budget(steps=1), shape) == MIN_NET_TOKENS
    assert net_tokens(Budget(steps=5000), shape) == 3 * 5000 * shape.batch_rows
    minutes = [net_tokens(Budget(minutes=m), shape) for m in (0.1, 1, 5, 20, 60)]
    assert minutes == [MIN_NET_TOKENS, 1_440_000, 7_200_000, 28_800_000, 86_400_000]
