"""The shift check: sample both windows, look at them in every view, correct for many tests, give a verdict."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.stats import false_discovery_control

from serm.config import ShiftSettings
from serm.shift.behaviour import behaviour_views
from serm.shift.clusters import cluster_view, query_clusters
from serm.shift.report import ShiftReport, Verdict, View
from serm.shift.sample import Sample, draw
from serm.shift.scores import Judge, score_views
from serm.shift.text import text_view
from serm.shift.words import words_view

Embed = Callable[[Sequence[str]], NDArray[np.float32]]


def detect(
    reference: pl.DataFrame | pl.LazyFrame,
    current: pl.DataFrame | pl.LazyFrame,
    settings: ShiftSettings,
    embed: Embed,
    judge: Judge | None = None,
    seed: int = 0,
) -> ShiftReport:
    """Compare two windows of impressions as to text, words, clusters, clicks, dwell, reformulation, score (ours).

    A reference with only the column `query` (judged queries, say) is compared as to text, words and clusters alone,
    with the current window's distinct queries. Both samples have the same size, at most `settings.sample` searches, so
    that effects and p-values do not grow with a window. A view counts when it is significant after Benjamini and
    Hochberg's correction and its effect is at least `mild_effect`. Without a comparison the verdict is "unknown".

    Args:
        reference: the earlier impressions, or bare queries; may be empty.
        current: the impressions to judge.
        settings: sizes and thresholds.
        embed: texts to unit vectors (n, d).
        judge: gives f and entropy for [query, doc_id]; without it the logged scores are compared.
        seed: of samples, folds, permutations and clusters.
    """
    reference, current = reference.lazy(), current.lazy()
    if "session" not in reference.collect_schema().names():
        current = current.select("query").unique()
        reference = reference.select("query").unique()
    before, after = draw(reference, settings.sample, seed), draw(current, settings.sample, seed)
    few = "has {} distinct queries; {} are needed."
    if after.distinct < settings.minimum:
        return ShiftReport("unknown", note="The current window " + few.format(after.distinct, settings.minimum))
    if before.distinct < settings.minimum:
        vectors = _vectors(embed, _queries(after))
        clusters, centroids = query_clusters([], _queries(after), vectors, settings, seed)
        note = "The reference " + few.format(before.distinct, settings.minimum)
        return ShiftReport("unknown", clusters=clusters, note=note, centroids=centroids)
    size = min(before.size, after.size)
    before, after = before.head(size), after.head(size)
    old, new = _queries(before), _queries(after)
    vectors = _vectors(embed, old + new)
    clusters, centroids = query_clusters(old, new, vectors, settings, seed)
    views = [
        text_view(np.stack([vectors[query] for query in old]), np.stack([vectors[query] for query in new]), seed),
        words_view(old, new),
        cluster_view(clusters, size, size),
    ]
    if not before.rows.is_empty() and not after.rows.is_empty():
        views += behaviour_views(before, after, settings.minimum)
        views += score_views(before, after, judge, settings.scored, settings.minimum)
    views = correct(views, settings.false_discovery_rate)
    return ShiftReport(verdict(views, settings), tuple(views), clusters, centroids=centroids)


def correct(views: Sequence[View], level: float) -> list[View]:
    """Mark the views that are significant at false discovery rate `level` (Benjamini and Hochberg, 1995)."""
    tested = [view.p_value for view in views if view.p_value is not None]
    adjusted = iter(false_discovery_control(tested, method="bh")) if tested else iter(())
    return [
        view if view.p_value is None else replace(view, significant=bool(next(adjusted) <= level)) for view in views
    ]


def verdict(views: Sequence[View], settings: ShiftSettings) -> Verdict:
    """The largest significant effect, in a word."""
    if all(view.p_value is None for view in views):
        return "unknown"
    largest = max((view.effect or 0.0 for view in views if view.significant), default=-1.0)
    if largest >= settings.strong_effect:
        return "strong"
    return "mild" if largest >= settings.mild_effect else "none"


def _queries(sample: Sample) -> list[str]:
    return sample.searches["query"].to_list()


def _vectors(embed: Embed, queries: list[str]) -> dict[str, NDArray[np.float32]]:
    """One embedding a distinct query."""
    distinct = sorted(set(queries))
    return dict(zip(distinct, embed(distinct), strict=True))
