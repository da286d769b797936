"""Candidates: every (query, document) that a window showed, with what users did, as one lazy plan."""

import polars as pl

from serm.config import MiningSettings

UNKNOWN_ENGAGEMENT = 0.5  # of a click whose dwell time was not logged, where a click read for tau_u seconds counts 1
EXPLORED_SHARE = 0.25  # of the pairs that the model scores, kept for pairs nobody clicked
PAIR = ["query", "doc_id"]

# What `gather` yields; agents and selection read these.
SCHEMA = pl.Schema(
    {
        "query": pl.String,
        "doc_id": pl.String,
        "locale": pl.String,
        "impressions": pl.UInt32,
        "sessions": pl.UInt32,  # distinct sessions that were shown it
        "position": pl.Float64,  # mean
        "logged": pl.Float64,  # mean logged score
        "click_sessions": pl.UInt32,  # distinct sessions that clicked it, each counting `per_session` results at most
        "engagement": pl.Float64,  # sum over those of min(1, dwell / tau_u)
        "dwell": pl.Float64,  # median seconds of those
    }
)


def gather(
    impressions: pl.LazyFrame, documents: pl.LazyFrame, exclude: pl.LazyFrame, settings: MiningSettings
) -> pl.DataFrame:
    """One row a pair that was shown, sorted by query and document; columns as in SCHEMA.

    Memory is that of the pairs, not of the impressions: the streaming engine folds rows as it reads them.

    Args:
        impressions: believable impressions (see `traffic`).
        documents: [doc_id, ...]; pairs with other documents are left out.
        exclude: [query, doc_id] to leave out: mined before, or judged by people.
        settings: tau_u and the cap per session.
    """
    shown = impressions.group_by(PAIR).agg(
        pl.col("locale").min(),
        impressions=pl.len(),
        sessions=pl.col("session").n_unique(),
        position=pl.col("position").mean(),
        logged=pl.col("score").mean(),
    )
    return (
        shown.join(documents.select("doc_id").unique(), on="doc_id", how="semi")
        .join(exclude.select(PAIR), on=PAIR, how="anti")
        .join(clicked(impressions, settings), on=PAIR, how="left")
        .with_columns(pl.col("click_sessions", "engagement").fill_null(0))
        .select(pl.col(name).cast(dtype) for name, dtype in SCHEMA.items())
        .collect(engine="streaming")
        .sort(PAIR)
    )


def clicked(impressions: pl.LazyFrame, settings: MiningSettings) -> pl.LazyFrame:
    """Clicks by pair: [query, doc_id, click_sessions, engagement, dwell].

    Only the first `per_session` distinct results that a session clicked count, and a pair once a session: one user, or
    one bot, cannot speak loudly.
    """
    by_session = (
        impressions.filter("clicked")
        .group_by("session", *PAIR)
        .agg(pl.col("ts").min(), pl.col("position").min(), pl.col("dwell").max())
        .sort("session", "ts", "position", *PAIR)
        .filter(pl.int_range(pl.len()).over("session") < settings.per_session)
    )
    engaged = (pl.col("dwell") / settings.dwell).clip(0, 1).fill_null(UNKNOWN_ENGAGEMENT)
    return by_session.group_by(PAIR).agg(
        click_sessions=pl.len(), engagement=engaged.sum().round(9), dwell=pl.col("dwell").median()
    )


def cascade(candidates: pl.DataFrame, limit: int, seed: int) -> pl.DataFrame:
    """The `limit` candidates worth scoring: clicked pairs, best evidence first, then a sample of the rest (ours).

    The rest is stratified by query: one pair of every query before a second of any, drawn by seeded hash. It gets at
    least a quarter of the places, so that the model is also asked about what users passed over.
    """
    if candidates.height <= limit:
        return candidates
    evidence = candidates.filter(pl.col("click_sessions") > 0)
    rest = candidates.filter(pl.col("click_sessions") == 0)
    kept = min(evidence.height, limit - min(rest.height, int(EXPLORED_SHARE * limit)))
    evidence = evidence.sort("engagement", "click_sessions", *PAIR, descending=[True, True, False, False]).head(kept)
    lot = pl.struct(PAIR).hash(seed)
    rest = (
        rest.with_columns(lot=lot)
        .with_columns(turn=pl.col("lot").rank("ordinal").over("query"))
        .sort("turn", "lot", *PAIR)
        .head(limit - kept)
    )
    return pl.concat([evidence, rest.select(candidates.columns)]).sort(PAIR)
