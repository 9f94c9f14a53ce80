"""Draft a concept library from phrases that say what classes look like, and from WordNet's chains of what they are.

Plain code all through (`visual_words`): a phrase that no photograph shows is dropped with the reason, of any other the
colours, textures, shapes, parts and surroundings are taken under shared names, so that "a long, bushy tail" and "black
tails" both speak of `tail`. The result is a draft: a phrase file says little of what a class does *not* show, and word
lists misread some phrases. A person reads it before anything is learned from it.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from ontology.errors import ConstructibleError, UsageError
from ontology.io import read_json
from vision.concepts import ONTOLOGIES, ClassEntry, Feature, Library, nearest
from vision.visual_words import (
    BEARERS,
    CATEGORIES,
    COMPOUNDS,
    FILLER,
    PAIRS,
    PROPORTIONED,
    PROPORTIONS,
    VAGUE,
    is_size,
    kind_of,
    lemma,
    why_not_visible,
    without_opinions,
)

_SCALES = {"colour": 0.1, "texture": 0.2, "shape": 0.6, "part": 0.35, "context": 0.35}
_CLAUSE = re.compile(r"\b(?:that|which|where|when|while|so|used|for|designed|because|resembling|such as)\b.*")
_SEGMENTS = re.compile(
    r"\bwith\b|\b(?:covered|filled|surrounded|decorated|lined|topped) (?:in|with|by)\b"
    r"|\bmade (?:up )?(?:of|from|out of)\b|[;:]"
)
_PLACE = re.compile(r"\b(?:on|in|at|around|along|from|over|under|near|between|to|through|across|above|below|behind)\b")
_EDGE_OF = re.compile(r"\b(?:tip|end|side|sides|top|bottom|back|front|edge|edges|center|centre|middle|base|part) of\b")
_LEAVES_OPEN = "leaves open how it looks"
_ABSENT = re.compile(r"\b(?:no|not|without|lack(?:s|ing)?|absent|absence|never|none|neither|non-\w+|rather than)\b")
_TOP_OF_CHAIN = frozenset(
    """organism object entity matter solid substance whole placental chordate instrumentality conveyance relative
    artifact commodity establishment structure""".split()
) | {"living thing", "physical entity", "natural object", "consumer goods", "solid food"}
_LONGEST_CHAIN = 6
_PHRASES_KEPT = 5


@dataclass(frozen=True)
class Spoken:
    """What one phrase speaks of.

    Attributes:
        true: (kind, concept) pairs that it says are there.
        unclear: pairs that it names as alternatives ("red or green").
        bearer: the part that the colours, textures and shapes are of; "" for the whole.
    """

    true: tuple[tuple[str, str], ...]
    unclear: tuple[tuple[str, str], ...]
    bearer: str


@dataclass(frozen=True)
class WordNetRecord:
    """One entry of a WordNet file: other names, the chain of what it is (nearest first), parts."""

    wnid: str
    lemmas: tuple[str, ...]
    chain: tuple[str, ...]
    parts: tuple[str, ...]


@dataclass
class Draft:
    """A drafted library.

    Attributes:
        phrases: how many were read.
        dropped: those that were left out, by reason.
        empty: classes of which nothing is left.
        read_as: classes whose phrases stand under a name that only resembles theirs.
    """

    library: Library
    phrases: int = 0
    dropped: dict[str, list[str]] = field(default_factory=dict)
    empty: list[str] = field(default_factory=list)
    read_as: dict[str, str] = field(default_factory=dict)

    def summary(self) -> str:
        """Return the counts as one line."""
        gone = sum(map(len, self.dropped.values()))
        empty = f"; nothing left of {', '.join(self.empty)}" if self.empty else ""
        counts = f"{len(self.library.classes)} classes, {len(self.library.table_names)} features"
        return f"{counts} from {self.phrases} phrases, {gone} dropped{empty}; review it, then remove `draft: true`"

    def to_json(self) -> dict[str, Any]:
        """Return JSON values."""
        return {
            "classes": len(self.library.classes), "features": len(self.library.table_names), "phrases": self.phrases,
            "dropped": {reason: sorted(set(phrases)) for reason, phrases in self.dropped.items()}, "empty": self.empty,
            "read_as": self.read_as,
        }  # fmt: skip


def read_phrases(path: str | Path) -> dict[str, list[str]]:
    """Read what classes look like: label -> phrases.

    A JSON file maps labels to lists of phrases. A text file has lines `label: phrase; phrase`. A text file of zeros and
    ones is a matrix [classes, predicates] whose names stand in `*classes.txt` and `*predicates.txt` beside it.

    Raises:
        ConstructibleError: none of these, with the place.
    """
    path = Path(path)
    if path.suffix == ".json":
        value = read_json(path)
        if not isinstance(value, dict) or not all(
            isinstance(each, list) and all(isinstance(phrase, str) for phrase in each) for each in value.values()
        ):
            raise ConstructibleError(
                "does not map labels to lists of phrases.",
                fix='write {"goldfish": ["orange body", ...], ...}',
                file=path,
            )
        return {label: list(dict.fromkeys(phrases)) for label, phrases in value.items()}
    lines = _lines(path)
    filled = [line for line in lines if line.strip()]
    if filled and all(re.fullmatch(r"[01\s]+", line) for line in filled):
        return _matrix(path, filled)
    found: dict[str, list[str]] = {}
    for number, line in enumerate(lines, start=1):
        label, colon, rest = line.partition(":")
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        if not colon:
            raise ConstructibleError("no label.", fix="write `label: phrase; phrase`", file=path, line=number)
        found.setdefault(label.strip(), []).extend(phrase.strip() for phrase in rest.split(";") if phrase.strip())
    if not found:
        raise ConstructibleError("holds no phrases.", fix="write `label: phrase; phrase` lines", file=path)
    return found


def read_wordnet(path: str | Path) -> dict[str, WordNetRecord]:
    """Read a JSON file of WordNet records: id -> {lemmas, hypernym_chain, parts: [{part}]}."""
    value = read_json(path)
    records: dict[str, WordNetRecord] = {}
    try:
        for wnid, record in value.items():
            chain = [name for name in record["hypernym_chain"] if name not in _TOP_OF_CHAIN]
            records[wnid] = WordNetRecord(
                wnid, tuple(record["lemmas"]), tuple(chain[:_LONGEST_CHAIN]),
                tuple(part["part"] for part in record.get("parts", ())),
            )  # fmt: skip
    except (AttributeError, KeyError, TypeError) as error:
        fix = "write {wnid: {lemmas: [...], hypernym_chain: [...], parts: [{part: ...}]}}"
        raise ConstructibleError(f"is no file of WordNet records ({error!r}).", fix=fix, file=path) from error
    return records


def parse_phrase(phrase: str, is_a: Iterable[str] = ()) -> Spoken | str:
    """Return what a phrase speaks of, or the reason why it is dropped.

    Args:
        is_a: words for what the class is; they name no part of it.
    """
    text = re.sub(r"\([^)]*\)", " ", phrase.casefold().replace("_", " ").replace("’", "'"))
    text = " ".join(COMPOUNDS.get(word, word) for word in text.split())
    if why_not_visible(text) == _LEAVES_OPEN:
        return _LEAVES_OPEN
    if _ABSENT.search(text):
        return "says what it does not show"
    text = without_opinions(_CLAUSE.sub("", text) or text)
    reason = why_not_visible(text)
    if reason is not None:
        return reason
    known = CATEGORIES | VAGUE | {lemma(word) for name in is_a for word in re.findall(r"[a-z]+", name.casefold())}
    true: dict[tuple[str, str], None] = {}
    unclear: dict[tuple[str, str], None] = {}
    bearer = ""
    for segment in _SEGMENTS.split(_EDGE_OF.sub("of", text)):
        head, *places = _PLACE.split(segment)
        for place in places:
            named = kind_of(lemma(place.split()[-1])) if place.split() else None
            if named is not None and named[0] == "context":
                true[named] = None
        for piece in head.split(" of "):
            said, either, part = _piece(piece, known)
            true |= dict.fromkeys(said)
            unclear |= dict.fromkeys(either)
            bearer = bearer or part
    pairs = tuple(true), tuple(each for each in unclear if each not in true)
    if not any(pairs):
        return "names nothing that the word lists know as visible"
    return Spoken(*pairs, bearer)


def _piece(text: str, known: frozenset[str] | set[str]) -> tuple[list[tuple[str, str]], list[tuple[str, str]], str]:
    """Read one run of adjectives and its noun: what it says, what it offers as alternatives, and the part it is of."""
    words = [word for word in re.findall(r"[a-z]+(?:-[a-z]+)*", text) if word not in ("a", "an", "the")]
    if not words:
        return [], [], ""
    last = lemma(words[-1])
    said: list[tuple[str, str]] = []
    used = set()
    for i, word in enumerate(words):  # pairs first: "dark brown", "pointed ears", "long legs"
        for j in range(i + 1, min(i + 4, len(words))):
            pair = PAIRS.get((lemma(word), lemma(words[j])))
            if pair is not None and i not in used and j not in used:
                said.append(pair)
                used |= {i, j}
    adjectives: list[tuple[str, str]] = []
    for i, word in enumerate(words[:-1]):
        if i not in used:
            adjectives += _word(word)
    bearer = ""
    if len(words) - 1 not in used:
        named = _word(words[-1])
        if named and named[0][0] in ("part", "context"):
            said += named
            bearer = named[0][1] if named[0][0] == "part" else ""
        elif named:
            adjectives += named
        elif last in BEARERS:
            bearer = BEARERS[last]
        elif len(words) > 1 or "or" not in words:
            plain = re.fullmatch(r"[a-z]{3,}", last) and not last.endswith(("ing", "ed", "ly", "ness", "ity", "able"))
            if plain and last not in known and last not in FILLER and not is_size(last):
                said.append(("part", last))
                bearer = last
    if last in PROPORTIONED:
        said += [("part", f"{PROPORTIONS[w]}_{last}") for w in words if w in PROPORTIONS and not used][:1]
    alternatives = "or" in words or "either" in words
    kinds = [kind for kind, _ in adjectives]
    either = [pair for pair in adjectives if alternatives and kinds.count(pair[0]) > 1]
    return [*said, *(pair for pair in adjectives if pair not in either)], either, "" if bearer == "whole" else bearer


def _word(word: str) -> list[tuple[str, str]]:
    """What one word names; of a word with hyphens that is not known as a whole, what its parts name."""
    named = kind_of(word)
    if named is not None:
        return [named]
    return [each for piece in word.split("-") if (each := kind_of(piece)) is not None] if "-" in word else []


def draft(
    phrases: Mapping[str, Sequence[str]],
    classes: Sequence[str] | None = None,
    *,
    name: str = "draft",
    base: str | None = "features",
    wordnet: Mapping[str, WordNetRecord] | None = None,
    minimum: int | None = None,
) -> Draft:
    """Draft a library for classes.

    Args:
        phrases: label -> phrases, see `read_phrases`.
        classes: labels or WordNet ids of the classes wanted (default: all); `crane=construction crane` where the
            phrases stand under another name that WordNet does not know.
        base: a curated library whose features are used again under their names and questions.
        wordnet: id -> record, see `read_wordnet`: gives the chains, and makes a part that WordNet knows of but no
            phrase mentions unclear instead of false.
        minimum: features that fewer classes have, or lack, are dropped (default: 3; 1 below 6 classes).

    Raises:
        UsageError: a class has no phrases, with the nearest label.
    """
    wordnet = wordnet or {}
    found = _match(phrases, classes, wordnet)
    least = minimum if minimum is not None else (3 if len(found) >= 6 else 1)
    known = Library.load(ONTOLOGIES / f"{base}.yaml").features if base is not None else {}
    made = Draft(Library())
    dropped: dict[str, list[str]] = defaultdict(list)
    sources: dict[tuple[str, str], list[str]] = defaultdict(list)
    kinds: dict[str, str] = {}
    spoken: dict[str, list[tuple[str, Spoken]]] = {}
    for label, (key, record) in found.items():
        spoken[label] = []
        if _plain(key) not in {_plain(each) for each in (label, *(record.lemmas if record else ()))}:
            made.read_as[label] = key
        chain = (*record.chain, *record.lemmas) if record else ()
        for phrase in phrases[key]:
            made.phrases += 1
            read = parse_phrase(phrase, (*chain, key))
            if isinstance(read, str):
                dropped[read].append(phrase)
                continue
            spoken[label].append((phrase, read))
            for kind, concept in (*read.true, *read.unclear):
                kinds.setdefault(concept, known[concept].kind if concept in known else kind)
                sources[kind, concept].append(phrase)
    count: dict[str, int] = defaultdict(int)
    for rows in spoken.values():
        for concept in {concept for _, read in rows for _, concept in read.true}:
            count[concept] += 1
    most = len(found) - least if len(found) > 1 else 1
    kept = {concept for concept, n in count.items() if least <= n <= max(most, least)}
    features = []
    for concept in sorted(kept, key=lambda each: (_kind_order(kinds[each]), each)):
        if concept not in known:
            told = [phrase for (_, each), rows in sources.items() if each == concept for phrase in rows]
            features.append(_feature(concept, kinds[concept], tuple(dict.fromkeys(told))[:_PHRASES_KEPT]))
    entries = []
    for label, (_, record) in found.items():
        for phrase, read in spoken[label]:
            if not any(concept in kept for _, concept in (*read.true, *read.unclear)):
                dropped[f"speaks of what fewer than {least} of the classes show, or nearly all"].append(phrase)
        entry = _entry(label, record, [read for _, read in spoken[label]], kept, kinds)
        entries.append(entry)
        if not entry.features:
            made.empty.append(label)
    made.dropped = dict(dropped)
    made.library = Library(
        [*(known[each] for each in known if each in kept), *features], entries, name=name,
        description=f"Drafted from {made.phrases} phrases; not reviewed.",
    )  # fmt: skip
    return made


def to_yaml(library: Library, base: str | None = "features") -> str:
    """Return a library as YAML that `Library.load` reads; features of `base` are left to it."""
    shipped = Library.load(ONTOLOGIES / f"{base}.yaml").features if base is not None else {}
    value: dict[str, Any] = {"name": library.name, "version": library.version, "description": library.description}
    if base is not None:
        value["extends"] = base
    own = [each for name, each in library.features.items() if name not in shipped]
    value["features"] = [each.model_dump(mode="json", exclude_defaults=True) for each in own]
    value["classes"] = [each.model_dump(mode="json", exclude_defaults=True) for each in library.classes.values()]
    return yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=118, default_flow_style=None)


def _entry(
    label: str, record: WordNetRecord | None, reads: Sequence[Spoken], kept: set[str], kinds: Mapping[str, str]
) -> ClassEntry:
    parts: dict[str, dict[str, None]] = defaultdict(dict)
    context: dict[str, None] = {}
    for read in reads:
        group = read.bearer if read.bearer in kept or read.bearer in BEARERS.values() else ""
        for _, concept in read.true:
            if concept in kept:
                (context if kinds[concept] == "context" else parts[group])[concept] = None
    true = {concept for names in parts.values() for concept in names} | set(context)
    unclear = {concept: None for read in reads for _, concept in read.unclear if concept in kept - true}
    for part in record.parts if record else ():
        named = kind_of(part.split()[-1]) or ("part", lemma(part.split()[-1]))
        if named[1] in kept - true:
            unclear[named[1]] = None
    whole = parts.pop("", {})
    return ClassEntry(
        name=label, wnid=record.wnid if record else None, is_a=record.chain if record else (),
        parts={part: tuple(names) for part, names in parts.items() if names}, whole=tuple(whole),
        context=tuple(context), unclear=tuple(unclear), draft=True,
    )  # fmt: skip


def _feature(concept: str, kind: str, phrases: tuple[str, ...]) -> Feature:
    words = concept.replace("_", " ")
    plural = lemma(words.split()[-1]) != words.split()[-1]
    if kind == "colour":
        question = f"Is there a patch of {words}?"
    elif plural:
        question = f"Are there {words}?"
    elif kind in ("texture", "context"):
        question = f"Is there {words}?"
    else:
        question = f"Is there {'an' if words[0] in 'aeiou' else 'a'} {words}?"
    return Feature(name=concept, question=question, kind=kind, scale=_SCALES[kind], draft=True, phrases=phrases)  # type: ignore[arg-type]


def _kind_order(kind: str) -> int:
    return list(_SCALES).index(kind)


def _match(
    phrases: Mapping[str, Sequence[str]], classes: Sequence[str] | None, wordnet: Mapping[str, WordNetRecord]
) -> dict[str, tuple[str, WordNetRecord | None]]:
    """Find for each class its key among the phrases and its WordNet record, by any of its names."""
    by_name: dict[str, list[WordNetRecord]] = defaultdict(list)
    for record in wordnet.values():
        for each in record.lemmas:
            by_name[_plain(each)].append(record)
    keys = {_plain(key): key for key in phrases}
    found: dict[str, tuple[str, WordNetRecord | None]] = {}
    for asked in phrases if classes is None else classes:
        label, told, key_told = (part.strip() for part in asked.partition("="))
        if asked in phrases:
            label, told = asked, ""
        records = [wordnet[label]] if label in wordnet else by_name.get(_plain(label), [])
        record = records[0] if len(records) == 1 else None  # a name of several things ("crane") tells nothing
        names = [key_told] if told else [label, *(record.lemmas if record else ())]
        key = next((keys[_plain(each)] for each in names if _plain(each) in keys), None) or _resembling(names, keys)
        if key is None:
            raise UsageError(
                f"there are no phrases for {names[0]!r}." + nearest(names[0], phrases),
                fix="give its label in the phrases file, as `label=name there` where it differs",
            )
        found[record.lemmas[0] if record and label in wordnet else label] = (key, record)
    if not found:
        raise UsageError("no classes are named.", fix="give labels, or `all`")
    return found


def _words(label: str) -> list[str]:
    return [lemma(word) for word in re.findall(r"[a-z0-9]+", label.casefold())]


def _plain(label: str) -> str:
    return "".join(_words(label))


def _resembling(names: Sequence[str], keys: Mapping[str, str]) -> str | None:
    """The one key that ends in the same word as a name and has all of its words, or only words of it (two or more)."""
    found = set()
    for words in map(_words, names):
        for key in keys.values():
            other = _words(key)
            if words and other and words[-1] == other[-1]:
                inside = set(other) < set(words) and len(other) > 1
                if set(words) < set(other) or inside:
                    found.add(key)
    return found.pop() if len(found) == 1 else None


def _matrix(path: Path, lines: Sequence[str]) -> dict[str, list[str]]:
    """Read a matrix of zeros and ones with the names of its rows and columns beside it."""
    names: dict[str, list[str]] = {}
    prefix = re.split(r"(?i)predicate|matrix|attribute", path.name)[0]
    for what in ("classes", "predicates"):
        beside = path.with_name(f"{prefix}{what}.txt")
        if not beside.exists():
            raise ConstructibleError(
                f"is a matrix, and {beside.name} with the names of its {what} is not beside it.",
                fix="put it there", file=path,
            )  # fmt: skip
        listed = [re.sub(r"^\s*\d+\s+", "", line).strip() for line in _lines(beside)]
        names[what] = [name.replace("+", " ") for name in listed if name]
    rows = [line.split() for line in lines]
    for number, row in enumerate(rows, start=1):
        if len(row) != len(names["predicates"]):
            message = f"has {len(row)} numbers where {len(names['predicates'])} predicates are named."
            raise ConstructibleError(message, fix="correct this line", file=path, line=number)
    if len(rows) != len(names["classes"]):
        message = f"has {len(rows)} lines where {len(names['classes'])} classes are named."
        raise ConstructibleError(message, fix="correct one of the files", file=path)
    return {
        label: [name for name, cell in zip(names["predicates"], row, strict=True) if cell == "1"]
        for label, row in zip(names["classes"], rows, strict=True)
    }


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise ConstructibleError("not UTF-8 text.", fix="save the file as UTF-8", file=path) from error
    except OSError as error:
        raise ConstructibleError(f"cannot be read ({error.strerror}).", fix="check the path", file=path) from error
