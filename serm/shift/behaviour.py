"""Behaviour views: do users click, read and ask again as they did?

Every view compares the mean of one number a search, so that its observations are independent. Clicks and dwell are
tested by Welch's t, which asks about means alone: a change in how many results are shown changes the spread, and must
not pass for one of behaviour. Their effect is Cohen's d carried onto the other views' 0..1 scale: |2 Pr(current >
reference) - 1| for two normal distributions that far apart, 2 Phi(d / sqrt 2) - 1 (ours).
"""

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.stats import fisher_exact, norm, ttest_ind

from serm.shift.report import View
from serm.shift.sample import Sample


def behaviour_views(reference: Sample, current: Sample, minimum: int) -> list[View]:
    """Clicks given position, dwell time of clicks, and asking again; each needs `minimum` searches on both sides."""
    rows = pl.concat([reference.rows.with_columns(side=pl.lit(0)), current.rows.with_columns(side=pl.lit(1))])
    return [_clicks(rows, minimum), _dwell(rows, minimum), _reformulation(reference, current, minimum)]


def _clicks(rows: pl.DataFrame, minimum: int) -> View:
    """Clicks of a search beyond what its positions usually get (in both windows together)."""
    usual = pl.col("clicked").cast(pl.Float64).mean().over("position")
    searches = (
        rows.drop_nulls("clicked")
        .with_columns(surplus=pl.col("clicked").cast(pl.Float64) - usual)
        .group_by("side", "session", "query", maintain_order=True)
        .agg(pl.col("surplus").sum().round(9), pl.col("clicked").sum())
    )
    before, after = _sides(searches, "surplus")
    means = [float(side.mean()) if len(side) else 0.0 for side in _sides(searches, "clicked")]
    return _compare("clicks", before, after, minimum, f"{means[0]:.2f} clicks a search before, {means[1]:.2f} now")


def _dwell(rows: pl.DataFrame, minimum: int) -> View:
    """Mean log dwell time over a search's clicks."""
    searches = (
        rows.filter(pl.col("clicked") & pl.col("dwell").is_not_null())
        .group_by("side", "session", "query", maintain_order=True)
        .agg(pl.col("dwell").log1p().mean())
    )
    before, after = _sides(searches, "dwell")
    medians = [float(np.expm1(np.median(side))) if len(side) else 0.0 for side in (before, after)]
    return _compare(
        "dwell", before, after, minimum, f"a median of {medians[0]:.0f} s read before, {medians[1]:.0f} s now"
    )


def _reformulation(reference: Sample, current: Sample, minimum: int) -> View:
    """Sessions with more than one query, by Fisher's exact test; effect = difference of the shares."""
    sizes = [reference.size, current.size]
    again = [int((side.searches["queries"] > 1).sum()) for side in (reference, current)]
    if min(sizes) < minimum:
        few = f"too few searches to compare ({sizes[0]} before, {sizes[1]} now)"
        return View("reformulation", None, None, sizes[0], sizes[1], few)
    if not sum(again):
        return View("reformulation", None, None, sizes[0], sizes[1], "no session has more than one query")
    table = [[again[side], sizes[side] - again[side]] for side in (0, 1)]
    shares = [again[side] / sizes[side] for side in (0, 1)]
    text = f"{shares[0]:.0%} of sessions asked again before, {shares[1]:.0%} now"
    return View(
        "reformulation", abs(shares[1] - shares[0]), float(fisher_exact(table).pvalue), sizes[0], sizes[1], text
    )


def _sides(searches: pl.DataFrame, column: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    return searches.filter(side=0)[column].to_numpy(), searches.filter(side=1)[column].to_numpy()


def _compare(name: str, before: NDArray[np.float64], after: NDArray[np.float64], minimum: int, text: str) -> View:
    sizes = (len(before), len(after))
    if min(sizes) < minimum:
        return View(
            name, None, None, sizes[0], sizes[1], f"too few searches to compare ({sizes[0]} before, {sizes[1]} now)"
        )
    if np.ptp(np.concatenate([before, after])) == 0:
        return View(name, 0.0, 1.0, sizes[0], sizes[1], text)
    p_value = float(ttest_ind(before, after, equal_var=False).pvalue)
    distance = abs(after.mean() - before.mean()) / np.sqrt((before.var(ddof=1) + after.var(ddof=1)) / 2)
    return View(name, float(2 * norm.cdf(distance / np.sqrt(2)) - 1), p_value, sizes[0], sizes[1], text)
