"""Uncertainty agent: the model does not know."""

import math
from collections.abc import Sequence

import polars as pl

from serm.config import MiningSettings


def opinion(candidates: pl.DataFrame, settings: MiningSettings, scale: Sequence[int]) -> pl.DataFrame:
    """MU(q, d) = -sum_y Pr(y | q, d) log Pr(y | q, d), kept when high (SERM).

    score is MU in nats, value MU as a share of log|Y|, its largest possible value. Reads entropy, probabilities.
    """
    share = pl.col("entropy") / math.log(len(scale))
    percents = (
        pl.col("probabilities").arr.to_list().list.eval((100 * pl.element()).round(0).cast(pl.Int64).cast(pl.String))
    )
    return candidates.select(
        score=pl.col("entropy"),
        value=share,
        passes=(share > settings.uncertainty).fill_null(False),
        reason=pl.format(
            f"unsure: {{}}% for the grades {'/'.join(map(str, scale))} (entropy {{}} of {math.log(len(scale)):.2f})",
            percents.list.join("/"), pl.col("entropy").round(2),
        ),
    )  # fmt: skip
