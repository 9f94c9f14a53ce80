"""Memorisation and licence exposure: does the model write out files it was built from, and whose?

A prompt ends at a line of a file; what the model writes next is held against the true lines, once for files it was
built from and once for files it has not seen (lines that anybody would guess are right there too). What it writes after
prompts of unseen files is looked up line by line in the training corpus, with the licences of the files it stands in.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from cgpt.corpus import Corpus, SourceFile, read_corpus
from cgpt.score import read_paths
from eval.models import EvalModel
from eval.tasks.base import Example, Measured, Metric, Options, Task
from ontology.errors import UsageError

FILES = 100
"""Prompts from training files and prompts from unseen files, each."""
PROMPT_BYTES = 1500
TRUE_BYTES = 60
"""What must be written word for word: whole lines, at least this many bytes."""
MAX_TOKENS = 96
LINE_BYTES = 20
"""A shorter line, white space aside, belongs to nobody."""


@dataclass(frozen=True)
class Prompt:
    """`prompt` and the `truth` that follows in its file; `trained` on or not; where `known` lines stand by licence."""

    prompt: bytes
    truth: bytes
    trained: bool
    known: Mapping[bytes, frozenset[str]]
    corpus_hash: str


def prompts(options: Options) -> list[Example]:
    """Prompts from both kinds of files, chosen by hash."""
    if options.train is None:
        raise UsageError("this task compares with the training corpus.", fix="name it with --train")
    train, unseen = read_corpus(options.train), read_paths([options.data])
    trained = {file.fingerprint for file in train.files}
    known = lines_of(train)
    examples = []
    for kind, files in (("training", train.files), ("unseen", unseen.files)):
        usable = [file for file in files if kind == "training" or file.fingerprint not in trained]
        taken = 0
        for file in sorted(usable, key=lambda file: hashlib.sha256(f"memory {file.sha256}".encode()).digest()):
            if taken == FILES:
                break
            if (cut := _cut(file)) is not None:
                prompt = Prompt(*cut, kind == "training", known, train.data_hash)
                # What counts as copied depends on the corpus.
                said = b"\0".join((prompt.prompt, prompt.truth, train.data_hash.encode()))
                digest = hashlib.sha256(said).hexdigest()
                examples.append(Example(f"{kind}: {file.project}/{file.path}", file.project, prompt, digest))
                taken += 1
    return examples


def lines_of(corpus: Corpus) -> dict[bytes, frozenset[str]]:
    """Licences by stripped line, of lines long enough to be somebody's."""
    found: dict[bytes, set[str]] = {}
    for file in corpus.files:
        for line in file.data.splitlines():
            if len(stripped := line.strip()) >= LINE_BYTES:
                found.setdefault(stripped, set()).add(file.licence)
    return {line: frozenset(licences) for line, licences in found.items()}


def _cut(file: SourceFile) -> tuple[bytes, bytes] | None:
    """(prompt, true continuation) at a line in the middle half of the file; None where it is too short."""
    lines = file.data.splitlines(keepends=True)
    if len(lines) < 12:
        return None
    at = len(lines) // 4 + int(file.sha256[:8], 16) % (len(lines) // 2)
    truth, end = b"", at
    while len(truth.strip()) < TRUE_BYTES and end < len(lines):
        truth += lines[end]
        end += 1
    prompt = b"".join(lines[:at])
    if len(prompt) > PROMPT_BYTES:
        prompt = prompt[-PROMPT_BYTES:].partition(b"\n")[2]
    return (prompt, truth) if len(truth.strip()) >= TRUE_BYTES and prompt else None


def measure(model: EvalModel, example: Example) -> Iterable[Measured]:
    """Complete one prompt; see the module."""
    prompt: Prompt = example.data
    built_from = model.budget.data_hash
    if built_from is not None and built_from != prompt.corpus_hash:
        raise UsageError(
            f"{model.name!r} was not built from the corpus given with --train.", fix="give the corpus it was built from"
        )
    made = model.complete(prompt.prompt, MAX_TOKENS)
    word_for_word = float(made.lstrip().startswith(prompt.truth.strip()))
    if prompt.trained:
        yield Measured({"trained_verbatim": word_for_word, "trained": 1.0})
        return
    own = {line.strip() for line in prompt.prompt.splitlines()}
    # The last line may be cut off.
    written = [line.strip() for line in made.splitlines()[:-1]]
    written = [line for line in written if len(line) >= LINE_BYTES and line not in own]
    copied = [line for line in written if line in prompt.known]
    unclear = [line for line in copied if "unknown" in prompt.known[line]]
    detail = [[line.decode("utf-8", "replace"), sorted(prompt.known[line])] for line in copied]
    yield Measured({
        "unseen_verbatim": word_for_word, "unseen": 1.0, "lines": float(len(written)), "copied": float(len(copied)),
        "unclear": float(len(unclear)),
    }, detail=detail)  # fmt: skip


MEMORY = Task(
    name="memory",
    version=1,
    question="Does the model write out its training files, and lines of which licence?",
    columns=("trained_verbatim", "trained", "unseen_verbatim", "unseen", "lines", "copied", "unclear"),
    metrics=(
        Metric("training files word for word", "trained_verbatim", "trained", "lower", percent=True),
        Metric("unseen files word for word", "unseen_verbatim", "unseen", "neither", percent=True),
        Metric("written lines that stand in training", "copied", "lines", "lower", percent=True),
        Metric("of unknown licence", "unclear", "lines", "lower", percent=True),
    ),
    load=prompts,
    measure=measure,
    needs=frozenset({"complete"}),
    uses=("data", "train"),
)
