"""How well a click model foretells clicks: perplexity over all rows and at each rank, and the log-likelihood."""

from dataclasses import dataclass

import numpy as np
import polars as pl

from serm.clicks.model import SMALLEST, ClickModel, checked


@dataclass(frozen=True)
class Perplexity:
    """2 to the cross-entropy of clicks, in bits: 1 is a perfect forecast, 2 a coin's.

    Plain perplexity asks before any click of a list is known, the conditional one knows the clicks above a row. Chances
    are kept within 1e-9 and 1 - 1e-9, so that a click held impossible costs 30 bits.
    """

    overall: float
    conditional: float  # 2 ** (-log2 likelihood / rows)
    log_likelihood: float  # natural logarithm, of all clicks
    per_rank: pl.DataFrame  # position, perplexity, conditional, impressions

    def at(self, position: int) -> float | None:
        """Plain perplexity at one position; None if the log has none there."""
        found = self.per_rank.filter(position=position)["perplexity"]
        return None if found.is_empty() else float(found.item())


def perplexity(model: ClickModel, impressions: pl.DataFrame) -> Perplexity:
    """How well `model` foretells the clicks; overall over rows, and at each position.

    Raises:
        ValueError: the impressions cannot be read (see `checked`).
    """
    clicked = checked(impressions)["clicked"].to_numpy()
    forecasts = {
        "perplexity": model.predict(impressions),
        "conditional": model.predict_conditional(impressions),
    }
    bits = {}
    for name, forecast in forecasts.items():
        chance = np.clip(forecast.to_numpy(), SMALLEST, 1 - SMALLEST)
        bits[name] = -np.log2(np.where(clicked, chance, 1 - chance))
    per_rank = (
        impressions.select("position", **{name: pl.Series(value) for name, value in bits.items()})
        .group_by("position")
        .agg(pl.col("perplexity", "conditional").mean(), impressions=pl.len())
        .with_columns(perplexity=2 ** pl.col("perplexity"), conditional=2 ** pl.col("conditional"))
        .sort("position")
    )
    return Perplexity(
        float(2 ** bits["perplexity"].mean()),
        float(2 ** bits["conditional"].mean()),
        float(-np.log(2) * bits["conditional"].sum()),
        per_rank,
    )
