"""Intervals that hold at every look: how many standard errors wide, and the p-value that goes with them.

The asymptotic confidence sequence of a mean after t observations with standard deviation s is
mean +- s sqrt(2 (t rho^2 + 1) / (t^2 rho^2) log(sqrt(t rho^2 + 1) / alpha)) (Waudby-Smith, Arbour, Sinha, Kennedy,
Ramdas, "Time-uniform central limit theory and asymptotic confidence sequences", Annals of Statistics 2024, theorem
2.2; arXiv 2103.06476). It is Robbins' normal mixture, and so the inverse of the mixture sequential probability ratio
test (Johari, Koomen, Pekelis, Walsh, "Peeking at A/B tests", KDD 2017, section 4). The guarantee is asymptotic and
for users who come one after the other; users who come back gather more between looks, which `benchmarks/
abtest_power.py` measures.
"""

import math


def rho_squared(alpha: float, tightest: float) -> float:
    """rho^2 that makes the interval tightest after about `tightest` users (Waudby-Smith et al. 2024)."""
    return (-2 * math.log(alpha) + math.log(-2 * math.log(alpha) + 1)) / tightest


def factor(units: float, alpha: float, tightest: float) -> float:
    """Half the width of the always-valid interval in standard errors of the estimate after `units` users."""
    x = units * rho_squared(alpha, tightest)
    return math.sqrt((1 + 1 / x) * (math.log1p(x) - 2 * math.log(alpha)))


def p_value(z: float, units: float, alpha: float, tightest: float) -> float:
    """The level at which the always-valid interval would just hold no change, in [0, 1]; z in standard errors.

    rho is that of `alpha`, so that the p-value is at most alpha exactly where the interval of `factor` leaves out 0.
    """
    x = units * rho_squared(alpha, tightest)
    return min(1.0, math.exp(0.5 * (math.log1p(x) - z * z * x / (1 + x))))
