"""Which judged queries are for training, for early stopping and for the gate, the same on every machine."""

import hashlib

import polars as pl


def stable_share(text: str) -> float:
    """A number in [0, 1) that depends on the text alone (blake2b; ours)."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=6).digest(), "big") / 2**48


def stable_split(queries: pl.Series, dev_share: float, anchor_share: float) -> pl.Series:
    """dev, anchor or train for every query, by a hash of its text: all of a query's judgments stay together."""
    unique = queries.drop_nulls().unique()
    shares = pl.Series([stable_share(query) for query in unique], dtype=pl.Float64)
    names = pl.DataFrame({"query": unique, "share": shares}).select(
        "query",
        pl.when(pl.col("share") < dev_share).then(pl.lit("dev"))
        .when(pl.col("share") < dev_share + anchor_share).then(pl.lit("anchor"))
        .otherwise(pl.lit("train")).alias("split"),
    )  # fmt: skip
    return queries.alias("query").to_frame().join(names, on="query", how="left", maintain_order="left")["split"]
