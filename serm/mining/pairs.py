"""Pairs from the sums of a log, merged by ranges of keys; clicks weighed by what rank, locale and document explain.

Three things are relative to the log itself (ours), each shrunk where a rank is thin:

    read        a click counts in full when its dwell time reaches tau_u times the ratio of the usual dwell time of its
                rank and locale to that of the whole log
    explained   of a document's clicks, over all queries, at most `per_document` times as many count as results at its
                ranks in its locale usually get, and FREE_CLICKS more; the rest are taken from its pairs in proportion
    spread      a document that is clicked for more than `spread` times as many of the queries that showed it as results
                at its ranks usually are, and FREE_QUERIES more, is being pushed: none of its clicks count. What people
                like is liked for the queries that it answers, not for whatever shows it. Clicks that a visit's cap
                leaves out are evidence here all the same
"""

from dataclasses import dataclass
from pathlib import Path

import polars as pl

from serm.config import MiningSettings
from serm.mining.aggregates import DEEPEST, KEYS, MICRO, Sums, bucket_seconds, medians, merged

UNKNOWN_ENGAGEMENT = 0.5  # of a click whose dwell time was not logged
THIN_CLICKS = 50  # clicks of the whole log that a (locale, rank) gets on top of its own when its usual dwell is read
THIN_IMPRESSIONS = 200  # likewise impressions of that rank in any locale, and of any rank, for its usual click rate
FREE_CLICKS = 3  # of any document, so that new and rare ones can be heard
FREE_QUERIES = 0.9  # below 1: a click on what was hardly ever shown proves nothing yet
LEDGER = ["clicked", "expected", "queries", "expected_queries"]  # what is summed of every document
RANGE_ROWS = 6_000_000  # parts' rows that are merged at once
PLACE = ["locale", "position"]


@dataclass(frozen=True)
class Pairs:
    """Every pair that was shown, by keys, and the clicks that count, by dwell bucket."""

    table: pl.LazyFrame  # columns of Sums.shown, click_sessions, engagement (millionths)
    clicks: pl.LazyFrame


def pairs(
    parts: Sums, documents: pl.DataFrame, settled: pl.DataFrame, settings: MiningSettings, scratch: Path
) -> Pairs:
    """Merge the parts of a log into one row a pair.

    Args:
        parts: sums of the log's parts.
        documents: [doc_key] that exist; pairs with others are left out.
        settled: [query_key, doc_key] to leave out.
        settings: tau_u and the cap per document.
        scratch: a folder for the merged pairs, which may be more than fit in memory.
    """
    places = usual(parts, settings)
    rows = parts.shown.select(pl.len()).collect(engine="streaming").item()
    ledgers = []
    ranges = max(1, -(-rows // RANGE_ROWS))
    for number in range(ranges):
        found = _merged_range(parts, places, number, ranges)
        ledgers.append(found.group_by("doc_key").agg(pl.col(LEDGER).sum()))
        kept = found.join(documents, on="doc_key", how="semi").join(settled, on=KEYS, how="anti")
        kept.drop("expected", "queries", "expected_queries").write_parquet(
            scratch / f"pairs-{number}.parquet", compression="lz4"
        )
    shares = explained(pl.concat(ledgers), settings)
    table = pl.scan_parquet([scratch / f"pairs-{number}.parquet" for number in range(ranges)])
    share = pl.col("share").fill_null(1.0)
    table = table.join(shares.lazy(), on="doc_key", how="left").with_columns(
        click_sessions=(pl.col("clicked") * share + 1e-9).floor().cast(pl.UInt32),
        engagement=(pl.col("engagement") * share).round().cast(pl.Int64),
    )
    engagement = pl.when(pl.col("click_sessions") > 0).then("engagement").otherwise(0)
    return Pairs(table.with_columns(engagement=engagement).drop("clicked", "share"), parts.clicks)


def usual(parts: Sums, settings: MiningSettings) -> pl.DataFrame:
    """What every [locale, position] usually gets: tau (seconds that count as read), rate (clicks an impression)."""
    ranks = merged(parts).ranks.collect(engine="streaming")
    overall = pl.lit(ranks.select(pl.col("clicks").sum() / pl.col("impressions").sum()).item(), pl.Float64)
    dwell = medians(parts.clicks, PLACE).collect(engine="streaming")
    typical = medians(parts.clicks.with_columns(all=0), ["all"]).collect(engine="streaming")["median"]
    norm = typical.item() if len(typical) else 1.0
    logged = pl.col("logged").fill_null(0)
    tilt = (pl.col("median").fill_null(norm) / norm).log() * logged / (logged + THIN_CLICKS)
    everywhere = ranks.group_by("position").agg(pl.col("clicks", "impressions").sum())
    positions = pl.DataFrame({"position": range(1, DEEPEST + 1)}, schema={"position": pl.UInt8})
    positions = positions.join(everywhere, on="position", how="left").select("position", rank_rate=_shrunk(overall))
    grid = ranks.select(pl.col("locale").unique().sort()).join(positions, how="cross")
    return (
        grid.join(ranks, on=PLACE, how="left")
        .join(dwell, on=PLACE, how="left")
        .select(*PLACE, tau=settings.dwell * tilt.exp(), rate=_shrunk(pl.col("rank_rate")))
    )


def _shrunk(towards: pl.Expr) -> pl.Expr:
    """Clicks an impression, shrunk towards another rate where there are few."""
    clicks, shown = (pl.col(name).fill_null(0) for name in ("clicks", "impressions"))
    return (clicks + THIN_IMPRESSIONS * towards) / (shown + THIN_IMPRESSIONS)


def explained(ledger: pl.DataFrame, settings: MiningSettings) -> pl.DataFrame:
    """The share of its clicks that counts, for documents [doc_key] that have more than their showings explain."""
    most = settings.per_document * pl.col("expected") / MICRO + FREE_CLICKS
    pushed = pl.col("queries") > settings.spread * pl.col("expected_queries") / MICRO + FREE_QUERIES
    return (
        ledger.group_by("doc_key")
        .agg(pl.col(LEDGER).sum())
        .select("doc_key", share=pl.when(pushed).then(0.0).otherwise(most / pl.col("clicked")))
        .filter(pl.col("share") < 1)
    )


def _merged_range(parts: Sums, places: pl.DataFrame, number: int, ranges: int) -> pl.DataFrame:
    """The pairs whose query's key lies in the `number`-th of `ranges` equal ranges; parts' files are sorted by it."""
    width = -(-(2**64) // ranges)
    low, high = number * width, min((number + 1) * width, 2**64) - 1
    inside = pl.col("query_key").is_between(pl.lit(low, pl.UInt64), pl.lit(high, pl.UInt64))
    sums = merged(Sums(parts.shown.filter(inside), parts.clicks.filter(inside), parts.ranks))
    read = (bucket_seconds(pl.col("dwell")) / pl.col("tau")).clip(0, 1).fill_null(UNKNOWN_ENGAGEMENT)
    clicks = (
        sums.clicks.join(places.lazy(), on=PLACE)
        .with_columns(engagement=(read * MICRO).round().cast(pl.Int64) * pl.col("clicks"))
        .group_by(KEYS)
        .agg(clicked=pl.col("clicks").sum(), engagement=pl.col("engagement").sum())
    )
    mean = (pl.col("positions") / pl.col("impressions")).round().clip(1, DEEPEST).cast(pl.UInt8)
    return (
        sums.shown.with_columns(position=mean)
        .join(places.lazy().select(*PLACE, "rate"), on=PLACE)
        .with_columns(
            expected=(pl.col("impressions") * pl.col("rate") * MICRO).round().cast(pl.Int64),
            expected_queries=((1 - (1 - pl.col("rate")) ** pl.col("impressions")) * MICRO).round().cast(pl.Int64),
        )
        .drop("rate", "position")
        .join(clicks, on=KEYS, how="left")
        .with_columns(pl.col("clicked", "engagement").fill_null(0))
        .with_columns(queries=(pl.col("tried") > 0).cast(pl.Int64))
        .drop("tried")
        .collect(engine="streaming")
    )
