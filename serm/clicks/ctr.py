"""Click-through baselines, to be beaten: one rate for all, a rate by rank, a rate by pair.

    ctr_global  P(click) = rho          ctr_rank  P(click at r) = rho_r          ctr_pair  P(click) = rho_qd

A rate by rank is written as a position-based model whose documents all attract alike, the other two as ones in which
every position is examined. Rates are counted, with the configured Beta prior.

References
    Chuklin, Markov, de Rijke: Click Models for Web Search. Morgan & Claypool 2015, section 3.1 (RCM, RCTR, DCTR).
"""

import numpy as np

from serm.clicks.model import Floats, shrunk
from serm.clicks.patterns import Patterns
from serm.clicks.pbm import PositionBased
from serm.config import ClickSettings


def fit_global(settings: ClickSettings, patterns: Patterns) -> PositionBased:
    """One click rate for everything."""
    clicks, shown = _by_position(patterns)
    rate = shrunk(clicks.sum(), shown.sum(), _prior(settings))
    return _model("ctr_global", patterns, np.full(patterns.pairs.size + 1, rate), np.ones(clicks.size))


def fit_rank(settings: ClickSettings, patterns: Patterns) -> PositionBased:
    """A click rate for each position; attractiveness is the highest of them."""
    rates = shrunk(*_by_position(patterns), _prior(settings))
    best = rates.max()
    return _model("ctr_rank", patterns, np.full(patterns.pairs.size + 1, best), rates / best)


def fit_pair(settings: ClickSettings, patterns: Patterns) -> PositionBased:
    """A click rate for each pair, wherever it stood."""
    prior, size = _prior(settings), patterns.pairs.size
    clicks, shown = np.zeros(size), np.zeros(size)
    for batch in patterns.batches:
        clicks[batch.span] += batch.sums(batch.lists.weight * batch.lists.clicked)
        shown[batch.span] += batch.sums(batch.lists.weight)
    alpha = np.append(shrunk(clicks, shown, prior), prior[0] / sum(prior))
    return _model("ctr_pair", patterns, alpha, np.ones(patterns.positions().size))


def _model(name: str, patterns: Patterns, alpha: Floats, gamma: Floats) -> PositionBased:
    return PositionBased(name, patterns.pairs, alpha, patterns.positions(), gamma)


def _by_position(patterns: Patterns) -> tuple[Floats, Floats]:
    positions = patterns.positions()
    clicks, shown = np.zeros(positions.size), np.zeros(positions.size)
    for batch in patterns.batches:
        rank, weight = np.searchsorted(positions, batch.lists.position), batch.lists.weight
        clicks += np.bincount(rank, weight * batch.lists.clicked, positions.size)
        shown += np.bincount(rank, weight, positions.size)
    return clicks, shown


def _prior(settings: ClickSettings) -> tuple[float, float]:
    return settings.prior_clicks, settings.prior_skips
