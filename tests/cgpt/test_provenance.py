"""Provenance: shares that add up, and licences that are left out leave nothing behind."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from cgpt.cli import cgpt
from cgpt.complete import complete
from cgpt.corpus import Corpus, SourceFile
from cgpt.explain import Explainer
from cgpt.index import CorpusIndex
from cgpt.model import ConstructedLM, load, smoothed_unigram
from cgpt.provenance import allowing, file_borders, licence_table, permits, provenance
from ontology.errors import UsageError
from tests.cgpt.small import build_small, small_corpus

LICENCES = ("MIT", "GPL-3.0-only", "Apache-2.0 OR GPL-3.0-only")
PROMPT = b"import os\n\n\ndef read(path):\n    with open(pa"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose files have licences, by turns."""
    corpus = small_corpus(300_000)
    files = [SourceFile(f.path, f.data, f.project, LICENCES[i % 3]) for i, f in enumerate(corpus.files)]
    out = tmp_path_factory.mktemp("licences") / "model"
    build_small(out, steps=10, corpus=Corpus(files, [], "licences"))
    return out


@pytest.fixture(scope="module")
def licensed(folder: Path) -> ConstructedLM:
    opened = load(folder)
    assert isinstance(opened, ConstructedLM)
    return opened


def test_expressions():
    assert permits("MIT", ["mit", "BSD-3-Clause"]) and not permits("MIT-0", ["MIT"])
    assert permits("Apache-2.0 OR GPL-3.0-only", ["Apache-2.0"]) and not permits("MIT AND Zlib", ["MIT"])
    assert permits("(MIT AND Zlib) OR ISC", ["Zlib", "MIT"]) and not permits("unknown", ["MIT"])
    assert not permits("(MIT OR Apache-2.0) AND GPL-3.0-only", ["MIT"])
    assert permits("(MIT OR Apache-2.0) AND GPL-3.0-only", ["GPL-3.0-only", "Apache-2.0"])
    assert permits("MIT OR Apache-2.0 AND GPL-3.0-only", ["MIT"])  # AND binds closer
    with_exception = "GPL-2.0-only WITH Classpath-exception-2.0"
    assert permits(with_exception, [with_exception]) and not permits(with_exception, ["GPL-2.0-only"])
    for broken in ("", "(MIT", "MIT)", "MIT OR", "MIT AND", "()", "MIT (ISC)", "OR MIT"):
        assert not permits(broken, ["MIT", "ISC"]), broken


def test_what_is_left_out_was_never_there(licensed: ConstructedLM, unseen: list[SourceFile]):
    """The distributions are those over an index that was built without the other files."""
    tokens, borders = np.asarray(licensed.index.tokens), file_borders(licensed.index)
    kept = [i for i, source in enumerate(licensed.sources) if source.licence in (LICENCES[0], LICENCES[2])]
    parts = [np.zeros(1, np.uint16), *(tokens[borders[i] + 1 : borders[i + 1] + 1] for i in kept)]
    built = copy.copy(licensed)
    built.index = CorpusIndex.build(np.concatenate(parts), len(licensed.unigram))
    built.unigram = smoothed_unigram(built.index.unigram)
    restricted = allowing(licensed, ["MIT", "Apache-2.0", "BSD-3-Clause"])
    np.testing.assert_array_equal(restricted.index.unigram, built.index.unigram)
    different = 0
    for file in unseen[:3]:
        view = licensed.view(licensed.tokenizer.encode(file.data)[:400])
        for boundary in range(0, view.n, 5):
            p = restricted.position(view, boundary).distribution
            np.testing.assert_allclose(p, built.position(view, boundary).distribution, rtol=1e-9, atol=1e-15)
            assert abs(p.sum() - 1.0) < 1e-6
            different += not np.allclose(p, licensed.position(view, boundary).distribution)
    assert different > 50


def test_no_evidence_names_another_licence(licensed: ConstructedLM, unseen: list[SourceFile]):
    restricted = licensed.allowing("MIT")
    explainer = Explainer(restricted)
    view = restricted.view(restricted.tokenizer.encode(unseen[0].data)[:200])
    seen = {
        item["licence"]
        for boundary in range(view.n)
        for expert in explainer.token(view, boundary, int(view.history[boundary + 1]))["experts"]
        for item in expert["evidence"]
        if item["kind"] == "match"
    }
    assert seen == {"MIT"}
    made = complete(restricted, PROMPT, 16)
    assert {share.licence for share in provenance(restricted, made).shares} <= {"MIT", ""}


def test_shares_add_up(licensed: ConstructedLM):
    made = complete(licensed, PROMPT, 24)
    report = provenance(licensed, made)
    assert report.n_tokens == len(made.steps)
    assert report.bits == pytest.approx(-sum(np.log2(step.probability) for step in made.steps))
    assert sum(share.log_probability for share in report.shares) == pytest.approx(1.0)
    assert sum(share.tokens for share in report.shares) == pytest.approx(1.0)
    assert sum(report.by_licence().values()) == pytest.approx(1.0)
    assert {share.licence for share in report.shares} >= set(LICENCES)
    json.dumps(report.as_json())


def test_shares_are_those_of_the_explanation(licensed: ConstructedLM):
    """One token: by source the same as the record's, which is put together in another way."""
    made = complete(licensed, b"import os\nimport ", 1)
    shares: dict[str, float] = {}
    for share in provenance(licensed, made).shares:
        source = "unigram" if share.source == "smoothing" else share.source
        shares[source] = shares.get(source, 0.0) + share.tokens
    view = licensed.view(licensed.tokenizer.encode(made.prompt)[:-1])
    record = Explainer(licensed).token(view, view.n, made.steps[0].token)
    for expert in record["experts"]:
        assert shares.get(expert["name"], 0.0) == pytest.approx(expert["share"], abs=1e-6)


def test_licences_of_a_corpus(licensed: ConstructedLM):
    table = licence_table(licensed)
    assert {row["licence"] for row in table} == set(LICENCES)
    assert sum(row["files"] for row in table) == len(licensed.sources)
    assert sum(row["tokens"] for row in table) == (np.asarray(licensed.index.tokens) != 0).sum()
    with pytest.raises(UsageError, match=r"allow some of .*MIT"):
        licensed.allowing("mit-0")


def test_command(folder: Path):
    arguments = ["complete", str(folder), "-", "--max-tokens", "6", "--allow", "MIT, Apache-2.0", "--provenance"]
    run = CliRunner().invoke(cgpt, [*arguments, "--json"], input=PROMPT)
    assert run.exit_code == 0, run.output
    shares = json.loads(run.stdout)["provenance"]["shares"]
    assert {share["licence"] for share in shares} <= {"MIT", LICENCES[2], ""}
    shown = CliRunner().invoke(cgpt, arguments, input=PROMPT).stdout
    assert "6 tokens" in shown and "%" in shown
