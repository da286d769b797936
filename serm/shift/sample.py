"""A fixed-size sample of independent searches from a window.

The unit is one search per session, drawn at random (ours): sessions are independent of one another where the rows of
one result page are not, queries come in proportion to their traffic, and the sample's size, not the window's, sets the
power of every test. Drawing is by seeded hash, so it does not depend on the order of rows.
"""

from dataclasses import dataclass

import polars as pl

ROW_COLUMNS = ("doc_id", "position", "clicked", "dwell", "score")


@dataclass(frozen=True)
class Sample:
    """Sampled searches and what they showed.

    `searches` has [session, query, queries] (distinct queries of that session), in random order; `rows` has their
    results [session, query, doc_id, position, clicked, dwell, score], empty where the window holds bare queries.
    """

    searches: pl.DataFrame
    rows: pl.DataFrame
    distinct: int  # distinct queries of the whole window

    @property
    def size(self) -> int:
        """Number of searches."""
        return self.searches.height

    def head(self, size: int) -> "Sample":
        """The first `size` searches; any prefix is a random sample too."""
        searches = self.searches.head(size)
        return Sample(searches, self.rows.join(searches, on=["session", "query"], how="semi"), self.distinct)


def draw(window: pl.LazyFrame, size: int, seed: int) -> Sample:
    """Draw up to `size` searches from impressions, or from a frame that has only `query` (each row a search)."""
    columns = window.collect_schema().names()
    bare = "session" not in columns
    if bare:
        window = window.select("query", session=pl.col("query"))
    visits = window.select("session", "query").unique()
    searches = (
        visits.with_columns(lot=pl.struct("session", "query").hash(seed))
        .group_by("session")
        .agg(pl.col("query").sort_by("lot", "query").first(), queries=pl.len())
        .with_columns(lot=pl.col("session").hash(seed))
        .bottom_k(size, by=["lot", "session"])
    )
    distinct = visits.select(pl.col("query").n_unique())
    drawn, count = pl.collect_all([searches, distinct], engine="streaming")
    drawn = drawn.sort("lot", "session").drop("lot")
    if bare:
        return Sample(drawn, _no_rows(), int(count.item()))
    rows = (
        window.select("session", "query", *(pl.col(c) if c in columns else pl.lit(None).alias(c) for c in ROW_COLUMNS))
        .join(drawn.lazy().select("session", "query"), on=["session", "query"], how="semi")
        .collect(engine="streaming")
        .sort("session", "query", "position", "doc_id")
    )
    return Sample(drawn, rows, int(count.item()))


def _no_rows() -> pl.DataFrame:
    types = {"doc_id": pl.String, "position": pl.Int32, "clicked": pl.Boolean, "dwell": pl.Float64, "score": pl.Float64}
    return pl.DataFrame(schema={"session": pl.String, "query": pl.String, **types})
