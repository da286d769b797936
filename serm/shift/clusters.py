"""Clusters of alike queries: which grew, are new, shrank or vanished, and what they are about."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.stats import false_discovery_control, hypergeom

from serm.config import ShiftSettings
from serm.shift.report import Change, Cluster, View
from serm.shift.terms import distinctive_terms

EXAMPLES = 4
TENFOLD = 10.0  # a grown cluster that had less than a tenth of its share is new; one that keeps less, vanished


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
    is significant and its share is `settings.growth` times what it was or more, shrunk when it is so many times less;
    tenfold makes it new or vanished (ours).
    """
    from sklearn.cluster import KMeans

    frame = pl.DataFrame({"query": reference + current, "now": [False] * len(reference) + [True] * len(current)})
    counts = frame.group_by("query").agg(
        now=pl.col("now").sum().cast(pl.Int64), before=pl.col("now").not_().sum().cast(pl.Int64)
    )
    counts = counts.sort("query")
    points = np.stack([vectors[query] for query in counts["query"]])
    number = min(settings.clusters, len(np.unique(points, axis=0)))
    weights = (counts["now"] + counts["before"]).to_numpy()
    means = KMeans(number, n_init=2, random_state=seed % 2**32).fit(points, sample_weight=weights)
    counts = counts.with_columns(cluster=pl.Series(means.labels_, dtype=pl.Int32))
    totals = (
        counts.group_by("cluster").agg(pl.col("now", "before").sum())
        .join(pl.DataFrame({"cluster": range(number)}, {"cluster": pl.Int32}), on="cluster", how="right")
        .fill_null(0)
        .sort("cluster")
    )  # fmt: skip
    clusters = describe_clusters(counts, totals, len(reference), len(current), settings)
    return clusters, means.cluster_centers_.astype(np.float32)


def describe_clusters(
    counts: pl.DataFrame, totals: pl.DataFrame, before: int, now: int, settings: ShiftSettings
) -> tuple[Cluster, ...]:
    """Clusters from searches per query [query, now, before, cluster] and per cluster [cluster, now, before]."""
    latest, earlier = totals["now"].to_numpy(), totals["before"].to_numpy()
    terms = distinctive_terms(
        counts.select("query", searches=pl.col("now") + pl.col("before"), group=pl.col("cluster"))
    )
    gained, lost = _examples(counts, gained=True), _examples(counts, gained=False)
    p_values = change_test(latest, earlier) if before else np.full(totals.height, np.nan)
    clusters = []
    for i, number in enumerate(totals["cluster"]):
        share_now = float(latest[i] / now)
        share_before = float(earlier[i] / before) if before else None
        p_value = None if np.isnan(p_values[i]) else float(p_values[i])
        significant = p_value is not None and p_value <= settings.false_discovery_rate
        change: Change = "steady"
        if share_before is not None and significant:
            change = _change(share_before, share_now, settings.growth)
        examples = lost if change in ("shrunk", "vanished") else gained
        clusters.append(
            Cluster(
                number, share_before, share_now, p_value, change in ("grown", "new"), examples.get(number, ()), change,
                None if share_before is None else share_now - share_before, terms.get(number, ()),
            )
        )  # fmt: skip
    return tuple(clusters)


def cluster_view(clusters: Sequence[Cluster], reference: int, current: int) -> View:
    """The clusters as one view: effect is the share of searches that changed clusters won, or lost if that is more.

    Its p-value is the smallest adjusted one, which is Simes' test that no cluster changed (Simes, 1986).
    """
    named = {change: [c for c in clusters if c.change == change] for change in ("grown", "new", "shrunk", "vanished")}
    effects = [cluster.effect or 0.0 for group in named.values() for cluster in group]
    won = sum(effect for effect in effects if effect > 0)
    lost = -sum(effect for effect in effects if effect < 0)
    p_value = min(cluster.p_value for cluster in clusters if cluster.p_value is not None)
    told = ", ".join(f"{len(group)} {change}" for change, group in named.items() if group) or "none changed"
    text = f"of {len(clusters)} query clusters {told}"
    if won or lost:
        text += f" (won {won:.1%} of searches, lost {lost:.1%})"
    return View("clusters", max(won, lost), p_value, reference, current, text)


def change_test(now: NDArray[np.int64], before: NDArray[np.int64]) -> NDArray[np.float64]:
    """Fisher's exact test of every cluster's share, either way, adjusted over clusters.

    Two-sided as twice the smaller tail.
    """
    total, size = int(now.sum() + before.sum()), int(now.sum())
    more: Any = hypergeom.sf(now - 1, total, now + before, size)
    fewer: Any = hypergeom.cdf(now, total, now + before, size)
    adjusted: NDArray[np.float64] = false_discovery_control(np.clip(2 * np.minimum(more, fewer), 0.0, 1.0), method="bh")
    return adjusted


def _change(before: float, now: float, growth: float) -> Change:
    if now > before and now >= growth * before:
        return "new" if now >= TENFOLD * before else "grown"
    if before > now and before >= growth * now:
        return "vanished" if before >= TENFOLD * now else "shrunk"
    return "steady"


def _examples(counts: pl.DataFrame, gained: bool) -> dict[int, tuple[str, ...]]:
    """Each cluster's queries of one window, those that gained (or lost) most searches first."""
    ordered = (
        counts.filter(pl.col("now" if gained else "before") > 0)
        .with_columns(gain=pl.col("now") - pl.col("before"))
        .sort("cluster", "gain", "query", descending=[False, gained, False])
        .group_by("cluster", maintain_order=True)
        .agg(pl.col("query").head(EXAMPLES))
    )
    return {cluster: tuple(queries) for cluster, queries in ordered.iter_rows()}
