"""Study of how levels, net and names are put together: `python -m eval.studies.mixing MODEL VALIDATION`.

MODEL is a folder that `constructible cgpt build` has made, with its store inside (or `--store`), VALIDATION files that
it has not seen.
Every way is fitted on the files that the build held out, against tables of the other files, and judged on VALIDATION
against the tables of all files. Ladders, from the unigram up, `p = (1 - e) share + e p` at each level:

    Witten-Bell            e = t / (n + t)                     (Witten and Bell 1991, method C)
    absolute discounting   e = D t / n, count less D           (Ney, Essen and Kneser 1994), D of each level fitted
    Jelinek-Mercer         e by level and bucket of (n, t)     (Jelinek and Mercer 1980), fitted by EM

and log-linear gates (`cgpt.mixer`) with fewer and more things that they may look at. Writes
docs/experiments/mixing.json and mixing.md.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from cgpt import counts, names
from cgpt.compiled import compiled
from cgpt.corpus import read_corpus
from cgpt.data import TokenizedCorpus, views
from cgpt.fit_mixer import net_probabilities
from cgpt.index import CorpusIndex
from cgpt.mixer import FIRST_LEVEL, N_EXPERTS, NAMES, NET, UNIGRAM, Mixer, Positions, confidence_step, first_name
from cgpt.model import ConstructedLM, load, smoothed_unigram
from cgpt.reads import FileView
from ontology.environment import describe
from ontology.errors import UsageError
from ontology.io import write_json, write_text
from ontology.main import exit_code
from ontology.progress import Progress

RESULTS = Path("docs/experiments/mixing.json")
EM_ROUNDS = 25
DISCOUNTS = np.linspace(0.1, 1.0, 10)
EXAMPLES = 3
"""One of so many files of VALIDATION is judged."""


@dataclass(frozen=True)
class Data:
    """Positions for the mixer, and for ladders: `n`, `t` int64[m, L] of each level (0: never seen), base float64[m]."""

    seen: Positions
    n: np.ndarray
    t: np.ndarray
    base: np.ndarray


def gather(model: ConstructedLM, index: CorpusIndex, files: list[FileView]) -> Data:
    """What every source says of every target of these files."""
    unigram, parts = smoothed_unigram(index.unigram), {}
    for view in files:
        m = view.n + 1
        shape = (m, counts.N_ALL_LEVELS)
        buckets, shares, match = np.zeros(shape, np.uint8), np.zeros(shape, np.float32), np.zeros(m, np.int32)
        counts.target_levels(*index.arrays(), view.history, view.previous, 1, m + 1, buckets, shares, match)
        concept, targets = model.concepts_at(view), view.history[1 : m + 1].astype(np.int64)
        said = np.zeros((m, N_EXPERTS), np.float32)
        said[:, UNIGRAM], said[:, FIRST_LEVEL:NAMES] = unigram[targets], shares
        assert model.nets is not None
        said[:, NET], top = net_probabilities(model.nets, model.net_of, concept, view.reads[:m], targets)
        p_names = np.zeros(m)
        names.names_target(
            targets, unigram[targets], view.offered[:m], view.slots[:m], model.rank_weights, p_names
        )  # fmt: skip
        said[:, NAMES] = p_names
        row = {
            "concept": concept, "confidence": confidence_step(top), "first": first_name(view.slots[:m]),
            "buckets": buckets, "said": said, "nt": _sizes(index, view, m),
        }  # fmt: skip
        for name, array in row.items():
            parts.setdefault(name, []).append(array)
    data = {name: np.concatenate(arrays) for name, arrays in parts.items()}
    seen = Positions(data["concept"], data["confidence"], data["first"], data["buckets"], data["said"])
    return Data(seen, data["nt"][:, 0], data["nt"][:, 1], data["said"][:, UNIGRAM].astype(np.float64))


def _sizes(index: CorpusIndex, view: FileView, m: int) -> np.ndarray:
    """int64[m, 2, L]: how often each context was seen and with how many different followers."""
    out = np.zeros((m, 2, counts.N_ALL_LEVELS), np.int64)
    _fill_sizes(*index.arrays(), view.history, view.previous, out)
    return out


@compiled
def _fill_sizes(
    tokens, order, followers, first, unigram, heavy_level, heavy_low, heavy_start, heavy_tokens, heavy_counts,
    history, previous, out,
):  # pragma: no cover - compiled  # fmt: skip
    low, high = np.zeros(counts.N_LEVELS, np.int64), np.zeros(counts.N_LEVELS, np.int64)
    stamp, mark = np.zeros(len(unigram), np.int64), 0
    for i in range(out.shape[0]):
        levels, _ = counts.find_slices(tokens, order, first, history, i + 1, low, high)
        for level in range(levels):
            mark += 1
            n, t, _ = counts.corpus_level(
                followers, heavy_level, heavy_low, heavy_start, heavy_tokens, heavy_counts, level, low[level],
                high[level], 0, stamp, mark,
            )  # fmt: skip
            out[i, 0, level], out[i, 1, level] = n, t
        for level in range(counts.N_FILE_LEVELS):
            if previous[level, i + 1] >= 0:
                mark += 1
                n, t, _ = counts.file_level(history, previous, level, i + 1, 0, stamp, mark)
                out[i, 0, counts.N_LEVELS + level], out[i, 1, counts.N_LEVELS + level] = n, t


def climb(base: np.ndarray, there: np.ndarray, share: np.ndarray, escape: np.ndarray) -> np.ndarray:
    """float64[m] at the top of a ladder of levels: `there` bool, `share` and `escape` float [m, L]."""
    p = base.copy()
    for level in range(share.shape[1]):
        p = np.where(there[:, level], share[:, level] + escape[:, level] * p, p)
    return p


def ladders(fit: Data, judge: Data) -> dict[str, np.ndarray]:
    """Probability float64[m] of each judged target by counts alone, for each kind of ladder."""

    def parts(data: Data) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        return data.n > 0, data.seen.said[:, FIRST_LEVEL:NAMES].astype(np.float64), np.maximum(data.n, 1), data.t

    def witten_bell(data: Data) -> np.ndarray:
        there, share, n, t = parts(data)
        escape = t / (n + np.maximum(t, 1))
        return climb(data.base, there, (1.0 - escape) * share, escape)

    def discounted(data: Data, discount: np.ndarray) -> np.ndarray:
        there, share, n, t = parts(data)
        return climb(data.base, there, np.maximum(share - discount / n, 0.0), discount * t / n)

    discount = np.full(counts.N_ALL_LEVELS, 0.7)
    for _ in range(2):
        for level in range(counts.N_ALL_LEVELS):
            tried = []
            for d in DISCOUNTS:
                one = discount.copy()
                one[level] = d
                tried.append(float(np.log(discounted(fit, one)).mean()))
            discount[level] = DISCOUNTS[int(np.argmax(tried))]

    def jelinek_mercer(data: Data, table: np.ndarray) -> np.ndarray:
        there, share, _, _ = parts(data)
        escape = table[np.arange(table.shape[0]), np.where(there, data.seen.buckets, 0)]
        return climb(data.base, there, (1.0 - escape) * share, escape)

    table = _fit_escapes(fit)
    return {
        "ladder, Witten-Bell": witten_bell(judge),
        "ladder, absolute discounting": discounted(judge, discount),
        "ladder, Jelinek-Mercer by bucket": jelinek_mercer(judge, table),
    }


def _fit_escapes(data: Data) -> np.ndarray:
    """Escapes float64[L, N_BUCKETS] by expectation-maximisation."""
    there, share = data.n > 0, data.seen.said[:, FIRST_LEVEL:NAMES].astype(np.float64)
    bucket = np.where(there, data.seen.buckets, 0)
    levels = share.shape[1]
    table = np.full((levels, counts.N_BUCKETS), 0.5)
    for _ in range(EM_ROUNDS):
        below = [data.base]
        for level in range(levels):
            e = table[level, bucket[:, level]]
            step = (1.0 - e) * share[:, level] + e * below[-1]
            below.append(np.where(there[:, level], step, below[-1]))
        reached = np.ones(len(data.base))
        for level in range(levels - 1, -1, -1):
            e, rows = table[level, bucket[:, level]].copy(), there[:, level]
            onward = reached * e * below[level] / below[level + 1]
            seen = np.bincount(bucket[rows, level], reached[rows], counts.N_BUCKETS)
            escaped = np.bincount(bucket[rows, level], onward[rows], counts.N_BUCKETS)
            table[level] = (escaped + 1.0) / (seen + 2.0)
            reached = np.where(rows, onward, reached)
    return table


def gates(model: ConstructedLM, fit: Data, judge: Data) -> dict[str, np.ndarray]:
    """Probability float64[m] of each judged target, for gates that look at more and more."""
    blind = {"concept": np.zeros_like, "confidence": np.zeros_like}

    def shown(seen: Positions, *what: str) -> Positions:
        return replace(seen, **{name: hide(getattr(seen, name)) for name, hide in blind.items() if name not in what})

    def fitted(nets: bool, *what: str) -> np.ndarray:
        mixer = Mixer.start(model.concepts, nets).fit(shown(fit.seen, *what))
        return mixer.mix(shown(judge.seen, *what))

    return {
        "gate, counts and names, by concept": fitted(False, "concept"),
        "gate, with the net": fitted(True),
        "gate, with the net, by concept": fitted(True, "concept"),
        "gate, with the net, by concept and its confidence (the mixer)": fitted(True, "concept", "confidence"),
        "every level's bucket acts on every weight": _full_gate(fit, judge, 0),
        "a network of width 48 in place of the tables": _full_gate(fit, judge, 48),
    }


def _full_gate(fit: Data, judge: Data, width: int) -> np.ndarray:
    """A gate that nobody can read, for what readability costs: all buckets x all weights, and a network where width."""
    import torch

    torch.manual_seed(0)
    torch.set_num_threads(1)
    levels, cells = counts.N_ALL_LEVELS, counts.N_BUCKETS + 1

    def inputs(seen: Positions) -> tuple[torch.Tensor, ...]:
        bucket = np.where(seen.buckets == counts.ABSENT, counts.N_BUCKETS, seen.buckets).astype(np.int64)
        rows = (seen.concept, seen.confidence, seen.first_name)
        return (
            torch.from_numpy(bucket + np.arange(levels) * cells),
            *(torch.from_numpy(row.astype(np.int64)) for row in rows),
            torch.from_numpy(~seen.present()), torch.from_numpy(seen.said),
        )  # fmt: skip

    sizes = (int(fit.seen.concept.max()) + 1, 20, names.N_SLOTS + 1)
    direct = [torch.zeros(levels * cells, N_EXPERTS), *(torch.zeros(size, N_EXPERTS) for size in sizes)]
    deep = [0.05 * torch.randn(levels * cells, width), *(0.05 * torch.randn(size, width) for size in sizes)]
    out = [torch.randn(width, width) * width**-0.5, torch.zeros(width, N_EXPERTS)] if width else []
    tables = [p.requires_grad_() for p in [*direct, *(deep if width else []), *out]]

    def mixed(data: tuple[torch.Tensor, ...], i: torch.Tensor) -> torch.Tensor:
        def total(parts: list[torch.Tensor]) -> torch.Tensor:
            rows = torch.nn.functional.embedding_bag(data[0][i], parts[0], mode="sum")
            return rows + sum(parts[k][data[k][i]] for k in (1, 2, 3))

        logits = total(direct)
        if width:
            h = torch.nn.functional.silu(torch.nn.functional.silu(total(deep)) @ out[0])
            logits = logits + h @ out[1]
        weights = logits.masked_fill(data[4][i], -torch.inf).softmax(1)
        return (weights * data[5][i]).sum(1)

    train, test = inputs(fit.seen), inputs(judge.seen)
    optimiser, n, rounds, done = torch.optim.Adam(tables, lr=4e-3), len(fit.base), 4, 0
    steps = rounds * ((n + 1023) // 1024)
    for _ in range(rounds):
        for i in torch.randperm(n).split(1024):
            for group in optimiser.param_groups:
                group["lr"] = 4e-3 * min(1.0, (1.0 - done / steps) / 0.7)
            loss = -torch.log(mixed(train, i) + 1e-12).mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            done += 1
    with torch.no_grad():
        return torch.cat([mixed(test, i) for i in torch.arange(len(judge.base)).split(4096)]).double().numpy()


def gathered(folder: Path, validation: str, store: Path, progress: Progress) -> tuple[ConstructedLM, Data, Data, int]:
    """(the model, the held-out positions of its build, those of the judged files, bytes of the judged files)."""
    model = load(folder)
    places = sorted(store.glob("*/*/files/tokens.safetensors"))
    if not isinstance(model, ConstructedLM) or model.nets is None or not places:
        raise UsageError("not a model with nets and its store.", fix="build one, or give its --store", file=folder)
    corpus = TokenizedCorpus.load(places[0])
    with progress.task("held-out files"):
        index = CorpusIndex.build(corpus.joined(~corpus.held_out), model.alphabet.n_tokens)
        fit = gather(model, index, list(views(corpus, corpus.mixer_files(), model.alphabet)))
    files = read_corpus(validation).files[::EXAMPLES]
    with progress.task("judged files"):
        judge = gather(model, model.index, [model.view(model.tokenizer.encode(file.data)) for file in files])
    return model, fit, judge, sum(len(file.data) for file in files)


def run(folder: Path, validation: str, store: Path) -> None:
    """Measure all ways and write both files."""
    progress = Progress()
    model, fit, judge, n_bytes = gathered(folder, validation, store, progress)
    with progress.task("ways"):
        said = {"net alone": judge.seen.said[:, NET].astype(np.float64) + 1e-12}
        said |= ladders(fit, judge) | gates(model, fit, judge)
    rows = {name: float(-np.log2(p).sum() / n_bytes) for name, p in said.items()}
    result = {
        "environment": describe(), "rows": rows, "fitted_positions": len(fit.base), "judged_positions": len(judge.base),
        "judged_bytes": n_bytes, "corpus": model.config["corpus"], "budget": model.config["budget"],
    }  # fmt: skip
    write_json(RESULTS, result)
    write_text(RESULTS.with_suffix(".md"), _page(result))


def _page(result: dict[str, Any]) -> str:
    lines = "\n".join(
        f"| {name} | {bits:.4f} |" for name, bits in sorted(result["rows"].items(), key=lambda row: -row[1])
    )
    corpus, budget = result["corpus"], {k: v for k, v in result["budget"].items() if v is not None}
    git = result["environment"].get("git") or {}
    commit = str(git.get("commit"))[:12] + (", with changes" if git.get("changed") else "")
    return f"""# Putting levels, net and names together

`python -m eval.studies.mixing MODEL VALIDATION`: bits per byte on {result["judged_bytes"]:,} bytes of projects that no
model has seen, fitted on {result["fitted_positions"]:,} held-out positions; the model was built on {corpus["files"]:,}
files, {corpus["bytes"]:,} bytes, with {budget}. One seed, commit {commit}.
Ladders are counts alone. The mixer's form was chosen on these very files, among these ways.

| way | bits/byte |
| --- | ---: |
{lines}
"""


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("validation")
    parser.add_argument("--store", type=Path)
    options = parser.parse_args()
    run(options.model, options.validation, options.store or options.model / ".store")


if __name__ == "__main__":
    sys.exit(exit_code(main))
