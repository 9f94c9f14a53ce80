"""Rules: sparse, non-negative, bound to the table, plain text that replays."""

from __future__ import annotations

import numpy as np
import pytest

from ontology.restricted import RestrictedError
from vision.rules import MAX_TERMS, Rule, RuleSet, Term, accuracy, fit_rules, harden, rule_text

NAMES = [f"c{i}" for i in range(14)]


def problem(seed: int = 0, noise: float = 0.25) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores of 6 classes (three of them ours), labels, and the table of ours."""
    rng = np.random.default_rng(seed)
    table = (rng.random((6, len(NAMES))) < 0.4).astype(np.int8)
    table[:3, :3] = np.eye(3, dtype=np.int8)
    labels = np.repeat(np.arange(6), 60)
    scores = np.clip(table[labels] + rng.normal(0, noise, (len(labels), len(NAMES))), 0, 1)
    return scores, labels, table[:3]


def test_rules_recognise_and_stay_sparse_and_keep_to_the_table():
    scores, labels, table = problem()
    rules = fit_rules(scores, labels, [0, 1, 2], table, NAMES, ["x", "y", "z"])
    own = labels < 3
    values = rules.values(scores, NAMES)
    assert accuracy(values[own], labels[own]) > 0.97
    yes = values > 0
    for c, rule in enumerate(rules.rules):
        assert yes[labels == c, c].mean() > 0.85 and yes[labels != c, c].mean() < 0.15
        assert 1 <= len(rule.concepts) <= MAX_TERMS
        for name, influence in rule.influence.items():
            assert (influence > 0) == (table[c, NAMES.index(name)] == 1)
    assert rules.constants == sum(len(rule.concepts) + 1 for rule in rules.rules)


def test_an_unclear_concept_says_nothing():
    scores, labels, table = problem(1)
    table[0, :10] = -1
    rules = fit_rules(scores, labels, [0, 1, 2], table, NAMES, ["x", "y", "z"])
    assert not set(rules.rules[0].concepts) & set(NAMES[:10])


def test_a_concept_without_a_signal_gets_no_weight():
    scores, labels, table = problem(2)
    scores[:, 0] = np.random.default_rng(9).random(len(scores))
    rules = fit_rules(scores, labels, [0, 1, 2], table, NAMES, ["x", "y", "z"])
    influence = abs(rules.rules[0].influence.get("c0", 0.0))
    assert influence < 0.5 * max(abs(v) for v in rules.rules[0].influence.values())


def test_a_rule_reads_as_it_was_fitted_and_runs_as_ordinary_python():
    text = rule_text('a "b"\'s', [Term("wheel", 0.5), Term("fur", 2.25, absent=True)], 1.1)
    assert text.splitlines()[4:] == [
        "    score = 2.25 * (1 - s.fur)",
        "    score = score + 0.5 * s.wheel",
        "    return score - 1.1",
    ]
    rule = Rule("ab", rule_text("ab", [Term("wheel", 0.5), Term("fur", 2.25, absent=True)], 1.1), ["wheel", "fur", "x"])
    assert rule.value({"wheel": 0.25, "fur": 1.0, "x": 3.0}) == 0.5 * 0.25 - 1.1
    assert rule.influence == pytest.approx({"fur": -2.25, "wheel": 0.5})
    assert rule_text("none", [], -0.25).endswith("return score + 0.25\n")


def test_a_rule_that_does_more_than_add_is_refused_with_its_line(tmp_path):
    (tmp_path / "ab.py").write_text("def rule(s):\n    score = s.wheel ** 2\n    return score\n")
    with pytest.raises(RestrictedError, match=r"ab.py:2: "):
        RuleSet.load(tmp_path, ["ab"], ["wheel"])
    (tmp_path / "ab.py").write_text("def rule(s):\n    return s.wheels\n")
    with pytest.raises(RestrictedError, match="Did you mean 'wheel'"):
        RuleSet.load(tmp_path, ["ab"], ["wheel"])


def test_saved_rules_are_the_same_rules(tmp_path):
    scores, labels, table = problem(3)
    rules = fit_rules(scores, labels, [0, 1, 2], table, NAMES, ["x y", "y", "z"])
    rules.save(tmp_path)
    again = RuleSet.load(tmp_path, ["x y", "y", "z"], NAMES)
    assert np.array_equal(rules.values(scores, NAMES), again.values(scores, NAMES))


def test_hard_scores_are_zero_or_one():
    assert harden(np.array([[0.0, 0.4999, 0.5, 1.0]])).tolist() == [[0.0, 0.0, 1.0, 1.0]]
