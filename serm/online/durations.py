"""How long a test must run: from what a log's own users vary and how many come a day.

Information I is one over the variance of the difference. It grows with new users and with more from those who return;
its growth over the later half of the log is carried on (ours). A change of size c is seen with the wanted power when
c sqrt(I) = factor + z(power), with the factor of the interval that will be read.
"""

import math
from collections.abc import Sequence

from scipy.optimize import brentq
from scipy.stats import norm

from serm.online.sequential import factor

MOST_DAYS = 3_650.0


def needed(change: float, alpha: float, power: float) -> float:
    """Information with which a planned, single look at level `alpha` finds `change` with chance `power`."""
    return float(((norm.ppf(1 - alpha / 2) + norm.ppf(power)) / change) ** 2)


def needed_peeking(change: float, alpha: float, power: float, units_per_information: float, tightest: float) -> float:
    """The same for the always-valid interval, looked at at its end; it may well end the test sooner.

    The interval depends on the number of users as well, of which `units_per_information` come with each information.
    """
    reach = float(norm.ppf(power))

    def short(log_information: float) -> float:
        information = math.exp(log_information)
        return change * math.sqrt(information) - factor(information * units_per_information, alpha, tightest) - reach

    low = math.log(needed(change, alpha, power)) - 1  # a single look needs less than any look
    high = low + 1.0
    while short(high) < 0:
        high += 1.0
    return math.exp(brentq(short, low, high))


def days_until(wanted: float, information: Sequence[float]) -> float | None:
    """Days of test until the information is `wanted`; `information` is that at the end of each day so far.

    None where it does not grow, or would take more than ten years.
    """
    have = [value if math.isfinite(value) else 0.0 for value in information]
    for day, value in enumerate(have, start=1):
        if value >= wanted:
            return float(day)
    if len(have) < 2:
        growth = have[-1] if have else 0.0
    else:
        middle = (len(have) - 1) // 2
        growth = (have[-1] - have[middle]) / (len(have) - 1 - middle)
    if growth <= 0 or (wanted - have[-1]) / growth > MOST_DAYS:
        return None
    return len(have) + (wanted - have[-1]) / growth
