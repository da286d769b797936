"""How reliable each annotator is, by EM over votes alone or with human anchors, and Bayes' posterior over the labels.

A. P. Dawid and A. M. Skene, Maximum likelihood estimation of observer error-rates using the EM algorithm, 1979. Ours:
Dirichlet pseudo-counts, anchors clamped, pseudo-counts that fall with distance on an ordinal scale, and a discount for
annotators that err together.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

NONE = -1  # no vote, no anchor
ITERATIONS = 200
TOLERANCE = 1e-9

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Reliability:
    """What is known of m annotators on k labels."""

    prior: Floats  # (k,) P(true label) of a pair that nobody has seen yet
    confusion: Floats  # (m, k, k) P(vote | true label)
    correlation: float  # 0..1, mean over pairs of annotators of the correlation of being right

    def posterior(self, votes: Ints) -> Floats:
        """P(true label | votes), shape (n, k), for votes (n, m) that are indices of labels or NONE.

        Every vote's log-likelihood is weighted by 1 / (1 + (votes - 1) * correlation), the design effect of a cluster
        sample (Kish 1965): annotators that err together count as fewer. A vote that is NONE says nothing.
        """
        given = votes != NONE
        log = np.log(self.confusion)
        likelihood = np.zeros((len(votes), len(self.prior)))
        for annotator in range(votes.shape[1]):
            rows = np.flatnonzero(given[:, annotator])
            likelihood[rows] += log[annotator][:, votes[rows, annotator]].T
        discount = 1 / (1 + np.maximum(given.sum(axis=1) - 1, 0) * self.correlation)
        return _softmax(np.log(self.prior) + discount[:, None] * likelihood)


def fit(
    votes: Ints, classes: int, anchors: Ints | None = None, smoothing: float = 1.0, ordinal: bool = False,
    in_prior: NDArray[np.bool_] | None = None,
) -> Reliability:  # fmt: skip
    """Fit to votes (n, m) with true labels (n,) where `anchors` is not NONE.

    `smoothing` pseudo-counts a cell on average; with `ordinal` they fall by e per grade of distance, row sums equal.
    The prior is counted over the rows of `in_prior` (default all): a sample drawn evenly over the grades has none to
    tell. Where no row is in it, the prior is uniform.
    """
    anchors = np.full(len(votes), NONE) if anchors is None else anchors
    in_prior = np.ones(len(votes), bool) if in_prior is None else in_prior
    pseudo = pseudo_counts(classes, smoothing, ordinal)
    truth = _clamp(vote_shares(votes, classes), anchors)
    model = maximise(votes, truth, pseudo, in_prior)
    for _ in range(ITERATIONS):
        truth = _clamp(model.posterior(votes), anchors)
        after = maximise(votes, truth, pseudo, in_prior)
        change = max(np.abs(after.confusion - model.confusion).max(), np.abs(after.prior - model.prior).max())
        model = after
        if change < TOLERANCE:
            break
    known = anchors != NONE
    certain = truth[known] if known.any() else truth
    return Reliability(model.prior, model.confusion, _correlation(votes[known] if known.any() else votes, certain))


def maximise(votes: Ints, truth: Floats, pseudo: Floats, in_prior: NDArray[np.bool_]) -> Reliability:
    """One M step: expected counts of (true label, vote) per annotator with pseudo-counts, and the prior."""
    classes = truth.shape[1]
    confusion = np.empty((votes.shape[1], classes, classes))
    for annotator in range(votes.shape[1]):
        rows = votes[:, annotator] != NONE
        counts = truth[rows].T @ np.eye(classes)[votes[rows, annotator]] + pseudo
        confusion[annotator] = counts / counts.sum(axis=1, keepdims=True)
    prior = truth[in_prior].sum(axis=0) + 1
    return Reliability(prior / prior.sum(), confusion, 0.0)


def pseudo_counts(classes: int, smoothing: float, ordinal: bool) -> Floats:
    """Pseudo-counts (k, k), rows by true label, that sum to smoothing * k in every row."""
    if not ordinal:
        return np.full((classes, classes), smoothing)
    near = np.exp(-np.abs(np.subtract.outer(np.arange(classes), np.arange(classes))).astype(float))
    return np.asarray(smoothing * classes * near / near.sum(axis=1, keepdims=True))


def vote_shares(votes: Ints, classes: int) -> Floats:
    """The share of a pair's votes for each label, shape (n, k); uniform where nobody voted. EM starts here."""
    counts = np.stack([(votes == label).sum(axis=1) for label in range(classes)], axis=1).astype(float)
    total = counts.sum(axis=1, keepdims=True)
    return np.where(total > 0, counts / np.maximum(total, 1), 1 / classes)


def _correlation(votes: Ints, truth: Floats) -> float:
    """Mean correlation, over pairs of annotators, of the probability that their votes are right; 0 if negative."""
    rows = np.arange(len(votes))
    found: list[float] = []
    for one in range(votes.shape[1]):
        for other in range(one):
            both = (votes[:, one] != NONE) & (votes[:, other] != NONE)
            right = [truth[rows[both], votes[both, annotator]] for annotator in (one, other)]
            if both.sum() > 2 and all(np.ptp(values) > 0 for values in right):
                found.append(float(np.corrcoef(*right)[0, 1]))
    return float(np.clip(np.mean(found), 0, 1)) if found else 0.0


def _clamp(truth: Floats, anchors: Ints) -> Floats:
    known = anchors != NONE
    clamped = truth.copy()
    clamped[known] = np.eye(truth.shape[1])[anchors[known]]
    return clamped


def _softmax(log: Floats) -> Floats:
    shifted = np.exp(log - log.max(axis=1, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=1, keepdims=True))
