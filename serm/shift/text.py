"""Text view: can a linear classifier tell the current window's queries from the reference's?

A classifier two-sample test (Lopez-Paz and Oquab, 2017) on query embeddings. Pooled out-of-fold scores are *not*
independent: every fold's test labels train the other folds' classifiers, which about doubles the variance of the
cross-validated AUC, so that a Mann-Whitney p-value on them is too small. We permute labels instead and refit for every
permutation, which is exact; a ridge classifier has a closed form, so that all refits are one matrix product (ours).
"""

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from serm.shift.report import View

FOLDS = 5
PERMUTATIONS = 999


def text_view(reference: NDArray[np.float32], current: NDArray[np.float32], seed: int) -> View:
    """Compare query embeddings (n, d) and (m, d), one row a search; effect = 2 (AUC - 1/2), at least 0."""
    auc, p_value = classifier_test(reference, current, seed)
    text = f"a classifier tells current from earlier queries with AUC {auc:.2f}"
    return View("text", max(0.0, 2 * auc - 1), p_value, len(reference), len(current), text)


def classifier_test(
    reference: NDArray[np.float32], current: NDArray[np.float32], seed: int, permutations: int = PERMUTATIONS
) -> tuple[float, float]:
    """The cross-validated AUC of a ridge classifier and its one-sided permutation p-value."""
    rng = np.random.default_rng(seed)
    features = np.concatenate([reference, current]).astype(np.float32)
    features -= features.mean(axis=0)  # label-free, so that it may look at the test folds
    truth = np.repeat([0, 1], [len(reference), len(current)]).astype(np.int8)
    folds = np.concatenate([rng.permutation(len(reference)) % FOLDS, rng.permutation(len(current)) % FOLDS])
    labels = np.repeat(truth[:, None], permutations + 1, axis=1)  # (n + m, 1 + permutations); column 0 is the truth
    for fold in range(FOLDS):  # permuted inside folds, so that every fold keeps its share of both windows
        inside = np.flatnonzero(folds == fold)
        labels[inside, 1:] = rng.permuted(labels[inside, 1:], axis=0)
    aucs = np.mean([_fold_auc(features, labels, folds == fold) for fold in range(FOLDS)], axis=0)
    exceeding = int((aucs[1:] >= aucs[0] - 1e-12).sum())
    return float(aucs[0]), (1 + exceeding) / (permutations + 1)


def _fold_auc(features: NDArray[np.float32], labels: NDArray[np.int8], test: NDArray[np.bool_]) -> NDArray[np.float64]:
    """AUC on the test fold of ridge classifiers trained on the rest: one for each column of labels."""
    train, held = features[~test], features[test]
    targets = labels[~test].astype(np.float32)
    targets -= targets.mean(axis=0)
    gram = train.T @ train
    # directions with less than the average variance are shrunk by more than half
    ridge = max(float(np.trace(gram)) / len(gram), 1e-6)
    weights = np.linalg.solve(gram + ridge * np.eye(len(gram), dtype=np.float32), train.T @ targets)
    ranks = rankdata(held @ weights, axis=0)  # (held, 1 + permutations)
    positive = labels[test].astype(bool)
    count = positive.sum(axis=0)
    u = (ranks * positive).sum(axis=0) - count * (count + 1) / 2
    return u / (count * (len(held) - count))
