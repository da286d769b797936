"""False alarms, coverage, power and time to a verdict of online tests on simulated users with a known effect.

    python benchmarks/abtest_power.py            # 1,000 trials of every scenario: some minutes
    python benchmarks/abtest_power.py --trials 200 --lifts 0 0.1

A trial is a test of DAYS days with USERS users, read at the end of every day by serm's own code (sums by day, delta
method, both intervals; default settings but for online.tightest_units and minimum_units). A user's searches succeed
with a chance of their own, Beta(1.2, 2.8): searches of one user are alike. "new": users come once, evenly, and make all
their searches that day. "returning": all users are there in the first days and come back all the time. "heavy": as
returning, and some users search a hundred times as much as others. Naive: every search counts as independent.
"""

import argparse
import math
import time

import numpy as np
import polars as pl
from scipy.stats import binomtest

from serm.config import OnlineSettings
from serm.online.effects import effect
from serm.online.moments import looks

USERS, DAYS = 4_000, 28
SETTINGS = OnlineSettings(tightest_units=USERS, primary="successful_sessions")
LIFTS = (0.0, 0.05, 0.1, 0.2)
SCENARIOS = ("new", "returning", "heavy")


def main() -> None:
    """Every scenario and lift: one line each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=1_000)
    parser.add_argument("--lifts", type=float, nargs="+", default=list(LIFTS), choices=LIFTS)
    asked = parser.parse_args()
    for scenario in SCENARIOS:
        for lift in asked.lifts:
            began = time.perf_counter()
            found = [trial(scenario, lift, seed) for seed in range(asked.trials)]
            report(scenario, lift, found, time.perf_counter() - began)


def trial(scenario: str, lift: float, seed: int) -> dict[str, float]:
    """What each way of reading said of one test."""
    rng = np.random.default_rng([SCENARIOS.index(scenario), round(1000 * lift), seed])
    users = pl.DataFrame({"unit": np.arange(USERS), "variant": rng.permutation(np.repeat(["a", "b"], USERS // 2))})
    chance = np.minimum(rng.beta(1.2, 2.8, USERS) * np.where(users["variant"].to_numpy() == "b", 1 + lift, 1.0), 1.0)
    unit, day, searches = visits(scenario, rng)
    name = SETTINGS.primary
    frame = pl.DataFrame(
        {"unit": unit, "day": day.astype(np.int32), f"{name}:n": rng.binomial(searches, chance[unit]).astype(float),
         f"{name}:d": searches.astype(float)}
    )  # fmt: skip
    seen = looks(frame, users, name, None)
    days = [dict(zip(("a", "b"), two.to_dicts(), strict=True)) for two in seen.partition_by("day")]
    found = [effect(name, "a", "b", sums, False, SETTINGS) for sums in days]
    spoke = [each for each in found if each.safe_p is not None]
    naive = [abs(naive_z(sums)) > 1.96 for sums, each in zip(days, found, strict=True) if each.safe_p is not None]
    truth = TRUTHS[lift]
    last = found[-1]
    stopped = next((i + 1 for i, each in enumerate(found) if each.safe_p is not None and each.safe_p <= 0.05), None)
    return {
        "safe": stopped is not None,
        "right": stopped is not None and (found[stopped - 1].difference or 0) > 0,
        "stopped": math.nan if stopped is None else stopped,
        "planned": (last.p or 1) <= 0.05,
        "planned peeking": any((each.p or 1) <= 0.05 for each in spoke),
        "naive": naive[-1],
        "naive peeking": any(naive),
        "covers": (last.low or 0) <= truth <= (last.high or 0),
        "covers always": all((each.safe_low or 0) <= truth <= (each.safe_high or 0) for each in spoke),
    }


def visits(scenario: str, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Unit, day and searches of every user's day."""
    if scenario == "new":
        return np.arange(USERS), rng.integers(0, DAYS, USERS), 1 + rng.poisson(5, USERS)
    rate = np.full(USERS, 0.5) if scenario == "returning" else np.minimum(rng.pareto(1.5, USERS) * 0.25 + 0.05, 25)
    first = rng.integers(0, 3, USERS)
    searches = rng.poisson(rate[:, None], (USERS, DAYS)) * (np.arange(DAYS) >= first[:, None])
    searches[np.arange(USERS), first] += 1
    unit, day = np.nonzero(searches)
    return unit, day, searches[unit, day]


def naive_z(sums: dict[str, dict[str, float]]) -> float:
    """The test of two proportions over searches."""
    a, b = sums["a"], sums["b"]
    pooled = (a["n"] + b["n"]) / (a["d"] + b["d"])
    return (b["n"] / b["d"] - a["n"] / a["d"]) / math.sqrt(pooled * (1 - pooled) * (1 / a["d"] + 1 / b["d"]))


def mean_lifted(lift: float) -> float:
    """E[min((1 + lift) p, 1)] for p ~ Beta(1.2, 2.8), by quadrature."""
    p = (np.arange(1_000_000) + 0.5) / 1_000_000
    density = p**0.2 * (1 - p) ** 1.8
    return float((np.minimum((1 + lift) * p, 1) * density).sum() / density.sum())


def report(scenario: str, lift: float, found: list[dict[str, float]], seconds: float) -> None:
    """Shares of trials with 95% intervals (Clopper and Pearson)."""
    told = []
    for name in ("safe", "planned", "planned peeking", "naive", "naive peeking", "covers", "covers always"):
        low, high = binomtest(int(sum(one[name] for one in found)), len(found)).proportion_ci()
        told.append(f"{name} {np.mean([one[name] for one in found]):.1%} [{low:.1%}, {high:.1%}]")
    stopped = np.array([one["stopped"] for one in found])
    when = f"median day {np.nanmedian(stopped):.0f}" if np.isfinite(stopped).any() else "never"
    wrong = sum(one["safe"] and not one["right"] for one in found)
    print(f"{scenario}, lift {lift:.0%}: {'; '.join(told)}", flush=True)
    print(f"    stopped at {when}, {wrong} in the wrong direction ({seconds:.0f} s)", flush=True)


TRUTHS = {lift: mean_lifted(lift) - mean_lifted(0.0) for lift in LIFTS}

if __name__ == "__main__":
    main()
