"""The constructed language model, forward pass in reading order.

    text -> tokens                      cgpt.tokenizer
         -> lexer state, reads, names   cgpt.reads (plain code over the text to the left)
         -> the situation in charge     router.py (restricted plain Python)
         -> counts                      cgpt.counts over cgpt.index and the file's own past
         -> net of that situation       cgpt.nets
         -> one distribution            cgpt.mixing with the weights of cgpt.mixer

A model folder is data: JSON, safetensors, the ontology and the router. `load` opens a constructed model or a monolith.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from cgpt import counts, lexer, mixing
from cgpt.caches import EMPTY, NO_TABLES, CacheArrays, CacheTables
from cgpt.counts import N_ALL_LEVELS, N_LEVELS
from cgpt.index import CorpusIndex
from cgpt.mixer import FIRST_LEVEL, N_EXPERTS, NAMES, Mixer
from cgpt.names import N_SLOTS
from cgpt.nets import Nets, ReadsWithTerms
from cgpt.reads import Alphabet, FileView, vocabulary_size
from cgpt.score import FileScore, Score, read_paths, score_files
from cgpt.tokenizer import Tokenizer
from ontology.environment import single_threaded_products
from ontology.errors import ConstructibleError
from ontology.io import read_json
from ontology.routers import Router
from ontology.schema import Ontology

FORMAT = "constructible-cgpt/5"
HERE = Path(__file__).parent / "ontologies" / "python"
CHUNK_ROWS = 128
"""So many positions have their whole distributions in memory at a time."""
Said = tuple[np.ndarray, np.ndarray]
"""What nets say at some boundaries: powers and their sums, as `cgpt.nets.Nets.powers` gives them."""
Matches = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Slices of the index for every boundary of a file: `low`, `high`, `levels` of `counts.file_slices`."""
Earlier = tuple[tuple[CacheArrays, ...], CacheTables]
"""Caches of the project and of the directory, and how far they are believed; see `cgpt.dynamic`."""
STATIC: Earlier = (EMPTY, NO_TABLES)


class LanguageModel(Protocol):
    """What the commands need of a model, constructed or monolithic."""

    config: dict[str, Any]
    concepts: tuple[str, ...]
    tokenizer: Tokenizer

    def score_file(self, data: bytes, path: str = "", project: str = "") -> FileScore:
        """Bits of every token of a file and of its end."""
        ...

    def next_distribution(self, view: FileView) -> np.ndarray:
        """float64[V]: distribution of the token after what `view` has read."""
        ...

    def view(self, ids: np.ndarray) -> FileView:
        """Follow a file from its start through these tokens."""
        ...


@dataclass(frozen=True)
class Source:
    """One training file: for evidence."""

    path: str
    project: str
    licence: str


@dataclass(frozen=True)
class Position:
    """Everything about the prediction at one boundary of a file.

    `distribution` float64[V]; `parts` float64[5] weight of each of `mixing.SOURCES`; `weights` float64[N_EXPERTS] that
    of each expert of the mixer, of which `level_weights`
    float64[N_ALL_LEVELS]; the followers of level l are `entry_tokens[starts[l]:starts[l+1]]` with `entry_shares`;
    `low` and `high` are the corpus levels' slices of the index.
    """

    boundary: int
    concept: int
    corpus_match: int
    file_depth: int
    weights: np.ndarray
    distribution: np.ndarray
    parts: np.ndarray
    level_weights: np.ndarray
    buckets: np.ndarray
    starts: np.ndarray
    entry_tokens: np.ndarray
    entry_shares: np.ndarray
    low: np.ndarray
    high: np.ndarray
    net_distribution: np.ndarray | None


class _Routed:
    """What both kinds of model share: tokenizer, ontology, router."""

    def __init__(self, folder: Path, config: dict[str, Any]) -> None:
        self.folder, self.config = folder, config
        self.tokenizer = Tokenizer.load(folder)
        self.alphabet = Alphabet.of(self.tokenizer)
        self.ontology = Ontology.load(folder / "ontology.yaml")
        self.router = Router.load(folder / "router.py", lexer.FIELDS)
        self.concepts = tuple(self.router.concepts)
        self._situations: dict[bytes, int] = {}
        self._token_lengths = np.array([len(text) for text in self.tokenizer.token_bytes], dtype=np.int32)

    def view(self, ids: np.ndarray) -> FileView:
        """Follow a file from its start through these tokens."""
        view = FileView(self.alphabet, len(ids) + 1)
        view.extend(ids)
        return view

    def concepts_at(self, view: FileView) -> np.ndarray:
        """int32[n + 1]: situation in charge at each boundary."""
        return self.router.route(view.fields[: view.n + 1])

    def concept_at(self, view: FileView, boundary: int) -> int:
        """Situation in charge at one boundary; a lexer state that was met before is not routed again."""
        state = view.fields[boundary].tobytes()
        if state not in self._situations:
            self._situations[state] = int(self.router.route(view.fields[boundary : boundary + 1])[0])
        return self._situations[state]

    def _file_score(
        self, ids: np.ndarray, path: str, project: str, bits: np.ndarray, correct: np.ndarray, at: np.ndarray
    ) -> FileScore:
        lengths = np.append(self._token_lengths[ids], 0).astype(np.int32)
        return FileScore(path, project, int(lengths.sum()), bits, correct, at, lengths)


class ConstructedLM(_Routed):
    """A constructed model, read-only."""

    concurrent = True
    """Several threads may score at a time."""
    variant = ""
    """What `without` and `allowing` took away since the folder was opened."""

    def __init__(self, folder: str | Path) -> None:
        folder = Path(folder)
        config = read_config(folder)
        super().__init__(folder, config)
        self.index = CorpusIndex.load(folder / "index.safetensors")
        self.nets = Nets.load(folder / "nets.safetensors") if config["nets"] else None
        try:
            self.mixer = Mixer.from_json(read_json(folder / "mixer.json"))
            self.rank_weights = np.array(read_json(folder / "names.json")["weights"], dtype=np.float64)
        except (KeyError, TypeError, ValueError) as error:
            raise ConstructibleError(
                f"mixer.json or names.json is not what a build writes ({error!r}).",
                fix="build the model again", file=folder,
            ) from error  # fmt: skip
        tokens = self.tokenizer.vocab_size
        if self.nets is not None and (
            len(self.nets.output) != tokens or len(self.nets.embeddings) != vocabulary_size(tokens)
        ):
            raise ConstructibleError(
                "nets.safetensors is for another tokenizer.", fix="build the model again", file=folder
            )
        self.net_of = net_of_concept(self.concepts, self.nets, config["owner"])
        self.unigram = smoothed_unigram(self.index.unigram)
        # Compiled code does not look where a table ends: one of another version has to be refused here.
        if len(self.rank_weights) != N_SLOTS or len(self.mixer.by_names) != N_SLOTS + 1:
            raise ConstructibleError(
                "names.json or mixer.json was written by another version.", fix="build the model again", file=folder
            )
        if self.mixer.concepts != self.concepts:
            raise ConstructibleError(
                "the mixer's concepts are not those of the router.", fix="build the model again", file=folder
            )

    @cached_property
    def sources(self) -> list[Source]:
        """The training files, in the order of the index."""
        table = read_json(self.folder / "sources.json")
        return [Source(*row) for row in table["files"]]

    def _nets_say(self, concept: np.ndarray, reads: np.ndarray | ReadsWithTerms) -> Said:
        """What the net in charge of each row says, as `powers_by_concept`; float32[rows, 0] where there are no nets."""
        if self.nets is None:
            return np.zeros((len(reads), 0), np.float32), np.zeros(len(reads))
        return powers_by_concept(self.nets, self.net_of, concept, reads)

    def score_file(self, data: bytes, path: str = "", project: str = "", earlier: Earlier = STATIC) -> FileScore:
        """Score one file: float64 bits of every token and of its end, each from what stands to its left."""
        ids = self.tokenizer.encode(data)
        view = self.view(ids)
        n = view.n + 1
        at, matches = self.concepts_at(view), self.matches(view)
        probability, best = np.zeros(n), np.zeros(n, dtype=np.int64)
        with single_threaded_products():
            reads = self.nets.with_terms(view.reads[:n]) if self.nets is not None else view.reads
            # Those with the same token before them together: most of what stands in the tables is about that token.
            for rows in in_chunks(at, matches[0][:, 0]):
                said = self._nets_say(at[rows], reads[rows])
                probability[rows], best[rows], _ = self.score_rows(view, matches, at[rows], rows, said, earlier)
        targets = view.history[1 : n + 1]
        return self._file_score(ids, path, project, -np.log2(probability), best == targets, at)

    def matches(self, view: FileView) -> Matches:
        """Where the index has what stands before each boundary of a file."""
        n = view.n + 1
        low, high = np.zeros((n, N_LEVELS), np.int32), np.zeros((n, N_LEVELS), np.int32)
        levels, longest = np.zeros(n, np.int32), np.zeros(n, np.int32)
        counts.file_slices(
            *self.index.sorted_contexts(), view.history, view.previous, 1, n + 1, low, high, levels, longest
        )
        return low, high, levels

    def score_rows(
        self, view: FileView, matches: Matches, concept: np.ndarray, rows: np.ndarray, said: Said,
        earlier: Earlier = STATIC,
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:  # fmt: skip
        """(probability of the target, most probable token, weights of the sources) at boundaries `rows`, with
        `concept` int32[rows] in charge and `said` by the nets."""
        probability, best = np.zeros(len(rows)), np.zeros(len(rows), dtype=np.int64)
        parts = np.zeros((len(rows), len(mixing.SOURCES)))
        mixing.score_rows(
            *self.index.followed_by(), view.history, view.previous, *matches, view.offered, view.slots, rows, concept,
            *self.mixer.tables(), self.unigram, *said, self.rank_weights, *earlier, probability, best, parts,
        )  # fmt: skip
        return probability, best, parts

    def next_distribution(self, view: FileView) -> np.ndarray:
        """float64[V]: distribution of the token after what `view` has read."""
        return self.position(view, view.n).distribution

    def position(self, view: FileView, boundary: int) -> Position:
        """Take the prediction at one boundary apart; the arithmetic is that of `score_file`."""
        concept = self.concept_at(view, boundary)
        powers, total = self._nets_say(np.array([concept]), view.reads[boundary : boundary + 1])
        said = powers[0] if total[0] > 0.0 else powers[0, :0]
        buckets = np.zeros(N_ALL_LEVELS, dtype=np.uint8)
        starts = np.zeros(N_ALL_LEVELS + 1, dtype=np.int64)
        low, high = np.zeros(N_LEVELS, dtype=np.int32), np.zeros(N_LEVELS, dtype=np.int32)
        levels, longest = counts.find_slices(*self.index.sorted_contexts(), view.history, boundary + 1, low, high)
        stamp, mark = np.zeros(len(self.unigram), dtype=np.int64), np.zeros(1, dtype=np.int64)
        room = 1 << 12
        while True:
            entry_tokens, entry_shares = np.zeros(room, dtype=np.uint16), np.zeros(room)
            needed = counts.all_levels(
                *self.index.followed_by(), view.history, view.previous, boundary + 1, low, high, levels, buckets,
                starts, entry_tokens, entry_shares, stamp, mark, 0,
            )  # fmt: skip
            if needed <= room:
                break
            room = 2 * needed
        file_depth = int((buckets[N_LEVELS : N_LEVELS + counts.N_FILE_LEVELS] != counts.ABSENT).sum())
        slots, offered = view.slots[boundary], view.offered[boundary]
        out, parts, weights = np.zeros(len(self.unigram)), np.zeros(len(mixing.SOURCES)), np.zeros(N_EXPERTS)
        mixing.mix_one(
            *self.mixer.tables_of(concept), buckets, starts, entry_tokens, entry_shares, self.unigram, said,
            total[0], offered, slots, self.rank_weights, weights, out, parts,
        )  # fmt: skip
        net = said / total[0] if len(said) else None
        return Position(
            boundary, concept, int(longest), file_depth, weights, out, parts, weights[FIRST_LEVEL:NAMES], buckets,
            starts, entry_tokens[:needed], entry_shares[:needed], low, high, net,
        )  # fmt: skip

    @staticmethod
    def from_pretrained(folder: str | Path) -> ConstructedLM:
        """Open a constructed model's folder; raises ConstructibleError for anything else."""
        return ConstructedLM(folder)

    def generate(
        self, prompt: str, max_tokens: int = 64, temperature: float = 0.0, seed: int = 0, **options: Any
    ) -> str:
        """Complete a prompt and return what is added; temperature 0 takes the most probable token each time.

        `options` are those of `cgpt.complete.complete`: `top_k`, `top_p`, `line`, `valid`.
        """
        from cgpt.complete import complete

        made = complete(self, prompt.encode("utf-8"), max_tokens, temperature, seed, **options)
        return made.text.decode("utf-8", "replace")

    def score(self, *paths: str) -> Score:
        """Score .py files, folders or Parquet files."""
        return score_files(self, read_paths(paths).files)

    def explain(self, text: str, file: str = "") -> dict[str, Any]:
        """Explain every token of a text; the record that `cgpt.explain_page` shows."""
        from cgpt.explain import explain

        return explain(self, text.encode("utf-8"), file)

    def allowing(self, *licences: str) -> ConstructedLM:
        """The model with evidence from training files under these SPDX licences alone; see `cgpt.provenance`."""
        from cgpt.provenance import allowing

        return allowing(self, licences)

    def without(self, name: str) -> ConstructedLM:
        """This model without one of its modules: a concept's nets, a source, or a read; see `cgpt.ablate`."""
        from cgpt.ablate import without

        return without(self, name)

    @property
    def parameters(self) -> int:
        """Trained numbers in nets."""
        return self.nets.parameters if self.nets else 0

    @property
    def table_entries(self) -> int:
        """Entries of the corpus index, the mixer and the names' ranks."""
        return self.index.n_entries + self.mixer.entries + self.rank_weights.size


class MonolithLM(_Routed):
    """The root cut: one transformer; situations only slice its bits for comparison."""

    def __init__(self, folder: str | Path) -> None:
        folder = Path(folder)
        super().__init__(folder, read_config(folder))
        from cgpt.baseline import Baseline

        self.baseline = Baseline.load(folder / "transformer")
        self.parameters = self.baseline.parameters
        self.table_entries = 0

    def score_file(self, data: bytes, path: str = "", project: str = "") -> FileScore:
        """Score one file with overlapping windows."""
        ids = self.tokenizer.encode(data)
        bits, correct = self.baseline.score_tokens(ids)
        return self._file_score(ids, path, project, bits, correct, self.concepts_at(self.view(ids)))

    def next_distribution(self, view: FileView) -> np.ndarray:
        """float64[V]: distribution of the token after what `view` has read."""
        return np.exp(self.baseline.next_log_probs(view.history[1 : view.n + 1]))


def read_config(folder: Path) -> dict[str, Any]:
    """Read a model folder's config.json; raises ConstructibleError where it is not a model of ours."""
    path = folder / "config.json"
    if not path.is_file():
        raise ConstructibleError(
            "no finished model here.", fix="give a folder that `constructible cgpt build` has finished", file=folder
        )
    config = read_json(path)
    if not isinstance(config, dict) or config.get("format") != FORMAT:
        raise ConstructibleError(f"not a model in the format {FORMAT}.", fix="build the model again", file=path)
    return config


def load(folder: str | Path) -> ConstructedLM | MonolithLM:
    """Open a model folder, constructed or monolithic.

    Raises:
        ConstructibleError: it is no finished model, or a part of it is broken.
    """
    folder = Path(folder)
    return MonolithLM(folder) if read_config(folder)["cut"] == "root" else ConstructedLM(folder)


def in_chunks(concept: np.ndarray, within: np.ndarray | None = None) -> Iterator[np.ndarray]:
    """All rows int64, concept by concept, so many at a time that whole distributions are kept of; `within` int[rows]
    orders those of a concept."""
    order = np.lexsort((np.zeros_like(concept) if within is None else within, concept))
    for begin in range(0, len(order), CHUNK_ROWS):
        yield order[begin : begin + CHUNK_ROWS]


def by_concept(concept: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """(concept, its rows int64), at most CHUNK_ROWS at a time."""
    order = np.argsort(concept, kind="stable")
    borders = np.flatnonzero(np.diff(concept[order])) + 1
    for rows in np.split(order, borders):
        for begin in range(0, len(rows), CHUNK_ROWS):
            yield int(concept[rows[0]]), rows[begin : begin + CHUNK_ROWS]


def powers_by_concept(nets: Nets, net_of: np.ndarray, concept: np.ndarray, reads: np.ndarray | ReadsWithTerms) -> Said:
    """As `Nets.powers_by_group`, each row by the net of its concept.

    Concept by concept, not net by net: who is taken away then leaves the products of all others as they were.
    """
    return nets.powers_by_group(((int(net_of[c]), rows) for c, rows in by_concept(concept)), reads)


def net_of_concept(concepts: tuple[str, ...], nets: Nets | None, owner: dict[str, str]) -> np.ndarray:
    """int32[C]: the net that answers each situation (-1: none), by the cut's owner of that situation."""
    place = {name: m for m, name in enumerate(nets.concepts)} if nets else {}
    return np.array([place.get(owner.get(name, ""), -1) for name in concepts], dtype=np.int32)


def smoothed_unigram(unigram: np.ndarray) -> np.ndarray:
    """float64[V] from counts int64[V]: add one half, with 2 % spread evenly. No token is impossible."""
    p = (unigram + 0.5) / (unigram + 0.5).sum()
    return 0.98 * p + 0.02 / len(unigram)
