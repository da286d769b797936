"""Coverage: rows that stand for the others, by facility location on embeddings."""

import heapq
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

MOST = 4_000  # pairs that coverage chooses among: their similarities take 64 MB


def similarities(vectors: NDArray[np.float32], others: NDArray[np.float32]) -> NDArray[np.float32]:
    """Cosines of unit vectors, negative ones as 0: (n, d), (m, d) -> (n, m)."""
    return np.maximum(vectors @ others.T, 0.0)


def facility_location(
    similarity: NDArray[np.float32],
    weights: NDArray[np.float64],
    number: int,
    covered: NDArray[np.float32] | None = None,
    take: Callable[[int], bool] | None = None,
) -> list[int]:
    """Rows chosen greedily for F(S) = sum_i w_i max_{j in S} s_ij, at most `number`, in the order they were chosen.

    F is monotone and submodular, so that the greedy choice reaches 1 - 1/e of the best F or more (Nemhauser et al.,
    1978), as long as `take` refuses nothing; lazy evaluation (Minoux, 1978) gives the same rows for fewer gains. Memory
    is O(n^2); time O(n^2) for the first gains and O(n) for each later one, n * number of them at worst and a few per
    chosen row as a rule.

    Args:
        similarity: (n, n), 0 or more; column j is what j does for the others.
        weights: (n,) how much it matters that a row is covered, 0 or more.
        number: rows to choose.
        covered: (n,) what each row has already; 0 if absent.
        take: asked before a row is chosen; a row that it refuses is passed over.
    """
    has = np.zeros(len(weights)) if covered is None else covered.astype(np.float64)
    columns = np.ascontiguousarray(similarity.T)

    def gain(row: int) -> float:
        return float(weights @ np.maximum(columns[row] - has, 0.0))

    heap = [(-gain(row), row) for row in range(len(weights))]
    heapq.heapify(heap)
    chosen: list[int] = []
    while heap and len(chosen) < number:
        _, row = heapq.heappop(heap)
        fresh = gain(row)
        if heap and (-fresh, row) > heap[0]:
            heapq.heappush(heap, (-fresh, row))
        elif take is None or take(row):
            has = np.maximum(has, columns[row])
            chosen.append(row)
    return chosen
