"""The permutation test and the kernel view: brute force, a closed form, uniform p-values."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.spatial.distance import pdist
from scipy.stats import kstest

from serm.shift.kernel import gram, kernel_view, mmd_squared, mmd_test
from serm.shift.permutation import permutation_test
from serm.shift.text import classifier_test


def normal(seed: int, size: int, dimensions: int, shift: float = 0.0) -> NDArray[np.float32]:
    points = np.random.default_rng(seed).normal(size=(size, dimensions))
    points[:, 0] += shift
    return points.astype(np.float32)


def test_mmd_is_the_double_sum() -> None:
    x, y = normal(0, 7, 3), normal(1, 9, 3, 1.0)
    width = np.median(pdist(np.concatenate([x, y])))

    def k(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
        return float(np.exp(-((a - b) ** 2).sum() / (2 * width**2)))

    inside = [np.mean([k(s[i], s[j]) for i in range(len(s)) for j in range(len(s)) if i != j]) for s in (x, y)]
    across = np.mean([k(a, b) for a in x for b in y])
    squared, _, reference = mmd_test(x, y, 0)
    assert squared == pytest.approx(sum(inside) - 2 * across, abs=1e-5)
    assert reference == pytest.approx(inside[0], abs=1e-5)
    # a column of other labels is the same as other samples
    labels = np.random.default_rng(2).permutation(np.repeat([0, 1], [7, 9])).astype(np.int8)
    both = np.concatenate([x, y])
    kernel = gram(both)
    first, second = both[labels == 0], both[labels == 1]
    inside = [np.mean([k(s[i], s[j]) for i in range(len(s)) for j in range(len(s)) if i != j]) for s in (first, second)]
    expected = sum(inside) - 2 * np.mean([k(a, b) for a in first for b in second])
    assert mmd_squared(kernel, np.stack([labels, labels], axis=1)) == pytest.approx([expected] * 2, abs=1e-5)


def test_mmd_approaches_the_closed_form_of_two_gaussians() -> None:
    """x - y is N(delta, 2I), so that E k = c exp(-delta^2 / 2(w^2 + 2)) with c = (w^2 / (w^2 + 2))^(d/2)."""
    d, delta = 4, 1.5
    x, y = normal(0, 1_200, d), normal(1, 1_200, d, delta)
    w2 = np.median(pdist(np.concatenate([x, y]))) ** 2
    expected = 2 * (w2 / (w2 + 2)) ** (d / 2) * (1 - np.exp(-(delta**2) / (2 * (w2 + 2))))
    squared, p_value, inside = mmd_test(x, y, 0)
    assert squared == pytest.approx(expected, rel=0.05)
    assert inside == pytest.approx((w2 / (w2 + 2)) ** (d / 2), rel=0.02)
    assert p_value == 0.001


@pytest.mark.parametrize("share", [0.1, 0.3])
def test_kernel_effect_does_not_exceed_the_share_of_other_searches(share: float) -> None:
    """A share of the current points from far away; the effect is a lower bound of it, and most of it."""
    size = 1_500
    x, y = normal(0, size, 4), normal(1, size, 4)
    y[: round(share * size)] += 30
    view = kernel_view(x, y, 0)
    assert view.effect is not None
    assert 0.5 * share < view.effect < 1.05 * share


@pytest.mark.parametrize("test", [classifier_test, mmd_test])
def test_p_values_are_uniform_when_nothing_differs(test: object) -> None:
    p_values = []
    for seed in range(150):
        points = normal(seed, 40, 6)
        p_values.append(test(points[:20], points[20:], seed)[1])  # type: ignore[operator]
    assert kstest(p_values, "uniform").pvalue > 0.01
    assert np.mean(np.array(p_values) <= 0.05) <= 0.1  # Binomial(150, 0.05) exceeds 15 with probability 0.004


def test_stopping_early_leaves_small_p_values_as_they_are() -> None:
    """The mean of the ones against that of the zeros: stopped or not, p agrees with many permutations of our own."""
    rng = np.random.default_rng(0)
    asked: list[int] = []

    def compare(values: NDArray[np.float64]) -> float:
        """p by the test; it agrees with 4,000 permutations of our own."""
        asked.clear()

        def statistic(labels: NDArray[np.int8]) -> NDArray[np.float64]:
            asked.append(labels.shape[1])
            return (values @ labels).astype(np.float64)

        truth = np.repeat([0, 1], 30).astype(np.int8)
        observed, p_value = permutation_test(statistic, truth, np.zeros(60, dtype=np.int64), np.random.default_rng(1))
        draws = np.array([values[rng.permutation(60)[:30]].sum() for _ in range(4_000)])
        expected = float(np.mean(draws >= observed))
        spread = np.sqrt(expected * (1 - expected) / (99 if len(asked) == 1 else 999))
        assert p_value == pytest.approx(expected, abs=4 * spread + 0.002)
        return p_value

    assert compare(np.arange(60.0) % 30) > 0.1  # both halves are equal
    assert asked == [100]
    assert compare(rng.normal(size=60) + np.repeat([0.0, 0.7], 30)) < 0.05
    assert asked == [100, 900]


def test_permutations_keep_strata() -> None:
    truth = np.array([1, 0, 0, 0, 1, 1, 1, 0], dtype=np.int8)
    strata = np.repeat([0, 1], 4)

    def statistic(labels: NDArray[np.int8]) -> NDArray[np.float64]:
        assert (labels[:4].sum(axis=0) == 1).all()
        assert (labels[4:].sum(axis=0) == 3).all()
        return labels[0].astype(np.float64)

    permutation_test(statistic, truth, strata, np.random.default_rng(0))


def test_repeated_queries_do_not_collapse_the_bandwidth() -> None:
    points = np.concatenate([np.repeat(normal(0, 1, 3), 30, axis=0), normal(1, 6, 3)])
    assert 0.05 < gram(points)[30:, 30:][np.triu_indices(6, 1)].mean() < 0.95
    assert (gram(np.ones((5, 3), dtype=np.float32)) == 1 - np.eye(5)).all()
