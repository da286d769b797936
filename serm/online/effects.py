"""One metric of one variant against the control: difference, intervals, p-values."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from scipy.stats import norm

from serm.config import OnlineSettings
from serm.online.metrics import METRICS
from serm.online.multiple import adjusted
from serm.online.ratio import Sums, change
from serm.online.sequential import factor, p_value


@dataclass(frozen=True)
class Effect:
    """What changed. `low`, `high` and `p` are for one planned look; those that begin with safe_ for any look.

    Every figure but the users' is None while a variant has fewer users than online.minimum_units or nothing to
    measure on; relative ones are None where the metric is 0 in a variant.
    """

    metric: str
    variant: str
    primary: bool
    units: int  # of control and variant together
    control: float | None = None
    treatment: float | None = None
    difference: float | None = None
    low: float | None = None
    high: float | None = None
    safe_low: float | None = None
    safe_high: float | None = None
    relative: float | None = None
    relative_low: float | None = None
    relative_high: float | None = None
    safe_relative_low: float | None = None
    safe_relative_high: float | None = None
    p: float | None = None
    safe_p: float | None = None
    adjusted_p: float | None = None  # safe_p after the correction over metrics
    adjusted_for_past: bool = False  # CUPED
    information: float = 0.0  # one over the variance of the difference
    verdict: str = "early"  # better, worse, open (no evidence yet), or early


def effect(
    metric: str, control: str, variant: str, sums: Mapping[str, Sums], adjust: bool, settings: OnlineSettings
) -> Effect:
    """The effect as of one day, not yet corrected for other metrics; `sums` are those of that day by variant."""
    found = change(sums[control], sums[variant], adjust)
    blank = Effect(metric, variant, metric == settings.primary, found.units, adjusted_for_past=adjust)
    few = min(sums[control]["units"], sums[variant]["units"]) < settings.minimum_units
    if few or not (found.error > 0 and math.isfinite(found.error)):
        return blank
    once = float(norm.ppf(1 - settings.alpha / 2))
    ever = factor(found.units, settings.alpha, settings.tightest_units)
    low, high = found.absolute(once)
    safe_low, safe_high = found.absolute(ever)
    relative, relative_low, relative_high = map(_finite, found.relative(once))
    _, safe_relative_low, safe_relative_high = map(_finite, found.relative(ever))
    return replace(
        blank, control=found.control, treatment=found.treatment, difference=found.difference,
        low=low, high=high, safe_low=safe_low, safe_high=safe_high,
        relative=relative, relative_low=relative_low, relative_high=relative_high,
        safe_relative_low=safe_relative_low, safe_relative_high=safe_relative_high,
        p=float(2 * norm.sf(abs(found.z))),
        safe_p=p_value(found.z, found.units, settings.alpha, settings.tightest_units),
        information=found.error**-2,
    )  # fmt: skip


def corrected(effects: list[Effect], settings: OnlineSettings) -> list[Effect]:
    """Effects with adjusted p-values and verdicts: the primary metric by itself, the others together.

    The primary's own p-values are corrected over the variants alone (Holm), the others' over metrics and variants.
    """
    primary = [i for i, each in enumerate(effects) if each.primary and each.safe_p is not None]
    others = [i for i, each in enumerate(effects) if not each.primary and each.safe_p is not None]
    result = list(effects)
    for indices, how in ((primary, "holm"), (others, settings.correction)):
        for i, p in zip(indices, adjusted([effects[i].safe_p or 0.0 for i in indices], how), strict=True):
            result[i] = replace(effects[i], adjusted_p=p, verdict=_verdict(effects[i], p, settings.alpha))
    return result


def _verdict(found: Effect, p: float, alpha: float) -> str:
    if p > alpha or not found.difference:
        return "open"
    return "better" if (found.difference > 0) == METRICS[found.metric].up else "worse"


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
