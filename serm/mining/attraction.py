"""What the click model learns from a window: P(a reader is drawn and stays | examined) of its pairs."""

import polars as pl

from serm.config import ClickSettings

LIST_COLUMNS = ("ts", "session", "query", "doc_id", "position", "clicked")
STAYED_SHARE = 0.5  # of tau_u: a click that was left sooner drew a reader and disappointed
SEED = 0  # of the samples: the same window gives the same estimates in every round


def attractiveness(impressions: pl.LazyFrame, pairs: pl.DataFrame, settings: ClickSettings, dwell: float) -> pl.Series:
    """R_cm(q, d) in 0..1 of `pairs`, row for row, from all believable impressions.

    The click model is the configured one, or the one of lowest held-out perplexity. It is fitted on at most
    `settings.sessions` sessions; what it says of examination is then applied to every row of the window that shows one
    of the pairs (see `serm.clicks.evidence`). One way for windows of any size; a single click proves nothing: with
    the default prior of 1 click in 5 showings it lifts a pair from 0.2 to a third. `impressions` is read four times.
    """
    from serm.clicks import evidence, fit
    from serm.clicks.compare import chosen
    from serm.clicks.slices import sampled

    log = drawn(impressions, dwell)
    sample = sampled(log, settings.sessions, SEED).collect(engine="streaming")
    name = chosen(settings, sampled(sample.lazy(), settings.compared, SEED).collect(), SEED)
    model = fit(name, settings, sample)
    return evidence.estimate(model, sample, log, pairs, settings).alias("attractiveness")


def drawn(impressions: pl.LazyFrame, dwell: float) -> pl.LazyFrame:
    """What click models read, with a click that was left too soon as a skip.

    A click counts when its dwell time is unknown or at least half of `dwell` (tau_u, seconds): what titles promise and
    texts do not keep would teach the relevance model the wrong thing (ours).
    """
    stayed = pl.col("clicked") & (pl.col("dwell") >= STAYED_SHARE * dwell).fill_null(True)
    return impressions.with_columns(clicked=stayed).select(LIST_COLUMNS)
