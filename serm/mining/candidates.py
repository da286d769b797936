"""Candidates: the (query, document) pairs that a window showed, with what users did, and which are worth scoring."""

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import polars as pl

from serm.config import MiningSettings
from serm.mining.aggregates import KEYS, MICRO, PAIR, document_key, keys, medians
from serm.mining.cascade import cascade
from serm.mining.pairs import Pairs, pairs
from serm.mining.partitions import Cache, add_up

LOTTERY = 1  # added to the seed, so that the uniform draw is not the cascade's

__all__ = ["PAIR", "SCHEMA", "gather", "shortlist"]

# What `gather` and `shortlist` yield; agents and selection read these.
SCHEMA = pl.Schema(
    {
        "query": pl.String,
        "doc_id": pl.String,
        "locale": pl.String,
        "impressions": pl.UInt32,
        "sessions": pl.UInt32,  # distinct visits (a session's day) that were shown it
        "position": pl.Float64,  # mean
        "logged": pl.Float64,  # mean logged score
        "click_sessions": pl.UInt32,  # distinct visits that clicked it and count (see `aggregates.heard`, `pairs`)
        "engagement": pl.Float64,  # sum over those of min(1, dwell / what that rank and locale take for read)
        "dwell": pl.Float64,  # median seconds of clicks, from a histogram
    }
)


def gather(
    impressions: pl.LazyFrame,
    documents: pl.LazyFrame,
    exclude: pl.LazyFrame,
    settings: MiningSettings,
    cache: Cache | None = None,
) -> pl.DataFrame:
    """Every pair that was shown, sorted by query and document; columns as in SCHEMA.

    Memory is that of the pairs, not of the impressions.

    Args:
        impressions: the window's impressions as they were logged.
        documents: [doc_id, ...]; pairs with other documents are left out.
        exclude: [query, doc_id] to leave out: mined before, or judged by people.
        settings: tau_u, the caps, and what makes a bot.
        cache: keeps the sums of the log's parts for another run.
    """
    with TemporaryDirectory() as scratch:
        found = _pairs(impressions, documents, exclude, settings, cache, Path(scratch))
        return _named(found.table.collect(engine="streaming"), found, impressions)


def shortlist(
    impressions: pl.LazyFrame,
    documents: pl.LazyFrame,
    exclude: pl.LazyFrame,
    settings: MiningSettings,
    scale: Sequence[int],
    seed: int,
    drawn: int = 0,
    cache: Cache | None = None,
) -> tuple[pl.DataFrame, int]:
    """The `settings.candidates` pairs worth scoring (see `cascade`), as `gather` gives them, and how many were shown.

    `drawn` pairs more are drawn uniformly from all that were shown, for estimates without bias; the boolean column
    `drawn` marks them, whether the cascade would have chosen them or not. Memory is that of the shortlist and of a
    number or two for every query and document.
    """
    with TemporaryDirectory() as scratch:
        found = _pairs(impressions, documents, exclude, settings, cache, Path(scratch))
        count = found.table.select(pl.len()).collect(engine="streaming").item()
        chance = lottery(found.table, drawn, seed + LOTTERY)
        chosen = cascade(found.table, count, settings, scale, seed).join(chance, on=KEYS, how="anti")
        named = _named(pl.concat([chosen, chance]), found, impressions)
        marks = _named(chance, found, impressions).select(*PAIR, drawn=pl.lit(True))
        return named.join(marks, on=PAIR, how="left", maintain_order="left").with_columns(
            pl.col("drawn").fill_null(False)
        ), count


def lottery(pairs: pl.LazyFrame, number: int, seed: int) -> pl.DataFrame:
    """`number` of the pairs drawn uniformly, by a seeded hash of their keys: whatever the order of rows, the same."""
    lots = pairs.with_columns(lot=pl.struct(KEYS).hash(seed))
    return lots.bottom_k(number, by=["lot", *KEYS]).drop("lot").collect(engine="streaming")


def _pairs(
    impressions: pl.LazyFrame,
    documents: pl.LazyFrame,
    exclude: pl.LazyFrame,
    settings: MiningSettings,
    cache: Cache | None,
    scratch: Path,
) -> Pairs:
    folder = cache.parts(settings) if cache else scratch / "parts"
    parts = add_up(impressions, settings, folder)
    known = documents.select(document_key()).unique().collect(engine="streaming")
    settled = exclude.select(keys()).unique().collect(engine="streaming")
    return pairs(parts, known, settled, settings, scratch)


def _named(chosen: pl.DataFrame, found: Pairs, impressions: pl.LazyFrame) -> pl.DataFrame:
    """Put the texts of query and document for their keys, and add the median dwell time."""
    if chosen.is_empty():
        return SCHEMA.to_frame()
    wanted = chosen.lazy().select(KEYS)
    names = impressions.select(*PAIR, *keys()).join(wanted, on=KEYS, how="semi").unique(KEYS)
    dwell = medians(found.clicks.join(wanted, on=KEYS, how="semi"), KEYS)
    return (
        chosen.lazy()
        .join(names, on=KEYS)
        .join(dwell, on=KEYS, how="left")
        .with_columns(
            position=pl.col("positions") / pl.col("impressions"),
            locale=pl.when(pl.col("locale") != "").then("locale"),
            logged=pl.when(pl.col("scored") > 0).then(pl.col("scores") / pl.col("scored") / MICRO),
            engagement=pl.col("engagement") / MICRO,
            dwell=pl.when(pl.col("click_sessions") > 0).then("median"),
        )
        .select(pl.col(name).cast(dtype) for name, dtype in SCHEMA.items())
        .collect(engine="streaming")
        .sort(PAIR)
    )
