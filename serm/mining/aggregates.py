"""Robust sums over part of a log that add up over parts: the log-side agents read the stream through these (ours).

The unit is the visit, a session's rows of one UTC day. A part holds whole visits, so parts can be computed apart, in
any number and order, and merged exactly: every number is an integer count or a sum in fixed point. Dwell is kept as a
histogram with eight buckets an octave (a median read from it is off by at most 4.4%). Queries and documents go by
64-bit keys, which keeps 100 million rows cheap; among ten million two collide with a chance of three in a million.
"""

from dataclasses import dataclass

import polars as pl

from serm.config import MiningSettings
from serm.mining.traffic import VISIT, believable

PAIR = ["query", "doc_id"]
KEYS = ["query_key", "doc_key"]
CELL = [*KEYS, "locale", "position", "dwell"]
MICRO = 1_000_000  # scores are summed in millionths, so that no order of adding changes a sum
PER_OCTAVE = 8
LONGEST = 16 * PER_OCTAVE  # bucket of 2^15 s and more; bucket 0 holds what is below 0.55 s
DEEPEST = 50  # ranks below it share their counts
FRAMES = ("shown", "clicks", "ranks")
LAYOUT = 2  # of these frames; another number sets kept sums of earlier releases aside


@dataclass(frozen=True)
class Sums:
    """What a part of the log adds up to, or several parts together."""

    # query_key, doc_key, locale, impressions, sessions, positions, scores, scored, tried (clicks before any cap)
    shown: pl.LazyFrame
    clicks: pl.LazyFrame  # query_key, doc_key, locale, position, dwell (bucket; null = not logged), clicks
    ranks: pl.LazyFrame  # locale, position, impressions, clicks


def keys() -> list[pl.Expr]:
    """The keys of a row's query and document."""
    return [query_key(), document_key()]


def query_key() -> pl.Expr:
    """The 64-bit key of a query."""
    return pl.col("query").hash().alias("query_key")


def document_key() -> pl.Expr:
    """The 64-bit key of a document."""
    return pl.col("doc_id").hash().alias("doc_key")


def believed(rows: pl.LazyFrame, settings: MiningSettings) -> pl.LazyFrame:
    """The believable impressions of a part that holds whole visits, by keys: what `sums` adds up."""
    return believable(rows, settings).select(
        "ts", "clicked", "dwell", *keys(),
        visit=VISIT,
        locale=pl.col("locale").fill_null(""),
        position=pl.col("position").cast(pl.Int64),
        rank=pl.col("position").clip(1, DEEPEST).cast(pl.UInt8),
        score=(pl.col("score") * MICRO).round().cast(pl.Int64),
    )  # fmt: skip


def sums(known: pl.LazyFrame, settings: MiningSettings) -> Sums:
    """The sums of believed impressions, lazily; they are read four times, so hold them in memory."""
    # A pair shown twice in a visit is rare: to count such repeats costs less than to count every pair's visits.
    repeats = (
        known.select(*KEYS, look=pl.struct("visit", *KEYS).hash())
        .filter(pl.col("look").is_duplicated())
        .group_by(KEYS)
        .agg(repeats=pl.len() - pl.col("look").n_unique())
    )
    shown = (
        known.group_by(KEYS)
        .agg(
            pl.col("locale").min(),
            impressions=pl.len(),
            positions=pl.col("position").sum(),
            scores=pl.col("score").sum(),
            scored=pl.col("score").count(),
            tried=pl.col("clicked").sum(),
        )
        .join(repeats, on=KEYS, how="left")
        .with_columns(sessions=pl.col("impressions") - pl.col("repeats").fill_null(0))
        .drop("repeats")
    )
    clicks = (
        heard(known.filter("clicked"), settings)
        .with_columns(position="rank", dwell=dwell_bucket(pl.col("dwell")))
        .group_by(CELL)
        .agg(clicks=pl.len())
    )
    ranks = known.group_by("locale", position="rank").agg(impressions=pl.len(), clicks=pl.col("clicked").sum())
    return Sums(shown, clicks, ranks)


def heard(clicked: pl.LazyFrame, settings: MiningSettings) -> pl.LazyFrame:
    """The clicks that count: in a visit the first `per_session` documents, and each for its first query only.

    One user, or one bot, cannot speak loudly. Of a result clicked again the highest place and the longest dwell count.
    """
    return (
        clicked.group_by("visit", *KEYS)
        .agg(pl.col("ts", "rank", "locale").min(), pl.col("dwell").max())
        .sort("visit", "ts", "rank", *KEYS)
        .filter(pl.struct("visit", "doc_key").is_first_distinct())
        .filter(pl.int_range(pl.len()).over("visit") < settings.per_session)
    )


def merged(parts: Sums) -> Sums:
    """The sums of all parts as if they had been one; parts' frames come one under another."""
    shown = parts.shown.group_by(KEYS).agg(
        pl.col("locale").min(), pl.col("impressions", "sessions", "positions", "scores", "scored", "tried").sum()
    )
    clicks = parts.clicks.group_by(CELL).agg(pl.col("clicks").sum())
    ranks = parts.ranks.group_by("locale", "position").agg(pl.col("impressions", "clicks").sum())
    return Sums(shown, clicks, ranks)


def dwell_bucket(seconds: pl.Expr) -> pl.Expr:
    """The number 0..128 of the log-spaced bucket that holds a dwell time; bucket b starts at 2 ** (b / 8 - 1) s."""
    return ((seconds.clip(1e-9).log(2) + 1) * PER_OCTAVE).floor().clip(0, LONGEST).cast(pl.UInt8)


def bucket_seconds(bucket: pl.Expr) -> pl.Expr:
    """The middle of a bucket in seconds: the geometric mean of its ends."""
    return 2.0 ** ((bucket.cast(pl.Float64) + 0.5) / PER_OCTAVE - 1)


def medians(cells: pl.LazyFrame, by: list[str]) -> pl.LazyFrame:
    """Median dwell by group from the histogram: [*by, median (s), logged (clicks with a dwell time)].

    The median is the middle of the bucket that holds the lower of the two middle clicks.
    """
    counted = cells.filter(pl.col("dwell").is_not_null()).group_by(*by, "dwell").agg(pl.col("clicks").sum())
    reached = 2 * pl.col("clicks").sort_by("dwell").cum_sum() >= pl.col("clicks").sum()
    return counted.group_by(by).agg(
        median=bucket_seconds(pl.col("dwell").sort().filter(reached).first()), logged=pl.col("clicks").sum()
    )
