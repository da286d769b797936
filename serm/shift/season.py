"""Seasons: which part of the reference a search of the current window is to be compared with.

Every search falls in a cell, its hour of the week (UTC), and is compared with searches of the same cell: a cycle over
the day or the week is then the same on both sides. Cells need history: with less than a week of it they are hours of
the day, with less than a day there is one cell, which is the plain comparison (ours).
"""

from typing import Literal

import polars as pl

Season = Literal["week", "day", "none"]
HOURS = {"week": 7 * 24, "day": 24, "none": 0}
SLACK = 1.0  # hours that the first and the last search of a full week may fall short of it


def possible(window: pl.LazyFrame, wanted: Season) -> tuple[Season, str]:
    """The finest season up to `wanted` that a reference window's history covers, and a sentence if it is coarser."""
    if wanted == "none":
        return "none", ""
    if "ts" not in window.collect_schema().names():
        return "none", ""
    first, last = window.select(first=pl.col("ts").min(), last=pl.col("ts").max()).collect(engine="streaming").row(0)
    hours = 0.0 if first is None else (last - first).total_seconds() / 3600 + SLACK
    if wanted == "week" and hours >= HOURS["week"]:
        return "week", ""
    if hours >= HOURS["day"]:
        short = "There is less than a week of history: compared by hour of the day, whatever the weekday."
        return "day", short if wanted == "week" else ""
    return "none", "There is less than a day of history: compared without regard to weekday and hour."


def cell(season: Season) -> pl.Expr:
    """The cell of a search from its time `ts`, from 0."""
    if season == "none":
        return pl.lit(0, pl.Int16)
    hour = pl.col("ts").dt.hour().cast(pl.Int16)
    return hour if season == "day" else (pl.col("ts").dt.weekday().cast(pl.Int16) - 1) * 24 + hour
