"""How often mined pairs were wrong, agent by agent, and how that compares with pairs drawn at random."""

import math
from collections.abc import Sequence
from typing import Any

import polars as pl
from scipy.stats import binomtest, norm

LEVEL = 0.95
RANDOM, UNION = "random", "union"


def wilson(found: int, asked: int, level: float = LEVEL) -> tuple[float, float]:
    """Interval of a share found / asked (Wilson, 1927; scipy); (0, 1) if nothing was asked."""
    if not asked:
        return 0.0, 1.0
    interval = binomtest(found, asked).proportion_ci(level, method="wilson")
    return float(interval.low), float(interval.high)


def lift(found: int, asked: int, base_found: int, base_asked: int, level: float = LEVEL) -> tuple[float, float, float]:
    """(ratio, low, high) of two shares, on the logarithm (Katz et al., 1978), each count of successes plus 1/2."""
    if not asked or not base_asked:
        return math.nan, math.nan, math.nan
    a, n, b, m = found + 0.5, asked + 0.5, base_found + 0.5, base_asked + 0.5
    ratio = (a / n) / (b / m)
    spread = float(norm.ppf((1 + level) / 2)) * math.sqrt(max(0.0, 1 / a - 1 / n + 1 / b - 1 / m))
    return ratio, ratio * math.exp(-spread), ratio * math.exp(spread)


def by_round(history: pl.DataFrame, agents: Sequence[str]) -> list[dict[str, Any]]:
    """A row a round and agent, then the union of the agents and the random share.

    `asked` counts annotated pairs, `labelled` those with an agreed label and a champion's score, `precision` is the
    wrong ones among these with its interval, `lift` the ratio to the random share's of the same round. Only the random
    share's precision speaks of all pairs that users were shown: the others are chosen.
    """
    rows: list[dict[str, Any]] = []
    is_random = pl.col("agents").list.contains(RANDOM)
    for (round_,), pairs in history.group_by("round", maintain_order=True):
        drawn = pairs.filter(is_random)
        base = int(drawn["wrong"].sum()), drawn["wrong"].count()
        groups = {agent: pairs.filter(pl.col("agents").list.contains(agent)) for agent in agents}
        groups |= {UNION: pairs.filter(~is_random), RANDOM: drawn}
        for name, group in groups.items():
            found, labelled = int(group["wrong"].sum()), group["wrong"].count()
            low, high = wilson(found, labelled)
            row: dict[str, Any] = {"round": round_, "agent": name, "asked": group.height, "labelled": labelled}
            row |= {"precision": found / labelled if labelled else None, "low": low, "high": high}
            if name != RANDOM:
                ratio = lift(found, labelled, *base)
                names = ("lift", "lift_low", "lift_high")
                row |= {key: None if math.isnan(value) else value for key, value in zip(names, ratio, strict=True)}
            rows.append(row)
    return rows
