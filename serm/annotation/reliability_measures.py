"""Measures of agreement between annotators, and of an annotator with people. Pure."""

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import cohen_kappa_score

from serm.annotation.dawid_skene import NONE, Ints


def krippendorff_alpha(votes: Ints, classes: int, ordinal: bool) -> float | None:
    """Krippendorff's alpha of votes (units, annotators) from the coincidence matrix; None where it is undefined.

    K. Krippendorff, Computing Krippendorff's Alpha-Reliability, 2011: NONE is a missing value, and a unit with fewer
    than two votes pairs nothing. Undefined: nothing is paired, or all paired votes are the same.
    """
    counts = np.stack([(votes == label).sum(axis=1) for label in range(classes)], axis=1).astype(float)
    counts = counts[counts.sum(axis=1) > 1]
    weighted = counts / (counts.sum(axis=1, keepdims=True) - 1)
    coincidence = weighted.T @ counts - np.diag(weighted.sum(axis=0))
    margin = coincidence.sum(axis=1)
    total = margin.sum()
    distance = _distance(margin, ordinal)
    expected = float((np.outer(margin, margin) * distance).sum())
    return None if expected == 0 else 1 - (total - 1) * float((coincidence * distance).sum()) / expected


def _distance(margin: NDArray[np.float64], ordinal: bool) -> NDArray[np.float64]:
    """Squared differences (k, k): 1 between any two labels, or the ordinal ones, from the labels between."""
    if not ordinal:
        return 1 - np.eye(len(margin))
    middle = np.cumsum(margin) - margin / 2
    return np.asarray(np.subtract.outer(middle, middle) ** 2)


def kappa(truth: Ints, labels: Ints, classes: int, weights: str | None = None) -> float | None:
    """Cohen's kappa, plain or with `weights` "quadratic"; NONE is left out; None where it is undefined."""
    both = (truth != NONE) & (labels != NONE)
    if not both.any() or len(set(truth[both]) | set(labels[both])) < 2:
        return None
    return float(cohen_kappa_score(truth[both], labels[both], labels=list(range(classes)), weights=weights))
