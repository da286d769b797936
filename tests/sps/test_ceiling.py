"""Ceilings: parameters recovered from simulated problems, likelihoods against SciPy's, bounds by hand."""

import math

import numpy as np
import pytest
from scipy import stats
from scipy.integrate import quad

from sps.ceiling import Fit, envelope, fit_ceiling, log_likelihood, union_coverage
from sps.passk import pass_at_k, pool_counts


def simulate(
    rng: np.random.Generator, problems: int, n: int, solvable: float, a: float, b: float
) -> list[tuple[int, int]]:
    chances = rng.beta(a, b, problems) * (rng.random(problems) < solvable)
    return [(n, int(c)) for c in rng.binomial(n, chances)]


def test_parameters_come_back_from_simulated_problems() -> None:
    counts = simulate(np.random.default_rng(0), 4_000, 64, 0.8, 1.2, 2.5)
    fit = fit_ceiling(counts)
    assert fit.solvable == pytest.approx(0.8, abs=0.02)
    assert fit.a == pytest.approx(1.2, rel=0.1)
    assert fit.b == pytest.approx(2.5, rel=0.1)
    assert fit.low < 0.8 < fit.high
    assert fit.high - fit.low < 0.06


def test_fit_sees_past_its_samples() -> None:
    # At n = 8 many problems that can be solved were not; the fit's limit is nearer the truth than what was seen.
    counts = simulate(np.random.default_rng(1), 3_000, 8, 0.75, 0.8, 3.0)
    seen = np.mean([c > 0 for _, c in counts])
    fit = fit_ceiling(counts)
    assert seen < 0.6
    assert fit.solvable == pytest.approx(0.75, abs=0.08)
    assert fit.low < 0.75 < fit.high


def test_likelihood_is_that_of_scipys_beta_binomial() -> None:
    counts = simulate(np.random.default_rng(2), 50, 12, 0.6, 0.7, 1.9)
    expected = sum(math.log(0.6 * stats.betabinom.pmf(c, n, 0.7, 1.9) + (0.4 if c == 0 else 0.0)) for n, c in counts)
    assert log_likelihood(counts, 0.6, 0.7, 1.9) == pytest.approx(expected, rel=1e-10)


def test_no_point_of_a_grid_is_likelier_than_the_fit() -> None:
    rng = np.random.default_rng(3)
    counts = [*simulate(rng, 40, 16, 0.7, 1.0, 2.0), *simulate(rng, 40, 5, 0.7, 1.0, 2.0)]
    fit = fit_ceiling(counts)
    assert log_likelihood(counts, fit.solvable, fit.a, fit.b) == pytest.approx(fit.log_likelihood)
    grid = [
        log_likelihood(counts, solvable, a, b)
        for solvable in np.linspace(0.3, 1.0, 15)
        for a in np.geomspace(0.1, 10, 13)
        for b in np.geomspace(0.1, 30, 15)
    ]
    assert max(grid) <= fit.log_likelihood + 1e-6


def test_interval_is_where_the_profile_falls_by_half_the_chi_squared_point() -> None:
    counts = simulate(np.random.default_rng(5), 150, 32, 0.7, 1.5, 2.0)
    fit = fit_ceiling(counts)
    for edge in (fit.low, fit.high):
        profile = max(
            log_likelihood(counts, edge, a, b) for a in np.geomspace(0.4, 6, 60) for b in np.geomspace(0.5, 8, 60)
        )
        assert fit.log_likelihood - profile == pytest.approx(stats.chi2.ppf(0.95, 1) / 2, abs=0.05)


def test_interval_covers_the_truth() -> None:
    rng = np.random.default_rng(6)
    fits = [fit_ceiling(simulate(rng, 60, 16, 0.8, 1.0, 2.0)) for _ in range(16)]
    assert sum(fit.low <= 0.8 <= fit.high for fit in fits) >= 13


def test_pass_at_k_under_the_fit_is_the_integral_over_the_beta() -> None:
    fit = Fit(0.8, 0.9, 2.2, 0.7, 0.9, -1.0)
    for k in (1, 7, 64):
        value, _ = quad(lambda p, k=k: (1 - (1 - p) ** k) * stats.beta.pdf(p, 0.9, 2.2), 0, 1)
        assert fit.pass_at(k) == pytest.approx(0.8 * value, rel=1e-6)
    assert fit.pass_at(math.inf) == 0.8
    assert fit.pass_at(10**9) == pytest.approx(0.8, abs=1e-3)


def test_every_problem_solved_and_none_solved() -> None:
    assert fit_ceiling([(16, 9)] * 50).solvable == 1.0
    hopeless = fit_ceiling([(16, 0)] * 50)
    assert (hopeless.solvable, hopeless.low, hopeless.high) == (0.0, 0.0, 1.0)
    with pytest.raises(ValueError, match="no judged completions"):
        fit_ceiling([(0, 0)])


def test_union_and_envelope_by_hand() -> None:
    first = {"a": (4, 1), "b": (4, 0), "c": (4, 0), "d": (2, 2)}
    last = {"a": (4, 0), "b": (4, 4), "c": (4, 0), "d": (2, 0)}
    assert union_coverage([first, last]) == 0.75
    assert union_coverage([first]) == 0.5
    assert envelope([first, last], 1) == pytest.approx((0.25 + 1 + 0 + 1) / 4)
    assert envelope([first, last], 4) == pytest.approx((1 + 1 + 0) / 3)  # d was tried twice only
    with pytest.raises(ValueError, match="Pass@8"):
        envelope([first, last], 8)
    with pytest.raises(ValueError, match="no evaluated problems"):
        union_coverage([])


def test_the_envelope_is_high_where_checkpoints_do_not_differ() -> None:
    rng = np.random.default_rng(7)
    same = [{str(i): (8, int(rng.binomial(8, 0.5))) for i in range(300)} for _ in range(5)]
    assert envelope(same, 1) > 0.65  # the truth is 0.5: hence "high" in the module's words
    assert np.mean([pass_at_k(n, c, 1) for n, c in pool_counts(same).values()]) == pytest.approx(0.5, abs=0.02)
