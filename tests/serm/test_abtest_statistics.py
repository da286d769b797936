"""The statistics of online tests against other ways to the same figures: brute force, bootstrap, simulation, scipy."""

import itertools
import math

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from serm.online.durations import days_until, needed, needed_peeking
from serm.online.mismatch import split
from serm.online.moments import SUMS, covariate, looks
from serm.online.multiple import adjusted
from serm.online.ratio import arm, change
from serm.online.sequential import factor, p_value


def sums(n: NDArray[np.float64], d: NDArray[np.float64], x: NDArray[np.float64] | None = None) -> dict[str, float]:
    x = np.zeros_like(n) if x is None else x
    values = (n.sum(), d.sum(), n @ n, n @ d, d @ d, x.sum(), x @ x, n @ x, d @ x)
    return {"units": float(len(n))} | dict(zip(SUMS, map(float, values), strict=True))


def clustered(rng: np.random.Generator, users: int, lift: float = 0.0) -> tuple[NDArray, NDArray]:
    """Successes and searches of users who differ: the searches of one are alike."""
    searches = 1 + rng.poisson(6, users)
    return rng.binomial(searches, np.minimum(rng.beta(1, 3, users) * (1 + lift), 1)).astype(float), searches.astype(
        float
    )


def test_the_delta_method_is_the_bootstraps_variance_and_the_naive_one_is_not() -> None:
    rng = np.random.default_rng(1)
    n, d = clustered(rng, 2_000)
    found = arm(sums(n, d))
    weights = rng.multinomial(2_000, np.full(2_000, 1 / 2_000), 4_000)
    drawn = (weights @ n) / (weights @ d)
    assert found.value == pytest.approx(n.sum() / d.sum())
    assert found.variance == pytest.approx(drawn.var(), rel=0.1)
    naive = found.value * (1 - found.value) / d.sum()  # every search on its own
    assert naive < 0.5 * found.variance


def test_with_one_search_each_it_is_the_usual_variance_of_a_mean() -> None:
    n = np.random.default_rng(2).normal(3, 2, 500)
    found = arm(sums(n, np.ones(500)))
    assert found.variance == pytest.approx(n.var(ddof=1) / 500)


def test_intervals_cover_and_the_naive_ones_do_not() -> None:
    rng = np.random.default_rng(3)
    hit, relative_hit, naive_hit, trials = 0, 0, 0, 1_000
    for _ in range(trials):
        a, b = clustered(rng, 400), clustered(rng, 400, 0.2)
        found = change(sums(*a), sums(*b))
        low, high = found.absolute(1.96)
        hit += low <= LIFTED - 0.25 <= high
        _, low, high = found.relative(1.96)
        relative_hit += low <= LIFTED / 0.25 - 1 <= high
        pooled = sum(p.sum() for p, _ in (a, b)) / sum(s.sum() for _, s in (a, b))
        error = math.sqrt(pooled * (1 - pooled) * sum(1 / s.sum() for _, s in (a, b)))
        naive_hit += abs(found.difference - (LIFTED - 0.25)) <= 1.96 * error
    low, high = stats.binom.ppf([0.001, 0.999], trials, 0.95)
    assert low <= hit <= high
    assert low <= relative_hit <= high
    assert naive_hit < 0.9 * trials


LIFTED = float(stats.beta.expect(lambda p: np.minimum(1.2 * p, 1), args=(1, 3)))


def test_looks_are_the_sums_of_what_users_gathered_by_each_day() -> None:
    rng = np.random.default_rng(4)
    days = (
        pl.DataFrame({"unit": rng.integers(0, 30, 200).astype(str), "day": rng.integers(0, 9, 200)})
        .unique(maintain_order=True)
        .with_columns(pl.col("day").cast(pl.Int32))
    )
    days = days.with_columns(
        pl.Series("m:n", rng.random(days.height)), pl.Series("m:d", rng.integers(0, 4, days.height))
    )
    variants = (
        days.select("unit")
        .unique()
        .sort("unit")
        .with_columns(variant=pl.when(pl.int_range(pl.len()) % 2 == 0).then(pl.lit("a")).otherwise(pl.lit("b")))
    )
    pre = pl.DataFrame({"unit": [str(i) for i in range(0, 30, 3)], "x": rng.normal(size=10)})
    found = looks(days.sample(fraction=1.0, shuffle=True, seed=1), variants, "m", pre)
    for day, variant in itertools.product(range(9), "ab"):
        own = days.filter(pl.col("day") <= day).join(variants.filter(variant=variant), on="unit")
        users = own.group_by("unit").agg(pl.col("m:n", "m:d").sum()).join(pre, on="unit", how="left").fill_null(0)
        expected = sums(*(users[c].cast(pl.Float64).to_numpy() for c in ("m:n", "m:d", "x")))
        row = found.filter(day=day, variant=variant).to_dicts()[0]
        assert {key: row[key] for key in expected} == pytest.approx(expected)


def test_cuped_takes_out_what_was_so_before_and_moves_no_expectation() -> None:
    rng = np.random.default_rng(5)
    plain, adjusted_values, errors = [], [], []
    for _ in range(300):
        arms = []
        for lift in (0.0, 0.3):
            habit = rng.normal(5, 2, 300)
            x = habit + rng.normal(0, 1, 300) - 5
            arms.append(sums(habit + lift + rng.normal(0, 1, 300), np.ones(300), x))
        plain.append(change(*arms))
        adjusted_values.append(change(*arms, adjust=True))
        errors.append(adjusted_values[-1].error)
    before, after = (np.array([each.difference for each in some]) for some in (plain, adjusted_values))
    assert after.mean() == pytest.approx(0.3, abs=4 * after.std() / 300**0.5)
    assert after.std() < 0.7 * before.std()
    assert np.mean(errors) == pytest.approx(after.std(), rel=0.15)
    rho = 4 / math.sqrt(5 * 5)  # correlation of habit + noise with habit + noise
    assert np.mean(errors) == pytest.approx(np.mean([p.error for p in plain]) * math.sqrt(1 - rho**2), rel=0.05)


def test_a_covariate_that_says_nothing_is_none() -> None:
    pre = pl.DataFrame({"unit": ["1", "2"], "m:n": [1.0, 2.0], "m:d": [2.0, 4.0]})
    assert covariate(pre, "m") is None
    assert covariate(pre.clear(), "m") is None
    found = covariate(pre.with_columns(pl.Series("m:n", [1.0, 5.0])), "m")
    assert found is not None
    assert found["x"].to_list() == pytest.approx([1 - 2 * 1.0, 5 - 4 * 1.0])


def test_the_sequential_interval_is_the_mixture_test_turned_round() -> None:
    for units, z in itertools.product((50, 1_000, 50_000), (0.5, 2.5, 4.0)):
        x = units * (-2 * math.log(0.05) + math.log(-2 * math.log(0.05) + 1)) / 10_000
        grid = np.linspace(-14, 14, 400_001) * math.sqrt(x)
        # likelihood ratios of effects in standard errors, mixed over their normal prior by brute force
        mixed = np.trapezoid(np.exp(z * grid - grid**2 / 2) * stats.norm.pdf(grid, 0, math.sqrt(x)), grid)
        assert p_value(z, units, 0.05, 10_000) == pytest.approx(min(1.0, 1 / mixed), rel=1e-6)
        edge = factor(units, 0.05, 10_000)
        assert p_value(edge, units, 0.05, 10_000) == pytest.approx(0.05)
        assert p_value(-edge * 1.01, units, 0.05, 10_000) < 0.05 < p_value(edge * 0.99, units, 0.05, 10_000)


def test_peeking_daily_raises_false_alarms_of_the_planned_interval_and_not_of_the_sequential_one() -> None:
    """3,000 tests without an effect, users coming evenly over 40 days, both intervals looked at every day."""
    rng = np.random.default_rng(6)
    trials, days, daily = 3_000, 40, 250
    gained = rng.normal(size=(trials, days)) * math.sqrt(daily)
    users = daily * np.arange(1, days + 1)
    z = gained.cumsum(axis=1) / np.sqrt(users)
    width = np.array([factor(n, 0.05, 10_000) for n in users])
    peeking, safe = (np.abs(z) > 1.96).any(axis=1).mean(), (np.abs(z) > width).any(axis=1).mean()
    assert peeking > 0.25
    assert safe <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / trials)
    assert (np.abs(z[:, -1]) > 1.96).mean() == pytest.approx(0.05, abs=0.013)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=7))
def test_holm_is_the_closed_test_of_bonferronis(p_values: list[float]) -> None:
    """A hypothesis is as significant as the least significant of all intersections that it is in."""
    found = adjusted(p_values, "holm")
    indices = range(len(p_values))
    for i in indices:
        families = [f for size in range(1, len(p_values) + 1) for f in itertools.combinations(indices, size) if i in f]
        closed = max(min(1.0, len(f) * min(p_values[j] for j in f)) for f in families)
        assert found[i] == pytest.approx(closed)
    assert adjusted(p_values, "none") == p_values
    m = len(p_values)
    by_hand = [min(m * p_values[j] / sum(q <= p_values[j] for q in p_values) for j in indices if p_values[j] >= p)
               for p in p_values]  # fmt: skip
    assert adjusted(p_values, "bh") == pytest.approx([min(1.0, p) for p in by_hand])


def test_a_split_is_judged_against_what_was_intended() -> None:
    assert split({"a": 5_000, "b": 5_050}, {}).p_value > 0.5
    off = split({"a": 5_000, "b": 5_400}, {})
    z = (5_400 - 5_200) / math.sqrt(10_400 / 4)
    assert off.p_value == pytest.approx(2 * stats.norm.sf(z))
    assert split({"a": 9_000, "b": 1_000}, {"a": 9, "b": 1}).p_value == pytest.approx(1.0)
    with pytest.raises(ValueError, match=r"online\.shares"):
        split({"a": 1, "b": 1}, {"a": 1, "c": 1})


def test_durations_give_the_power_that_was_asked_for() -> None:
    information = needed(0.2, 0.05, 0.8)
    assert information == pytest.approx((stats.norm.ppf(0.975) + stats.norm.ppf(0.8)) ** 2 / 0.04)
    peeking = needed_peeking(0.2, 0.05, 0.8, 3.0, 700)
    width = factor(3.0 * peeking, 0.05, 700)
    assert stats.norm.sf(width - 0.2 * math.sqrt(peeking)) == pytest.approx(0.8, abs=1e-6)
    assert days_until(10.0, [1.0, 2.0, 3.0]) == pytest.approx(10.0)
    assert days_until(2.5, [1.0, 2.0, 3.0]) == 3
    assert days_until(10.0, [1.0, 1.0, 1.0]) is None
    assert days_until(1e9, [1.0, 2.0]) is None
    assert days_until(10.0, [math.nan, 0.0, 0.0, 2.0, 4.0]) == pytest.approx(8.0)
