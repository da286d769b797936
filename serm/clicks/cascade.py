"""The cascade model: users go down the list to the first result that attracts them, click it, and leave.

    E_1 = 1;  P(C_r | E_r) = alpha_qd;  E_{r+1} = E_r and not C_r

Fitted in closed form: alpha = first clicks / rows at or above the first click of their list, with the configured Beta
prior. Clicks below the first one are impossible; the model gives them the smallest chance it can (see `chain_rule`).

References
    Craswell, Zoeter, Taylor, Ramsey: An experimental comparison of click position-bias models. WSDM 2008.
"""

import numpy as np

from serm.clicks.chain import Chain, fitted
from serm.clicks.model import shrunk
from serm.clicks.patterns import Patterns
from serm.config import ClickSettings


def fit(settings: ClickSettings, patterns: Patterns) -> Chain:
    """Count first clicks and the rows that were looked at until then."""
    size = patterns.pairs.size
    prior = (settings.prior_clicks, settings.prior_skips)
    clicks, examined = np.zeros(size), np.zeros(size)
    for batch in patterns.batches:
        lists = batch.lists
        looked = lists.weight * (lists.last_click() == 0)
        clicks[batch.span] += batch.sums(looked * lists.clicked)
        examined[batch.span] += batch.sums(looked)
    alpha = np.append(shrunk(clicks, examined, prior), prior[0] / sum(prior))
    return fitted("cascade", patterns, alpha, np.ones(size + 1), np.ones(patterns.positions().size), 1.0)
