"""The position-based model: P(click at r) = gamma_r * alpha_qd, examined and attractive independently.

Fitted by expectation-maximisation with a Beta prior on every alpha. The product leaves one scale free, so the topmost
position of the log is taken as always examined: alpha is the click rate that the pair would have there.

References
    Richardson, Dominowska, Ragno: Predicting clicks. WWW 2007.
    Craswell, Zoeter, Taylor, Ramsey: An experimental comparison of click position-bias models. WSDM 2008.
    Chuklin, Markov, de Rijke: Click Models for Web Search. Morgan & Claypool 2015 (the EM equations).
"""

from dataclasses import dataclass

import numpy as np
import polars as pl

from serm.clicks.model import Floats, Pairs, checked, shrunk, sums
from serm.config import ClickSettings

SMALLEST = 1e-9


@dataclass(frozen=True)
class PositionBased:
    """A fitted position-based model."""

    pairs: Pairs
    alpha: Floats  # (pairs + 1,): P(click | examined); the last entry is the prior's mean, for unseen pairs
    positions: Floats  # (ranks,), ascending
    gamma: Floats  # (ranks,): P(examined) at these positions

    def attractiveness(self, pairs: pl.DataFrame) -> pl.Series:
        """P(click | examined) of each row (query, doc_id), 0..1; the prior's mean for a pair that was never shown."""
        return pl.Series("attractiveness", self.alpha[self.pairs.codes(pairs)])

    def examination(self) -> pl.DataFrame:
        """P(examined) at each position of the log that was fitted: position, examination."""
        return pl.DataFrame({"position": self.positions.astype(np.int32), "examination": self.gamma})

    def predict(self, impressions: pl.DataFrame) -> pl.Series:
        """P(click) of each row; a position that was not in the log counts as the next one above it that was."""
        places = np.searchsorted(self.positions, checked(impressions)["position"].to_numpy(), side="right") - 1
        chance = self.gamma[np.maximum(places, 0)] * self.alpha[self.pairs.codes(impressions)]
        return pl.Series("click_probability", chance)

    def log_likelihood(self, impressions: pl.DataFrame) -> float:
        """The natural logarithm of the probability of all these clicks (rows are independent)."""
        chance = np.clip(self.predict(impressions).to_numpy(), SMALLEST, 1 - SMALLEST)
        return float(np.log(np.where(impressions["clicked"].to_numpy(), chance, 1 - chance)).sum())


def fit(settings: ClickSettings, impressions: pl.DataFrame) -> PositionBased:
    """Fit to impressions; what rows at the same position and of the same pair have in common is counted once.

    Raises:
        ValueError: the impressions cannot be read (see `checked`).
    """
    pairs = Pairs.of(checked(impressions))
    cells = (
        impressions.select("position", "clicked", pl.Series("pair", pairs.codes(impressions)))
        .group_by("pair", "position")
        .agg(shown=pl.len(), clicks=pl.col("clicked").sum())
        .sort("pair", "position")
    )
    pair = cells["pair"].to_numpy()
    positions, rank = np.unique(cells["position"].to_numpy(), return_inverse=True)
    shown = cells["shown"].to_numpy().astype(float)
    clicks = cells["clicks"].to_numpy().astype(float)
    skips = shown - clicks

    prior = (settings.prior_clicks, settings.prior_skips)
    total = sums(pair, shown, pairs.size)
    shown_at = np.bincount(rank, shown)
    click_rate = np.bincount(rank, clicks) / shown_at
    gamma = np.clip(click_rate / max(click_rate[0], SMALLEST), 0.01, 1.0)
    gamma[0] = 1.0
    # Clicks over expected clicks: a start in which alpha and gamma fit each other (from raw click rates EM creeps).
    alpha = shrunk(sums(pair, clicks, pairs.size), sums(pair, shown * gamma[rank], pairs.size), prior)
    for _ in range(settings.iterations):
        g, a = gamma[rank], alpha[pair]
        no_click = np.maximum(1 - g * a, SMALLEST)
        attractive = clicks + skips * (1 - g) * a / no_click  # expected attractive showings, seen or not
        examined = clicks + skips * g * (1 - a) / no_click  # expected examined showings
        alpha = shrunk(sums(pair, attractive, pairs.size), total, prior)
        gamma = np.bincount(rank, examined) / shown_at
        gamma[0] = 1.0
    return PositionBased(pairs, np.append(alpha, prior[0] / sum(prior)), positions.astype(float), gamma)
