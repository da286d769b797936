"""What the click model learns from a window: P(a reader is drawn and stays | examined) of its pairs."""

import polars as pl

from serm.config import ClickSettings

LIST_COLUMNS = ("ts", "session", "query", "doc_id", "position", "clicked")
STAYED_SHARE = 0.5  # of tau_u: a click that was left sooner drew a reader and disappointed


def attractiveness(impressions: pl.LazyFrame, pairs: pl.DataFrame, settings: ClickSettings, dwell: float) -> pl.Series:
    """Fit the configured click model to believable impressions; R_cm(q, d) in 0..1, aligned with `pairs`.

    A click counts when its dwell time is unknown or at least half of `dwell` (tau_u, seconds): what titles promise and
    texts do not keep would teach the relevance model the wrong thing (ours).
    """
    from serm import clicks

    stayed = pl.col("clicked") & (pl.col("dwell") >= STAYED_SHARE * dwell).fill_null(True)
    log = impressions.with_columns(clicked=stayed).select(LIST_COLUMNS).collect(engine="streaming")
    log = log.sort("ts", "session", "query", "position", "doc_id")
    return clicks.fit(settings, log).attractiveness(pairs).alias("attractiveness")
