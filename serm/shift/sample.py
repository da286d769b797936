"""Fixed-size samples of independent searches, the reference's matched to the current window's by season.

The unit is one search per session, drawn at random (ours): sessions are independent of one another where the rows of
one result page are not, queries come in proportion to their traffic, and the sample's size, not the window's, sets the
power of every test. Drawing is by seeded hash, so it does not depend on the order of rows.

Matching: the k-th search that was drawn of a cell (see `season`) meets the k-th of the same cell on the other side, so
that both samples have the same number in every cell. Searches without a counterpart are left out. Tests that ignore
the cells are then conservative, for what varies between cells cannot part the windows.
"""

from dataclasses import dataclass, replace

import polars as pl

from serm.shift.season import Season, cell

NO_ROWS = pl.DataFrame(
    schema={
        "session": pl.String, "query": pl.String, "doc_id": pl.String, "position": pl.Int32, "clicked": pl.Boolean,
        "dwell": pl.Float64, "score": pl.Float64,
    }
)  # fmt: skip


@dataclass(frozen=True)
class Sample:
    """Sampled searches and what they showed.

    `searches` has [session, query, queries, cell, rank] (distinct queries of that session; the search's place among
    those drawn of its cell), in random order; `rows` has their results [session, query, doc_id, position, clicked,
    dwell, score], empty until `with_rows` and where the window holds bare queries.
    """

    searches: pl.DataFrame
    rows: pl.DataFrame
    distinct: int  # distinct queries of the whole window

    @property
    def size(self) -> int:
        """Number of searches."""
        return self.searches.height

    @property
    def queries(self) -> list[str]:
        """The query of every search."""
        return self.searches["query"].to_list()


def draw(window: pl.LazyFrame, size: int, seed: int, season: Season = "none") -> Sample:
    """Draw up to `size` searches from impressions, or from a frame that has only `query` (each row a search)."""
    searches, distinct = pl.collect_all(
        [_lots(window, seed, season).bottom_k(size, by=["lot", "session"]), _distinct(window)], engine="streaming"
    )
    return Sample(_ranked(searches), NO_ROWS, int(distinct.item()))


def draw_like(window: pl.LazyFrame, like: Sample, times: int, seed: int, season: Season) -> Sample:
    """Draw up to `times` as many searches as `like` holds, cell by cell."""
    wanted = like.searches.group_by("cell").agg(wanted=times * pl.len())
    most = int(wanted["wanted"].max())  # type: ignore[arg-type]
    if wanted.height == 1:
        pool = (
            _lots(window, seed, season).join(wanted.lazy(), on="cell", how="semi").bottom_k(most, by=["lot", "session"])
        )
    else:
        pool = (
            _lots(window, seed, season)
            .join(wanted.lazy(), on="cell", how="semi")
            .group_by("cell")
            .agg(pl.struct("session", "query", "queries", "lot").bottom_k_by("lot", most).alias("search"))
            .explode("search")
            .unnest("search")
        )
    searches, distinct = pl.collect_all([pool, _distinct(window)], engine="streaming")
    kept = _ranked(searches).join(wanted, on="cell", maintain_order="left").filter(pl.col("rank") < pl.col("wanted"))
    return Sample(kept.drop("wanted"), NO_ROWS, int(distinct.item()))


def matched(reference: Sample, current: Sample, size: int, times: int = 1) -> tuple[Sample, ...]:
    """Up to `size` searches of the current window and, `times` over, their counterparts in the reference.

    Returns the `times` reference samples, then the current one; all of one height, aligned row by row.
    """
    meet = ["cell", "rank"]
    after = current.searches
    for i in range(times):
        turn = reference.searches.filter(pl.col("rank") % times == i).with_columns(pl.col("rank") // times)
        after = after.join(turn.select(meet), on=meet, how="semi", maintain_order="left")
    after = after.head(size)
    sides = []
    for i in range(times):
        turn = reference.searches.filter(pl.col("rank") % times == i).with_columns(pl.col("rank") // times)
        found = after.select(meet).join(turn, on=meet, maintain_order="left").select(after.columns)
        sides.append(replace(reference, searches=found))
    return (*sides, replace(current, searches=after))


def with_rows(sample: Sample, window: pl.LazyFrame) -> Sample:
    """Add what the sampled searches showed."""
    columns = window.collect_schema().names()
    if "session" not in columns:
        return sample
    rows = (
        window.select(
            (pl.col(name) if name in columns else pl.lit(None).alias(name)).cast(dtype)
            for name, dtype in NO_ROWS.schema.items()
        )
        .join(sample.searches.lazy().select("session", "query"), on=["session", "query"], how="semi")
        .collect(engine="streaming")
        .sort("session", "query", "position", "doc_id")
    )
    return replace(sample, rows=rows)


def _visits(window: pl.LazyFrame) -> pl.LazyFrame:
    """Each session's distinct queries [session, query, ts], with the time of the first result."""
    columns = window.collect_schema().names()
    if "session" not in columns:
        return window.select("query", session=pl.col("query"), ts=pl.lit(None)).unique()
    time = pl.col("ts") if "ts" in columns else pl.lit(None).alias("ts")
    return window.select("session", "query", time).group_by("session", "query").agg(pl.col("ts").min())


def _lots(window: pl.LazyFrame, seed: int, season: Season) -> pl.LazyFrame:
    """One search a session [session, query, queries, cell, lot], drawn by lot."""
    return (
        _visits(window)
        .with_columns(lot=pl.struct("session", "query").hash(seed))
        .group_by("session")
        .agg(pl.col("query", "ts").sort_by("lot", "query").first(), queries=pl.len())
        .select("session", "query", "queries", cell=cell(season), lot=pl.col("session").hash(seed))
    )


def _distinct(window: pl.LazyFrame) -> pl.LazyFrame:
    return window.select(pl.col("query").n_unique())


def _ranked(searches: pl.DataFrame) -> pl.DataFrame:
    """In random order, with each search's place in its cell."""
    return (
        searches.sort("lot", "session")
        .with_columns(rank=pl.int_range(pl.len(), dtype=pl.Int64).over("cell"))
        .select("session", "query", "queries", "cell", "rank")
    )
