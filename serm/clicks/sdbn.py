"""The simplified dynamic Bayesian network: gamma = 1, so that an unsatisfied user reads on to the end.

    E_1 = 1;  P(C_r | E_r) = alpha_qd;  P(S_r | C_r) = sigma_qd;  E_{r+1} if E_r and not S_r

The paper's counts (`counted`; alpha: clicks / rows at or above the last click, sigma: last clicks / clicks) take every
last click for a satisfied one. The likelihood itself is climbed by expectation-maximisation, as in the full model: a
user may also have read on and found nothing.

References
    Chapelle, Zhang: A dynamic Bayesian network click model for web search ranking. WWW 2009, section 4 and algorithm 1.
"""

import numpy as np

from serm.clicks.chain import UNIFORM, Chain
from serm.clicks.dbn import climb
from serm.clicks.model import Floats, shrunk
from serm.clicks.patterns import Patterns
from serm.config import ClickSettings


def fit(settings: ClickSettings, patterns: Patterns) -> Chain:
    """Fit alpha and sigma with gamma held at 1."""
    return climb("sdbn", settings, patterns, 1.0, learn_gamma=False)


def counted(settings: ClickSettings, patterns: Patterns) -> tuple[Floats, Floats]:
    """The paper's estimates, smoothed: alpha and sigma, each (pairs,)."""
    from serm.clicks import dcm

    alpha, _ = dcm.counted(settings, patterns)
    clicks, last = np.zeros(patterns.pairs.size), np.zeros(patterns.pairs.size)
    for batch in patterns.batches:
        clicked = batch.lists.weight * batch.lists.clicked
        clicks[batch.span] += batch.sums(clicked)
        last[batch.span] += batch.sums(clicked * ~batch.lists.clicked_below())
    return alpha, shrunk(last, clicks, UNIFORM)
