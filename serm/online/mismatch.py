"""Did the variants get the users that they should have? A test whose split is off measures the split."""

from collections.abc import Mapping
from dataclasses import dataclass

from scipy.stats import chisquare


@dataclass(frozen=True)
class Split:
    """Users by variant, what was intended, and the p-value of the chi-square test between them."""

    units: dict[str, int]
    intended: dict[str, float]  # shares
    p_value: float


def split(units: Mapping[str, int], shares: Mapping[str, float]) -> Split:
    """Compare users by variant with the intended shares (empty: equal ones) by a chi-square test of goodness of fit.

    See Fabijan et al., "Diagnosing sample ratio mismatch in online controlled experiments", KDD 2019.

    Raises:
        ValueError: the shares name other variants than the log has.
    """
    if shares and set(shares) != set(units):
        raise ValueError(
            f"online.shares names the variants {', '.join(sorted(shares))}; the log has {', '.join(sorted(units))}"
        )
    total = sum(shares.values()) if shares else len(units)
    intended = {name: (shares[name] if shares else 1.0) / total for name in units}
    users = sum(units.values())
    p = chisquare(list(units.values()), [users * share for share in intended.values()]).pvalue
    return Split(dict(units), intended, float(p))
