"""Two models on the same judged queries, slice by slice, with paired tests that are corrected for being many. Pure.

Every test of the comparison is one family: each split, slice and measure that allows a test. Slices overlap and
measures are correlated; Holm's correction holds under any dependence, Benjamini and Hochberg's under the positive one
that is usual here.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import polars as pl

from serm.config import EvaluationSettings
from serm.evaluation.paired import Interval, adjusted, mean_interval, two_sided_p
from serm.evaluation.slices import LEVEL, Slices, members, problem


@dataclass(frozen=True)
class SliceComparison:
    """B against A on one slice and measure; `difference` is B minus A, per query. None where `note` says why.

    `adjusted` is the two-sided p-value after correction, and `significant` whether it is below the level.
    """

    split: str
    dimension: str
    value: str
    measure: str
    queries: int
    a: float | None
    b: float | None
    difference: Interval | None
    p_value: float | None
    adjusted: float | None
    significant: bool
    note: str


def compare_slices(
    a: Mapping[str, pl.DataFrame], b: Mapping[str, pl.DataFrame], slices: Mapping[str, Slices],
    measures: Sequence[str], settings: EvaluationSettings, seed: int,
) -> list[SliceComparison]:  # fmt: skip
    """Compare split by split; `a` and `b` map a split to the frame `values` of `metrics.per_query`.

    Raises:
        ValueError: the two were measured on different queries.
    """
    rows: list[SliceComparison] = []
    for split, first in a.items():
        second = b[split]
        if set(first["query"]) != set(second["query"]):
            raise ValueError(f"{split}: the two models were measured on different queries")
        for part in slices[split].order:
            own, other = members(first, slices[split], part), members(second, slices[split], part)
            for name in measures:
                place = (split, part.dimension, part.value, name, own.height)
                rows.append(_compare(place, own[name], other[name], settings, seed))
    tested = [row for row in rows if row.p_value is not None]
    corrected = iter(adjusted([row.p_value for row in tested if row.p_value is not None], settings.correction))
    return [row if row.p_value is None else _corrected(row, next(corrected), settings.alpha) for row in rows]


def _compare(
    place: tuple[str, str, str, str, int], a: pl.Series, b: pl.Series, settings: EvaluationSettings, seed: int
) -> SliceComparison:
    notes = [f"{name}: {note}" for name, values in (("A", a), ("B", b)) if (note := problem(values, settings))]
    if notes:
        few = len(a) < settings.slice_minimum
        note = problem(a, settings) if few else "; ".join(notes)
        return SliceComparison(*place, None, None, None, None, None, False, note)
    old, new = a.to_numpy(), b.to_numpy()
    difference = mean_interval(new - old, LEVEL, settings.resamples, seed)
    p = two_sided_p(new - old, settings.resamples, seed)
    return SliceComparison(*place, float(old.mean()), float(new.mean()), difference, p, None, False, "")


def _corrected(row: SliceComparison, value: float, alpha: float) -> SliceComparison:
    return replace(row, adjusted=value, significant=value < alpha)
