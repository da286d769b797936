"""Ratio metrics, their variance by user, and what a treatment changed.

The users are independent, their searches are not: the variance of R = sum N / sum D is that of the users' linearised
values (N_i - R D_i) / mean D, the delta method (Deng, Knoblich, Lu, "Applying the Delta Method in Metric Analytics",
KDD 2018, on cluster randomisation). Counting every search as independent makes intervals too narrow.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

Sums = Mapping[str, float]  # units and moments.SUMS of one variant


@dataclass(frozen=True)
class Arm:
    """A variant's metric: its value, the variance of that value, and how many users it has."""

    value: float
    variance: float
    units: int


@dataclass(frozen=True)
class Change:
    """Treatment against control: the difference and the relative change with their standard errors.

    `log_error` is the standard error of log(treatment / control); NaN where one of them is not above 0.
    """

    control: float
    treatment: float
    difference: float
    error: float
    log_error: float
    units: int  # of both

    @property
    def z(self) -> float:
        """The difference in standard errors; 0 where nothing varies."""
        return self.difference / self.error if self.error > 0 else 0.0

    def absolute(self, factor: float) -> tuple[float, float]:
        """The difference's interval, `factor` standard errors to each side."""
        return self.difference - factor * self.error, self.difference + factor * self.error

    def relative(self, factor: float) -> tuple[float, float, float]:
        """The relative change, treatment / control - 1, and its interval, by the delta method on the logarithm."""
        if not math.isfinite(self.log_error):
            return (math.nan,) * 3
        middle = math.log(self.treatment / self.control)
        low, high = middle - factor * self.log_error, middle + factor * self.log_error
        return math.expm1(middle), math.expm1(min(low, 700.0)), math.expm1(min(high, 700.0))


def arm(sums: Sums) -> Arm:
    """A variant's ratio and its variance by the delta method; NaN where it has no denominator or one user.

    Var(R) = n / (n - 1) * sum (N_i - R D_i)^2 / (sum D_i)^2 (Deng et al. 2018, the first-order expansion of the ratio).
    """
    n, d = sums["units"], sums["d"]
    if d <= 0 or n < 2:
        return Arm(math.nan, math.nan, int(n))
    value = sums["n"] / d
    squares = sums["nn"] - 2 * value * sums["nd"] + value**2 * sums["dd"]
    return Arm(value, max(squares, 0.0) * n / (n - 1) / d**2, int(n))


def change(control: Sums, treatment: Sums, adjust: bool = False) -> Change:
    """What the treatment changed; with `adjust`, after taking out what was so before the test (CUPED).

    The covariate X is the user's linearised metric before the test, theta = Cov(Y, X) / Var(X) within variants, and
    Y - theta (X - mean X) replaces the linearised Y (Deng, Xu, Kohavi, Walker, WSDM 2013, equation 3; on the
    linearised values: ours). Users without days before have X = 0.
    """
    a, b = arm(control), arm(treatment)
    if adjust and min(a.units, b.units) >= 2:
        a, b = _adjusted(control, treatment, a, b)
    positive = a.value > 0 and b.value > 0
    log_error = math.sqrt(a.variance / a.value**2 + b.variance / b.value**2) if positive else math.nan
    error = math.sqrt(a.variance + b.variance)
    return Change(a.value, b.value, b.value - a.value, error, log_error, a.units + b.units)


def _adjusted(control: Sums, treatment: Sums, a: Arm, b: Arm) -> tuple[Arm, Arm]:
    pairs = [(control, a), (treatment, b)]
    crossed = sum(_covariance(sums, each) * each.units for sums, each in pairs)
    spread = sum(_spread(sums) * each.units for sums, each in pairs)
    if not (spread > 0 and math.isfinite(crossed)):
        return a, b
    theta = crossed / spread
    middle = (control["x"] + treatment["x"]) / (a.units + b.units)
    adjusted = []
    for sums, each in pairs:
        own = theta**2 * _spread(sums) - 2 * theta * _covariance(sums, each)  # of one user
        value = each.value - theta * (sums["x"] / each.units - middle)
        adjusted.append(Arm(value, max(each.variance + own / (each.units - 1), 0.0), each.units))
    return adjusted[0], adjusted[1]


def _covariance(sums: Sums, of: Arm) -> float:
    """Of linearised values (N_i - R D_i) / mean D, whose mean is 0, with X."""
    return (sums["nx"] - of.value * sums["dx"]) / sums["d"]


def _spread(sums: Sums) -> float:
    return sums["xx"] / sums["units"] - (sums["x"] / sums["units"]) ** 2
