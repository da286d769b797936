"""Disagreement agent: the model contradicts itself."""

from collections.abc import Sequence

import polars as pl

from serm.config import MiningSettings


def opinion(candidates: pl.DataFrame, settings: MiningSettings, scale: Sequence[int]) -> pl.DataFrame:
    """MD(q, d) = max_{i,j} |f^i(q, d) - f^j(q, d)| over K sampled judgments, kept when high (SERM).

    score is MD on the label scale, value MD as a share of the scale's range; null for pairs that were not sampled.
    Reads lowest, highest.
    """
    spread = pl.col("highest") - pl.col("lowest")
    share = spread / (scale[-1] - scale[0])
    return candidates.select(
        score=spread,
        value=share,
        passes=(share > settings.disagreement).fill_null(False),
        reason=pl.format(
            "sampled judgments range from {} to {} of {}",
            pl.col("lowest").round(2),
            pl.col("highest").round(2),
            scale[-1],
        ),
    )
