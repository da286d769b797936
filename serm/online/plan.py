"""How many users and days a test of two equal halves of this traffic would need, metric by metric."""

from dataclasses import dataclass
from typing import Any

import polars as pl
from scipy.stats import norm

from serm.config import OnlineSettings
from serm.online import moments
from serm.online.durations import days_until, needed, needed_peeking
from serm.online.experiment import available, gather, within
from serm.online.log import Log
from serm.online.metrics import METRICS
from serm.online.ratio import arm


@dataclass(frozen=True)
class Need:
    """What one metric needs. Users are of both halves; None where the log cannot tell or it takes over ten years."""

    metric: str
    primary: bool
    value: float  # of the metric, in the log
    finds: float  # relative change that one look after as many days as the log has would find
    users: int | None  # to find online.effect with one planned look
    days: float | None
    users_peeking: int | None  # the same with looks at any time; a larger effect ends it sooner
    days_peeking: float | None


@dataclass(frozen=True)
class Plan:
    """Durations, and what they rest on. `tightest_units` is the setting to write down before such a test starts."""

    headline: str
    effect: float
    power: float
    users: int
    days: int  # of the log
    users_a_day: float  # new ones, over the later half of the log
    needs: list[Need]
    left_out: dict[str, str]
    tightest_units: int | None

    def to_dict(self) -> dict[str, Any]:
        """Plain data, ready for JSON."""
        return {**self.__dict__, "needs": [need.__dict__ for need in self.needs]}


def plan(log: Log, settings: OnlineSettings) -> Plan:
    """Durations from a log with or without variants: all its users count as one group, cut into two halves.

    Raises:
        ValueError: the log has no rows that can be used, or too few users.
    """
    rows, last, start = within(log, settings)
    days = (last - start.replace(hour=0, minute=0, second=0, microsecond=0)).days + 1
    names, left = available(log, settings, days)
    gathered = gather(rows, names, start, last, log, settings).filter(pl.col("day") >= 0)
    everyone = gathered.select("unit").unique().sort("unit").with_columns(variant=pl.lit("all"))
    if everyone.height < 2 * settings.minimum_units:
        raise ValueError(
            f"the log has {everyone.height:,} users; a plan takes at least {2 * settings.minimum_units:,} "
            "(online.minimum_units in each of two variants)"
        )
    needs: list[Need] = []
    units: list[float] = []
    for name in names:
        seen = moments.looks(gathered, everyone, name, None).to_dicts()
        units = [row["units"] for row in seen]
        found = _need(name, seen, settings)
        if found is None:
            left[name] = "the log holds nothing to measure it on, or it never varied"
        else:
            needs.append(found)
    primary = next((need for need in needs if need.primary), None)
    return Plan(
        _headline(primary, settings), settings.effect, settings.power, everyone.height, days, _pace(units), needs, left,
        None if primary is None else primary.users_peeking,
    )  # fmt: skip


def _need(name: str, seen: list[dict[str, Any]], settings: OnlineSettings) -> Need | None:
    last = arm(seen[-1])
    if not last.variance > 0 or not last.value:
        return None
    information = [_information(row) for row in seen]
    change = settings.effect * abs(last.value)
    per_information = last.units / information[-1]
    once = needed(change, settings.alpha, settings.power)
    ever = once
    for _ in range(8):  # the interval is told the size that the plan arrives at, which changes the size a little
        tightest = max(ever * per_information, 1.0)
        ever = needed_peeking(change, settings.alpha, settings.power, per_information, tightest)
    reach = float(norm.ppf(1 - settings.alpha / 2) + norm.ppf(settings.power))
    days, days_peeking = days_until(once, information), days_until(ever, information)
    return Need(
        name, name == settings.primary, last.value, reach / information[-1] ** 0.5 / abs(last.value),
        None if days is None else round(once * per_information), days,
        None if days_peeking is None else round(ever * per_information), days_peeking,
    )  # fmt: skip


def _information(row: dict[str, Any]) -> float:
    """One over the variance of the difference between two halves of these users: four times one over Var(R)."""
    found = arm(row)
    return 1 / (4 * found.variance) if found.variance > 0 else 0.0


def _pace(units: list[float]) -> float:
    if len(units) < 2:
        return units[-1] if units else 0.0
    middle = (len(units) - 1) // 2
    return (units[-1] - units[middle]) / (len(units) - 1 - middle)


def _headline(primary: Need | None, settings: OnlineSettings) -> str:
    if primary is None:
        return "The primary metric cannot be measured on this log; set online.primary."
    target = f"To see a change of {100 * settings.effect:g}% in {METRICS[primary.metric].label}"
    if primary.days is None or primary.days_peeking is None:
        return f"{target}, this traffic would take more than ten years, or the log is too short to tell. Ask for more."
    return (
        f"{target} with {settings.power:.0%} power: {primary.days_peeking:,.0f} days when you look daily "
        f"({primary.users_peeking:,} users), {primary.days:,.0f} days with one look at the end ({primary.users:,})."
    )
