"""Unlabelled pairs from the query stream: searches that are frequent, middling and rare, each with their share (ours).

Head, torso and tail are those of `serm.traffic`, by the number of sessions that asked a query.
"""

import polars as pl

from serm.config import DistillationSettings
from serm.traffic import bands

SESSIONS = pl.col("session").n_unique()


def strata(impressions: pl.LazyFrame) -> pl.DataFrame:
    """Every query with its stratum: [query, searches, stratum], the most searched first."""
    queries = impressions.group_by("query").agg(searches=SESSIONS.cast(pl.Int64)).collect(engine="streaming")
    return bands(queries, "searches").rename({"band": "stratum"})


def stream_pairs(
    impressions: pl.LazyFrame, documents: pl.LazyFrame, settings: DistillationSettings, seed: int
) -> pl.DataFrame:
    """At most `settings.pairs` pairs [query, doc_id, text, stratum] that were shown, whatever the rows' order.

    A query gives at most `per_query` pairs. What one stratum lacks, the others give.
    """
    known = strata(impressions).with_columns(lot=pl.col("query").hash(seed))
    # Every query has a pair at least, so that so many of a stratum are enough: memory does not grow with the log.
    kept = known.sort("lot", "query").filter(pl.int_range(pl.len()).over("stratum") < settings.pairs)
    pairs = (
        impressions.join(kept.lazy().select("query", "stratum"), on="query", how="semi")
        .select("query", "doc_id")
        .unique()
        .join(documents.select("doc_id", "text"), on="doc_id", how="inner")
        .filter(pl.col("text").str.strip_chars() != "")
        .collect(engine="streaming")
        .join(kept.select("query", "stratum"), on="query")
        .with_columns(lot=pl.struct("query", "doc_id").hash(seed))
        .sort("lot", "query", "doc_id")
        .filter(pl.int_range(pl.len()).over("query") < settings.per_query)
    )
    shares = {"head": settings.head_share, "torso": settings.torso_share}
    shares["tail"] = 1 - sum(shares.values())
    wanted = pl.col("stratum").replace_strict({name: round(share * settings.pairs) for name, share in shares.items()})
    first = pairs.with_columns(beyond=pl.int_range(pl.len()).over("stratum") >= wanted)
    chosen = first.sort("beyond", maintain_order=True).head(settings.pairs)
    return chosen.select("query", "doc_id", "text", "stratum").sort("query", "doc_id")
