"""The dependent click model: a cascade that goes on after a click at rank r with chance lambda_r.

    E_1 = 1;  P(C_r | E_r) = alpha_qd;  P(E_{r+1} | E_r, C_r) = lambda_r;  E_{r+1} if E_r and not C_r

The paper's counts (alpha: clicks / rows at or above the last click; lambda_r: 1 - last clicks at r / clicks at r) take
every last click for the end and so maximise a lower bound of the likelihood. They are the start here; the likelihood
itself is climbed by expectation-maximisation (ours), in which a user may also have gone on and found nothing. A click
in the last row of a list says nothing about lambda. alpha has the configured Beta prior, lambda a uniform one.

References
    Guo, Liu, Wang: Efficient multiple-click models in web search. WSDM 2009 (equations 8 and 9).
"""

import numpy as np

from serm.clicks.chain import UNIFORM, Chain, expected, fitted
from serm.clicks.model import Floats, shrunk
from serm.clicks.patterns import Patterns
from serm.config import ClickSettings


def counted(settings: ClickSettings, patterns: Patterns) -> tuple[Floats, Floats]:
    """The paper's estimates, smoothed: alpha (pairs,), and lambda (positions,)."""
    positions, size = patterns.positions(), patterns.pairs.size
    clicks, examined = np.zeros(size), np.zeros(size)
    on, clicks_at = np.zeros(positions.size), np.zeros(positions.size)
    for batch in patterns.batches:
        lists, below, weight = batch.lists, batch.lists.clicked_below(), batch.lists.weight
        # A list without clicks was looked at to its end.
        silent = ~(below | lists.clicked) & (lists.last_click() == 0)
        rank = np.searchsorted(positions, lists.position)
        clicks[batch.span] += batch.sums(weight * lists.clicked)
        examined[batch.span] += batch.sums(weight * (lists.clicked | below | silent))
        on += np.bincount(rank, weight * (lists.clicked & below), positions.size)
        clicks_at += np.bincount(rank, weight * lists.clicked, positions.size)
    alpha = shrunk(clicks, examined, (settings.prior_clicks, settings.prior_skips))
    return alpha, shrunk(on, clicks_at, UNIFORM)


def fit(settings: ClickSettings, patterns: Patterns) -> Chain:
    """Climb from the paper's counts to the maximum of the likelihood."""
    positions, size = patterns.positions(), patterns.pairs.size
    prior = (settings.prior_clicks, settings.prior_skips)
    alpha, onward = counted(settings, patterns)
    for _ in range(settings.iterations):
        clicks, examined = np.zeros(size), np.zeros(size)
        on, asked = np.zeros(positions.size), np.zeros(positions.size)
        for batch in patterns.batches:
            lists, weight = batch.lists, batch.lists.weight
            rank = np.searchsorted(positions, lists.position)
            found = expected(lists, alpha[lists.pair], 1 - onward[rank], 1.0)
            clicks[batch.span] += batch.sums(weight * lists.clicked)
            examined[batch.span] += batch.sums(weight * found.examined)
            clicked = weight * (lists.clicked & lists.followed())
            on += np.bincount(rank, clicked * (1 - found.stopped), positions.size)
            asked += np.bincount(rank, clicked, positions.size)
        alpha, onward = shrunk(clicks, examined, prior), shrunk(on, asked, UNIFORM)
    alpha = np.append(alpha, prior[0] / sum(prior))
    return fitted("dcm", patterns, alpha, np.zeros(size + 1), onward, 1.0)
