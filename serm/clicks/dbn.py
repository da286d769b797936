"""The dynamic Bayesian network model: users go down a list, click what attracts, and stop when satisfied.

    E_1 = 1;  P(C_r | E_r) = alpha_qd;  P(S_r | C_r) = sigma_qd;  P(E_{r+1} | E_r, not S_r) = gamma

The full model with a free gamma, fitted by expectation-maximisation. No forward-backward pass over all clicks is
needed: everything down to the last click was examined and, above it, left unsatisfied; only the tail below is hidden.

Ours: alpha has the configured Beta prior, sigma a uniform one. A gap of k positions in a list (rows that were not
logged) is crossed with gamma ** k, as if nothing there could be clicked; gamma is learnt from neighbours only.

References
    Chapelle, Zhang: A dynamic Bayesian network click model for web search ranking. WWW 2009.
    Chuklin, Markov, de Rijke: Click Models for Web Search. Morgan & Claypool 2015.
"""

from dataclasses import dataclass

import numpy as np
import polars as pl

from serm.clicks.lists import Lists
from serm.clicks.model import Floats, Pairs, checked, shrunk, sums
from serm.config import ClickSettings

SMALLEST = 1e-9
FIRST_GAMMA = 0.9
UNIFORM = (1.0, 1.0)


@dataclass(frozen=True)
class DynamicBayesian:
    """A fitted dynamic Bayesian network model."""

    pairs: Pairs
    alpha: Floats  # (pairs + 1,): P(click | examined); the last entry is the prior's mean, for unseen pairs
    sigma: Floats  # (pairs + 1,): P(satisfied | click)
    gamma: float  # P(goes on | examined, not satisfied)
    seen: pl.DataFrame  # position, examination: mean over the log that was fitted

    def attractiveness(self, pairs: pl.DataFrame) -> pl.Series:
        """P(click | examined) of each row (query, doc_id), 0..1; the prior's mean for a pair that was never shown."""
        return pl.Series("attractiveness", self.alpha[self.pairs.codes(pairs)])

    def satisfaction(self, pairs: pl.DataFrame) -> pl.Series:
        """P(satisfied | click) of each row (query, doc_id), 0..1; a half for a pair that was never shown."""
        return pl.Series("satisfaction", self.sigma[self.pairs.codes(pairs)])

    def examination(self) -> pl.DataFrame:
        """P(examined) at each position, mean over the log that was fitted: position, examination."""
        return self.seen

    def predict(self, impressions: pl.DataFrame) -> pl.Series:
        """P(click) of each row before any click of its list is known."""
        lists = Lists.of(checked(impressions))
        pair = self.pairs.codes(impressions)[lists.order]
        alpha = self.alpha[pair]
        examined = _forward(lists, alpha, self.sigma[pair], self.gamma)
        chance = np.empty_like(alpha)
        chance[lists.order] = examined * alpha
        return pl.Series("click_probability", chance)

    def log_likelihood(self, impressions: pl.DataFrame) -> float:
        """The natural logarithm of the probability of all these clicks, list by list."""
        lists = Lists.of(checked(impressions))
        pair = self.pairs.codes(impressions)[lists.order]
        alpha, sigma = self.alpha[pair], self.sigma[pair]
        tail, silent = _silence(lists, alpha, self.gamma)
        below = lists.clicked_below()
        crossed = self.gamma**lists.gap
        first = lists.blocks[0]
        any_click = lists.clicked[first] | below[first]
        opened = np.where(any_click, crossed[first], 1 - crossed[first] * (1 - silent[first]))
        stays = np.where(below, 1 - sigma, sigma + (1 - sigma) * tail)
        row = np.where(lists.clicked, alpha * stays, np.where(below, 1 - alpha, 1.0))
        total = _log(opened).sum() + _log(row).sum()
        for above, under in lists.steps():
            total += _log(np.where(below[above], crossed[under], 1.0)).sum()
        return float(total)


def fit(settings: ClickSettings, impressions: pl.DataFrame) -> DynamicBayesian:
    """Fit to impressions, grouped into lists by (session, query, ts).

    Raises:
        ValueError: the impressions cannot be read (see `checked`).
    """
    pairs = Pairs.of(checked(impressions))
    lists = Lists.of(impressions)
    pair = pairs.codes(impressions)[lists.order]
    clicked, below = lists.clicked, lists.clicked_below()
    last = clicked & ~below  # the lowest click of its list
    certain = clicked | below  # examined for sure
    size = pairs.size
    prior = (settings.prior_clicks, settings.prior_skips)
    clicks = sums(pair, clicked.astype(float), size)
    neighbours = [(above, under) for above, under in lists.steps()]
    adjacent = lists.gap == 1

    alpha = shrunk(clicks, sums(pair, np.ones(pair.size), size), prior)
    sigma = np.full(size, 0.5)
    gamma = FIRST_GAMMA
    for _ in range(settings.iterations):
        a, s = alpha[pair], sigma[pair]
        tail, silent = _silence(lists, a, gamma)
        crossed = gamma**lists.gap
        # Given silence from here on, the chance that the row was looked at, if the user was ready to go on.
        reached = crossed * silent / np.maximum(1 - crossed * (1 - silent), SMALLEST)
        satisfied = np.where(last, s / np.maximum(s + (1 - s) * tail, SMALLEST), 0.0)
        examined = np.where(certain, 1.0, reached)  # right for first rows; the others follow from the row above
        went_on = could = 0.0
        for above, under in neighbours:
            ready = np.where(below[above], 1.0, np.where(clicked[above], 1 - satisfied[above], examined[above]))
            examined[under] = np.where(below[above], 1.0, ready * reached[under])
            went_on += float(examined[under] @ adjacent[under])
            could += float(ready @ adjacent[under])
        alpha = shrunk(clicks, sums(pair, examined, size), prior)
        sigma = shrunk(sums(pair, satisfied, size), clicks, UNIFORM)
        gamma = went_on / could if could > 0 else gamma

    examined = _forward(lists, alpha[pair], sigma[pair], gamma)
    positions = impressions["position"].gather(lists.order)
    seen = pl.DataFrame([positions, pl.Series("examination", examined)])
    return DynamicBayesian(
        pairs,
        np.append(alpha, prior[0] / sum(prior)),
        np.append(sigma, 0.5),
        gamma,
        seen.group_by("position").agg(pl.col("examination").mean()).sort("position"),
    )


def _silence(lists: Lists, alpha: Floats, gamma: float) -> tuple[Floats, Floats]:
    """P(no click below | examined, not satisfied) and P(no click from here on | examined), per row."""
    crossed = gamma**lists.gap
    tail = np.ones(alpha.size)
    silent = 1 - alpha
    for above, under in reversed(list(lists.steps())):
        tail[above] = 1 - crossed[under] * (1 - silent[under])
        silent[above] *= tail[above]
    return tail, silent


def _forward(lists: Lists, alpha: Floats, sigma: Floats, gamma: float) -> Floats:
    """P(examined) per row before any click is known."""
    examined = gamma ** lists.gap.astype(float)
    for above, under in lists.steps():
        examined[under] *= examined[above] * (1 - alpha[above] * sigma[above])
    return examined


def _log(values: Floats) -> Floats:
    return np.log(np.maximum(values, SMALLEST))
