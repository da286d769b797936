"""Two models on the same judged queries, slice by slice, with paired tests that are corrected for being many. Pure.

The overall tests (each split and measure) are one family, those of slices another, each corrected by itself: to look at
slices must not cost what can be said of the whole (ours). Slices overlap and measures are correlated; Holm's correction
holds under any dependence, Benjamini and Hochberg's under the positive one that is usual here.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import polars as pl
from numpy.typing import NDArray

from serm.config import EvaluationSettings
from serm.evaluation.paired import Interval, adjusted, mean_interval, two_sided_p
from serm.evaluation.slices import ALL, LEVEL, Slices, members, problem

FINENESS = 4  # how many times smaller than the corrected level the smallest p-value is
Floats = NDArray[np.float64]


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
    rows, tested = [], []
    for split, first in a.items():
        second = b[split]
        if set(first["query"]) != set(second["query"]):
            raise ValueError(f"{split}: the two models were measured on different queries")
        for part in slices[split].order:
            own, other = members(first, slices[split], part), members(second, slices[split], part)
            for name in measures:
                place = (split, part.dimension, part.value, name, own.height)
                note = _problem(own[name], other[name], settings)
                rows.append(SliceComparison(*place, None, None, None, None, None, False, note))
                tested.append(None if note else (own[name].to_numpy(), other[name].to_numpy()))
    # The smallest p that flips can give must stay below the level when it is multiplied by the number of tests.
    flips = max(settings.resamples, math.ceil(FINENESS * sum(values is not None for values in tested) / settings.alpha))
    rows = [
        row if values is None else _compare(row, *values, settings, flips, seed)
        for row, values in zip(rows, tested, strict=True)
    ]
    return _corrected(rows, settings)


def _problem(a: pl.Series, b: pl.Series, settings: EvaluationSettings) -> str:
    """Why a slice allows no test; empty when it does."""
    notes = {name: problem(values, settings) for name, values in (("A", a), ("B", b))}
    if notes["A"] == notes["B"]:
        return notes["A"]
    return "; ".join(f"{name}: {note}" for name, note in notes.items() if note)


def _compare(
    row: SliceComparison, a: Floats, b: Floats, settings: EvaluationSettings, flips: int, seed: int
) -> SliceComparison:
    return replace(
        row, a=float(a.mean()), b=float(b.mean()), difference=mean_interval(b - a, LEVEL, settings.resamples, seed),
        p_value=two_sided_p(b - a, flips, seed),
    )  # fmt: skip


def _corrected(rows: Sequence[SliceComparison], settings: EvaluationSettings) -> list[SliceComparison]:
    """The rows with their p-values corrected, family by family."""
    result = list(rows)
    for overall in (True, False):
        family = [i for i, row in enumerate(rows) if row.p_value is not None and (row.dimension == ALL) == overall]
        p_values = [p for i in family if (p := rows[i].p_value) is not None]
        for i, value in zip(family, adjusted(p_values, settings.correction), strict=True):
            result[i] = replace(rows[i], adjusted=value, significant=value < settings.alpha)
    return result
