"""Calibration errors against brute force over pairs, scikit-learn, and probabilities whose calibration is known."""

import math

import numpy as np
import pytest
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss, log_loss

from serm.evaluation.calibration import (
    apply_temperature,
    calibrate,
    equal_mass,
    equal_width,
    fit_temperature,
    measure,
    reliability,
)

SCALE = [0, 1, 3]


def drawn(pairs: int, temperature: float, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Probabilities too sure by `temperature`, places of the labels drawn from the honest ones, query numbers."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 1.5, (pairs, 3))
    honest = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    y = np.array([rng.choice(3, p=row) for row in honest])
    sure = np.exp(logits * temperature)
    return sure / sure.sum(axis=1, keepdims=True), y, np.sort(rng.integers(0, pairs // 8, pairs))


def brute_ece(confidence: np.ndarray, right: np.ndarray, groups: list[np.ndarray]) -> float:
    return sum(
        len(g) / len(right) * abs(sum(right[i] for i in g) / len(g) - sum(confidence[i] for i in g) / len(g))
        for g in groups if len(g)
    )  # fmt: skip


def widths(confidence: np.ndarray, bins: int) -> list[np.ndarray]:
    """Pair numbers with lower < confidence <= upper, bin by bin."""
    return [
        np.array([i for i, c in enumerate(confidence) if b / bins < c <= (b + 1) / bins], dtype=int)
        for b in range(bins)
    ]


def test_errors_equal_brute_force_and_scikit_learn() -> None:
    p, y, query = drawn(400, 2.0, 0)
    found = measure(p, y, query, SCALE, 10, 0.95, 100, 0)
    top, right = p.max(axis=1), (p.argmax(axis=1) == y).astype(float)
    assert found.ece.mean == pytest.approx(brute_ece(top, right, widths(top, 10)))
    masses = np.array_split(np.argsort(top), 10)  # 400 pairs: forty in each
    assert found.ece_adaptive.mean == pytest.approx(brute_ece(top, right, masses))
    own = [brute_ece(p[:, k], (y == k).astype(float), widths(p[:, k], 10)) for k in range(3)]
    assert [found.by_label[grade].mean for grade in SCALE] == pytest.approx(own)
    assert found.classwise.mean == pytest.approx(np.mean(own))
    assert found.brier.mean == pytest.approx(sum(brier_score_loss(y == k, p[:, k]) for k in range(3)))
    assert found.nll.mean == pytest.approx(log_loss(y, p))
    assert found.ece.queries == len(np.unique(query))


def test_reliability_equals_scikit_learns_curve() -> None:
    p, y, _ = drawn(500, 1.0, 1)
    bins = reliability(p[:, 1], y == 1, 8)
    share, mean = calibration_curve(y == 1, p[:, 1], n_bins=8)
    assert [each.accuracy for each in bins] == pytest.approx(share)
    assert [each.confidence for each in bins] == pytest.approx(mean)
    assert sum(each.pairs for each in bins) == 500


def test_bins_at_their_edges() -> None:
    edges = np.array([0.0, 0.1, 0.1000001, 0.5, 1.0])
    assert equal_width(edges, 10).tolist() == [0, 0, 1, 4, 9]
    assert equal_mass(np.array([0.3, 0.3, 0.3, 0.9, 0.1, 0.3]), 3).tolist() == [0, 0, 0, 2, 0, 0]


def test_intervals_equal_a_bootstrap_over_whole_queries() -> None:
    p, y, query = drawn(240, 1.5, 2)
    found = measure(p, y, query, SCALE, 5, 0.9, 4_000, 0).brier
    errors = ((p - np.eye(3)[y]) ** 2).sum(axis=1)
    rows = [np.flatnonzero(query == q) for q in np.unique(query)]
    rng = np.random.default_rng(9)
    means = []
    for _ in range(4_000):
        chosen = np.concatenate([rows[i] for i in rng.integers(0, len(rows), len(rows))])
        means.append(errors[chosen].mean())
    width = found.high - found.low
    assert [found.low, found.high] == pytest.approx(np.quantile(means, [0.05, 0.95]), abs=0.06 * width)


def test_the_temperature_is_recovered_and_mends_calibration() -> None:
    p, y, query = drawn(6_000, 2.5, 3)
    temperature = fit_temperature(p, y)
    assert temperature == pytest.approx(2.5, rel=0.06)
    grid = [log_loss(y, apply_temperature(p, t)) for t in np.linspace(0.5, 6, 111)]
    assert log_loss(y, apply_temperature(p, temperature)) <= min(grid) + 1e-6
    honest, own, numbers = drawn(6_000, 1.0, 4)
    assert fit_temperature(honest, own) == pytest.approx(1.0, rel=0.06)
    before = measure(p, y, query, SCALE, 15, 0.95, 100, 0).ece
    after = measure(apply_temperature(p, temperature), y, query, SCALE, 15, 0.95, 100, 0).ece
    assert after.mean < 0.3 * before.mean
    assert measure(honest, own, numbers, SCALE, 15, 0.95, 100, 0).ece.mean < 0.03
    np.testing.assert_array_equal(apply_temperature(p, 3.0).argmax(axis=1), p.argmax(axis=1))
    np.testing.assert_allclose(apply_temperature(p, 1.0), p, atol=1e-12)


def test_what_cannot_be_calibrated_says_why() -> None:
    p, y, query = drawn(40, 1.0, 5)
    grades = np.array(SCALE)[y]
    common = (None, 10, 0.95, 100, 0)
    assert calibrate("fresh", p[:0], grades[:0], query[:0], SCALE, *common).note == "no judged pairs"
    broken = p.copy()
    broken[3, 1] = math.nan
    assert "of 1 pairs are not numbers" in calibrate("fresh", broken, grades, query, SCALE, *common).note
    assert fit_temperature(broken, y) is None
    odd = grades.copy()
    odd[:5] = 2  # the median of two people; no such label
    found = calibrate("fresh", p, odd, query, SCALE, *common)
    assert found.pairs == 35
    assert found.figures is not None
    assert found.tempered is None
