"""What a test says, in words that a lead can read."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from serm.config import OnlineSettings
from serm.online.durations import days_until, needed_peeking
from serm.online.effects import Effect
from serm.online.experiment import Experiment
from serm.online.metrics import METRICS


@dataclass(frozen=True)
class Verdict:
    """`verdict` is mismatch, better, worse, open, early or unmeasured; the headline says it, notes qualify it."""

    verdict: str
    headline: str
    notes: list[str]
    more_days: float | None  # with this traffic, until online.effect would be seen; None where unknown or needless


def judge(found: Experiment, settings: OnlineSettings) -> Verdict:
    """The verdict on the primary metric, with what else a lead should know."""
    notes = _about_users(found)
    if found.mismatch:
        return Verdict("mismatch", _mismatch(found), notes, None)
    own = [each for each in found.effects if each.primary]
    label = METRICS[found.primary].label
    if not own:
        why = found.left_out.get(found.primary, "the log holds nothing to measure it on")
        return Verdict(
            "unmeasured",
            f"No verdict: the primary metric, {label}, is left out ({why}). Set online.primary.",
            notes,
            None,
        )
    worst = next((each for each in own if each.verdict == "worse"), None)
    best = max((each for each in own if each.verdict == "better"), key=_gain, default=None)
    notes += _secondary(found)
    decided = best or worst
    if decided is not None:
        more = f" {_name(worst)} is worse." if best is not None and worst is not None else ""
        headline = (
            f"{_name(decided)} is {decided.verdict} on {label}: {span(decided)}. "
            f"The evidence holds however often you looked; you may stop.{more}"
        )
        return Verdict(decided.verdict, headline, notes, None)
    if all(each.verdict == "early" for each in own):
        return Verdict(
            "early", f"Too early: a variant has fewer than {settings.minimum_units:,} users, or {label} never varied.",
            notes, None,
        )  # fmt: skip
    more_days = _more_days(found, own, settings)
    if any(each.low is not None and each.high is not None and (each.low > 0 or each.high < 0) for each in own):
        notes.append(
            "The interval for a single planned look leaves out no change: believe it only if today is the day that was "
            "planned before the test."
        )
    return Verdict("open", f"No evidence yet on {label}: {_spans(own)}. {_wait(more_days, settings)}", notes, more_days)


def span(each: Effect) -> str:
    """The change with the interval that allows peeking: +2.1% [+0.4%, +3.8%], or in the metric's own unit."""
    if each.relative is not None and each.safe_relative_low is not None and each.safe_relative_high is not None:
        low, high = each.safe_relative_low, each.safe_relative_high
        return f"{percent(each.relative)} [{percent(low)}, {percent(high)}]"
    if each.difference is None or each.safe_low is None or each.safe_high is None:
        return "not measured yet"
    return f"{each.difference:+.4g} [{each.safe_low:+.4g}, {each.safe_high:+.4g}]"


def percent(share: float) -> str:
    """A signed percentage; with more places where it is small."""
    return f"{share:+.1%}" if abs(share) >= 0.00995 else f"{share:+.2%}"


def _about_users(found: Experiment) -> list[str]:
    users = found.users
    notes = []
    if users.crossed:
        notes.append(
            f"{users.crossed:,} {users.unit}s were seen in more than one variant and are set aside"
            + ("; that many may bias what is left." if users.crossed > 0.01 * sum(users.split.units.values()) else ".")
        )
    if users.unusable:
        notes.append(f"{users.unusable:,} rows without a moment, a {users.unit} or a variant are left out.")
    notes += [f"{METRICS[name].label.capitalize()} is left out: {why}." for name, why in found.left_out.items()]
    return notes


def _mismatch(found: Experiment) -> str:
    split = found.users.split
    total = sum(split.units.values())
    got = ", ".join(f"{name} {count:,} ({count / total:.1%})" for name, count in split.units.items())
    wanted = ", ".join(f"{name} {share:.1%}" for name, share in split.intended.items())
    return (
        f"Stop: the variants did not get the {found.users.unit}s that they should have (p = {split.p_value:.1g}). They "
        f"got {got}; intended were {wanted}. Whatever took or added them changes every metric, so nothing is compared. "
        "Look for redirects, bots or crashes of one variant alone; if the shares were meant, set online.shares."
    )


def _secondary(found: Experiment) -> list[str]:
    notes = []
    for verdict in ("worse", "better"):
        some = [each for each in found.effects if not each.primary and each.verdict == verdict]
        if some:
            told = ", ".join(f"{METRICS[each.metric].label} ({each.variant}: {span(each)})" for each in some)
            notes.append(f"Also {verdict}, after correction over metrics: {told}.")
    return notes


def _more_days(found: Experiment, own: Sequence[Effect], settings: OnlineSettings) -> float | None:
    """The longest wait over the variants, from what information each day brought."""
    waits = []
    for each in own:
        looks = [look for look in found.looks if look["variant"] == each.variant]
        if not each.information or not each.control:
            return None
        wanted = needed_peeking(
            settings.effect * abs(each.control), settings.alpha, settings.power, each.units / each.information,
            settings.tightest_units,
        )  # fmt: skip
        until = days_until(wanted, [look["information"] for look in looks])
        if until is None:
            return None
        waits.append(max(until - len(looks), 0.0))
    return max(waits)


def _wait(more: float | None, settings: OnlineSettings) -> str:
    target = f"a change of {100 * settings.effect:g}%"
    if more is None:
        return (
            f"With this traffic {target} would take more than ten years to see; look for a larger one (online.effect)."
        )
    if more <= 0:
        return (
            f"With {settings.power:.0%} power {target} (online.effect) would have shown by now: if there is one, it is "
            "likely smaller."
        )
    days = math.ceil(more)
    return f"With this traffic {days:,} more day{'s' * (days != 1)} to see {target} with {settings.power:.0%} power."


def _spans(own: Sequence[Effect]) -> str:
    return ", ".join(f"{_name(each)} {span(each)}" if len(own) > 1 else span(each) for each in own)


def _name(each: Effect | None) -> str:
    return f"Variant {each.variant}" if each is not None else ""


def _gain(each: Effect) -> float:
    return abs(each.relative if each.relative is not None else each.difference or 0.0)
