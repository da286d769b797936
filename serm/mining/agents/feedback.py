"""User feedback agent: users liked it, the model did not."""

from collections.abc import Sequence

import polars as pl

from serm.config import MiningSettings

PRIOR_SESSIONS = 2.0  # imagined sessions that were shown the pair and passed on: one lone click is weak evidence


def opinion(candidates: pl.DataFrame, settings: MiningSettings, scale: Sequence[int]) -> pl.DataFrame:
    """(click = 1 or engagement U > tau_u) and f(q, d) < tau_c (SERM, feedback agent), graded.

    score is the evidence: engaged sessions over sessions shown, shrunk by two imagined sessions that passed on, where a
    clicking session is engaged by min(1, dwell / tau_u); value is evidence times how far f lies below tau_c (ours).
    Reads sessions, click_sessions, engagement, dwell, score, level; clicks count from `settings.sessions` sessions on.
    """
    gap = (1 - pl.col("level") / settings.low_score).clip(0, 1) if settings.low_score else pl.lit(0.0)
    liked = pl.col("click_sessions") >= settings.sessions
    evidence = pl.col("engagement") / (pl.col("sessions") + PRIOR_SESSIONS)
    read = pl.when(pl.col("dwell").is_not_null()).then(
        pl.format(" and read {} s", pl.col("dwell").round(0).cast(pl.Int64))
    )
    many = pl.lit("sessions")
    return candidates.select(
        score=evidence,
        value=pl.when(liked).then(evidence * gap).fill_null(0.0),
        passes=(liked & (pl.col("level") < settings.low_score)).fill_null(False),
        reason=pl.format(
            "clicked in {} of {} {}{}, but scored {} of {}",
            "click_sessions", "sessions", pl.when(pl.col("sessions") == 1).then(pl.lit("session")).otherwise(many),
            read.fill_null(""), pl.col("score").round(2), scale[-1],
        ),
    )  # fmt: skip
