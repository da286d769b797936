"""What is measured: each metric a sum over a sum per user and day, in lazy Polars.

Every metric is a ratio R = sum_i N_i / sum_i D_i over users i, so that one variance serves them all (see `ratio`).
A search is a query of a session: pages of it are one search. The paper names negative feedback, query reformulation,
its long tail and retention, and defines none of them; the definitions are ours.
"""

from dataclasses import dataclass

import polars as pl

from serm.config import OnlineSettings


@dataclass(frozen=True)
class Metric:
    """One ratio; `needs` names fields of the log, `up` says whether more is better."""

    name: str
    label: str
    unit: str  # of the ratio: "share" or "seconds"
    up: bool
    needs: tuple[str, ...]
    meaning: str


METRICS = {
    metric.name: metric
    for metric in (
        Metric("negative_feedback", "negative feedback", "share", False, ("query", "negative"),
               "searches with a result marked as bad"),
        Metric("negative_feedback_tail", "negative feedback, long tail", "share", False, ("query", "negative"),
               "the same, rare queries alone"),
        Metric("reformulation", "query reformulation", "share", False, ("query",),
               "searches soon followed by another query in the session"),
        Metric("reformulation_tail", "query reformulation, long tail", "share", False, ("query",),
               "the same, rare queries alone"),
        Metric("retention", "retention", "share", True, ("user",), "users who search again within the days asked for"),
        Metric("ctr", "click-through rate", "share", True, ("clicked",), "shown results that are clicked"),
        Metric("ctr_tail", "click-through rate, long tail", "share", True, ("query", "clicked"),
               "the same, rare queries alone"),
        Metric("dwell", "dwell time", "seconds", True, ("clicked", "dwell"), "seconds on a clicked document"),
        Metric("dwell_tail", "dwell time, long tail", "seconds", True, ("query", "clicked", "dwell"),
               "the same, rare queries alone"),
        Metric("successful_sessions", "successful sessions", "share", True, ("clicked",),
               "sessions with a click that held the user (any click where dwell is not logged)"),
    )
}  # fmt: skip

PRE = -1  # the day of everything before the test


def user_days(
    rows: pl.LazyFrame, names: list[str], start: pl.Expr, last_day: int, dwell_logged: bool, settings: OnlineSettings
) -> pl.LazyFrame:
    """Numerators and denominators per unit and day: unit, day, NAME:n, NAME:d for each of `names`.

    `rows` has unit, ts, session, query, clicked, dwell, negative; `start` is the first moment of the test: earlier
    rows have day PRE, later ones count days from 0 to `last_day`. A session counts on the day on which it began.
    """
    sessions = _sessions(_searches(rows, start, settings), dwell_logged, settings)
    own = [name for name in names if name != "retention"]
    days = sessions.group_by("unit", "day").agg(pl.col(f"{name}:{part}").sum() for name in own for part in "nd")
    if "retention" in names:
        days = pl.concat([days, _retention(days, last_day, settings.retention_days)], how="diagonal")
        days = days.group_by("unit", "day").agg(pl.all().sum())
    return days.select("unit", "day", *(pl.col(f"{name}:{part}").cast(pl.Float64) for name in names for part in "nd"))


def _searches(rows: pl.LazyFrame, start: pl.Expr, settings: OnlineSettings) -> pl.LazyFrame:
    """A row a search: what was shown, clicked, held and complained about, and whether its query is of the tail."""
    dwell = pl.col("dwell").clip(upper_bound=settings.dwell_cap)
    clicked = pl.col("clicked").fill_null(False)
    searches = rows.group_by("unit", "session", "query").agg(
        first=pl.col("ts").min(),
        shown=pl.len(),
        clicks=clicked.sum(),
        negative=pl.col("negative").fill_null(False).any(),
        dwell=dwell.filter(clicked).sum(),
        dwelled=dwell.filter(clicked).count(),
        held=(clicked & (pl.col("dwell") >= settings.success_dwell)).any(),
    )
    traffic = searches.group_by("query").agg(searches=pl.len())
    counted = traffic.group_by("searches").agg(total=pl.col("searches").sum()).sort("searches")
    below = pl.col("total").cum_sum() <= settings.tail_share * pl.col("total").sum()
    most = counted.select(most=pl.max_horizontal(pl.col("searches").filter(below).max(), pl.col("searches").min()))
    tail = traffic.join(most, how="cross").select("query", tail=pl.col("searches") <= pl.col("most"))
    return searches.join(tail, on="query", how="left", nulls_equal=True).with_columns(
        day=pl.when(pl.col("first") < start)
        .then(PRE)
        .otherwise((pl.col("first").dt.truncate("1d") - start.dt.truncate("1d")).dt.total_days())
        .cast(pl.Int32)
    )


def _sessions(searches: pl.LazyFrame, dwell_logged: bool, settings: OnlineSettings) -> pl.LazyFrame:
    """A row a session, with every metric's numerator and denominator but retention's."""
    order = ["first", "query"]
    tail = pl.col("tail").sort_by(order)
    gap = pl.col("first").sort_by(order).diff().shift(-1)
    followed = (gap <= pl.duration(seconds=settings.reformulation_seconds)).fill_null(False)
    success = pl.col("held").any() if dwell_logged else (pl.col("clicks").sum() > 0)

    def whole(name: str, n: pl.Expr, d: pl.Expr) -> list[pl.Expr]:
        return [n.sum().alias(f"{name}:n"), d.sum().alias(f"{name}:d")]

    def both(name: str, n: str, d: pl.Expr) -> list[pl.Expr]:
        return [
            *whole(name, pl.col(n), d),
            *whole(f"{name}_tail", pl.col(n).filter(pl.col("tail")), d.filter(pl.col("tail"))),
        ]

    one = pl.col("shown").is_not_null()  # every search
    return searches.group_by("unit", "session").agg(
        pl.col("day").min(),
        *both("negative_feedback", "negative", one),
        *whole("reformulation", followed, one),
        *whole("reformulation_tail", followed & tail, one.filter(pl.col("tail"))),
        *both("ctr", "clicks", pl.col("shown")),
        *both("dwell", "dwell", pl.col("dwelled")),
        success.cast(pl.Int64).alias("successful_sessions:n"),
        pl.lit(1).alias("successful_sessions:d"),
    )


def _retention(days: pl.LazyFrame, last_day: int, within: int) -> pl.LazyFrame:
    """One row for each user seen long enough, on the day on which it is known: did they come back within the days?"""
    test = days.filter(pl.col("day") >= 0)
    first = pl.col("day").min()
    later = (pl.col("day") > first) & (pl.col("day") <= first + within)
    users = test.group_by("unit").agg((first + within).alias("day"), later.any().alias("retention:n"))
    return users.filter(pl.col("day") <= last_day).with_columns(
        pl.col("retention:n").cast(pl.Int64), pl.lit(1, pl.Int64).alias("retention:d")
    )
