"""The miner as a LangGraph graph: shift check -> candidates -> the agents fan out -> union -> selection.

    shift -> candidates -> Send(agent) x n -> union -> select -> end
                                                ^        |
                                                +--------+  the budget is not filled: every agent takes a larger share

State holds names and counts alone; frames live in the `Work` that travels as the graph's context, by reference, so that
a checkpoint of the state stays small. Agents do not know this graph.
"""

import operator
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
from serm.mining.candidates import PAIR, shortlist
from serm.mining.partitions import Cache
from serm.mining.selection import cluster_quotas, near_duplicates, pair_vectors, pick
from serm.mining.traffic import believable
from serm.mining.union import turns, unite
from serm.relevance.model import RelevanceModel
from serm.shift import Embed, Judge, ShiftReport, detect


class State(TypedDict):
    """What a checkpoint would hold."""

    agents: list[str]
    budget: int  # asked for; `select` spends less of it when nothing shifted
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
    cache: Cache | None = None  # keeps the sums of the log's parts for another run
    shift: ShiftReport = field(default_factory=lambda: ShiftReport("unknown"))
    candidates: pl.DataFrame = field(default_factory=pl.DataFrame)
    opinions: dict[str, pl.DataFrame] = field(default_factory=dict)
    united: pl.DataFrame = field(default_factory=pl.DataFrame)
    selected: pl.DataFrame = field(default_factory=pl.DataFrame)


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


def spendable(budget: int, verdict: str, quiet_share: float) -> int:
    """Pairs to mine: all of the budget, or its quiet share when the stream is known not to have shifted."""
    return max(1, round(budget * quiet_share)) if verdict == "none" else budget


def _shift(state: State, runtime: Runtime[Work]) -> dict[str, Any]:
    work = runtime.context
    current, reference = work.current, work.reference
    mining = work.config.mining
    current = believable(current, mining)
    if "session" in reference.collect_schema().names():
        reference = believable(reference, mining)
    work.shift = detect(reference, current, work.config.shift, work.embed, _judge(work), work.seed)
    return {"verdict": work.shift.verdict}


def _judge(work: Work) -> Judge | None:
    """f and entropy of pairs by the champion; None on logged scores."""
    model = work.model
    if model is None:
        return None

    def judge(pairs: pl.DataFrame) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        scored = scoring.with_model_scores(_with_texts(pairs, work.documents), model)
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
    chosen, count = shortlist(
        work.current, work.documents, work.exclude, config.mining, config.labels.scale, work.seed, work.cache
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
    work.united = unite(work.candidates, opinions, work.config.mining, state["share"])
    return {}


def _select(state: State, runtime: Runtime[Work]) -> dict[str, Any]:
    """Fill the budget; when it is not filled, the next union may take twice the share."""
    work, settings = runtime.context, runtime.context.config.mining
    united = work.united
    budget = spendable(state["budget"], state["verdict"], settings.quiet_share)
    if united.is_empty():
        work.selected = united.with_columns(cluster=pl.lit(None, pl.Int32))
    else:
        queries = work.embed(united["query"].to_list())
        titles = work.embed(united["title"].to_list())
        nearest = work.shift.assign(queries)
        chosen = pick(
            turns(united, state["agents"]).to_list(),
            united["query"].to_list(),
            None if nearest is None else nearest.tolist(),
            near_duplicates(pair_vectors(queries, titles), settings.duplicate_similarity),
            cluster_quotas(work.shift.clusters, budget, settings),
            budget,
            settings.per_query,
        )
        clusters = [None] * united.height if nearest is None else nearest
        work.selected = united.with_columns(pl.Series("cluster", clusters, dtype=pl.Int32))[chosen]
    done = work.selected.height >= budget or settings.thresholds == "absolute" or state["share"] >= 1
    return {"selected": work.selected.height, "share": min(1.0, 2 * state["share"]), "done": done}


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
