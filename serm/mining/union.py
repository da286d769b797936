"""The union of what the agents would take, on one scale (SERM: the mined set is the union; the grading is ours)."""

import math
from collections.abc import Mapping

import numpy as np
import polars as pl

from serm.config import MiningSettings
from serm.mining.calibration import chances, combined, labelled_values, mean_chance, noisy_or
from serm.records import AGENTS


def unite(
    candidates: pl.DataFrame,
    opinions: Mapping[str, pl.DataFrame],
    settings: MiningSettings,
    share: float,
    history: pl.DataFrame | None = None,
) -> pl.DataFrame:
    """The candidates that at least one agent takes, with each agent's score, who took them, why, and a priority.

    With absolute thresholds an agent takes what passes its rule; otherwise the best `share` of all candidates by its
    value. What it takes is put on a common scale: the chance that the champion is wrong, given the agent's value, as
    the labels of `history` show it (`calibration.chances`; settings.calibration). Without labels it is the rank
    strength: r-th best of k has s = 1 - r / (k + 1). Then priority is the chance by all agents' say together
    (`calibration.combined`); without labels it is 1 - prod_a (1 - s_a) over the agents that took the pair, so that
    pairs backed by several agents come first and no agent's unit matters.

    Candidates whose column `drawn` is true belong to the random share: agents have their say but do not take them.

    Adds the columns feedback, click, disagreement, uncertainty (own units, null where none), agents, priority, reason,
    rank_priority (priority by strengths alone), and for every agent of `opinions` <agent>_strength and <agent>_chance
    (0 where it did not take the pair).
    """
    if "drawn" not in candidates.columns:
        candidates = candidates.with_columns(drawn=pl.lit(False))
    eligible = ~candidates["drawn"]
    united = candidates.with_columns(scores_and_values(opinions))
    most = max(1, math.ceil(share * int(eligible.sum()) - 1e-9))
    reasons = []
    for agent, opinion in opinions.items():
        strength = _strengths(opinion.with_columns(eligible.alias("eligible")), most, settings)
        united = united.with_columns(
            strength.alias(_strength(agent)),
            opinion["reason"].alias(f"{agent}_reason"),
            _chances(agent, opinion["value"], strength, settings, history).alias(_chance(agent)),
        )
        reasons.append(pl.when(pl.col(_strength(agent)) > 0).then(pl.col(f"{agent}_reason")))
    strengths = {agent: pl.col(_strength(agent)) for agent in opinions}
    taken_by = [pl.when(strength > 0).then(pl.lit(agent)) for agent, strength in strengths.items()]
    united = united.filter(pl.any_horizontal(strength > 0 for strength in strengths.values())).with_columns(
        agents=pl.concat_list(taken_by).list.drop_nulls(),
        priority=noisy_or({agent: pl.col(_chance(agent)) for agent in opinions}),
        rank_priority=noisy_or(strengths),
        reason=pl.concat_str(reasons, separator="; ", ignore_nulls=True),
    )
    if history is None or not settings.calibration:
        return united
    chance = combined(united, united["priority"], history, list(opinions), settings.prior_labels)
    return united.with_columns(chance.alias("priority"))


def scores_and_values(opinions: Mapping[str, pl.DataFrame]) -> list[pl.Series]:
    """Columns <agent> (own unit) and <agent>_value (0..1) of every known agent; null where it has no opinion."""
    height = len(next(iter(opinions.values())))
    nothing = pl.repeat(None, height, dtype=pl.Float64, eager=True)
    columns = []
    for agent in AGENTS:
        known = opinions.get(agent)
        columns += [
            (nothing if known is None else known["score"]).alias(agent),
            (nothing if known is None else known["value"].fill_nan(None)).alias(f"{agent}_value"),
        ]
    return columns


def _chances(
    agent: str, value: pl.Series, strength: pl.Series, settings: MiningSettings, history: pl.DataFrame | None
) -> pl.Series:
    """P(champion wrong) where the agent takes the pair, 0 elsewhere."""
    if history is None or history.is_empty() or not settings.calibration:
        return strength
    taken = (strength > 0).to_numpy()
    seen, wrong = labelled_values(history, agent)
    found = np.zeros(len(taken))
    mean = mean_chance(history, agent, settings.prior_labels)
    here = value.to_numpy()[taken], strength.to_numpy()[taken]
    found[taken] = chances(*here, seen, wrong, settings.prior_labels, mean)
    return pl.Series(found)


def _strengths(opinion: pl.DataFrame, most: int, settings: MiningSettings) -> pl.Series:
    """1 - r / (k + 1) for the r-th best of the k candidates that an agent takes, 0 for the rest."""
    absolute = settings.thresholds == "absolute"
    value = pl.col("value").fill_nan(None).fill_null(0.0)
    # candidates are sorted by query and document, so ordinal ranks break ties by them
    worth = pl.col("eligible") & (pl.col("passes") if absolute else value > 0)
    ranked = opinion.select(rank=pl.when(worth).then(-value).rank("ordinal"))
    taken = pl.col("rank").is_not_null() if absolute else pl.col("rank") <= most
    taken = taken.fill_null(False)
    strength = pl.when(taken).then(1 - pl.col("rank") / (taken.sum() + 1)).otherwise(0.0)
    return ranked.select(strength.alias("strength"))["strength"]


def turns(united: pl.DataFrame, shares: Mapping[str, float]) -> pl.Series:
    """The order in which to pick, as row numbers: agents take turns, each giving its best pair by priority.

    An agent with twice the share of another has twice the turns. Users' agents find only pairs that the model scores
    too low; taking turns with the model's own agents, which find both kinds of error, keeps the labels that come back
    from being all positive (ours). Equal priorities, which calibration makes many of, go by rank.
    """
    places = []
    best = [-pl.col("priority"), -pl.col("rank_priority")]
    for agent, share in shares.items():
        strength = pl.col(_strength(agent))
        merit = pl.struct(*best, -strength, "query", "doc_id")
        turn = merit.rank("ordinal").over(strength > 0) / (share * len(shares))
        places.append(pl.when(strength > 0).then(turn))
    return (
        united.with_row_index("row")
        .with_columns(place=pl.min_horizontal(places))
        .sort("place", *best, "query", "doc_id")["row"]
    )


def _strength(agent: str) -> str:
    return f"{agent}_strength"


def _chance(agent: str) -> str:
    return f"{agent}_chance"
