"""Which of the united pairs fill the budget: coverage of query clusters, caps per query, no near-duplicates (ours)."""

from collections.abc import Iterable

import numpy as np
import polars as pl
from numpy.typing import NDArray

from serm.config import MiningSettings
from serm.shift import Cluster


def cluster_quotas(clusters: Iterable[Cluster], budget: int, settings: MiningSettings) -> dict[int, int]:
    """How many pairs each query cluster may count on: `coverage` of the budget, in proportion to its traffic.

    Clusters that grew weigh `grown_weight` times as much. Largest remainders make the quotas sum to round(coverage x
    budget).
    """
    clusters = list(clusters)
    weights = np.array([c.share_current * (settings.grown_weight if c.grown else 1.0) for c in clusters])
    if not clusters or weights.sum() == 0:
        return {}
    exact = round(settings.coverage * budget) * weights / weights.sum()
    quotas = np.floor(exact).astype(int)
    left = round(settings.coverage * budget) - int(quotas.sum())
    quotas[np.argsort(quotas - exact, kind="stable")[:left]] += 1
    return {cluster.id: int(quota) for cluster, quota in zip(clusters, quotas, strict=True)}


def pair_vectors(queries: NDArray[np.float32], titles: NDArray[np.float32]) -> NDArray[np.float32]:
    """One unit vector a pair (n, 2d) from unit vectors of its query and title: cosine = mean of the two cosines.

    Queries and titles repeat over pairs, so that far fewer texts are embedded than there are pairs.
    """
    return np.ascontiguousarray(np.concatenate([queries, titles], axis=1) / np.sqrt(2), dtype=np.float32)


def near_duplicates(vectors: NDArray[np.float32], similarity: float) -> list[NDArray[np.int64]]:
    """For every row the other rows whose cosine with it exceeds `similarity`, by faiss."""
    import faiss

    index = faiss.IndexFlatIP(vectors.shape[1])
    index.add(vectors)
    limits, _, neighbours = index.range_search(vectors, similarity)
    bounds = limits.astype(np.int64)
    found = (neighbours[bounds[row] : bounds[row + 1]] for row in range(len(vectors)))
    return [others[others != row] for row, others in enumerate(found)]


def pick(
    order: list[int], queries: list[str], clusters: list[int] | None, duplicates: list[NDArray[np.int64]],
    quotas: dict[int, int], budget: int, per_query: int,
) -> list[int]:  # fmt: skip
    """Rows to take, at most `budget`, in the order they were picked.

    First every cluster's quota is filled in `order`, then the rest of the budget, whatever the cluster. A row is passed
    over when its query has `per_query` rows already or a near-duplicate of it was taken.
    """
    taken: list[int] = []
    is_taken = np.zeros(len(order), dtype=bool)
    of_query: dict[str, int] = {}

    def take(row: int) -> bool:
        query = queries[row]
        if is_taken[row] or of_query.get(query, 0) >= per_query or is_taken[duplicates[row]].any():
            return False
        of_query[query] = of_query.get(query, 0) + 1
        is_taken[row] = True
        taken.append(row)
        return True

    if clusters is not None:
        room = dict(quotas)
        for row in order:
            if room.get(clusters[row], 0) > 0 and len(taken) < budget and take(row):
                room[clusters[row]] -= 1
    for row in order:
        if len(taken) == budget:
            break
        take(row)
    return taken


def random_pairs(candidates: pl.DataFrame, budget: int, seed: int) -> pl.DataFrame:
    """`budget` candidates drawn uniformly, the baseline that mining is measured against; columns as in `mined`.

    Equal candidates and seed give equal pairs, whatever the order of rows.
    """
    ordered = candidates.sort("query", "doc_id")
    rows = np.random.default_rng(seed).permutation(ordered.height)[:budget]
    return ordered[np.sort(rows)].select(
        "query", "doc_id", "locale", agents=pl.lit(["random"]), reason=pl.lit("drawn at random")
    )
