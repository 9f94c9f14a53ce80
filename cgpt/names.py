"""The names expert: which of the names in scope comes next.

Plain code keeps the names that this file has used, most recent first. A name first used in a function is in scope in
that function; a name used at the level of the module or of a class body is in scope from then on; attributes are kept
apart and remember their receiver. At a place where a name may start the expert offers first pieces of names in scope,
inside a name the next pieces of the names that begin as typed. In docstrings, comments and strings it offers the first
pieces of the names in scope, because text speaks of parameters. What is learned is one small table: how often each rank
of recency is right, for names, for attributes of the same receiver, for other attributes and for names in text.
"""

from __future__ import annotations

import numpy as np

from cgpt.compiled import compiled

N_KEPT = 96
"""Names kept per file; the least recently used one is dropped."""
N_OFFERED = 24
"""Names offered at a position, at most."""
N_RANKS = 12
KINDS = ("name", "attribute of this receiver", "other attribute", "name in text")
N_SLOTS = N_RANKS * len(KINDS)
NOTHING = 255
END_OF_NAME = 65535
"""Offered in place of a piece where a name that was typed whole may end; its weight goes to the base."""
BASE_SHARE = 0.05
"""The base's share at every position: a name never seen before is possible."""
EM_ROUNDS = 20

_FIRST, _LENGTH, _HASH, _SCOPE, _RECEIVER = range(5)
N_COLUMNS = 5


def new_names() -> np.ndarray:
    """Empty list of names, int64[N_KEPT + 1, N_COLUMNS]; row N_KEPT, column 0 counts the rows in use."""
    return np.zeros((N_KEPT + 1, N_COLUMNS), dtype=np.int64)


def spacing_tables(token_bytes: list[bytes]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(bare, spaced, tight): each token without and with its leading space (itself where there is no such token), and
    whether a name directly after the token has no space before it. int32[V], int32[V], bool[V]."""
    ids = {text: token for token, text in enumerate(token_bytes)}
    n = len(token_bytes)
    bare, spaced = np.arange(n, dtype=np.int32), np.arange(n, dtype=np.int32)
    tight = np.zeros(n, dtype=np.bool_)
    for token, text in enumerate(token_bytes):
        bare[token] = ids.get(text[1:], token) if text[:1] == b" " and len(text) > 1 else token
        spaced[token] = ids.get(b" " + text, token) if text[:1] != b" " else token
        last = text[-1:]
        if last in (b"\n", b"\r", b"\t", b" ", b"(", b"[", b"{", b".", b"@", b"~", b"") or (
            last in b"=*-+/%|&^<>" and text[:1] != b" "
        ):
            tight[token] = True
    return bare, spaced, tight


@compiled
def _same_name(ids, a, b, length, bare):  # pragma: no cover - compiled
    if bare[ids[a]] != bare[ids[b]]:
        return False
    for k in range(1, length):  # noqa: SIM110 - compiled
        if ids[a + k] != ids[b + k]:
            return False
    return True


@compiled
def _use(names, ids, first, length, scope, receiver, bare):  # pragma: no cover - compiled
    """Move the name to the front, adding it if it is new in its scope."""
    used = names[N_KEPT, 0]
    at = -1
    for row in range(used):
        if (
            names[row, _LENGTH] == length
            and (names[row, _RECEIVER] >= 0) == (receiver >= 0)
            and (receiver < 0 or names[row, _RECEIVER] == receiver)
            and (names[row, _SCOPE] == -1 or names[row, _SCOPE] == scope)
            and _same_name(ids, names[row, _FIRST], first, length, bare)
        ):
            at = row
            break
    if at >= 0 and names[at, _SCOPE] == -1:
        scope = -1
    if at < 0:
        if used < N_KEPT:
            names[N_KEPT, 0] = used + 1
            at = used
        else:
            at = N_KEPT - 1
    for row in range(at, 0, -1):
        for column in range(N_COLUMNS):
            names[row, column] = names[row - 1, column]
    names[0, _FIRST] = first
    names[0, _LENGTH] = length
    names[0, _SCOPE] = scope
    names[0, _RECEIVER] = receiver


@compiled
def offer_names(
    ids, name_first, scope, receiver, is_attribute, in_code, is_word, bare, spaced, tight,
    names, begin, end, tokens, slots,
):  # pragma: no cover - compiled  # fmt: skip
    """Names offered before tokens begin..end-1, keeping the list `names` up to date on the way.

    Per boundary i (before token i of `ids` uint16[n]): `name_first` int32 first token of the name in progress or -1,
    `scope` int32 offset that identifies the enclosing function or -1, `receiver` int32 token of the receiver or -1,
    `is_attribute` and `in_code` bool. `is_word` bool[V]: tokens that are whole keywords, never kept as names. Writes
    row i - begin of `tokens` uint16[m, N_OFFERED] and `slots` uint8[m, N_OFFERED] (NOTHING: no more names).
    """
    for i in range(begin, end):
        row = i - begin
        slots[row, :] = NOTHING
        if i > 0 and name_first[i - 1] >= 0 and name_first[i] != name_first[i - 1]:
            a = name_first[i - 1]
            length = i - 1 - a
            if not (length == 1 and is_word[ids[a]]):
                owner = np.int64(-1)
                if is_attribute[i - 1]:
                    owner = np.int64(bare[ids[receiver[i - 1]]]) if receiver[i - 1] >= 0 else np.int64(0)
                _use(names, ids, a, length, np.int64(scope[i - 1]), owner, bare)
        typed = i - name_first[i] if name_first[i] >= 0 and in_code[i] else 0
        if typed == 1 and is_word[ids[i - 1]]:
            # A keyword: what comes after it is a new name, not the rest of this one.
            typed = 0
        owner = np.int64(0)
        if is_attribute[i] and receiver[i] >= 0:
            owner = np.int64(bare[ids[receiver[i]]])
        rank_name = 0
        rank_same = 0
        rank_other = 0
        offered = 0
        for r in range(names[N_KEPT, 0]):
            if offered == N_OFFERED:
                break
            if (names[r, _RECEIVER] >= 0) != is_attribute[i]:
                continue
            if names[r, _SCOPE] != -1 and names[r, _SCOPE] != scope[i] and not is_attribute[i]:
                continue
            first = names[r, _FIRST]
            length = names[r, _LENGTH]
            if typed > 0 and (length < typed or not _same_name(ids, first, name_first[i], typed, bare)):
                continue
            if not is_attribute[i]:
                slot = min(rank_name, N_RANKS - 1) + (0 if in_code[i] else 3 * N_RANKS)
                rank_name += 1
            elif names[r, _RECEIVER] == owner:
                slot = N_RANKS + min(rank_same, N_RANKS - 1)
                rank_same += 1
            else:
                slot = 2 * N_RANKS + min(rank_other, N_RANKS - 1)
                rank_other += 1
            if typed == 0:
                token = bare[ids[first]]
                if not is_attribute[i] and i > 0 and not tight[ids[i - 1]]:
                    token = spaced[token]
            elif length == typed:
                token = END_OF_NAME
            else:
                token = ids[first + typed]
            tokens[row, offered] = token
            slots[row, offered] = slot
            offered += 1


@compiled
def names_target(targets, base, tokens, slots, weights, out):  # pragma: no cover - compiled
    """Probability of each target: offered weight on it plus, for names that may end, base float64[m] times theirs."""
    for i in range(len(targets)):
        total = 0.0
        hit = 0.0
        ended = 0.0
        for k in range(slots.shape[1]):
            if slots[i, k] == NOTHING:
                break
            w = weights[slots[i, k]]
            total += w
            if tokens[i, k] == targets[i]:
                hit += w
            elif tokens[i, k] == END_OF_NAME:
                ended += w
        if total > 0.0:
            out[i] = (1.0 - BASE_SHARE) * (hit + ended * base[i]) / total + BASE_SHARE * base[i]
        else:
            out[i] = base[i]


def fit_ranks(targets: np.ndarray, tokens: np.ndarray, slots: np.ndarray) -> np.ndarray:
    """Weight float64[N_SLOTS] of each kind and rank, by EM on positions where an offered piece did come."""
    hit = (tokens == targets[:, None]) & (slots != NOTHING)
    keep = hit.any(1)
    hit, slots = hit[keep], slots[keep]
    present = slots != NOTHING
    safe = np.where(present, slots, 0)
    weights = np.ones(N_SLOTS)
    for _ in range(EM_ROUNDS):
        # Bradley-Terry style update (Hunter 2004): hits over the competition each slot was in.
        w = np.where(present, weights[safe], 0.0)
        hits = w * hit
        hits /= hits.sum(1, keepdims=True)
        total = w.sum(1)
        won = np.bincount(safe.ravel(), (hits * present).ravel(), N_SLOTS) + 0.5
        met = np.bincount(safe.ravel(), (present / total[:, None]).ravel(), N_SLOTS) + 0.5
        weights = won / met
        weights /= weights.sum()
    return weights
