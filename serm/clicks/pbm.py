"""The position-based model: P(click at r) = gamma_r * alpha_qd, examined and attractive independently.

Fitted by expectation-maximisation with a Beta prior on every alpha. The product leaves one scale free, so the topmost
position of the log is taken as always examined: alpha is the click rate that the pair would have there.

References
    Richardson, Dominowska, Ragno: Predicting clicks. WWW 2007.
    Craswell, Zoeter, Taylor, Ramsey: An experimental comparison of click position-bias models. WSDM 2008.
    Chuklin, Markov, de Rijke: Click Models for Web Search. Morgan & Claypool 2015 (the EM equations, section 4.2.2).
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from serm.clicks import files
from serm.clicks.cells import Cells
from serm.clicks.model import SMALLEST, Codes, Floats, Pairs, chain_rule, checked, places
from serm.clicks.patterns import Patterns
from serm.config import ClickSettings


@dataclass(frozen=True)
class PositionBased:
    """A fitted model in which rows of a list are independent of each other."""

    name: str
    pairs: Pairs
    alpha: Floats  # (pairs + 1,): P(click | examined); the last entry is for unseen pairs
    positions: Codes  # (ranks,), ascending
    gamma: Floats  # (ranks,): P(examined) at these positions

    def attractiveness(self, pairs: pl.DataFrame) -> pl.Series:
        """P(click | examined) of each row (query, doc_id), 0..1; the prior's mean for a pair that was never shown."""
        return pl.Series("attractiveness", self.alpha[self.pairs.codes(pairs)])

    def examination(self) -> pl.DataFrame:
        """P(examined) at each position of the log that was fitted: position, examination."""
        return pl.DataFrame({"position": self.positions.astype(np.int32), "examination": self.gamma})

    def examined(self, impressions: pl.DataFrame) -> pl.Series:
        """P(examined) of each row, 0..1, whatever else was clicked.

        A position that was not in the log counts as the next above it that was.
        """
        place = places(self.positions, checked(impressions)["position"].to_numpy())
        return pl.Series("examined", self.gamma[place])

    def predict(self, impressions: pl.DataFrame) -> pl.Series:
        """P(click) of each row."""
        chance = self.examined(impressions).to_numpy() * self.alpha[self.pairs.codes(impressions)]
        return pl.Series("click_probability", chance)

    def predict_conditional(self, impressions: pl.DataFrame) -> pl.Series:
        """P(click) of each row: the clicks above it say nothing."""
        return self.predict(impressions)

    def log_likelihood(self, impressions: pl.DataFrame) -> float:
        """The natural logarithm of the probability of all these clicks (rows are independent)."""
        return chain_rule(self.predict(impressions), impressions["clicked"])

    def save(self, folder: Path) -> None:
        """Write the model into a new folder, whole or not at all."""
        files.save(self, folder)


def fit(settings: ClickSettings, patterns: Patterns) -> PositionBased:
    """Fit to cells: what rows at the same position and of the same pair have in common is counted once."""
    positions = patterns.positions()
    cells = Cells.of(patterns, lambda lists: np.searchsorted(positions, lists.position))
    gamma = np.clip(cells.click_rate(positions.size) / max(cells.click_rate(1)[0], SMALLEST), 0.01, 1.0)
    alpha, gamma = cells.climb(settings, gamma, None)
    prior = settings.prior_clicks / (settings.prior_clicks + settings.prior_skips)
    return PositionBased("pbm", patterns.pairs, np.append(alpha, prior), positions, gamma)
