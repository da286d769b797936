"""Users who go down a list and may stop after a click: what the cascade, dependent click and Bayesian models share.

    E_1 = 1;  P(C_r | E_r) = alpha_qd;  P(E_{r+1} | E_r, not C_r) = gamma
    P(E_{r+1} | E_r, C_r) = gamma * lambda_r * (1 - sigma_qd)

Each model frees some of these parameters and fixes the others. No forward-backward pass over all clicks is needed to
fit them: everything down to the last click was examined, and no click but the last can have stopped the user; only the
tail below is hidden. A gap of k positions in a list (rows that were not logged) is crossed with gamma ** k, as if
nothing there could be clicked.

References
    Chuklin, Markov, de Rijke: Click Models for Web Search. Morgan & Claypool 2015, sections 3.4 to 3.7.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from serm.clicks import files
from serm.clicks.lists import Lists
from serm.clicks.model import SMALLEST, Codes, Floats, Pairs, chain_rule, checked, places
from serm.clicks.patterns import Patterns

UNIFORM = (1.0, 1.0)


@dataclass(frozen=True)
class Chain:
    """A fitted model of this family."""

    name: str
    pairs: Pairs
    alpha: Floats  # (pairs + 1,): P(click | examined); the last entry is the prior's mean, for unseen pairs
    sigma: Floats  # (pairs + 1,): P(satisfied | click)
    positions: Codes  # (ranks,), ascending
    onward: Floats  # (ranks,): lambda, P(goes on | click, not satisfied) at these positions
    gamma: float  # P(goes on | examined, neither satisfied nor stopped by lambda)
    seen: Floats  # (ranks,): P(examined), mean over the log that was fitted

    def attractiveness(self, pairs: pl.DataFrame) -> pl.Series:
        """P(click | examined) of each row (query, doc_id), 0..1; the prior's mean for a pair that was never shown."""
        return pl.Series("attractiveness", self.alpha[self.pairs.codes(pairs)])

    def satisfaction(self, pairs: pl.DataFrame) -> pl.Series:
        """P(satisfied | click) of each row (query, doc_id), 0..1."""
        return pl.Series("satisfaction", self.sigma[self.pairs.codes(pairs)])

    def examination(self) -> pl.DataFrame:
        """P(examined) at each position, mean over the log that was fitted: position, examination."""
        return pl.DataFrame({"position": self.positions.astype(np.int32), "examination": self.seen})

    def examined(self, impressions: pl.DataFrame) -> pl.Series:
        """P(examined | the other clicks of its list, not attracted) of each row, 0..1: see `ClickModel.examined`."""
        lists, alpha, stops = self._read(impressions)
        before = filtered(lists, alpha, stops, self.gamma)
        tail, _ = silence(lists, alpha, crossing(lists, self.gamma))
        chance = before * tail / np.maximum(1 - before * (1 - tail), SMALLEST)
        return pl.Series("examined", lists.scatter(np.where(lists.clicked_below(), 1.0, chance)))

    def predict(self, impressions: pl.DataFrame) -> pl.Series:
        """P(click) of each row before any click of its list is known."""
        lists, alpha, stops = self._read(impressions)
        return pl.Series("click_probability", lists.scatter(forward(lists, alpha, stops, self.gamma) * alpha))

    def predict_conditional(self, impressions: pl.DataFrame) -> pl.Series:
        """P(click | the clicks above it in its list) of each row."""
        lists, alpha, stops = self._read(impressions)
        return pl.Series("click_probability", lists.scatter(filtered(lists, alpha, stops, self.gamma) * alpha))

    def log_likelihood(self, impressions: pl.DataFrame) -> float:
        """The natural logarithm of the probability of all these clicks: the chain rule over `predict_conditional`."""
        return chain_rule(self.predict_conditional(impressions), impressions["clicked"])

    def save(self, folder: Path) -> None:
        """Write the model into a new folder, whole or not at all."""
        files.save(self, folder)

    def _read(self, impressions: pl.DataFrame) -> tuple[Lists, Floats, Floats]:
        """The lists, and alpha and P(stops | click) of their rows."""
        lists = Lists.of(checked(impressions), self.pairs.codes(impressions))
        onward = self.onward[places(self.positions, lists.position)]
        return lists, self.alpha[lists.pair], 1 - (1 - self.sigma[lists.pair]) * onward


def fitted(name: str, patterns: Patterns, alpha: Floats, sigma: Floats, onward: Floats, gamma: float) -> Chain:
    """The model with these parameters (the entries for unseen pairs included), its mean examination worked out."""
    positions = patterns.positions()
    reached, shown = np.zeros(positions.size), np.zeros(positions.size)
    for batch in patterns.batches:
        lists = batch.lists
        rank = np.searchsorted(positions, lists.position)
        stops = 1 - (1 - sigma[lists.pair]) * onward[rank]
        weight = lists.weight
        reached += np.bincount(rank, weight * forward(lists, alpha[lists.pair], stops, gamma), positions.size)
        shown += np.bincount(rank, weight, positions.size)
    return Chain(name, patterns.pairs, alpha, sigma, positions, onward, gamma, reached / shown)


def crossing(lists: Lists, gamma: float) -> Floats:
    """gamma ** gap of each row; shape (n,)."""
    gap = lists.gap
    return np.asarray((gamma ** np.arange(int(gap.max()) + 1, dtype=float))[gap])


def forward(lists: Lists, alpha: Floats, stops: Floats, gamma: float) -> Floats:
    """P(examined) per row before any click is known."""
    examined = crossing(lists, gamma)
    for above, under in lists.steps():
        examined[under] *= examined[above] * (1 - alpha[above] * stops[above])
    return examined


def filtered(lists: Lists, alpha: Floats, stops: Floats, gamma: float) -> Floats:
    """P(examined | the clicks above) per row."""
    examined = crossing(lists, gamma)
    for above, under in lists.steps():
        before, a = examined[above], alpha[above]
        skipped = before * (1 - a) / np.maximum(1 - before * a, SMALLEST)
        examined[under] *= np.where(lists.clicked[above], 1 - stops[above], skipped)
    return examined


def silence(lists: Lists, alpha: Floats, crossed: Floats) -> tuple[Floats, Floats]:
    """P(no click below | examined, goes on) and P(no click from here on | examined), per row."""
    tail, silent = np.ones(alpha.size), 1 - alpha
    for above, under in reversed(list(lists.steps())):
        tail[above] = 1 - crossed[under] * (1 - silent[under])
        silent[above] *= tail[above]
    return tail, silent


@dataclass(frozen=True)
class Expected:
    """What users hidden below their last click are expected to have done, per row; and steps between neighbours."""

    examined: Floats
    stopped: Floats  # P(the click stopped the user); 0 where there was none
    went_on: float
    could: float


def expected(lists: Lists, alpha: Floats, stops: Floats, gamma: float) -> Expected:
    """The E step: posteriors given all clicks of a list."""
    clicked, below = lists.clicked, lists.clicked_below()
    gap, crossed = lists.gap, crossing(lists, gamma)
    tail, silent = silence(lists, alpha, crossed)
    # Given silence from here on, the chance that the row was looked at, if the user was ready to go on.
    reached = crossed * silent / np.maximum(1 - crossed * (1 - silent), SMALLEST)
    last = clicked & ~below
    stopped = np.where(last, stops / np.maximum(stops + (1 - stops) * tail, SMALLEST), 0.0)
    examined = np.where(clicked | below, 1.0, reached)  # right for first rows; the others follow from the row above
    weight, went_on, could = lists.weight, 0.0, 0.0
    for above, under in lists.steps():
        ready = np.where(below[above], 1.0, np.where(clicked[above], 1 - stopped[above], examined[above]))
        examined[under] = np.where(below[above], 1.0, ready * reached[under])
        neighbour = weight[under] * (gap[under] == 1)
        went_on += float(examined[under] @ neighbour)
        could += float(ready @ neighbour)
    return Expected(examined, stopped, went_on, could)
