"""The four agents: each a pure function from candidates to an opinion on every one of them.

An opinion is a frame aligned with the candidates:
    score    the agent's own score in its own unit (null where it has none)
    value    how much the pair would teach, 0..1 and graded, 0 or null where the agent would not take it
    passes   whether the paper's rule with absolute thresholds takes it
    reason   why, in words
"""

from collections.abc import Callable, Sequence

import polars as pl

from serm.config import MiningSettings
from serm.mining.agents import click, disagreement, feedback, uncertainty

Agent = Callable[[pl.DataFrame, MiningSettings, Sequence[int]], pl.DataFrame]

OPINIONS: dict[str, Agent] = {
    "feedback": feedback.opinion,
    "click": click.opinion,
    "disagreement": disagreement.opinion,
    "uncertainty": uncertainty.opinion,
}

# Agents that need the model itself; the others can live on logged scores.
INTRINSIC = ("disagreement", "uncertainty")
