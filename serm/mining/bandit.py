"""How the budget is split over agents: a bandit over rounds on what each found that no other would have (ours).

An agent's marginal pairs are those that it alone took. Its yield is the share of them that turned out to be wrong
labels of the champion: of all that were asked, agreed on or not, since each costs the same. The pairs of the uniform
random share belong to no agent and count for none.
"""

from collections.abc import Sequence

import numpy as np
import polars as pl

MEMORY = 0.8  # what a round's pairs weigh in the next one: champions change, and yields with them
DRAWS = 4_000


def marginal_yields(history: pl.DataFrame, agents: Sequence[str]) -> pl.DataFrame:
    """[agent, asked, found] of each agent's marginal pairs, a pair of the last round weighing 1, earlier ones less."""
    weight = pl.lit(MEMORY).pow(pl.col("round").max() - pl.col("round"))
    alone = (
        history.with_columns(weight=weight)
        .filter(pl.col("agents").list.len() == 1)
        .with_columns(agent=pl.col("agents").list.first())
        .group_by("agent")
        .agg(asked=pl.col("weight").sum(), found=pl.col("weight").filter(pl.col("wrong").fill_null(False)).sum())
    )
    names = pl.DataFrame({"agent": list(agents)}, schema={"agent": pl.String})
    return names.join(alone, on="agent", how="left", maintain_order="left").fill_null(0.0)


def split(history: pl.DataFrame, agents: Sequence[str], floor: float, seed: int) -> dict[str, float]:
    """Each agent's share of the budget, summing to 1: `floor` of it evenly, the rest by Thompson sampling.

    The rest is split by each agent's chance to have the highest yield under Beta(1 + found, 1 + asked - found), as it
    would be if every pair were given to the best of one draw (Thompson, 1933). Without labels all shares are equal.
    """
    yields = marginal_yields(history, agents)
    even = 1 / len(agents)
    if not yields["asked"].sum() or floor == 1:
        return dict.fromkeys(agents, even)
    found, asked = yields["found"].to_numpy(), yields["asked"].to_numpy()
    draws = np.random.default_rng(seed).beta(1 + found, 1 + asked - found, size=(DRAWS, len(agents)))
    best = np.bincount(draws.argmax(axis=1), minlength=len(agents)) / DRAWS
    return {agent: float(floor * even + (1 - floor) * best[i]) for i, agent in enumerate(agents)}
