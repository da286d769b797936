"""The miner as a LangGraph graph: shift check -> candidates -> the agents fan out -> union -> selection.

    shift -> candidates -> Send(agent) x n -> union -> select -> end
                                                ^        |
                                                +--------+  the budget is not filled: every agent takes a larger share

State holds names and counts alone; frames live in the `Work` that travels as the graph's context, by reference, so that
a checkpoint of the state stays small. Agents do not know this graph.
"""

import math
import operator
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, Any, TypedDict

import numpy as np
import polars as pl
from langgraph.graph import END, START, StateGraph
from langgraph.runtime import Runtime
from langgraph.types import Send
from numpy.typing import NDArray

from serm.config import Config
from serm.mining import scoring
from serm.mining.agents import INTRINSIC, OPINIONS
from serm.mining.attraction import attractiveness
from serm.mining.bandit import split
from serm.mining.candidates import PAIR, shortlist
from serm.mining.considered import considered
from serm.mining.history import SCHEMA as HISTORY
from serm.mining.partitions import Cache
from serm.mining.selection import Basket, cluster_quotas, near_duplicates, pair_vectors, pick
from serm.mining.traffic import believable
from serm.mining.union import turns, unite
from serm.relevance.model import RelevanceModel
from serm.shift import Embed, Judge, ShiftReport, detect


class State(TypedDict):
    """What a checkpoint would hold."""

    agents: list[str]
    budget: int  # asked for; `select` spends less of it unless the shift is strong
    verdict: str
    candidates: int
    opinions: Annotated[dict[str, int], operator.or_]  # agent -> candidates it values
    share: float  # of the candidates that every agent may take
    selected: int
    done: bool


class _Call(TypedDict):
    """What Send carries to one agent."""

    agent: str


@dataclass
class Work:
    """A round's inputs, and the frames that its steps leave for the next."""

    reference: pl.LazyFrame
    current: pl.LazyFrame
    documents: pl.LazyFrame  # [doc_id, title, text]
    exclude: pl.LazyFrame  # [query, doc_id]
    model: RelevanceModel | None
    embed: Embed
    config: Config
    seed: int
    history: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=HISTORY))  # earlier rounds' labels
    cache: Cache | None = None  # keeps the sums of the log's parts for another run
    shift: ShiftReport = field(default_factory=lambda: ShiftReport("unknown"))
    candidates: pl.DataFrame = field(default_factory=pl.DataFrame)
    opinions: dict[str, pl.DataFrame] = field(default_factory=dict)
    united: pl.DataFrame = field(default_factory=pl.DataFrame)
    selected: pl.DataFrame = field(default_factory=pl.DataFrame)
    considered: pl.DataFrame = field(default_factory=pl.DataFrame)


def build() -> Any:
    """The compiled graph; call it with a State and context=Work."""
    graph = StateGraph(State, context_schema=Work)
    graph.add_node("shift", _shift)
    graph.add_node("candidates", _candidates)
    graph.add_node("agent", _agent, input_schema=_Call)
    graph.add_node("union", _union)
    graph.add_node("select", _select)
    graph.add_edge(START, "shift")
    graph.add_edge("shift", "candidates")
    graph.add_conditional_edges("candidates", _fan_out, ["agent", END])
    graph.add_edge("agent", "union")
    graph.add_edge("union", "select")
    graph.add_conditional_edges("select", _enough, ["union", END])
    return graph.compile()


def spendable(budget: int, verdict: str, quiet_share: float, mild_share: float = 1.0) -> int:
    """Pairs to mine: all of the budget, or a share of it when the stream shifted mildly or is known not to have."""
    shares = {"none": quiet_share, "mild": max(quiet_share, mild_share)}
    return max(1, round(budget * shares.get(verdict, 1.0)))


def _shift(state: State, runtime: Runtime[Work]) -> dict[str, Any]:
    work = runtime.context
    work.shift = watch(
        work.reference, work.current, work.documents, work.model, work.embed, work.config, work.seed
    )  # fmt: skip
    return {"verdict": work.shift.verdict}


def watch(
    reference: pl.LazyFrame, current: pl.LazyFrame, documents: pl.LazyFrame, model: RelevanceModel | None, embed: Embed,
    config: Config, seed: int, advance: Callable[..., None] = lambda amount=1, words="": None,
) -> ShiftReport:  # fmt: skip
    """The shift check as mining makes it: without bots, and with the champion's scores where there is a model."""
    if "session" in reference.collect_schema().names():
        reference = believable(reference, config.mining)
    current = believable(current, config.mining)
    return detect(reference, current, config.shift, embed, _judge(model, documents), seed, advance)


def _judge(model: RelevanceModel | None, documents: pl.LazyFrame) -> Judge | None:
    """f and entropy of pairs by the champion; None on logged scores."""
    if model is None:
        return None

    def judge(pairs: pl.DataFrame) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        scored = scoring.with_model_scores(_with_texts(pairs, documents), model)
        return scored["score"].to_numpy(), scored["entropy"].to_numpy()

    return judge


def _with_texts(pairs: pl.DataFrame, documents: pl.LazyFrame) -> pl.DataFrame:
    """Add title and text to [.., doc_id], keeping order; the documents stay out of memory but for those asked for."""
    wanted = (
        documents.select("doc_id", "title", "text")
        .join(pairs.lazy().select("doc_id").unique(), on="doc_id", how="semi")
        .collect(engine="streaming")
    )
    return pairs.join(wanted, on="doc_id", how="left", maintain_order="left").with_columns(
        pl.col("text").fill_null(""), title=pl.coalesce("title", "text", pl.lit(""))
    )


def _candidates(state: State, runtime: Runtime[Work]) -> dict[str, Any]:
    work, config = runtime.context, runtime.context.config
    impressions = believable(work.current, config.mining)
    number, scale = random_number(state, config), config.labels.scale
    chosen, count = shortlist(
        work.current, work.documents, work.exclude, config.mining, scale, work.seed, number, work.cache
    )
    chosen = _with_texts(chosen, work.documents)
    if not chosen.is_empty():
        if work.model is None:
            chosen = scoring.with_logged_scores(chosen, config.labels.scale)
        else:
            chosen = scoring.with_model_scores(chosen, work.model)
            if "disagreement" in state["agents"]:
                passes, judged = config.relevance.passes, config.mining.judged
                chosen = scoring.with_judgments(chosen, work.model, passes, judged, work.seed)
        if "click" in state["agents"]:
            chosen = chosen.with_columns(
                attractiveness(impressions, chosen.select(PAIR), config.clicks, config.mining.dwell)
            )
    work.candidates = chosen.drop("text")
    return {"candidates": count}


def random_number(state: State, config: Config) -> int:
    """How many pairs of the round are drawn uniformly."""
    return math.ceil(config.mining.random_share * _budget(state, config) - 1e-9)


def _budget(state: State, config: Config) -> int:
    return spendable(state["budget"], state["verdict"], config.mining.quiet_share, config.mining.mild_share)


def _fan_out(state: State) -> list[Send] | str:
    if not state["candidates"]:
        return END
    return [Send("agent", {"agent": agent}) for agent in state["agents"]]


def _agent(state: _Call, runtime: Runtime[Work]) -> dict[str, Any]:
    work = runtime.context
    opinion = OPINIONS[state["agent"]](work.candidates, work.config.mining, work.config.labels.scale)
    work.opinions[state["agent"]] = opinion
    return {"opinions": {state["agent"]: int((opinion["value"] > 0).sum())}}


def _union(state: State, runtime: Runtime[Work]) -> dict[str, Any]:
    work = runtime.context
    opinions = {agent: work.opinions[agent] for agent in state["agents"]}
    work.united = unite(work.candidates, opinions, work.config.mining, state["share"], work.history)
    return {}


def _select(state: State, runtime: Runtime[Work]) -> dict[str, Any]:
    """Fill the budget; when it is not filled, the next union may take twice the share."""
    work, settings = runtime.context, runtime.context.config.mining
    budget = _budget(state, work.config)
    drawn = work.candidates.filter("drawn").with_columns(
        agents=pl.lit(["random"]), reason=pl.lit("drawn at random"), stage=pl.lit("random")
    )
    # The random share comes first: it is of the budget, and counts towards the caps.
    pool = pl.concat([drawn, work.united], how="diagonal_relaxed")
    if not pool.is_empty():
        pool = _fill(work, state, pool, drawn.height, budget)
    work.selected = pool.filter(pl.col("stage").is_in(["taken", "random"])).sort("pick") if pool.height else pool
    opinions = {agent: work.opinions[agent] for agent in state["agents"]}
    work.considered = considered(work.candidates, opinions, pool)
    done = work.selected.height >= budget or settings.thresholds == "absolute" or state["share"] >= 1
    return {"selected": work.selected.height, "share": min(1.0, 2 * state["share"]), "done": done}


def _fill(work: Work, state: State, pool: pl.DataFrame, drawn: int, budget: int) -> pl.DataFrame:
    """The pool, whose first `drawn` rows are taken already, with cluster, stage, pick (place) and taken duplicate."""
    settings = work.config.mining
    vectors = pair_vectors(work.embed(pool["query"].to_list()), work.embed(pool["title"].to_list()))
    nearest = work.shift.assign(work.embed(pool["query"].to_list()))
    basket = Basket(
        pool["query"].to_list(),
        None if nearest is None else nearest.tolist(),
        near_duplicates(vectors, settings.duplicate_similarity),
        settings.per_query,
        max(1, round(settings.per_cluster * budget)),
    )
    for row in range(drawn):
        basket.force(row)
    if not work.united.is_empty():
        shares = split(work.history, state["agents"], settings.agent_floor, work.seed)
        order = [drawn + row for row in turns(work.united, shares)]
        quotas = cluster_quotas(work.shift.clusters, budget, settings)
        priority = pool["priority"].fill_null(0.0).to_numpy()
        pick(basket, order, budget, quotas, settings.facility, vectors, priority)
    cluster = pl.lit(None, pl.Int32) if nearest is None else pl.Series(nearest, dtype=pl.Int32)
    return basket.tell(pool).with_columns(cluster.alias("cluster"))


def _enough(state: State) -> str:
    return END if state["done"] else "union"


def allowed(agents: list[str], config: Config) -> list[str]:
    """The agents that can work: on logged scores those that need the model stay out.

    Raises:
        ValueError: an agent is unknown, or none of them can work.
    """
    unknown = [agent for agent in agents if agent not in OPINIONS]
    if unknown:
        raise ValueError(f"no mining agent {unknown[0]!r}; known are {', '.join(OPINIONS)} (and random, alone)")
    able = [agent for agent in OPINIONS if agent in agents]
    if config.mining.scores == "logged":
        able = [agent for agent in able if agent not in INTRINSIC]
    if not able:
        raise ValueError(f"mining.scores=logged: {', '.join(agents)} need the model; set mining.scores=model")
    return able
