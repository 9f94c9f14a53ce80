"""The tasks: examples with known answers, and models that are known to be right or wrong on them."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import symtable
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cgpt.corpus import SourceFile
from cgpt.score import FileScore, read_paths
from eval.models import EvalModel, in_word, open_specs
from eval.records import read_header, read_results
from eval.runner import run
from eval.tasks import Options, load_tasks
from eval.tasks.base import Example
from eval.tasks.faithful import bits_without
from eval.tasks.lines import LINES, similarity, to_code, to_tokens
from eval.tasks.lines import measure as measure_line
from eval.tasks.memory import MEMORY, prompts
from eval.tasks.memory import measure as measure_memory
from eval.tasks.pairs import PAIRS, PER_FAMILY, pairs
from eval.tasks.pairs import measure as measure_pair
from eval.tasks.simulation import GUESSES, Simulator, correlation, divergence, replaced
from ontology.errors import UsageError
from ontology.progress import Progress
from tests.eval.conftest import Models
from tests.support import data_path

QUIET = Progress(quiet=True)


class Told(EvalModel):
    """A model that writes and prefers what it is told."""

    def __init__(self, answer=b"", cost=len) -> None:
        self.answer, self.cost = answer, cost
        self.name, self.folder = "told", Path("told")

    def complete(self, prompt: bytes, max_tokens: int, stop: bytes = b"", whole: bool = False) -> bytes:
        made = self.answer(prompt) if callable(self.answer) else self.answer
        return made.partition(stop)[0] if stop else made

    def score_file(self, file: SourceFile) -> FileScore:
        bits = np.array([float(self.cost(file.data)), 0.0])
        return FileScore("", "", len(file.data), bits, bits > 0, np.zeros(2, np.int32), np.array([len(file.data), 0]))

    @property
    def parameters(self) -> int:
        return 0


def compiles(text: bytes) -> bool:
    try:
        compile(text, "pair.py", "exec")
    except SyntaxError:
        return False
    return True


def unbound(text: bytes) -> set[str]:
    """Names that the last function uses and neither it nor the module binds."""
    table = symtable.symtable(text.decode(), "pair.py", "exec").get_children()[-1]
    return {s.get_name() for s in table.get_symbols() if s.is_global() and s.is_referenced()}


def test_every_pair_has_one_right_text_and_python_agrees() -> None:
    found = pairs(Options())
    families = Counter(example.data.family for example in found)
    assert set(families.values()) == {PER_FAMILY} and len(families) == 5
    assert len({example.sha256 for example in found}) == len(found)
    for example in found:
        pair = example.data
        assert pair.right != pair.wrong
        if pair.family in ("bracket", "body is deeper", "dedent to a block"):
            assert compiles(pair.right) and not compiles(pair.wrong), pair
        else:
            assert compiles(pair.right) and compiles(pair.wrong)
            name = pair.wrong.decode().rstrip().rpartition(" ")[2]
            assert name in unbound(pair.wrong) and name not in unbound(pair.right), pair
        if pair.family not in ("body is deeper", "dedent to a block"):
            assert len(pair.right) == len(pair.wrong), "length gives nothing away"


def test_a_judge_of_pairs_is_right_always_and_a_contrary_one_never() -> None:
    some = pairs(Options())[::37]
    right = {example.data.right for example in some}
    for cost, expected in (
        (lambda text: text not in right, 1.0),
        (lambda text: text in right, 0.0),
        (lambda _: 1, 0.0),
    ):
        rows = [next(iter(measure_pair(Told(cost=cost), example))) for example in some]
        assert {row.values["right"] for row in rows} == {expected}


def test_py150_tokens_become_code_and_code_becomes_tokens() -> None:
    text = (
        "<s> from a . b import c <EOL> @ d . e ( x = 1 , * args ) <EOL> def f ( self , n = - <NUM_LIT:10> ) : <EOL> "
        "return { '<STR_LIT:a>' : g [ 1 : 2 ] , '<STR_LIT>' : not ( n == 3 ) } [ '<STR_LIT:U+002CU+0020>' ] <EOL> x"
    )
    code = to_code(text.split())
    assert code == (
        "from a.b import c\n@d.e(x=1, *args)\ndef f(self, n=-10):\n"
        "return {'a': g[1:2], '': not (n == 3)}[', ']\nx"
    )  # fmt: skip
    line = code.splitlines()[3]
    assert (
        to_tokens(line, {"a", "U+002CU+0020"}, {"1", "2"})
        == (
            "return { '<STR_LIT:a>' : g [ <NUM_LIT:1> : <NUM_LIT:2> ] , '<STR_LIT>' : not ( n == <NUM_LIT> ) } "
            "[ '<STR_LIT:U+002CU+0020>' ]"
        ).split()
    )
    assert to_tokens("x = u'", set(), set())[-1].endswith("'"), "an unfinished string is one token"


@given(st.text("ab(", max_size=12), st.text("ab(", max_size=12))
def test_similarity_is_that_of_the_longest_common_subsequence(a: str, b: str) -> None:
    def longest(x: str, y: str) -> int:
        if not x or not y:
            return 0
        return longest(x[1:], y[1:]) + 1 if x[0] == y[0] else max(longest(x[1:], y), longest(x, y[1:]))

    if len(a) + len(b) <= 14:
        expected = 1.0 if not a and not b else 0.0 if not a or not b else 2 * longest(a, b) / (len(a) + len(b))
        assert similarity(a, b) == pytest.approx(expected)
    assert similarity(a, b) == similarity(b, a) and similarity(a, a) == 1.0


@pytest.fixture
def benchmark(tmp_path: Path) -> Path:
    folder = tmp_path / "benchmarks"
    folder.mkdir()
    rows = [
        {"input": "<s> import os <EOL> x = os .", "gt": "path ( '<STR_LIT>' )"},
        {"input": "<s> known from elsewhere", "gt": "x"},
        {"input": "<s> def f ( ) : <EOL>", "gt": "return <NUM_LIT:1>"},
    ]
    (folder / "py150_line_dev.jsonl").write_text("\n".join(json.dumps(row) for row in rows) + "\n")
    (folder / "py150_line_dev_overlap.json").write_text('{"1": 0.3, "2": 0.29}')
    (folder / "py150_literals.json").write_text('{"str": ["name"], "num": ["1"]}')
    return folder


def test_lines_are_filtered_and_compared_as_tokens(benchmark: Path) -> None:
    first, second = LINES.load(Options(benchmarks=benchmark))
    assert first.data.prompt == b"import os\nx = os." and second.data.prompt == b"def f():\n"

    def said(example: Example, answer: bytes) -> tuple[float, float]:
        (row,) = measure_line(Told(answer), example)
        return row.values["exact"], row.values["similarity"]

    assert said(first, b"path('anything at all')\nmore") == (1.0, 1.0)
    assert said(first, b'path( "x" )')[0] == 0.0, "other quotes are another token"
    assert said(second, b"    return 1") == (1.0, 1.0)
    exact, close = said(second, b"return 2")
    assert exact == 0.0 and 0.7 < close < 1.0
    assert said(second, b"") == (0.0, 0.0)
    # A prompt whose last word is carried on was not understood as it was given.
    assert said(first, b"_name = path('x')")[0] == 0.0
    with pytest.raises(UsageError, match="--benchmarks"):
        LINES.load(Options(benchmarks=benchmark / "no"))


def test_the_real_lines_load(tmp_path: Path) -> None:
    folder = data_path("benchmarks", "py150_line_dev.jsonl").parent
    found = LINES.load(Options(benchmarks=folder))
    assert len(found) == 3819 - 304
    answered = 0
    for example in found[:400]:
        line = example.data
        # Our own rendering of the answer, read back, gives the answer: what is compared is well defined.
        rendered = to_code(line.answer)
        answered += to_tokens(rendered, line.strings, line.numbers) == list(line.answer)
    assert answered >= 380


def test_memorisation_is_found_and_attributed(tmp_path: Path) -> None:
    for folder, word in (("train", "remembered"), ("unseen", "fresh")):
        for i in range(6):
            lines = [f"def {word}_{i}_{j}(first, second): return first + second + {j}" for j in range(20)]
            (tmp_path / folder / f"p{i}").mkdir(parents=True)
            (tmp_path / folder / f"p{i}" / "a.py").write_text("\n".join(lines) + "\n")
            licence = "MIT License\n" if i % 2 else "All rights reserved\n"
            (tmp_path / folder / f"p{i}" / "LICENSE").write_text(licence)
    options = Options(data=str(tmp_path / "unseen"), train=str(tmp_path / "train"))
    found = prompts(options)
    assert len(found) == 12

    texts = [path.read_bytes() for path in sorted((tmp_path / "train").rglob("*.py"))]

    def parrot(prompt: bytes) -> bytes:
        """Goes on with the training file it recognises, else with the first and the second of all."""
        for text in texts:
            if prompt in text:
                return text.partition(prompt)[2]
        return b"".join(texts[:2]) + b"cut off"

    def totals(answer) -> dict[str, float]:
        rows = [row.values for example in found for row in measure_memory(_Unknown(answer), example)]
        return {name: sum(row.get(name, 0.0) for row in rows) for name in MEMORY.columns}

    parroted, silent = totals(parrot), totals(b"x = 1\n")
    assert parroted["trained_verbatim"] == parroted["trained"] == 6
    assert parroted["unseen_verbatim"] == 0 and parroted["copied"] == parroted["lines"] == 6 * 40
    assert parroted["unclear"] == 6 * 20, "one of the two files is under no licence that is known"
    assert silent["trained_verbatim"] == silent["copied"] == silent["lines"] == 0
    with pytest.raises(UsageError, match="--train"):
        prompts(Options(data=options.data))


class _Unknown(Told):
    """Nobody knows what it was built from."""

    @property
    def budget(self):  # type: ignore[override]
        from eval.budgets import Budget

        return Budget()


def test_all_tasks_run_on_all_models_that_can(models: Models, tmp_path: Path, benchmark: Path) -> None:
    options = Options(str(models.unseen), None, benchmark, 2)
    ours, theirs = str(models.constructed), [str(models.monolith), str(models.hugging_face)]
    paths = run(open_specs([ours, *theirs]), load_tasks("lines,speed,pairs"), options, tmp_path, progress=QUIET)
    paths += run(open_specs([ours]), load_tasks("deletion"), options, tmp_path, progress=QUIET)
    assert len(paths) == 10
    for path in paths:
        header = read_header(path)
        first = header["figures"][header["metrics"][0]["name"]]["value"]
        assert first is not None and np.isfinite(first), header["task"]
    with pytest.raises(UsageError, match="'root' cannot do what the task 'deletion' needs"):
        run(open_specs([theirs[0]]), load_tasks("deletion"), options, tmp_path, progress=QUIET)


def test_memory_asks_for_the_corpus_the_model_was_built_from(models: Models, tmp_path: Path) -> None:
    options = Options(str(models.unseen), str(models.unseen), None, 2)
    with pytest.raises(UsageError, match="was not built from the corpus"):
        run(open_specs([str(models.plain)]), [MEMORY], options, tmp_path, progress=QUIET)


def test_the_reads_that_are_ranked_first_matter_most(models: Models, tmp_path: Path) -> None:
    options = Options(str(models.unseen), limit=6)
    (path,) = run(open_specs([str(models.constructed)]), load_tasks("deletion"), options, tmp_path, progress=QUIET)
    values = read_results(path).values
    assert values["positions"].sum() >= 60
    assert values["deleted_ranked"].sum() > values["deleted_random"].sum()
    assert values["inserted_ranked"].sum() > values["inserted_random"].sum()


def test_bits_without_anything_removed_are_those_of_the_net(models: Models) -> None:
    inner = models.open("constructed").model  # type: ignore[attr-defined]
    view = inner.view(inner.tokenizer.encode(b"def f(a, b):\n    return a\n"))
    reads = view.reads[5]
    logits = inner.nets.logits(0, reads[None])[0].astype(np.float64)
    expected = -np.log2(np.exp(logits[3]) / np.exp(logits).sum())
    assert bits_without(inner.nets, 0, reads, 3, [[]])[0] == pytest.approx(expected)


def test_pairs_are_the_same_in_every_process_and_a_change_is_a_new_version() -> None:
    digest = hashlib.sha256("".join(example.sha256 for example in pairs(Options())).encode()).hexdigest()
    assert (PAIRS.version, digest[:16]) == (1, "020cf59a04e0b863")


def test_explanations_are_replayed_by_code_that_does_not_know_the_model(models: Models, tmp_path: Path) -> None:
    options = Options(str(models.unseen), limit=4)
    (path,) = run(open_specs([str(models.constructed)]), load_tasks("replay"), options, tmp_path, progress=QUIET)
    values = read_results(path).values
    assert values["replayed"].sum() == values["positions"].sum() >= 200
    assert values["largest_difference"].max() <= 1e-6
    with pytest.raises(UsageError, match="explain"):
        run(open_specs([f"nets-only:{models.constructed}"]), load_tasks("replay"), options, tmp_path, progress=QUIET)


def test_a_model_that_does_not_do_what_it_explains_is_found(models: Models, monkeypatch) -> None:
    """The folder says one mixer, the running model uses another."""
    model = models.open("constructed")
    inner = model.model  # type: ignore[attr-defined]
    by_concept = inner.mixer.by_concept.copy()
    by_concept[:, [0, 1]] = by_concept[:, [1, 0]]
    inner.mixer = dataclasses.replace(inner.mixer, by_concept=by_concept)
    (example, *_) = load_tasks("replay")[0].load(Options(str(models.unseen)))
    (row,) = load_tasks("replay")[0].measure(model, example)
    assert row.values["replayed"] < 0.5 * row.values["positions"] and row.detail


def test_taking_a_net_away_changes_its_situation_only(models: Models, tmp_path: Path) -> None:
    options = Options(str(models.unseen), limit=4)
    (path,) = run(open_specs([str(models.constructed)]), load_tasks("intervention"), options, tmp_path, progress=QUIET)
    values = read_results(path).values
    assert values["moved_outside"].sum() == 0 and values["outside"].sum() > 100
    assert values["moved_inside"].sum() > 0 and len(read_results(path).parts) >= 2


def test_simulators_imitate_better_than_shuffled_ones_would(models: Models, tmp_path: Path) -> None:
    inner = models.open("constructed").model  # type: ignore[attr-defined]
    simulator = Simulator(inner)
    assert set(GUESSES) <= set(inner.concepts), "every simulator is of a situation that exists"
    assert all(simulator.other[name] != name for name in GUESSES)
    view = inner.view(inner.tokenizer.encode(b"import os\nprint(os.path)\nprint("))
    declared = np.ones(view.reads.shape[1], dtype=np.bool_)
    for boundary in range(view.n):
        p = simulator.distribution("first_argument", declared, view.reads[boundary])
        assert p.sum() == pytest.approx(1.0) and (p > 0).all()
    nothing = simulator.distribution("first_argument", ~declared, view.reads[-1])
    other = simulator.distribution("first_argument", ~declared, view.reads[0])
    assert (nothing == other).all(), "undeclared reads are not looked at"
    options = Options(str(models.unseen), limit=4)
    (path,) = run(open_specs([str(models.constructed)]), load_tasks("simulation"), options, tmp_path, progress=QUIET)
    values = read_results(path).values
    assert values["positions"].sum() >= 48
    assert values["correlation_own"].sum() > values["correlation_shuffled"].sum()
    assert 0 < values["output_own"].sum() < values["positions"].sum()


def test_a_perfect_imitation_changes_nothing(models: Models) -> None:
    inner = models.open("constructed").model  # type: ignore[attr-defined]
    view = inner.view(inner.tokenizer.encode(b"def f(a):\n    return a\n"))
    at = inner.position(view, 5)
    powers, total = inner.nets.powers(int(inner.net_of[at.concept]), view.reads[5][None])
    same = replaced(inner, powers[0].astype(np.float64) / float(total[0])).position(view, 5).distribution
    assert divergence(at.distribution, same) == pytest.approx(0.0, abs=1e-9)
    p, q = np.array([1.0, 0.0]), np.array([0.0, 1.0])
    assert divergence(p, q) == pytest.approx(1.0) and divergence(p, p) == 0.0
    spread = np.array([0.5, 0.3, 0.2])
    assert correlation(spread, spread) == pytest.approx(1.0) and correlation(spread, np.full(3, 1 / 3)) == 0.0


def test_a_word_that_is_over_is_not_carried_on(models: Models) -> None:
    for name in ("constructed", "monolith", "hugging_face"):
        model = models.open(name)
        for prompt in (b"import o", b"def f(sel", b"x = valu"):
            made = model.complete(prompt, 3, whole=True)
            assert made and not in_word(made[:1]), (name, made)


def test_learning_as_it_goes_starts_anew_with_every_project(models: Models, tmp_path: Path) -> None:
    """The first file costs what it costs the model as it was built; the model itself learns nothing."""
    options = Options(str(models.unseen))
    files = {}
    for file in sorted(read_paths([str(models.unseen)]).files, key=lambda file: file.path):
        files.setdefault(file.project, []).append(file)
    for name in ("constructed", "monolith"):
        before = [models.open(name).score_file(own[0]).bits.sum() for own in files.values()]
        (path,) = run(
            open_specs([str(getattr(models, name))]), load_tasks("dynamic"), options, tmp_path, progress=QUIET
        )
        results = read_results(path)
        order = [results.examples.index(project) for project in files]
        assert results.values["bytes"][order].tolist() == [sum(len(f.data) for f in own) for own in files.values()]
        assert read_header(path)["parts"]["first file"]["bits per byte"]["value"] == pytest.approx(
            sum(before) / sum(len(own[0].data) for own in files.values())
        )
        opened = models.open(name)
        learning = opened.learning()  # type: ignore[attr-defined]
        own = max(files.values(), key=len)
        again = [learning.score_file(f.data, f.path, f.project).bits.sum() for f in (own[0], own[0])]
        # One step on a transformer that knows nothing may lead anywhere.
        assert again[1] < again[0] if name == "constructed" else again[1] != again[0]
        assert opened.score_file(own[0]).bits.sum() == pytest.approx(again[0])
    with pytest.raises(UsageError, match="cannot do what the task 'dynamic' needs"):
        run(open_specs([str(models.hugging_face)]), load_tasks("dynamic"), options, tmp_path, progress=QUIET)
