"""Kernel view: the maximum mean discrepancy between the two windows' query embeddings, by permutations.

Unbiased MMD^2 (Gretton et al., 2012, equation 3) with a Gaussian kernel whose bandwidth is the median distance. One
Gram matrix serves all permutations: with labels z, sum_xx = z' K z and the rest follows from row sums.
"""

import numpy as np
from numpy.typing import NDArray

from serm.shift.permutation import permutation_test
from serm.shift.report import View


def kernel_view(reference: NDArray[np.float32], current: NDArray[np.float32], seed: int) -> View:
    """Compare query embeddings (n, d) and (m, d), one row a search.

    Effect = MMD / sqrt(1 + mean k inside the reference). If a share of the searches is of another kind, MMD is that
    share times the distance of the two kinds, which for a kernel in 0..1 is no more than that root; so the effect does
    not exceed the share (ours).
    """
    squared, p_value, inside = mmd_test(reference, current, seed)
    effect = float(np.sqrt(max(0.0, squared) / (1 + inside)))
    return View(
        "kernel", effect, p_value, len(reference), len(current), f"queries lie apart by an MMD² of {squared:.4f}"
    )


def mmd_test(reference: NDArray[np.float32], current: NDArray[np.float32], seed: int) -> tuple[float, float, float]:
    """Unbiased MMD^2, its one-sided permutation p-value, and the reference's mean kernel value over pairs."""
    kernel = gram(np.concatenate([reference, current]))
    truth = np.repeat([0, 1], [len(reference), len(current)]).astype(np.int8)
    strata = np.zeros(len(truth), dtype=np.int64)

    def statistic(labels: NDArray[np.int8]) -> NDArray[np.float64]:
        return mmd_squared(kernel, labels)

    squared, p_value = permutation_test(statistic, truth, strata, np.random.default_rng(seed))
    n = len(reference)
    inside = float(kernel[:n, :n].sum(dtype=np.float64)) / (n * (n - 1))
    return squared, p_value, inside


def gram(points: NDArray[np.float32]) -> NDArray[np.float32]:
    """k(x, y) = exp(-|x - y|^2 / (2 m^2)), m the median distance of two points: (n, n), with a diagonal of 0.

    Points that are equal, as repeated queries are, do not count in the median.
    """
    lengths = (points**2).sum(axis=1)
    squares = np.maximum(lengths[:, None] + lengths - 2 * points @ points.T, 0).astype(np.float32)
    apart = squares[np.triu_indices(len(points), 1)]
    apart = apart[apart > 1e-6]
    kernel = np.exp(squares / np.float32(-2 * (np.median(apart) if len(apart) else 1.0)))
    np.fill_diagonal(kernel, 0)
    return kernel


def mmd_squared(kernel: NDArray[np.float32], labels: NDArray[np.int8]) -> NDArray[np.float64]:
    """Unbiased MMD^2 for every column of labels (n, k), from a Gram matrix (n, n) with a diagonal of 0."""
    chosen = labels.astype(np.float32)
    products = kernel @ chosen  # (n, k)
    ones = np.einsum("nk,nk->k", chosen, products, dtype=np.float64)
    across = products.sum(axis=0, dtype=np.float64) - ones
    zeros = kernel.sum(dtype=np.float64) - ones - 2 * across
    m = labels.sum(axis=0, dtype=np.int64)
    n = len(labels) - m
    return ones / (m * (m - 1)) + zeros / (n * (n - 1)) - 2 * across / (m * n)
