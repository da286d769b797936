"""Intervals and tests over queries: how sure a mean, or a mean difference between two runs on the same queries, is.

The query is the unit that is drawn again, never the pair: documents of one query are not independent of each other.
Bootstrap intervals are of the percentile kind; the test flips the sign of each query's difference, which is exact when
the two runs are exchangeable (ours; the paper names no test).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.stats import false_discovery_control

BATCH_CELLS = 4_000_000  # resampled values held in memory at once


@dataclass(frozen=True)
class Interval:
    """A mean over n queries with its two-sided interval."""

    mean: float
    low: float
    high: float
    queries: int


def mean_interval(values: NDArray[np.float64], level: float, resamples: int, seed: int) -> Interval:
    """The mean of `values` (n,) and its bootstrap interval at confidence `level` in (0, 1).

    For the difference of two runs pass the per-query differences: the bootstrap is then paired. A value that is not
    finite makes all three figures NaN.

    Raises:
        ValueError: there are no values.
    """
    _demand(values)
    if not np.isfinite(values).all():
        return Interval(float("nan"), float("nan"), float("nan"), len(values))
    rng = np.random.default_rng(seed)
    means = np.concatenate(
        [values[rng.integers(0, len(values), (rows, len(values)))].mean(axis=1) for rows in _batches(resamples, values)]
    )
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(values.mean()), float(low), float(high), len(values))


def sign_flip_p(differences: NDArray[np.float64], resamples: int, seed: int) -> float:
    """One-sided p-value, in (0, 1], of the claim that the mean of per-query `differences` (n,) is above zero.

    Under the null each difference is as likely to have either sign; p = (1 + flips at least as extreme) / (1 + flips).

    Raises:
        ValueError: there are no differences, or one is not finite.
    """
    flips, slack = _flipped_sums(differences, resamples, seed)
    return float((1 + (flips >= differences.sum() - slack).sum()) / (1 + resamples))


def two_sided_p(differences: NDArray[np.float64], resamples: int, seed: int) -> float:
    """Two-sided p-value, in (0, 1], of the claim that the mean of per-query `differences` (n,) is not zero.

    As `sign_flip_p`, with a flip as extreme when its sum is at least as far from zero.

    Raises:
        ValueError: there are no differences, or one is not finite.
    """
    flips, slack = _flipped_sums(differences, resamples, seed)
    return float((1 + (np.abs(flips) >= abs(differences.sum()) - slack).sum()) / (1 + resamples))


def adjusted(p_values: Sequence[float], method: Literal["holm", "bh"]) -> list[float]:
    """P-values corrected for being many, in the order given; compare them with the level.

    holm: family-wise error under any dependence (Holm, 1979). bh: false discovery rate (Benjamini and Hochberg, 1995),
    as `scipy.stats.false_discovery_control` computes it.
    """
    p = np.asarray(p_values, dtype=np.float64)
    if method == "bh" or not len(p):
        return [float(value) for value in false_discovery_control(p)] if len(p) else []
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    result = np.empty(len(p))
    result[order] = np.minimum(stepped, 1.0)
    return [float(value) for value in result]


def _flipped_sums(differences: NDArray[np.float64], resamples: int, seed: int) -> tuple[NDArray[np.float64], float]:
    """Sums of the differences under `resamples` random signs, and by how much rounding alone may move a sum."""
    _demand(differences)
    if not np.isfinite(differences).all():
        raise ValueError("a difference that is not a finite number cannot be tested")
    rng = np.random.default_rng(seed)
    sums = [
        (rng.integers(0, 2, (rows, len(differences)), dtype=np.int8) * 2 - 1) @ differences
        for rows in _batches(resamples, differences)
    ]
    return np.concatenate(sums), float(1e-9 * np.abs(differences).sum())


def _demand(values: NDArray[np.float64]) -> None:
    if values.ndim != 1 or not len(values):
        raise ValueError("intervals and tests need a one-dimensional array with at least one query")


def _batches(resamples: int, values: NDArray[np.float64]) -> Iterator[int]:
    """Row counts that add up to `resamples`, each small enough to hold in memory."""
    rows = max(1, BATCH_CELLS // len(values))
    for start in range(0, resamples, rows):
        yield min(rows, resamples - start)
