"""Reliability: EM against a plain loop, simulated annotators recovered; posteriors against Bayes by hand."""

import numpy as np
import pytest

from serm.annotation.consensus import Consensus, majority, within_one
from serm.annotation.dawid_skene import NONE, Reliability, fit, maximise, pseudo_counts

STRONG = np.array([[0.85, 0.1, 0.05], [0.1, 0.8, 0.1], [0.02, 0.13, 0.85]])
WEAK = np.array([[0.6, 0.3, 0.1], [0.25, 0.5, 0.25], [0.1, 0.3, 0.6]])
HARSH = np.array([[0.95, 0.04, 0.01], [0.5, 0.45, 0.05], [0.1, 0.3, 0.6]])


def simulate(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    truth = rng.choice(3, n, p=[0.5, 0.3, 0.2])
    votes = np.stack([[rng.choice(3, p=matrix[g]) for g in truth] for matrix in (STRONG, WEAK, HARSH)], axis=1)
    return truth, votes


@pytest.mark.parametrize("ordinal", [False, True])
def test_simulated_annotators_are_recovered(ordinal: bool) -> None:
    truth, votes = simulate(6_000, 3)
    anchors = np.where(np.arange(len(truth)) < 600, truth, NONE)
    found = fit(votes, 3, anchors, ordinal=ordinal)
    assert np.abs(found.confusion - np.stack([STRONG, WEAK, HARSH])).max() < 0.06
    assert found.prior == pytest.approx([0.5, 0.3, 0.2], abs=0.04)
    assert found.correlation < 0.1
    without = fit(votes, 3)
    assert np.abs(without.confusion - np.stack([STRONG, WEAK, HARSH])).max() < 0.12
    right = (found.posterior(votes).argmax(axis=1) == truth).mean()
    assert right > max((votes == truth[:, None]).mean(axis=0))


def test_one_em_step_is_the_sums_written_out() -> None:
    _, votes = simulate(40, 1)
    votes[::7, 1] = NONE
    before = Reliability(np.array([0.5, 0.3, 0.2]), np.stack([WEAK, STRONG, HARSH]), 0.0)
    truth = before.posterior(votes)
    after = maximise(votes, truth, pseudo_counts(3, 1.5, False), np.arange(40) < 30)
    expected = [[[1.5] * 3 for _ in range(3)] for _ in range(3)]
    prior = [1.0] * 3
    for i, row in enumerate(votes):
        joint = [before.prior[g] for g in range(3)]
        for a, vote in enumerate(row):
            if vote != NONE:
                joint = [joint[g] * before.confusion[a][g][vote] for g in range(3)]
        share = [value / sum(joint) for value in joint]
        for g in range(3):
            prior[g] += share[g] if i < 30 else 0
            for a, vote in enumerate(row):
                if vote != NONE:
                    expected[a][g][vote] += share[g]
    for a in range(3):
        for g in range(3):
            for vote in range(3):
                assert after.confusion[a, g, vote] == pytest.approx(expected[a][g][vote] / sum(expected[a][g]), 1e-12)
    assert after.prior == pytest.approx(np.array(prior) / sum(prior), 1e-12)


def test_copies_of_one_annotator_count_as_one() -> None:
    truth, votes = simulate(2_000, 5)
    copies = votes[:, [1, 1, 1]]
    found = fit(copies, 3, truth)
    alone = fit(votes[:, [1]], 3, truth)
    assert found.correlation == pytest.approx(1)
    assert found.posterior(copies) == pytest.approx(alone.posterior(votes[:, [1]]))


def test_ordinal_pseudo_counts_fall_with_distance_and_weigh_the_same() -> None:
    near = pseudo_counts(4, 2.0, True)
    assert near.sum(axis=1) == pytest.approx(pseudo_counts(4, 2.0, False).sum(axis=1))
    assert near[0, 1] / near[0, 2] == pytest.approx(np.e)


def test_no_row_in_the_prior_leaves_it_uniform() -> None:
    truth, votes = simulate(100, 2)
    assert fit(votes, 3, truth, in_prior=np.zeros(100, bool)).prior == pytest.approx([1 / 3] * 3)


COIN = Reliability(np.array([0.6, 0.4]), np.array([[[0.9, 0.1], [0.2, 0.8]], [[0.7, 0.3], [0.4, 0.6]]]), 0.0)


def rule(name: str, target: float | None = None, ordinal: bool = False, known: bool = True) -> Consensus:
    return Consensus(name, ordinal, [0, 1], target, ("ada", "ben"), COIN if known else None)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["unanimous", "majority", "weighted"])
def test_every_rule_has_bayes_posterior(name: str) -> None:
    _, posterior = rule(name).decide({"ada": 1, "ben": 1})
    one, zero = 0.4 * 0.8 * 0.6, 0.6 * 0.1 * 0.3
    assert posterior == pytest.approx([zero / (one + zero), one / (one + zero)])
    _, posterior = rule(name).decide({"ada": 1, "ben": None})
    assert posterior == pytest.approx([0.06 / 0.38, 0.32 / 0.38])
    assert rule(name).decide({"ada": None, "ben": None}) == (None, None)


def test_the_rules_differ_where_annotators_do() -> None:
    apart = {"ada": 1, "ben": 0}  # 0.6 * 0.1 * 0.7 = 0.042 against 0.4 * 0.8 * 0.4 = 0.128
    assert rule("unanimous").decide(apart)[0] is None
    assert rule("majority").decide(apart)[0] is None
    assert rule("weighted").decide(apart)[0] == 1
    assert rule("weighted", 0.75).decide(apart)[0] == 1  # 0.753
    assert rule("weighted", 0.76).decide(apart)[0] is None
    assert rule("unanimous", 0.9).decide({"ada": 1, "ben": 1})[0] == 1  # 0.914
    assert rule("unanimous", 0.92).decide({"ada": 1, "ben": 1})[0] is None


def test_without_measurement_weighing_is_unanimity_and_no_target_applies() -> None:
    assert rule("weighted", 0.99, known=False).decide({"ada": 1, "ben": 1}) == (1, None)
    assert rule("weighted", known=False).decide({"ada": 1, "ben": 0}) == (None, None)


def test_ordinal_agreement() -> None:
    assert within_one([2, 3, 2]) == 2
    assert within_one([2, 3]) == 2
    assert within_one([1, 3]) is None
    assert within_one([1, None]) is None
    assert majority([0, 2, 2], ordinal=False) == 2
    assert majority([1, 2, 3], ordinal=False) is None
    assert majority([1, 2, 3], ordinal=True) == 2
    assert majority([2, None], ordinal=False) is None
    assert majority([None], ordinal=True) is None
