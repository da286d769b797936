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
from serm.shift.kernel import kernel_view
from serm.shift.report import ShiftReport, Verdict, View
from serm.shift.sample import draw, draw_like, matched, with_rows
from serm.shift.scores import Judge, score_views
from serm.shift.season import possible
from serm.shift.text import text_view
from serm.shift.words import words_view

Embed = Callable[[Sequence[str]], NDArray[np.float32]]
STEPS = 5  # of `detect`


def detect(
    reference: pl.DataFrame | pl.LazyFrame,
    current: pl.DataFrame | pl.LazyFrame,
    settings: ShiftSettings,
    embed: Embed,
    judge: Judge | None = None,
    seed: int = 0,
    advance: Callable[..., None] = lambda amount=1, words="": None,
) -> ShiftReport:
    """Compare two windows of impressions as to text, words, clusters, clicks, dwell, reformulation, score (ours).

    A reference with only the column `query` (judged queries, say) is compared as to text, words and clusters alone,
    with the current window's distinct queries. Every current search is compared with one of the reference that was
    made at the same hour of the week (see `season`). Samples have a fixed size, so that effects and p-values do not
    grow with a window: `words_sample` searches for words, `kernel_sample` for the kernel, `sample` for the rest. A view
    counts when it is significant after Benjamini and Hochberg's correction and its effect is at least `mild_effect`.
    Without a comparison the verdict is "unknown". Every distinct query is embedded once.

    Args:
        reference: the earlier impressions, or bare queries; may be empty. A column `ts` is needed for seasons.
        current: the impressions to judge.
        settings: sizes and thresholds.
        embed: texts to unit vectors (n, d).
        judge: gives f and entropy for [query, doc_id]; without it the logged scores are compared.
        seed: of samples, folds, permutations and clusters.
        advance: told after each of STEPS steps, with the next one's name.
    """
    reference, current = reference.lazy(), current.lazy()
    bare = "session" not in reference.collect_schema().names()
    if bare:
        current = current.select("query").unique()
        reference = reference.select("query").unique()
    timed = "ts" in current.collect_schema().names()
    season, note = possible(reference, settings.season if timed else "none")
    now = draw(current, max(settings.sample, settings.words_sample), seed, season)
    few = "has {} distinct queries; {} are needed."
    if now.distinct < settings.minimum:
        return ShiftReport("unknown", note="The current window " + few.format(now.distinct, settings.minimum))
    earlier = draw_like(reference, now, 2, seed, season)
    before, after = matched(earlier, now, settings.sample)
    if min(earlier.distinct, before.size) < settings.minimum:
        queries = now.queries[: settings.sample]
        clusters, centroids = query_clusters([], queries, _vectors(embed, queries), settings, seed)
        if earlier.distinct < settings.minimum:
            reason = "The reference " + few.format(earlier.distinct, settings.minimum)
        else:
            reason = f"{before.size} searches have a counterpart at the same hour; {settings.minimum} are needed."
        return ShiftReport("unknown", clusters=clusters, note=f"{reason} {note}".strip(), centroids=centroids)
    advance(1, "embedding queries")
    old, new = before.queries, after.queries
    vectors = _vectors(embed, old + new)
    points = [np.stack([vectors[query] for query in side]) for side in (old, new)]
    advance(1, "grouping queries")
    clusters, centroids = query_clusters(old, new, vectors, settings, seed)
    advance(1, "telling windows apart")
    views = [
        text_view(points[0], points[1], seed),
        kernel_view(points[0][: settings.kernel_sample], points[1][: settings.kernel_sample], seed),
        words_view(*(side.queries for side in matched(earlier, now, settings.words_sample, times=2))),
        cluster_view(clusters, before.size, after.size),
    ]
    advance(1, "comparing behaviour and scores")
    if not bare:
        before, after = with_rows(before, reference), with_rows(after, current)
        views += behaviour_views(before, after, settings.minimum)
        views += score_views(before, after, judge, settings.scored, settings.minimum)
    advance(1, "")
    views = correct(views, settings.false_discovery_rate)
    return ShiftReport(verdict(views, settings), tuple(views), clusters, note, centroids)


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


def _vectors(embed: Embed, queries: list[str]) -> dict[str, NDArray[np.float32]]:
    """One embedding a distinct query."""
    distinct = sorted(set(queries))
    return dict(zip(distinct, embed(distinct), strict=True))
