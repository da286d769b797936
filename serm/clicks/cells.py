"""Clicks counted by pair and place: all that models of the form alpha_qd * gamma_place need of a log, and their EM."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from serm.clicks.lists import Lists
from serm.clicks.model import SMALLEST, Codes, Floats, shrunk
from serm.clicks.patterns import Patterns
from serm.config import ClickSettings

HIGHEST = 0.99  # at which an alpha may start


@dataclass(frozen=True)
class Cells:
    """Rows with one pair and one place, counted; a pair's cells may occur more than once."""

    pairs: int
    pair: Codes  # (cells,), ascending but for pairs that batches share
    place: Codes  # (cells,), 0 = the one that is always examined
    shown: Floats  # (cells,)
    clicks: Floats  # (cells,)

    @staticmethod
    def of(patterns: Patterns, place: Callable[[Lists], Codes]) -> "Cells":
        """Count; `place` numbers the places of a batch's rows from 0."""
        parts = []
        for batch in patterns.batches:
            lists, weight = batch.lists, batch.lists.weight
            numbers = place(lists)
            many = int(numbers.max()) + 1
            key, cell = np.unique((lists.pair - batch.base) * many + numbers, return_inverse=True)
            shown = np.bincount(cell, weight)
            clicks = np.bincount(cell, weight * lists.clicked)
            parts.append((key // many + batch.base, key % many, shown, clicks))
        columns = [np.concatenate(column) for column in zip(*parts, strict=True)]
        return Cells(patterns.pairs.size, *columns)

    def click_rate(self, places: int) -> Floats:
        """Clicks over showings in each of the first `places` places; 0 where nothing was shown."""
        return (_sums(self.place, self.clicks, places) / np.maximum(_sums(self.place, self.shown, places), 1))[:places]

    def climb(self, settings: ClickSettings, gamma: Floats, prior: tuple[float, float] | None) -> tuple[Floats, Floats]:
        """Expectation-maximisation from a given gamma: (alpha per pair, gamma per place); gamma[0] stays 1.

        alpha has the configured Beta prior, gamma that of `prior`, if any; a place that was never shown keeps gamma.
        """
        beta = (settings.prior_clicks, settings.prior_skips)
        gamma, skips = gamma.copy(), self.shown - self.clicks
        gamma[0] = 1.0
        total = _sums(self.pair, self.shown, self.pairs)
        shown_at = _sums(self.place, self.shown, gamma.size)
        there = shown_at > 0
        # Clicks over expected clicks: a start in which alpha and gamma fit each other (from click rates EM creeps).
        clicks = _sums(self.pair, self.clicks, self.pairs)
        expected = _sums(self.pair, self.shown * gamma[self.place], self.pairs)
        alpha = np.minimum(shrunk(clicks, expected, beta), HIGHEST)
        for _ in range(settings.iterations):
            g, a = gamma[self.place], alpha[self.pair]
            no_click = np.maximum(1 - g * a, SMALLEST)
            attractive = self.clicks + skips * (1 - g) * a / no_click  # expected attractive showings, seen or not
            examined = self.clicks + skips * g * (1 - a) / no_click  # expected examined showings
            alpha = shrunk(_sums(self.pair, attractive, self.pairs), total, beta)
            looked = _sums(self.place, examined, gamma.size)
            learnt = shrunk(looked, shown_at, prior) if prior else looked / np.maximum(shown_at, 1)
            gamma = np.where(there, learnt, gamma)
            gamma[0] = 1.0
        return alpha, gamma


def _sums(number: Codes, weights: Floats, size: int) -> Floats:
    return np.bincount(number, weights, size).astype(np.float64)
