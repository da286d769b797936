"""Spam resistance: what of a log is worth believing (ours).

A session is a bot's when it clicks much and reads nothing: at least `bot_clicks` clicks, on `bot_share` or more of what
it was shown, and a median dwell below `bot_dwell` seconds (unknown dwell counts as none); or twice as many clicks
with such a median that is known, whatever the share. Its rows are dropped. A click of anyone else that was left within
`bot_dwell` seconds is a bounce: the result stays as shown and skipped. What remains of a session may speak for
`per_session` results only (see `candidates`).
"""

import polars as pl

from serm.config import MiningSettings


def believable(impressions: pl.LazyFrame, settings: MiningSettings) -> pl.LazyFrame:
    """Impressions without bots' sessions, and with bounces as skips."""
    bounced = pl.col("clicked") & (pl.col("dwell") < settings.bot_dwell).fill_null(False)
    return impressions.join(bots(impressions, settings), on="session", how="anti").with_columns(
        clicked=pl.col("clicked") & ~bounced, dwell=pl.when(~bounced).then("dwell")
    )


def bots(impressions: pl.LazyFrame, settings: MiningSettings) -> pl.LazyFrame:
    """The sessions [session] that behave like bots; see this module's rule."""
    read = pl.col("dwell")
    greedy = pl.col("clicks") >= settings.bot_share * pl.col("shown")
    return (
        impressions.group_by("session")
        .agg(shown=pl.len(), clicks=pl.col("clicked").sum(), dwell=pl.col("dwell").filter("clicked").median())
        .filter(
            ((pl.col("clicks") >= settings.bot_clicks) & greedy & (read.fill_null(0.0) < settings.bot_dwell))
            | ((pl.col("clicks") >= 2 * settings.bot_clicks) & (read < settings.bot_dwell))
        )
        .select("session")
    )
