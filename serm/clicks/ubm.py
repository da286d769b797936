"""The user browsing model: whether a result is examined depends on its rank and on where the last click above was.

    P(C_r | clicks above) = alpha_qd * gamma_{r, r'};  r' = position of the last click above r, 0 if there is none

Fitted by expectation-maximisation on cells (pair, r, r'). alpha has the configured Beta prior, gamma a uniform one;
the topmost position of the log, with no click above, is taken as always examined. A combination (r, r') that was never
seen gets the mean examination at r (ours). Positions beyond the 500th distinct one count as that one.

References
    Dupret, Piwowarski: A user browsing model to predict search engine click data from past observations. SIGIR 2008.
    Chuklin, Markov, de Rijke: Click Models for Web Search. Morgan & Claypool 2015, sections 3.3 and 4.2.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from serm.clicks import files
from serm.clicks.cells import Cells
from serm.clicks.lists import Lists
from serm.clicks.model import SMALLEST, Codes, Floats, Pairs, chain_rule, checked, places
from serm.clicks.patterns import Patterns
from serm.config import ClickSettings

UNIFORM = (1.0, 1.0)
DEEPEST = 500  # a table of so many positions squared holds 2 MB


@dataclass(frozen=True)
class UserBrowsing:
    """A fitted user browsing model."""

    name: str
    pairs: Pairs
    alpha: Floats  # (pairs + 1,): P(click | examined); the last entry is the prior's mean, for unseen pairs
    positions: Codes  # (ranks,), ascending
    gamma: Floats  # (ranks, ranks + 1): P(examined) at a position, by 1 + the rank of the last click above; 0 = none
    seen: Floats  # (ranks,): P(examined), mean over the log that was fitted

    def attractiveness(self, pairs: pl.DataFrame) -> pl.Series:
        """P(click | examined) of each row (query, doc_id), 0..1; the prior's mean for a pair that was never shown."""
        return pl.Series("attractiveness", self.alpha[self.pairs.codes(pairs)])

    def examination(self) -> pl.DataFrame:
        """P(examined) at each position, mean over the log that was fitted: position, examination."""
        return pl.DataFrame({"position": self.positions.astype(np.int32), "examination": self.seen})

    def examined(self, impressions: pl.DataFrame) -> pl.Series:
        """P(examined | the other clicks of its list, not attracted) of each row: clicks below a skip say nothing."""
        lists = self._read(impressions)
        return pl.Series("examined", lists.scatter(self._given(lists)))

    def predict(self, impressions: pl.DataFrame) -> pl.Series:
        """P(click) of each row before any click of its list is known."""
        lists = self._read(impressions)
        chance = _looked(lists, self.alpha[lists.pair], self.positions, self.gamma) * self.alpha[lists.pair]
        return pl.Series("click_probability", lists.scatter(chance))

    def predict_conditional(self, impressions: pl.DataFrame) -> pl.Series:
        """P(click | the clicks above it in its list) of each row."""
        lists = self._read(impressions)
        return pl.Series("click_probability", lists.scatter(self._given(lists) * self.alpha[lists.pair]))

    def log_likelihood(self, impressions: pl.DataFrame) -> float:
        """The natural logarithm of the probability of all these clicks: the chain rule over `predict_conditional`."""
        return chain_rule(self.predict_conditional(impressions), impressions["clicked"])

    def save(self, folder: Path) -> None:
        """Write the model into a new folder, whole or not at all."""
        files.save(self, folder)

    def _read(self, impressions: pl.DataFrame) -> Lists:
        return Lists.of(checked(impressions), self.pairs.codes(impressions))

    def _given(self, lists: Lists) -> Floats:
        return self.gamma[places(self.positions, lists.position), _below(self.positions, lists.last_click())]


def fit(settings: ClickSettings, patterns: Patterns) -> UserBrowsing:
    """Fit to cells of pair, position and last click."""
    positions = patterns.positions()[:DEEPEST]
    ranks, columns = positions.size, positions.size + 1

    def place(lists: Lists) -> Codes:
        return places(positions, lists.position) * columns + _below(positions, lists.last_click())

    cells = Cells.of(patterns, place)
    top = max(cells.click_rate(1)[0], SMALLEST)
    start = np.clip(cells.click_rate(ranks * columns) / top, 0.01, 1.0)
    alpha, gamma = cells.climb(settings, start, UNIFORM)
    shown = np.bincount(cells.place, cells.shown, gamma.size).reshape(ranks, columns)
    gamma = gamma.reshape(ranks, columns)
    mean = (gamma * shown).sum(axis=1) / shown.sum(axis=1)
    gamma = np.where(shown > 0, gamma, mean[:, None])
    alpha = np.append(alpha, settings.prior_clicks / (settings.prior_clicks + settings.prior_skips))
    return UserBrowsing("ubm", patterns.pairs, alpha, positions, gamma, mean)


def _below(positions: Codes, last: Codes) -> Codes:
    """Column of gamma for each position of a last click."""
    return np.where(last > 0, 1 + places(positions, last), 0)


def _looked(lists: Lists, alpha: Floats, positions: Codes, gamma: Floats) -> Floats:
    """P(examined) per row before any click is known: a sum over where the last click above may have been."""
    rank = places(positions, lists.position)
    examined = np.empty(alpha.size)
    last: list[tuple[Codes | int, Floats]] = [(0, np.ones(lists.times.size))]  # (column of gamma, P(last click there))
    for block in lists.blocks:
        many, looked, clicked = block.stop - block.start, 0.0, 0.0
        for column, chance in last:
            at = column if isinstance(column, int) else column[:many]
            part = chance[:many] * gamma[rank[block], at]
            looked, clicked = looked + part, clicked + part * alpha[block]
            chance[:many] -= part * alpha[block]
        examined[block] = looked
        last.append((1 + rank[block], np.asarray(clicked)))
    return examined
