"""The dynamic Bayesian network model: users go down a list, click what attracts, and stop when satisfied.

    E_1 = 1;  P(C_r | E_r) = alpha_qd;  P(S_r | C_r) = sigma_qd;  P(E_{r+1} | E_r, not S_r) = gamma

The full model with a free gamma, fitted by expectation-maximisation. Ours: alpha has the configured Beta prior, sigma a
uniform one; gamma is learnt from neighbours only, not from steps over a gap.

References
    Chapelle, Zhang: A dynamic Bayesian network click model for web search ranking. WWW 2009.
    Chuklin, Markov, de Rijke: Click Models for Web Search. Morgan & Claypool 2015, section 3.7.
"""

import numpy as np

from serm.clicks.chain import UNIFORM, Chain, expected, fitted
from serm.clicks.model import shrunk
from serm.clicks.patterns import Patterns
from serm.config import ClickSettings

FIRST_GAMMA = 0.9


def fit(settings: ClickSettings, patterns: Patterns) -> Chain:
    """Fit all three parameters, from shrunk click rates, one half and 0.9."""
    return climb("dbn", settings, patterns, FIRST_GAMMA, learn_gamma=True)


def climb(name: str, settings: ClickSettings, patterns: Patterns, gamma: float, learn_gamma: bool) -> Chain:
    """Expectation-maximisation from a given gamma, which is kept unless it is to be learnt."""
    size = patterns.pairs.size
    prior = (settings.prior_clicks, settings.prior_skips)
    clicks, shown = np.zeros(size), np.zeros(size)
    for batch in patterns.batches:
        clicks[batch.span] += batch.sums(batch.lists.weight * batch.lists.clicked)
        shown[batch.span] += batch.sums(batch.lists.weight)
    alpha, sigma = shrunk(clicks, shown, prior), np.full(size, 0.5)
    for _ in range(settings.iterations):
        examined, satisfied, went_on, could = np.zeros(size), np.zeros(size), 0.0, 0.0
        for batch in patterns.batches:
            lists, weight = batch.lists, batch.lists.weight
            found = expected(lists, alpha[lists.pair], sigma[lists.pair], gamma)
            examined[batch.span] += batch.sums(weight * found.examined)
            satisfied[batch.span] += batch.sums(weight * found.stopped)
            went_on, could = went_on + found.went_on, could + found.could
        alpha, sigma = shrunk(clicks, examined, prior), shrunk(satisfied, clicks, UNIFORM)
        gamma = went_on / could if learn_gamma and could > 0 else gamma
    alpha, sigma = np.append(alpha, prior[0] / sum(prior)), np.append(sigma, 0.5)
    return fitted(name, patterns, alpha, sigma, np.ones(patterns.positions().size), gamma)
