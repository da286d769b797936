"""The cascade: which pairs are worth the model's time, from what costs nothing (ours).

First the clicked pairs that the logged score does not already like, best evidence first; then a sample of the rest,
spread over strata of query traffic in every locale, so that the model is also asked about what users passed over, and
about rare queries as much as about frequent ones.
"""

from collections.abc import Sequence

import polars as pl

from serm.config import MiningSettings
from serm.mining.agents.feedback import PRIOR_SESSIONS
from serm.mining.aggregates import KEYS, MICRO
from serm.traffic import bands

EXPLORED_SHARE = 0.25  # of the pairs that the model scores, kept for pairs outside the evidence


def cascade(pairs: pl.LazyFrame, count: int, settings: MiningSettings, scale: Sequence[int], seed: int) -> pl.DataFrame:
    """The `settings.candidates` pairs worth scoring, of `count` pairs as `pairs.Pairs.table` has them.

    Evidence is what the feedback agent would value if the logged score were the model's, and of pairs without one as if
    the model scored them lowest. At least a quarter of the places goes to the rest, by stratum in equal shares (a
    stratum with fewer pairs leaves its places to the others); inside one, a pair of every query before a second of any,
    drawn by seeded hash. Equal pairs and seed give equal choices, whatever the order of rows.
    """
    limit = settings.candidates
    if count <= limit:
        return pairs.collect(engine="streaming")
    value = worth(settings, scale)
    evidence = pairs.filter(value > 0)
    number = evidence.select(pl.len()).collect(engine="streaming").item()
    kept = min(number, limit - min(count - number, int(EXPLORED_SHARE * limit)))
    best = evidence.with_columns(worth=value).sort("worth", *KEYS, descending=[True, False, False]).head(kept)
    rest = _sampled(pairs, value <= 0, limit - kept, seed)
    return pl.concat([best.drop("worth").collect(engine="streaming"), rest])


def worth(settings: MiningSettings, scale: Sequence[int]) -> pl.Expr:
    """Evidence of users' liking times how low the logged score is, 0..1; 0 for a pair that nobody clicked."""
    logged = (pl.col("scores") / pl.col("scored") / MICRO - scale[0]) / (scale[-1] - scale[0])
    low = settings.low_score
    gap = (1 - logged / low).clip(0, 1) if low else pl.lit(0.0)
    gap = pl.when(pl.col("scored") > 0).then(gap).otherwise(1.0)
    return pl.col("engagement") / MICRO / (pl.col("sessions") + PRIOR_SESSIONS) * gap


def strata(pairs: pl.LazyFrame, rest: pl.Expr) -> pl.DataFrame:
    """Queries with their stratum: [query_key, locale, rest (its pairs), band (by impressions in the locale)]."""
    queries = (
        pairs.group_by("query_key")
        .agg(pl.col("locale").min(), traffic=pl.col("impressions").sum(), rest=rest.sum())
        .collect(engine="streaming")
    )
    return bands(queries, "traffic", "query_key", "locale").select("query_key", "locale", "rest", "band")


def fair_places(available: Sequence[int], places: int) -> list[int]:
    """Equal places for strata that have so many pairs; what one cannot use goes to the others."""
    given = [0] * len(available)
    left = min(places, sum(available))
    while left:
        open_ = [i for i, most in enumerate(available) if given[i] < most]
        each = max(1, left // len(open_))
        for i in open_:
            more = min(each, available[i] - given[i], left)
            given[i] += more
            left -= more
    return given


def _sampled(pairs: pl.LazyFrame, rest: pl.Expr, places: int, seed: int) -> pl.DataFrame:
    """`places` of the pairs outside the evidence, spread over the strata."""
    queries = strata(pairs, rest).filter(pl.col("rest") > 0)
    sizes = queries.group_by("locale", "band").agg(pl.col("rest").sum()).sort("locale", "band")
    shares = sizes.with_columns(pl.Series("places", fair_places(sizes["rest"].to_list(), places), dtype=pl.Int64))
    stratum = ["locale", "band"]
    drawn = (
        queries.join(shares.select(*stratum, "places"), on=stratum)
        .with_columns(query_lot=pl.col("query_key").hash(seed))
        .filter(pl.struct("query_lot", "query_key").rank("ordinal").over(stratum) <= pl.col("places"))
        .select("query_key", "band", "places", "query_lot", stratum=pl.struct(stratum))
    )
    return (
        pairs.filter(rest)
        .join(drawn.lazy(), on="query_key")
        .collect(engine="streaming")
        .with_columns(lot=pl.struct(KEYS).hash(seed))
        .with_columns(turn=pl.struct("lot", "doc_key").rank("ordinal").over("query_key"))
        .sort("stratum", "turn", "query_lot", *KEYS)
        .filter(pl.int_range(pl.len()).over("stratum") < pl.col("places"))
        .select(pairs.collect_schema().names())
    )
