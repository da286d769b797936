"""The union of what the agents would take, on one scale (SERM: the mined set is the union; the grading is ours)."""

import math
from collections.abc import Mapping

import polars as pl

from serm.config import MiningSettings
from serm.records import AGENTS


def unite(
    candidates: pl.DataFrame, opinions: Mapping[str, pl.DataFrame], settings: MiningSettings, share: float
) -> pl.DataFrame:
    """The candidates that at least one agent takes, with each agent's score, who took them, why, and a priority.

    With absolute thresholds an agent takes what passes its rule; otherwise the best `share` of all candidates by its
    value. What it takes is put on a common scale by rank: r-th best of k has strength s = 1 - r / (k + 1). Then
    priority = 1 - prod_a (1 - s_a) over the agents that took the pair: were strengths chances to be right, this were
    the chance that one of them is, so that pairs backed by several agents come first and no agent's unit matters.

    Adds the columns feedback, click, disagreement, uncertainty (own units, null where none), agents, priority, reason,
    and for every agent of `opinions` <agent>_strength (0 where it did not take the pair).
    """
    united = candidates.with_columns(
        opinions[agent]["score"].alias(agent) if agent in opinions else pl.lit(None, pl.Float64).alias(agent)
        for agent in AGENTS
    )
    most = max(1, math.ceil(share * candidates.height - 1e-9))
    reasons = []
    for agent, opinion in opinions.items():
        united = united.with_columns(
            _strengths(opinion, most, settings).alias(_strength(agent)), opinion["reason"].alias(f"{agent}_reason")
        )
        reasons.append(pl.when(pl.col(_strength(agent)) > 0).then(pl.col(f"{agent}_reason")))
    strengths = {agent: pl.col(_strength(agent)) for agent in opinions}
    taken_by = [pl.when(strength > 0).then(pl.lit(agent)) for agent, strength in strengths.items()]
    missed = pl.lit(1.0)
    for agent in strengths:
        missed = missed * (1 - strengths[agent])
    return united.filter(pl.any_horizontal(strength > 0 for strength in strengths.values())).with_columns(
        agents=pl.concat_list(taken_by).list.drop_nulls(),
        priority=1 - missed,
        reason=pl.concat_str(reasons, separator="; ", ignore_nulls=True),
    )


def _strengths(opinion: pl.DataFrame, most: int, settings: MiningSettings) -> pl.Series:
    """1 - r / (k + 1) for the r-th best of the k candidates that an agent takes, 0 for the rest."""
    absolute = settings.thresholds == "absolute"
    value = pl.col("value").fill_nan(None).fill_null(0.0)
    # candidates are sorted by query and document, so ordinal ranks break ties by them
    ranked = opinion.select(rank=pl.when(pl.col("passes") if absolute else value > 0).then(-value).rank("ordinal"))
    taken = pl.col("rank").is_not_null() if absolute else pl.col("rank") <= most
    taken = taken.fill_null(False)
    strength = pl.when(taken).then(1 - pl.col("rank") / (taken.sum() + 1)).otherwise(0.0)
    return ranked.select(strength.alias("strength"))["strength"]


def turns(united: pl.DataFrame, agents: list[str]) -> pl.Series:
    """The order in which to pick, as row numbers: agents take turns, each giving its best pair by priority.

    Users' agents find only pairs that the model scores too low; taking turns with the model's own agents, which find
    both kinds of error, keeps the labels that come back from being all positive (ours).
    """
    places = []
    for agent in agents:
        strength = pl.col(_strength(agent))
        merit = pl.struct(-pl.col("priority"), -strength, "query", "doc_id")
        places.append(pl.when(strength > 0).then(merit.rank("ordinal").over(strength > 0)))
    return (
        united.with_row_index("row")
        .with_columns(place=pl.min_horizontal(places))
        .sort("place", "priority", "query", "doc_id", descending=[False, True, False, False])["row"]
    )


def _strength(agent: str) -> str:
    return f"{agent}_strength"
