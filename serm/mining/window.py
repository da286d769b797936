"""Mine one window, from frames to frames: what the verb, the backtest and other programs share."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import polars as pl
from numpy.typing import NDArray

from serm.config import Config
from serm.mining.bandit import split
from serm.mining.candidates import gather
from serm.mining.history import SCHEMA as HISTORY
from serm.mining.partitions import Cache
from serm.mining.selection import random_pairs
from serm.records import AGENTS, CONSIDERED, MINED
from serm.relevance.model import RelevanceModel
from serm.shift import Embed, ShiftReport

Frame = pl.DataFrame | pl.LazyFrame
COLUMNS = [name for name in MINED.schema if name != "round"]
RANDOM = ("random",)


@dataclass(frozen=True)
class Mined:
    """The pairs of a round and how they were found."""

    pairs: pl.DataFrame  # columns of the table `mined` but for round, in the order they were picked
    shift: ShiftReport
    candidates: int  # pairs that the window offered
    by_agent: dict[str, int]  # of the mined pairs, how many each agent took, and how many were drawn at random
    considered: pl.DataFrame  # columns of the table `considered` but for round and run
    shares: dict[str, float]  # of the budget that each agent was given


def mine_window(
    reference: Frame,
    current: Frame,
    documents: Frame,
    model: RelevanceModel | None,
    embed: Embed,
    exclude: Frame,
    config: Config,
    budget: int,
    seed: int,
    agents: Sequence[str] = AGENTS,
    history: pl.DataFrame | None = None,
    cache: Cache | None = None,
) -> Mined:
    """Check for shift, let the agents look at every pair that the current window showed, and pick within the budget.

    The same inputs and seed give the same pairs. There are `budget` of them (its `quiet_share` when nothing shifted) if
    the agents value so many pairs that caps and near-duplicates leave; with absolute thresholds there may be fewer.
    `mining.random_share` of them are drawn uniformly from all candidates. What earlier rounds' labels say calibrates
    the agents' scores and splits the budget over agents. agents=("random",) draws uniformly from all candidates and
    nothing else, without shift check or model.

    Args:
        reference: impressions before the window; may be empty, or have only the column `query`.
        current: the window's impressions.
        documents: [doc_id, title, text]; pairs with other documents are left out.
        model: the champion; None with mining.scores=logged.
        embed: texts to unit vectors (n, d).
        exclude: [query, doc_id] of pairs that are mined or judged already.
        config: settings of shift, mining, clicks, relevance.passes and labels.scale.
        budget: pairs to mine, at least 1.
        seed: of every draw.
        agents: which agents work.
        history: earlier rounds' labelled pairs, columns as in `serm.mining.history.SCHEMA`; none if absent.
        cache: keeps the sums of the log's parts, so that a run that was killed computes only what is missing.

    Raises:
        ValueError: an agent is unknown or cannot work on logged scores, the budget is below 1, or a model is missing.
    """
    if budget < 1:
        raise ValueError(f"mining.budget: {budget} pairs asked for; give at least 1")
    impressions, known, left_out = current.lazy(), documents.lazy(), exclude.lazy()
    if tuple(agents) == RANDOM:
        found = gather(impressions, known, left_out, config.mining, cache)
        pairs = _conform(random_pairs(found, budget, seed))
        report = ShiftReport("unknown", note="Not looked for.")
        return Mined(pairs, report, found.height, {"random": pairs.height}, _no_rows(), {})
    from serm.mining.graph import State, Work, allowed, build

    able = allowed(list(agents), config)
    if config.mining.scores == "model" and model is None:
        raise ValueError("mining.scores=model needs a relevance model; give one, or set mining.scores=logged")
    work = Work(
        reference.lazy(), impressions, known, left_out, model if config.mining.scores == "model" else None,
        _remembering(embed), config, seed,
        pl.DataFrame(schema=HISTORY) if history is None else history.sort("round", "query", "doc_id"), cache,
    )  # fmt: skip
    state: State = {
        "agents": able, "budget": budget, "verdict": "unknown", "candidates": 0, "opinions": {},
        "share": 1 - config.mining.quantile, "selected": 0, "done": False,
    }  # fmt: skip
    state = build().invoke(state, context=work)
    pairs = _conform(work.selected)
    by_agent = {agent: int(pairs["agents"].list.contains(agent).sum()) for agent in [*able, *RANDOM]}
    shares = split(work.history, able, config.mining.agent_floor, seed)
    looked_at = work.considered if len(work.considered) else _no_rows()
    return Mined(pairs, work.shift, state["candidates"], by_agent, looked_at, shares)


def _no_rows() -> pl.DataFrame:
    return CONSIDERED.empty().drop("round", "run")


def _conform(pairs: pl.DataFrame) -> pl.DataFrame:
    """The columns of `mined` but for round."""
    if pairs.is_empty():
        return MINED.empty().drop("round")
    return MINED.conform(pairs.select(c for c in COLUMNS if c in pairs.columns).with_columns(round=pl.lit(0))).drop(
        "round"
    )


def _remembering(embed: Embed) -> Embed:
    """Embed every text once: the shift check and the selection ask for the same queries."""
    known: dict[str, NDArray[np.float32]] = {}

    def cached(texts: Sequence[str]) -> NDArray[np.float32]:
        new = sorted(set(texts) - known.keys())
        if new:
            known.update(zip(new, embed(new), strict=True))
        return np.stack([known[text] for text in texts]) if texts else cast(NDArray[np.float32], embed([]))

    return cached
