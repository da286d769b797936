"""What the click model learns from a window: P(click | examined) of its pairs."""

import polars as pl

from serm.config import ClickSettings

LIST_COLUMNS = ("ts", "session", "query", "doc_id", "position", "clicked")


def attractiveness(impressions: pl.LazyFrame, pairs: pl.DataFrame, settings: ClickSettings) -> pl.Series:
    """Fit the configured click model to believable impressions; R_cm(q, d) in 0..1, aligned with `pairs`."""
    from serm import clicks

    log = (
        impressions.select(LIST_COLUMNS)
        .collect(engine="streaming")
        .sort("ts", "session", "query", "position", "doc_id")
    )
    return clicks.fit(settings, log).attractiveness(pairs).alias("attractiveness")
