"""Click-model agent: users would like it wherever it stood, the model does not."""

from collections.abc import Sequence

import polars as pl

from serm.config import MiningSettings


def opinion(candidates: pl.DataFrame, settings: MiningSettings, scale: Sequence[int]) -> pl.DataFrame:
    """R_cm(q, d) > tau_cm in place of a click, and f(q, d) < tau_c (SERM, click-model agent), graded.

    score is R_cm, the fitted click model's attractiveness, which has position bias and sparsity taken out; value is
    R_cm times how far f lies below tau_c, for pairs clicked in `settings.sessions` sessions or more: the rest have the
    model's prior and nothing else (ours). Reads attractiveness, click_sessions, position, score, level.
    """
    gap = (1 - pl.col("level") / settings.low_score).clip(0, 1) if settings.low_score else pl.lit(0.0)
    seen = pl.col("click_sessions") >= settings.sessions
    liked = seen & (pl.col("attractiveness") > settings.click)
    return candidates.select(
        score=pl.col("attractiveness"),
        value=pl.when(seen).then(pl.col("attractiveness") * gap).fill_null(0.0),
        passes=(liked & (pl.col("level") < settings.low_score)).fill_null(False),
        reason=pl.format(
            "attracts {}% of those who look at it (mean position {}), but scored {} of {}",
            (100 * pl.col("attractiveness")).round(0).cast(pl.Int64), pl.col("position").round(1),
            pl.col("score").round(2), scale[-1],
        ),
    )  # fmt: skip
