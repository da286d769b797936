"""Spam resistance: what of a log is worth believing (ours).

The unit is the visit: a session's rows of one UTC day. It is a bot's when it clicks much and reads nothing: at least
`bot_clicks` clicks, on `bot_share` or more of what it was shown, and a median dwell below `bot_dwell` seconds (unknown
dwell counts as none); or twice as many clicks with such a median that is known, whatever the share. Its rows are
dropped. A click of anyone else that was left within `bot_dwell` seconds is a bounce: the result stays as shown and
skipped. What remains of a visit may speak for `per_session` results only (see `aggregates`), and a document for no more
clicks than its showings explain (see `candidates`).
"""

import polars as pl

from serm.config import MiningSettings

# 64 bits tell visits apart: among ten million of them two collide with a chance of three in a million.
VISIT = pl.struct("session", pl.col("ts").dt.date()).hash()


def believable(impressions: pl.LazyFrame, settings: MiningSettings) -> pl.LazyFrame:
    """Impressions without bots' visits, and with bounces as skips.

    The bots are looked up here and now, once, however often the result is then read.
    """
    known = bots(impressions, settings).collect(engine="streaming")
    bounced = pl.col("clicked") & (pl.col("dwell") < settings.bot_dwell).fill_null(False)
    return (
        impressions.with_columns(visit=VISIT)
        .join(known.lazy(), on="visit", how="anti")
        .drop("visit")
        .with_columns(clicked=pl.col("clicked") & ~bounced, dwell=pl.when(~bounced).then("dwell"))
    )


def bots(impressions: pl.LazyFrame, settings: MiningSettings) -> pl.LazyFrame:
    """The visits [visit] that behave like bots; see this module's rule. Only those that click enough are looked at."""
    rows = impressions.with_columns(visit=VISIT)
    suspects = (
        rows.filter("clicked")
        .group_by("visit")
        .agg(clicks=pl.len(), read=pl.col("dwell").median())
        .filter((pl.col("clicks") >= settings.bot_clicks) & (pl.col("read").fill_null(0.0) < settings.bot_dwell))
    )
    shown = rows.join(suspects, on="visit", how="semi").group_by("visit").agg(shown=pl.len())
    greedy = pl.col("clicks") >= settings.bot_share * pl.col("shown")
    restless = (pl.col("clicks") >= 2 * settings.bot_clicks) & (pl.col("read") < settings.bot_dwell)
    return suspects.join(shown, on="visit").filter(greedy | restless.fill_null(False)).select("visit")
