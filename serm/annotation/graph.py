"""The LangGraph graph of one pair: retrieve → every annotator votes → agreement → one rationale, or review.

The state holds the pair's number, ids and outcomes; texts stay in the run's `Work`. The graph is compiled once a
process.
"""

import json
import operator
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Annotated, Any, TypedDict

import polars as pl
from langgraph.graph import END, START, StateGraph
from langgraph.runtime import Runtime
from langgraph.types import Send

from serm.annotation.agreement import agree, unify
from serm.annotation.asking import Asker, Votes
from serm.annotation.knowledge import Knowledge
from serm.annotation.prompt import Prompt

REVIEW_REASONING_CHARACTERS = 400


@dataclass(frozen=True)
class Work:
    """What a run's pairs share: texts by number, the prompt, the background and the annotators."""

    queries: pl.Series  # columns stay columns: a text is made where it is needed and forgotten
    doc_ids: pl.Series
    texts: pl.Series  # null: the document is not in the documents table
    prompt: Prompt
    knowledge: Knowledge | None
    askers: Mapping[str, Asker]
    own_prompts: Mapping[str, Prompt] = field(default_factory=dict)  # annotator -> its own, where it has one


class PairState(TypedDict, total=False):
    """One pair on its way; `votes` is filled by the annotators side by side."""

    pair: int
    background: tuple[str, ...]  # ids of the documents shown
    votes: Annotated[dict[str, Votes], operator.or_]
    status: str
    label: int | None
    rationale: str | None
    reason: str | None


class _Turn(TypedDict):
    """What one annotator is sent."""

    pair: int
    background: tuple[str, ...]
    annotator: str


async def _retrieve(state: PairState, runtime: Runtime[Work]) -> PairState:
    work, pair = runtime.context, state["pair"]
    if work.knowledge is None:
        return {"background": ()}
    return {"background": work.knowledge.sources(work.queries[pair], work.doc_ids[pair])}


async def _fan_out(state: PairState, runtime: Runtime[Work]) -> list[Send]:
    shared = {"pair": state["pair"], "background": state["background"]}
    return [Send("vote", shared | {"annotator": name}) for name in runtime.context.askers]


async def _vote(state: _Turn, runtime: Runtime[Work]) -> PairState:
    work, pair = runtime.context, state["pair"]
    query, doc_id, text = work.queries[pair], work.doc_ids[pair], work.texts[pair]
    background = [] if work.knowledge is None else work.knowledge.background(query, state["background"])
    prompt = work.own_prompts.get(state["annotator"], work.prompt)
    messages = prompt.messages(query, text or "", background)
    return {"votes": {state["annotator"]: await work.askers[state["annotator"]].votes(query, doc_id, messages)}}


async def _agreement(state: PairState) -> PairState:
    votes = _in_order(state)
    errors = [vote.error for vote in votes.values() if vote.error is not None]
    if errors:
        return {"status": "failed", "label": None, "reason": "; ".join(errors)}
    label = agree({name: vote.stable for name, vote in votes.items()})
    if label is None:
        return {"status": "review", "label": None}
    return {"status": "kept", "label": label}


async def _after_agreement(state: PairState) -> str:
    return {"kept": "unify", "review": "review", "failed": END}[state["status"]]


async def _unify(state: PairState) -> PairState:
    label = state["label"]
    reasonings = [
        [outcome.reasoning for outcome in vote.outcomes if outcome.label == label] for vote in _in_order(state).values()
    ]
    return {"rationale": unify(reasonings)}


async def _review(state: PairState) -> PairState:
    return {"reason": "; ".join(f"{name}: {vote.describe()}" for name, vote in _in_order(state).items())}


def _in_order(state: PairState) -> dict[str, Votes]:
    """Votes by annotator's name: the fan-out finishes in any order, the tables must not show it."""
    return dict(sorted(state["votes"].items()))


@lru_cache(maxsize=1)
def pair_graph() -> Any:
    """The compiled graph: `await pair_graph().ainvoke({"pair": i}, context=work)` gives the final PairState."""
    graph = StateGraph(PairState, context_schema=Work)
    graph.add_node("retrieve", _retrieve)
    graph.add_node("vote", _vote)
    graph.add_node("agreement", _agreement)
    graph.add_node("unify", _unify)
    graph.add_node("review", _review)
    graph.add_edge(START, "retrieve")
    graph.add_conditional_edges("retrieve", _fan_out, ["vote"])
    graph.add_edge("vote", "agreement")
    graph.add_conditional_edges("agreement", _after_agreement, ["unify", "review", END])
    graph.add_edge("unify", END)
    graph.add_edge("review", END)
    return graph.compile()


def annotation_row(state: PairState, work: Work) -> dict[str, Any]:
    """A finished pair as a row of the annotations table, without its round."""
    votes = _in_order(state)
    in_full = state["status"] == "review"
    return {
        "query": work.queries[state["pair"]],
        "doc_id": work.doc_ids[state["pair"]],
        "status": state["status"],
        "label": state.get("label"),
        "rationale": state.get("rationale"),
        "votes": json.dumps({name: _vote_fields(vote, in_full) for name, vote in votes.items()}, ensure_ascii=False),
        "reason": state.get("reason"),
        "calls": sum(vote.calls for vote in votes.values()),
        "prompt_tokens": sum(vote.prompt_tokens for vote in votes.values()),
        "completion_tokens": sum(vote.completion_tokens for vote in votes.values()),
    }


def _vote_fields(vote: Votes, in_full: bool) -> dict[str, Any]:
    """For the reviewer each path's reasoning is kept; for a kept pair the unified rationale says enough."""
    paths: list[dict[str, Any]] = []
    for outcome in vote.outcomes:
        path: dict[str, Any] = {"outcome": outcome.kind, "label": outcome.label}
        if in_full and outcome.reasoning:
            path["reasoning"] = outcome.reasoning[:REVIEW_REASONING_CHARACTERS]
        paths.append(path)
    return {"stable": vote.stable, "paths": paths}
