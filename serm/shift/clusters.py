"""Clusters of alike queries, and which of them grew."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.stats import false_discovery_control, hypergeom

from serm.config import ShiftSettings
from serm.shift.report import Cluster, View

EXAMPLES = 4


def query_clusters(
    reference: list[str],
    current: list[str],
    vectors: dict[str, NDArray[np.float32]],
    settings: ShiftSettings,
    seed: int,
) -> tuple[tuple[Cluster, ...], NDArray[np.float32]]:
    """Group the searches of both windows by k-means; returns clusters and centroids (clusters, d).

    The grouping does not see which window a search is from, so that under equal distributions Fisher's exact test of a
    cluster's share holds; p-values are adjusted over clusters (Benjamini and Hochberg). A cluster has grown when that
    is significant and its share is `settings.growth` times what it was or more (ours).
    """
    from sklearn.cluster import KMeans

    frame = pl.DataFrame({"query": reference + current, "now": [False] * len(reference) + [True] * len(current)})
    counts = frame.group_by("query").agg(now=pl.col("now").sum(), before=pl.col("now").not_().sum()).sort("query")
    points = np.stack([vectors[query] for query in counts["query"]])
    number = min(settings.clusters, len(np.unique(points, axis=0)))
    weights = (counts["now"] + counts["before"]).to_numpy()
    means = KMeans(number, n_init=4, random_state=seed % 2**32).fit(points, sample_weight=weights)
    counts = counts.with_columns(cluster=pl.Series(means.labels_, dtype=pl.Int32))
    totals = (
        counts.group_by("cluster").agg(pl.col("now", "before").sum())
        .join(pl.DataFrame({"cluster": range(number)}, {"cluster": pl.Int32}), on="cluster", how="right")
        .fill_null(0)
        .sort("cluster")
    )  # fmt: skip
    now, before = totals["now"].to_numpy().astype(int), totals["before"].to_numpy().astype(int)
    examples = _examples(counts)
    p_values = _growth_test(now, before) if reference else np.full(number, np.nan)
    clusters = []
    for i in range(number):
        share_now = float(now[i] / len(current))
        share_before = float(before[i] / len(reference)) if reference else None
        grown = bool(
            share_before is not None
            and p_values[i] <= settings.false_discovery_rate
            and share_now >= settings.growth * share_before
        )
        p_value = None if np.isnan(p_values[i]) else float(p_values[i])
        clusters.append(Cluster(i, share_before, share_now, p_value, grown, examples.get(i, ())))
    return tuple(clusters), means.cluster_centers_.astype(np.float32)


def cluster_view(clusters: Sequence[Cluster], reference: int, current: int) -> View:
    """The clusters as one view: effect is the share of searches that grown clusters won.

    Its p-value is the smallest adjusted one, which is Simes' test that no cluster grew (Simes, 1986).
    """
    grown = [cluster for cluster in clusters if cluster.grown]
    won = sum(cluster.share_current - (cluster.share_reference or 0.0) for cluster in grown)
    p_value = min(cluster.p_value for cluster in clusters if cluster.p_value is not None)
    text = f"{len(grown)} of {len(clusters)} query clusters grew, by {won:.0%} of searches"
    return View("clusters", won, p_value, reference, current, text)


def _growth_test(now: NDArray[np.int64], before: NDArray[np.int64]) -> NDArray[np.float64]:
    """One-sided Fisher's exact test for every cluster, adjusted over clusters."""
    total, size = int(now.sum() + before.sum()), int(now.sum())
    p_values: Any = hypergeom.sf(now - 1, total, now + before, size)
    adjusted: NDArray[np.float64] = false_discovery_control(np.clip(p_values, 0.0, 1.0), method="bh")
    return adjusted


def _examples(counts: pl.DataFrame) -> dict[int, tuple[str, ...]]:
    """Each cluster's current queries, those that gained most searches first."""
    ordered = (
        counts.filter(pl.col("now") > 0)
        .with_columns(gain=pl.col("now").cast(pl.Int64) - pl.col("before").cast(pl.Int64))
        .sort("cluster", "gain", "query", descending=[False, True, False])
        .group_by("cluster", maintain_order=True)
        .agg(pl.col("query").head(EXAMPLES))
    )
    return {cluster: tuple(queries) for cluster, queries in ordered.iter_rows()}
