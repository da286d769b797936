"""Clusters by hand: what changed, what it is called, and that words carry Monroe's log-odds."""

import math
from collections import Counter

import numpy as np
import polars as pl
import pytest

from serm.config import ShiftSettings
from serm.shift.clusters import cluster_view, describe_clusters, query_clusters
from serm.shift.terms import PRIOR_WORDS, distinctive_terms, log_odds

SETTINGS = ShiftSettings(clusters=4)
# four groups on orthogonal axes: searches before, searches now
TRAFFIC = {
    "cheap flights": (60, 62), "flights to rome": (41, 40),
    "red shoes": (60, 20), "blue shoes": (60, 20),
    "tax form": (79, 0), "tax refund": (0, 1),
    "mars probe landing": (0, 100), "probe on mars": (0, 57),
}  # fmt: skip
GROUP = {"flights": 0, "shoes": 1, "tax": 2, "mars": 3}


def test_changes_are_told_apart_and_named() -> None:
    vectors = {
        query: np.eye(4, dtype=np.float32)[next(axis for word, axis in GROUP.items() if word in query)]
        for query in TRAFFIC
    }
    before = [query for query, (n, _) in TRAFFIC.items() for _ in range(n)]
    now = [query for query, (_, n) in TRAFFIC.items() for _ in range(n)]
    assert len(before) == len(now) == 300
    clusters, centroids = query_clusters(before, now, vectors, SETTINGS, 0)
    found = {next(word for word in GROUP if word in cluster.examples[0]): cluster for cluster in clusters}
    assert {word: cluster.change for word, cluster in found.items()} == {
        "flights": "steady", "shoes": "shrunk", "tax": "vanished", "mars": "new",
    }  # fmt: skip
    assert found["mars"].examples == ("mars probe landing", "probe on mars")
    assert set(found["mars"].terms[:2]) == {"mars", "probe"}
    assert found["tax"].examples == ("tax form",)  # what was searched for, not what is left
    assert found["shoes"].terms[0] == "shoes"
    assert found["shoes"].effect == pytest.approx((40 - 120) / 300)
    assert [word for word, cluster in found.items() if cluster.grown] == ["mars"]
    view = cluster_view(clusters, 300, 300)
    assert view.effect == pytest.approx((80 + 78) / 300)  # what shoes and tax lost; mars won 157
    assert "1 new, 1 shrunk, 1 vanished" in view.text
    assert centroids.shape == (4, 4)


def test_growth_below_the_factor_is_steady() -> None:
    totals = pl.DataFrame({"cluster": [0, 1], "now": [6_000, 4_000], "before": [5_000, 5_000]})
    counts = pl.DataFrame({"query": ["a", "b"], "now": [6_000, 4_000], "before": [5_000, 5_000], "cluster": [0, 1]})
    clusters = describe_clusters(counts, totals, 10_000, 10_000, SETTINGS)
    assert all(cluster.p_value is not None and cluster.p_value < 1e-9 for cluster in clusters)
    assert [cluster.change for cluster in clusters] == ["steady", "steady"]


def test_log_odds_are_monroes() -> None:
    rows = [("red shoes", 5, 0), ("red hat red", 2, 0), ("blue hat", 4, 1), ("blue", 3, 1)]
    frame = pl.DataFrame(rows, schema=["query", "searches", "group"], orient="row")
    counts = [Counter(), Counter()]  # type: ignore[var-annotated]
    for query, searches, group in rows:
        for word in set(query.split()):
            counts[group][word] += searches
    total = sum(counts[0].values()) + sum(counts[1].values())
    scores = {(group, word): z for group, word, z in log_odds(frame).iter_rows()}
    assert set(scores) == {(group, word) for group in (0, 1) for word in counts[group]}
    for (group, word), z in scores.items():
        alpha = PRIOR_WORDS * (counts[0][word] + counts[1][word]) / total
        y = [counts[group][word], counts[1 - group][word]]
        n = [sum(counts[group].values()), sum(counts[1 - group].values())]
        sides = [math.log((y[i] + alpha) / (n[i] + PRIOR_WORDS - y[i] - alpha)) for i in (0, 1)]
        assert z == pytest.approx((sides[0] - sides[1]) / math.sqrt(1 / (y[0] + alpha) + 1 / (y[1] + alpha)))


def test_common_words_are_not_distinctive() -> None:
    frame = pl.DataFrame({"query": ["the moon", "the sun"], "searches": [80, 80], "group": [0, 1]})
    assert distinctive_terms(frame) == {0: ("moon",), 1: ("sun",)}
