"""Which of the united pairs fill the budget: clusters' quotas, caps, no near-duplicates, coverage (ours)."""

import math
from collections.abc import Iterable, Sequence

import numpy as np
import polars as pl
from numpy.typing import NDArray

from serm.config import MiningSettings
from serm.mining.coverage import MOST, facility_location, similarities
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


class Basket:
    """The rows taken so far; a row is refused for the caps of its query and cluster, or a near-duplicate taken."""

    def __init__(
        self, queries: Sequence[str], clusters: Sequence[int] | None, duplicates: list[NDArray[np.int64]],
        per_query: int, per_cluster: int,
    ) -> None:  # fmt: skip
        """All sequences have one entry a row; `duplicates` lists each row's near-duplicates."""
        self.queries, self.clusters, self.duplicates = queries, clusters, duplicates
        self.per_query, self.per_cluster = per_query, per_cluster
        self.taken: list[int] = []
        self.is_taken = np.zeros(len(queries), dtype=bool)
        self.of_query: dict[str, int] = {}
        self.of_cluster: dict[int, int] = {}

    def refusal(self, row: int) -> tuple[str, int | None]:
        """What holds a row back, as a stage of `serm.records.STAGES` ("budget": nothing), and its taken duplicate."""
        if self.of_query.get(self.queries[row], 0) >= self.per_query:
            return "query cap", None
        twins = self.duplicates[row]
        if self.is_taken[twins].any():
            return "duplicate", int(twins[self.is_taken[twins]].min())
        if self.clusters is not None and self.of_cluster.get(self.clusters[row], 0) >= self.per_cluster:
            return "cluster cap", None
        return "budget", None

    def take(self, row: int) -> bool:
        """Take a row unless it is taken or refused."""
        if self.is_taken[row] or self.refusal(row)[0] != "budget":
            return False
        self.force(row)
        return True

    def force(self, row: int) -> None:
        """Take a row, whatever the caps; it counts towards them."""
        self.is_taken[row] = True
        self.taken.append(row)
        self.of_query[self.queries[row]] = self.of_query.get(self.queries[row], 0) + 1
        if self.clusters is not None:
            self.of_cluster[self.clusters[row]] = self.of_cluster.get(self.clusters[row], 0) + 1

    def tell(self, rows: pl.DataFrame) -> pl.DataFrame:
        """Add pick (place in which it was taken, null if not), stage, duplicate_query and duplicate_doc_id."""
        place: list[int | None] = [None] * rows.height
        for number, row in enumerate(self.taken):
            place[row] = number
        fates = [("taken", None) if taken else self.refusal(row) for row, taken in enumerate(self.is_taken)]
        stages = pl.Series("stage", [stage for stage, _ in fates], dtype=pl.String)
        if "stage" in rows.columns:
            stages = rows["stage"].fill_null(stages)
        twins = pl.Series([twin for _, twin in fates], dtype=pl.UInt32)
        return rows.with_columns(
            pl.Series("pick", place, dtype=pl.UInt32),
            stages.alias("stage"),
            rows["query"].gather(twins).alias("duplicate_query"),
            rows["doc_id"].gather(twins).alias("duplicate_doc_id"),
        )


def pick(
    basket: Basket, order: Sequence[int], budget: int, quotas: dict[int, int], facility: float = 1.0,
    vectors: NDArray[np.float32] | None = None, priority: NDArray[np.float64] | None = None,
) -> None:  # fmt: skip
    """Fill the basket up to `budget` rows.

    First every cluster's quota is filled in `order`. With `facility` 1 the rest is filled in `order` too; else it is
    chosen among the next `facility` times as many rows (MOST at most) that the basket would take, so that what is taken
    covers them: facility location on `vectors`, each row weighing its `priority`, given what the quotas took. Where
    caps leave that short, `order` has the last word.
    """
    room = dict(quotas) if basket.clusters is not None else {}
    for row in order:
        cluster = basket.clusters[row] if basket.clusters is not None else -1
        if room.get(cluster, 0) > 0 and len(basket.taken) < budget and basket.take(row):
            room[cluster] -= 1
    rest = budget - len(basket.taken)
    if facility > 1 and rest > 0 and vectors is not None and priority is not None:
        open_rows = [row for row in order if not basket.is_taken[row] and basket.refusal(row)[0] == "budget"]
        pool = np.array(open_rows[: min(MOST, math.ceil(facility * rest))], dtype=np.int64)
        covered = _covered(vectors[pool], vectors[basket.taken])
        similarity = similarities(vectors[pool], vectors[pool])
        facility_location(similarity, priority[pool], rest, covered, lambda place: basket.take(int(pool[place])))
    for row in order:
        if len(basket.taken) >= budget:
            break
        basket.take(row)


def _covered(vectors: NDArray[np.float32], taken: NDArray[np.float32], block: int = 2_048) -> NDArray[np.float32]:
    """Each row's largest similarity to what is taken, in blocks: (n,)."""
    best = np.zeros(len(vectors), dtype=np.float32)
    for start in range(0, len(taken), block):
        np.maximum(best, similarities(vectors, taken[start : start + block]).max(axis=1), out=best)
    return best


def random_pairs(candidates: pl.DataFrame, budget: int, seed: int) -> pl.DataFrame:
    """`budget` candidates drawn uniformly, the baseline that mining is measured against; columns as in `mined`.

    Equal candidates and seed give equal pairs, whatever the order of rows.
    """
    ordered = candidates.sort("query", "doc_id")
    rows = np.random.default_rng(seed).permutation(ordered.height)[:budget]
    return ordered[np.sort(rows)].select(
        "query", "doc_id", "locale", agents=pl.lit(["random"]), reason=pl.lit("drawn at random")
    )
