"""Text view: can a linear classifier tell the current window's queries from the reference's?

A classifier two-sample test (Lopez-Paz and Oquab, 2017) on query embeddings. Pooled out-of-fold scores are *not*
independent: every fold's test labels train the other folds' classifiers, which about doubles the variance of the
cross-validated AUC, so that a Mann-Whitney p-value on them is too small. We permute labels instead and refit for every
permutation, which is exact; a ridge classifier has a closed form, so that all refits are one matrix product (ours).
"""

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from serm.shift.permutation import permutation_test
from serm.shift.report import View

FOLDS = 5


def text_view(reference: NDArray[np.float32], current: NDArray[np.float32], seed: int) -> View:
    """Compare query embeddings (n, d) and (m, d), one row a search; effect = 2 (AUC - 1/2), at least 0."""
    auc, p_value = classifier_test(reference, current, seed)
    text = f"a classifier tells current from earlier queries with AUC {auc:.2f}"
    return View("text", max(0.0, 2 * auc - 1), p_value, len(reference), len(current), text)


def classifier_test(reference: NDArray[np.float32], current: NDArray[np.float32], seed: int) -> tuple[float, float]:
    """The cross-validated AUC of a ridge classifier and its one-sided permutation p-value."""
    rng = np.random.default_rng(seed)
    features = np.concatenate([reference, current]).astype(np.float32)
    features -= features.mean(axis=0)  # label-free, so that it may look at the test folds
    truth = np.repeat([0, 1], [len(reference), len(current)]).astype(np.int8)
    folds = np.concatenate([rng.permutation(len(reference)) % FOLDS, rng.permutation(len(current)) % FOLDS])
    inverses = [_inverse(features[folds != fold]) for fold in range(FOLDS)]

    def aucs(labels: NDArray[np.int8]) -> NDArray[np.float64]:
        scores = [_fold_auc(features, labels, folds == fold, inverses[fold]) for fold in range(FOLDS)]
        mean: NDArray[np.float64] = np.mean(scores, axis=0)
        return mean

    # permuted inside folds, so that every fold keeps its share of both windows
    return permutation_test(aucs, truth, folds, rng)


def _inverse(train: NDArray[np.float32]) -> NDArray[np.float32]:
    """(X'X + ridge I)^-1, (d, d): a ridge regression's weights are this times X'y."""
    gram = train.T @ train
    # directions with less than the average variance are shrunk by more than half
    ridge = max(float(np.trace(gram)) / len(gram), 1e-6)
    return np.linalg.inv(gram + ridge * np.eye(len(gram), dtype=np.float32)).astype(np.float32)


def _fold_auc(
    features: NDArray[np.float32], labels: NDArray[np.int8], test: NDArray[np.bool_], inverse: NDArray[np.float32]
) -> NDArray[np.float64]:
    """AUC on the test fold of ridge classifiers trained on the rest: one for each column of labels."""
    train, held = features[~test], features[test]
    targets = labels[~test].astype(np.float32)
    targets -= targets.mean(axis=0)
    ranks = rankdata(held @ (inverse @ (train.T @ targets)), axis=0)  # (held, columns)
    positive = labels[test].astype(bool)
    count = positive.sum(axis=0)
    u = (ranks * positive).sum(axis=0) - count * (count + 1) / 2
    return u / (count * (len(held) - count))
