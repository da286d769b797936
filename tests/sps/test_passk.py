"""Pass@k against enumeration of every choice of k, against exact fractions, and against the wrong estimator."""

import math
from fractions import Fraction
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sps.passk import bootstrap_weights, mean_intervals, pass_at_k, pass_at_k_interval, pass_at_ks, pool_counts


def test_pass_at_k_is_the_share_of_subsets_with_a_correct_one() -> None:
    for n in range(1, 9):
        for c in range(n + 1):
            correct = [i < c for i in range(n)]
            for k in range(1, n + 1):
                choices = list(combinations(correct, k))
                assert pass_at_k(n, c, k) == pytest.approx(sum(map(any, choices)) / len(choices), abs=1e-14)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 5_000), st.data())
def test_pass_at_k_agrees_with_exact_fractions_where_binomials_overflow(n: int, data: st.DataObject) -> None:
    c, k = data.draw(st.integers(0, n)), data.draw(st.integers(1, n))
    exact = float(1 - Fraction(math.comb(n - c, k), math.comb(n, k)))
    assert float(pass_at_k(n, c, k)) == pytest.approx(exact, rel=1e-11, abs=0)


def test_pass_at_k_keeps_the_digits_of_a_small_value() -> None:
    assert float(pass_at_k(10**12, 1, 3)) == pytest.approx(3e-12, rel=1e-12)  # one in n is among k of them: k / n


def test_pass_at_k_broadcasts() -> None:
    n, c = np.array([[4], [6]]), np.array([[1], [0]])
    np.testing.assert_allclose(pass_at_k(n, c, [1, 4]), [[0.25, 1.0], [0.0, 0.0]])


@pytest.mark.parametrize(
    ("n", "c", "k", "words"),
    [(4, 5, 1, "more completions"), (4, -1, 1, "0 <= c"), (4, 1, 5, "Pass@5"), (4, 1, 0, "k"), (4, 0.5, 1, "c must")],
)  # fmt: skip
def test_impossible_counts_are_errors(n: int, c: float, k: int, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        pass_at_k(n, c, k)


def test_the_estimator_is_unbiased_and_best_of_k_with_replacement_is_low() -> None:
    p, n, k = 0.15, 8, 8
    truth = 1 - (1 - p) ** k
    chances = [math.comb(n, c) * p**c * (1 - p) ** (n - c) for c in range(n + 1)]  # of c correct among n
    ours = sum(chance * float(pass_at_k(n, c, k)) for c, chance in enumerate(chances))
    # Drawing k of the n completions again with replacement misses all c with chance (1 - c / n)^k.
    bootstrap = sum(chance * (1 - (1 - c / n) ** k) for c, chance in enumerate(chances))
    assert ours == pytest.approx(truth, abs=1e-12)
    assert bootstrap < truth - 0.1
    draws = np.random.default_rng(0).integers(0, n, (20_000, k))
    seen = [np.mean((draws < c).any(axis=1)) for c in range(n + 1)]  # the same by resampling, not by formula
    assert np.dot(chances, seen) == pytest.approx(bootstrap, abs=0.005)


def test_intervals_cover_the_truth_as_often_as_they_say() -> None:
    rng = np.random.default_rng(1)
    a, b, n, ks, problems, trials = 0.6, 1.8, 16, (1, 8), 60, 300
    truth = {
        k: 1 - math.exp(math.lgamma(b + k) - math.lgamma(b) + math.lgamma(a + b) - math.lgamma(a + b + k)) for k in ks
    }
    covered = dict.fromkeys(ks, 0)
    for trial in range(trials):
        correct = rng.binomial(n, rng.beta(a, b, problems))
        found = pass_at_k_interval([(n, int(c)) for c in correct], ks, 400, trial)
        for k in ks:
            covered[k] += found[k].low <= truth[k] <= found[k].high
    for k in ks:
        assert 0.91 <= covered[k] / trials <= 0.985


def test_interval_is_of_the_mean_and_narrows_as_one_over_the_root() -> None:
    values = np.random.default_rng(2).normal(size=(400, 1))
    (interval,) = mean_intervals(values, 4_000, 0)
    assert interval.mean == pytest.approx(values.mean())
    assert interval.problems == 400
    half = 1.96 * values.std() / 20
    assert interval.high - interval.mean == pytest.approx(half, rel=0.1)
    assert interval.mean - interval.low == pytest.approx(half, rel=0.1)
    assert mean_intervals(values, 100, 5) == mean_intervals(values, 100, 5)


def test_differences_of_the_same_problems_are_paired() -> None:
    rng = np.random.default_rng(3)
    ability = rng.random(200)
    ours, theirs = ability + 0.05 + 0.01 * rng.normal(size=200), ability
    (paired,) = mean_intervals((ours - theirs)[:, None], 1_000, 0)
    assert 0.045 < paired.low < paired.high < 0.055  # unpaired, the problems' spread alone gives +-0.06


def test_weights_are_of_resampled_rows_however_many_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sps.passk.BATCH_CELLS", 30)
    batches = list(bootstrap_weights(10, 7, np.random.default_rng(0)))
    assert [len(batch) for batch in batches] == [3, 3, 1]
    np.testing.assert_allclose(np.concatenate(batches).sum(axis=1), 1.0)
    np.testing.assert_allclose(np.concatenate(batches) * 10 % 1, 0.0, atol=1e-12)


def test_no_problems_and_too_few_completions_are_errors() -> None:
    with pytest.raises(ValueError, match="no problems"):
        pass_at_k_interval([], [1], 10, 0)
    with pytest.raises(ValueError, match="Pass@4"):
        pass_at_k_interval([(8, 1), (3, 1)], [1, 4], 10, 0)


def test_a_problem_with_failed_verdicts_counts_where_it_has_enough() -> None:
    found = pass_at_ks([(4, 1), (2, 2)], [1, 4, 8], 50, 0)
    assert found[1] is not None
    assert found[1].mean == pytest.approx((1 / 4 + 1) / 2)
    assert found[4] is not None
    assert (found[4].mean, found[4].problems) == (1.0, 1)
    assert found[8] is None
    assert list(found) == [1, 4, 8]


def test_pooled_counts_are_summed_by_problem() -> None:
    pooled = pool_counts([{"a": (4, 1), "b": (4, 0)}, {"b": (4, 2), "c": (2, 2)}])
    assert pooled == {"a": (4, 1), "b": (8, 2), "c": (2, 2)}
