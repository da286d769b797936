"""Users who examine and click by relevance: position-based, dynamic Bayesian, and bots who do not care.

Arrays are (S, R): searches by ranks. Relevance is the true grade carried onto 0..1; a rate between the lowest and the
top grade is interpolated linearly (dwell: geometrically), which is our choice.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from serm.config import SimulateSettings

BOT_DWELL_SECONDS = 1.0


@dataclass(frozen=True)
class Behaviour:
    """What happened on every result; each array (S, R). Dwell is seconds, nan where not clicked."""

    examined: NDArray[np.bool_]
    clicked: NDArray[np.bool_]
    dwell: NDArray[np.float64]


def people(
    relevance: NDArray[np.float64], shown: NDArray[np.bool_], settings: SimulateSettings, rng: np.random.Generator
) -> Behaviour:
    """Clicks of honest users on `relevance` (0..1) where `shown`, by the model that `settings.user` names.

    pbm: rank r is examined with chance 1 / r ** examination_decay, independently; an examined result is clicked with
    its attraction. (Richardson et al., 2007.)
    dbn: users go down the list, click what attracts, stop when a click satisfied them, and otherwise look at the next
    result with chance `continuation`. (Chapelle and Zhang, 2009.)
    """
    attracted = rng.random(relevance.shape) < _between(settings.attraction, relevance)
    ranks = relevance.shape[1]
    if settings.user == "pbm":
        chance = np.arange(1, ranks + 1, dtype=float) ** -settings.examination_decay
        examined = (rng.random(relevance.shape) < chance) & shown
    else:
        satisfied = rng.random(relevance.shape) < _between(settings.satisfaction, relevance)
        goes_on = rng.random(relevance.shape) < settings.continuation
        going = np.ones(relevance.shape, dtype=bool)
        going[:, 1:] = np.logical_and.accumulate((goes_on & ~(attracted & satisfied))[:, :-1], axis=1)
        examined = going & shown
    clicked = examined & attracted
    low, high = settings.dwell
    median = low * (high / low) ** relevance
    dwell = median * np.exp(settings.dwell_spread * rng.standard_normal(relevance.shape))
    return Behaviour(examined, clicked, np.where(clicked, dwell, np.nan))


def bots(
    target: NDArray[np.bool_], shown: NDArray[np.bool_], settings: SimulateSettings, rng: np.random.Generator
) -> Behaviour:
    """Clicks of bots: on every `target` they are shown if they push any, else on anything with chance `bot_clicks`.

    They look at all results and stay for up to a second.
    """
    clicked = target & shown if settings.bot_targets else (rng.random(shown.shape) < settings.bot_clicks) & shown
    dwell = BOT_DWELL_SECONDS * rng.random(shown.shape)
    return Behaviour(shown.copy(), clicked, np.where(clicked, dwell, np.nan))


def _between(ends: tuple[float, float], relevance: NDArray[np.float64]) -> NDArray[np.float64]:
    return ends[0] + (ends[1] - ends[0]) * relevance
