"""A log cut by time and by session, so that whole lists come in pieces of bounded size, and samples are of sessions."""

from collections.abc import Iterator

import polars as pl

from serm.clicks.model import COLUMNS, demand_columns

SLICE_ROWS = 2_000_000
BUCKETS = 4_096
RESOLUTION = 1 << 32


def slices(log: pl.LazyFrame, rows: int = SLICE_ROWS) -> Iterator[pl.DataFrame]:
    """The log's columns that click models need, in frames of whole lists and of about `rows` rows.

    Cut by time, so that a log stored in order of time is read once in all; a moment with too many rows is cut by
    session too. Nothing is yielded for an empty log.

    Raises:
        ValueError: a column is absent, or a timestamp is null.
    """
    demand_columns(log.collect_schema().names())
    log = log.select(COLUMNS)
    moment = pl.col("ts").to_physical()
    total, untimed, first, last = (
        log.select(
            pl.len(),
            pl.col("ts").null_count().alias("untimed"),
            moment.min().alias("first"),
            moment.max().alias("last"),
        )
        .collect(engine="streaming")
        .row(0)
    )
    if untimed:
        raise ValueError("impressions: column 'ts' holds nulls; drop those rows first")
    if total <= rows:
        if total:
            yield log.collect(engine="streaming")
        return
    width = (last - first) // BUCKETS + 1
    counts = log.group_by(((moment - first) // width).alias("bucket")).len().collect(engine="streaming").sort("bucket")
    for begin, end, parts in _cuts(counts, rows):
        within = log.filter(moment.is_between(first + begin * width, first + end * width, closed="left"))
        for part in range(parts):
            piece = within if parts == 1 else within.filter(pl.col("session").hash() % parts == part)
            frame = piece.collect(engine="streaming")
            if not frame.is_empty():
                yield frame


def _cuts(counts: pl.DataFrame, rows: int) -> Iterator[tuple[int, int, int]]:
    """(first bucket, bucket after the last, pieces) of each slice, with as many buckets as make up `rows`."""
    begin, held = 0, 0
    for bucket, size in counts.select("bucket", "len").iter_rows():
        if held and held + size > rows:
            yield begin, bucket, 1
            begin, held = bucket, 0
        if size > rows:
            yield begin, bucket + 1, -(-size // rows)
            begin, held = bucket + 1, 0
        else:
            held += size
    if held:
        yield begin, BUCKETS + 1, 1


def sampled(log: pl.LazyFrame, sessions: int, seed: int) -> pl.LazyFrame:
    """The rows of about `sessions` sessions, drawn by seeded hash; all of them if there are no more."""
    there = log.select(pl.col("session").approx_n_unique()).collect(engine="streaming").item()
    return log if there <= sessions else log.filter(_lot(seed) < round(sessions / there * RESOLUTION))


def held_out(log: pl.DataFrame, share: float, seed: int) -> tuple[pl.DataFrame, pl.DataFrame]:
    """(the rest, about `share` of the sessions), drawn by a seeded hash that no sample of `sampled` shares."""
    apart = (_lot(seed ^ 0x5EED) < round(share * RESOLUTION)).alias("apart")
    return log.filter(~apart), log.filter(apart)


def _lot(seed: int) -> pl.Expr:
    """A number in 0..2^32 - 1 for each session."""
    return pl.col("session").hash(seed) // RESOLUTION
