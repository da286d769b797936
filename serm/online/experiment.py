"""An A/B test from its log to figures: who was in it, what changed in every metric, and how the days went."""

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import polars as pl

from serm.config import OnlineSettings
from serm.online import metrics, moments
from serm.online.effects import Effect, corrected, effect
from serm.online.log import Log, demand, usable
from serm.online.metrics import METRICS, PRE
from serm.online.mismatch import Split, split

CONTROLS = ("control", "a", "base", "baseline", "off", "0")


@dataclass(frozen=True)
class Users:
    """Who is in the test, and who was left out of it."""

    unit: str  # "user" or "session": what was randomised
    split: Split
    crossed: int  # units seen in more than one variant, set aside
    unusable: int  # rows without a moment, a unit, or (in the test) a variant


@dataclass(frozen=True)
class Experiment:
    """What a log says of a test; `effects` is empty where the users' split is wrong."""

    control: str
    users: Users
    first: datetime  # day of the test
    last: datetime
    days: int
    primary: str
    effects: list[Effect]
    left_out: dict[str, str]  # metric -> why
    looks: list[dict[str, Any]] = field(default_factory=list)  # each day's primary effect

    @property
    def mismatch(self) -> bool:
        """Whether the variants did not get the users that they should have, so that nothing was compared."""
        return not self.effects and not self.left_out


def analyse(log: Log, settings: OnlineSettings) -> Experiment:
    """Compare the variants of a log with its control, metric by metric, as of the log's last day and of every day.

    The same log in any order of rows gives the same figures. Memory: some numbers for every user and day.

    Raises:
        ValueError: the log names no variant or only one, has no users, or settings do not fit it.
    """
    demand(log, ["variant"])
    rows, last, start = within(log, settings)
    told = _units(log, rows, start)
    if told["variant"].is_empty():
        raise ValueError("no user or session with a variant in the test; check online.start and the variant column")
    kept = told.filter(pl.col("variants") == 1).select("unit", "variant").sort("unit")
    counts = dict(sorted(kept["variant"].value_counts().iter_rows()))
    if len(counts) < 2:
        raise ValueError(
            f"only one variant in the log: {', '.join(counts) or 'none without users in both'}; "
            "a test needs a control and a treatment"
        )
    control = _control(list(counts), settings.control)
    users = Users("user" if log.by_user else "session", split(counts, settings.shares), told.height - kept.height,
                  _unusable(log, start))  # fmt: skip
    opened = start.replace(hour=0, minute=0, second=0, microsecond=0)
    days = (last - opened).days + 1
    if users.split.p_value < settings.mismatch_p:
        return Experiment(control, users, start, last, days, settings.primary, [], {})
    names, left = available(log, settings, days)
    gathered = gather(rows, names, start, last, log, settings)
    effects, looks = [], []
    for name in names:
        pre = gathered.filter(pl.col("day") == PRE)
        x = moments.covariate(pre, name) if settings.cuped and name != "retention" else None
        seen = moments.looks(gathered.filter(pl.col("day") >= 0), kept, name, x)
        if not seen["d"].sum():
            left[name] = "the log holds nothing to measure it on"
            continue
        for variant in counts:
            if variant != control:
                found = [effect(name, control, variant, day, x is not None, settings) for day in _days(seen)]
                effects.append(found[-1])
                if name == settings.primary:
                    looks += [_look(day, each) for day, each in enumerate(found)]
    return Experiment(control, users, start, last, days, settings.primary, corrected(effects, settings), left, looks)


def within(log: Log, settings: OnlineSettings) -> tuple[pl.LazyFrame, datetime, datetime]:
    """The rows that can be used, the last moment, and the first one of the test.

    Raises:
        ValueError: there are no such rows, or `online.start` comes after them.
    """
    rows = usable(log, ["session"])
    first, last = rows.select(a=pl.col("ts").min(), b=pl.col("ts").max()).collect(engine="streaming").row(0)
    if first is None:
        raise ValueError("no row of the log has both a moment and a user or session; check its columns with --column")
    start = settings.start or first
    start = start.astimezone(UTC) if start.tzinfo else start.replace(tzinfo=UTC)
    if start > last:
        raise ValueError(f"online.start is {settings.start}, and the log ends before it, on {last:%Y-%m-%d}")
    return rows, last, start


def available(log: Log, settings: OnlineSettings, days: int) -> tuple[list[str], dict[str, str]]:
    """The metrics that this log can tell, the primary one first, and why the others are left out."""
    names: list[str] = []
    left: dict[str, str] = {}
    for name in dict.fromkeys([settings.primary, *settings.metrics]):
        missing = [need for need in METRICS[name].needs if not log.has(need)]
        if missing == ["user"]:
            left[name] = "the log has sessions and no users, so nobody can come back"
        elif missing:
            left[name] = f"the log has no column for {missing[0]}"
        elif name == "retention" and days <= settings.retention_days:
            left[name] = f"nobody was seen for {settings.retention_days} days yet: the test has {days}"
        else:
            names.append(name)
    return names, left


def gather(
    rows: pl.LazyFrame, names: list[str], start: datetime, last: datetime, log: Log, settings: OnlineSettings
) -> pl.DataFrame:
    """Every user's days, in memory: see `metrics.user_days`."""
    opened = start.replace(hour=0, minute=0, second=0, microsecond=0)
    asked = metrics.user_days(rows, names, pl.lit(start), (last - opened).days, log.has("dwell"), settings)
    return asked.collect(engine="streaming").sort("unit", "day")


def _units(log: Log, rows: pl.LazyFrame, start: datetime) -> pl.DataFrame:
    """Every unit of the test, its variant, and how many variants it was seen in."""
    tested = rows.filter(pl.col("ts") >= start).drop_nulls("variant")
    grouped = tested.group_by("unit").agg(variant=pl.col("variant").min(), variants=pl.col("variant").n_unique())
    return grouped.collect(engine="streaming")


def _unusable(log: Log, start: datetime) -> int:
    unit, ts = pl.col("unit").is_null(), pl.col("ts").is_null()
    lost = unit | ts | ((pl.col("ts") >= start) & pl.col("variant").is_null())
    return int(log.rows.select(lost.sum()).collect(engine="streaming").item())


def _control(variants: list[str], wanted: str) -> str:
    if wanted:
        if wanted not in variants:
            raise ValueError(f"online.control is {wanted!r}; the log's variants are {', '.join(variants)}")
        return wanted
    named = [name for word in CONTROLS for name in variants if name.lower() == word]
    return named[0] if named else variants[0]


def _days(seen: pl.DataFrame) -> list[dict[str, dict[str, float]]]:
    """For each day, every variant's sums."""
    days: list[dict[str, dict[str, float]]] = [{} for _ in range(seen["day"].n_unique())]
    for row in seen.iter_rows(named=True):
        days[row["day"]][row["variant"]] = row
    return days


def _look(day: int, found: Effect) -> dict[str, Any]:
    keys = ("variant", "difference", "low", "high", "safe_low", "safe_high", "information", "units")
    return {"day": day + 1} | {key: getattr(found, key) for key in keys}
