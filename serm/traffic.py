"""Head, torso and tail of a query stream (ours): queries that make up its first third, its second, and the rest."""

import polars as pl

BANDS = ("head", "torso", "tail")


def bands(queries: pl.DataFrame, traffic: str, query: str = "query", within: str | None = None) -> pl.DataFrame:
    """The rows with a column `band`, one of `BANDS`: from the most frequent query to the least, ties by its text.

    A query's band is the third of the traffic in which its first search falls. `traffic` is the column that counts how
    often a query came, as whole numbers above 0; with `within` (locale, say) every value there has its own three bands.
    """
    place = [within] if within else []
    ordered = queries.sort(*place, traffic, query, descending=[*[False] * len(place), True, False])
    count = pl.col(traffic).cast(pl.Int64)
    before, all_ = count.cum_sum() - count, count.sum()
    if within:
        before, all_ = before.over(within), all_.over(within)
    third = 3 * before // all_
    return ordered.with_columns(band=third.replace_strict(range(3), BANDS, return_dtype=pl.String))
