"""The LangGraph graph of one pair: retrieve → every annotator votes → agreement → one rationale, or review.

The state holds the pair's number, ids and outcomes; texts stay in the run's `Work`. The graph is compiled once a
process.
"""

import asyncio
import json
import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Annotated, Any, TypedDict

import polars as pl
from langgraph.graph import END, START, StateGraph
from langgraph.runtime import Runtime
from langgraph.types import Send

from serm.annotation.agreement import unify
from serm.annotation.asking import Asker, Votes
from serm.annotation.consensus import Consensus
from serm.annotation.counterfactual import chosen, unrelated, verdict
from serm.annotation.knowledge import Knowledge
from serm.annotation.llm import Messages
from serm.annotation.prompt import Prompt, digest
from serm.annotation.rationale import grounded

REVIEW_REASONING_CHARACTERS = 400
HASH_DIGITS = 16


@dataclass(frozen=True)
class Work:
    """What a run's pairs share: texts by number, the prompt, the background and the annotators."""

    queries: pl.Series  # columns stay columns: a text is made where it is needed and forgotten
    doc_ids: pl.Series
    texts: pl.Series  # null: the document is not in the documents table
    prompt: Prompt
    knowledge: Knowledge | None
    askers: Mapping[str, Asker]
    consensus: Consensus
    locales: pl.Series  # of the queries; null: not known
    counterfactual: float = 0.0  # share of the kept, relevant pairs that are asked again with an unrelated query
    own_prompts: Mapping[str, Prompt] = field(default_factory=dict)  # annotator -> its own, where it has one

    def messages(self, pair: int, sources: Sequence[str], annotator: str, query: str | None = None) -> Messages:
        """An annotator's prompt for a pair with its background; with `query`, that one stands for its own."""
        asked = self.queries[pair] if query is None else query
        prompt = self.own_prompts.get(annotator, self.prompt)
        return prompt.messages(asked, self.texts[pair] or "", self.background(pair, sources), self.locales[pair])

    def background(self, pair: int, sources: Sequence[str]) -> list[str]:
        """The background texts of a pair; none in a run without knowledge."""
        known = self.knowledge
        return [] if known is None else known.background(self.queries[pair], self.doc_ids[pair], sources)


class PairState(TypedDict, total=False):
    """One pair on its way; `votes` is filled by the annotators side by side."""

    pair: int
    background: tuple[str, ...]  # names of the sources shown
    doubts: dict[str, Votes]  # what was said of the document for an unrelated query, where that was asked
    votes: Annotated[dict[str, Votes], operator.or_]
    status: str
    label: int | None
    posterior: list[float] | None
    rationale: str | None
    unfounded: int  # sentences left out of the rationale: their quotes occur nowhere
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
    asker = work.askers[state["annotator"]]
    messages = work.messages(pair, state["background"], asker.name)
    return {"votes": {asker.name: await asker.votes(work.queries[pair], work.doc_ids[pair], messages)}}


async def _agreement(state: PairState, runtime: Runtime[Work]) -> PairState:
    votes = _in_order(state)
    errors = [vote.error for vote in votes.values() if vote.error is not None]
    if errors:
        return {"status": "failed", "label": None, "reason": "; ".join(errors)}
    label, posterior = runtime.context.consensus.decide({name: vote.stable for name, vote in votes.items()})
    return {"status": "review" if label is None else "kept", "label": label, "posterior": posterior}


async def _after_agreement(state: PairState) -> str:
    return {"kept": "doubt", "review": "review", "failed": END}[state["status"]]


async def _doubt(state: PairState, runtime: Runtime[Work]) -> PairState:
    """Ask about the same document for a query that has nothing to do with it; see `counterfactual`."""
    work, pair = runtime.context, state["pair"]
    text = "\n".join((work.texts[pair] or "", *work.background(pair, state["background"])))  # either may be an attack
    scale = next(iter(work.askers.values())).voting.scale
    if not chosen(work.queries[pair], work.doc_ids[pair], text, state["label"], scale, work.counterfactual):
        return {}
    query = unrelated(work.queries[pair], text, work.locales[pair])
    asked = await asyncio.gather(
        *(
            asker.votes(query, work.doc_ids[pair], work.messages(pair, state["background"], name, query))
            for name, asker in work.askers.items()
        )
    )
    doubts = dict(zip(work.askers, asked, strict=True))
    errors = [vote.error for _, vote in sorted(doubts.items()) if vote.error is not None]
    if errors:
        return {"doubts": doubts, "status": "failed", "label": None, "reason": "; ".join(errors)}
    found = verdict({name: vote.stable for name, vote in doubts.items()}, query, scale)
    if found is None:
        return {"doubts": doubts}
    return {"doubts": doubts, "status": "review", "label": None, "reason": found}


async def _after_doubt(state: PairState) -> str:
    return {"kept": "unify", "review": "review", "failed": END}[state["status"]]


async def _unify(state: PairState, runtime: Runtime[Work]) -> PairState:
    work, pair, label = runtime.context, state["pair"], state["label"]
    reasonings = [
        [outcome.reasoning for outcome in vote.outcomes if outcome.label == label] for vote in _in_order(state).values()
    ]
    shown = [work.queries[pair], work.texts[pair] or "", *work.background(pair, state["background"])]
    found, unfounded = grounded(reasonings, shown)
    return {"rationale": unify(found), "unfounded": unfounded}


async def _review(state: PairState) -> PairState:
    said = [f"{name}: {vote.describe()}" for name, vote in _in_order(state).items()]
    return {"reason": "; ".join(filter(None, (state.get("reason"), *said)))}


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
    graph.add_node("doubt", _doubt)
    graph.add_node("unify", _unify)
    graph.add_node("review", _review)
    graph.add_edge(START, "retrieve")
    graph.add_conditional_edges("retrieve", _fan_out, ["vote"])
    graph.add_edge("vote", "agreement")
    graph.add_conditional_edges("agreement", _after_agreement, ["doubt", "review", END])
    graph.add_conditional_edges("doubt", _after_doubt, ["unify", "review", END])
    graph.add_edge("unify", END)
    graph.add_edge("review", END)
    return graph.compile()


def annotation_row(state: PairState, work: Work) -> dict[str, Any]:
    """A finished pair as a row of the annotations table, without its round."""
    votes = _in_order(state)
    in_full = state["status"] == "review"
    paid = [*votes.values(), *state.get("doubts", {}).values()]
    pair = state["pair"]
    return {
        "query": work.queries[pair],
        "doc_id": work.doc_ids[pair],
        "status": state["status"],
        "label": state.get("label"),
        "rationale": state.get("rationale"),
        "votes": json.dumps({name: _vote_fields(vote, in_full) for name, vote in votes.items()}, ensure_ascii=False),
        "reason": state.get("reason"),
        "posterior": state.get("posterior"),
        "unfounded": state.get("unfounded"),
        "calls": sum(vote.calls for vote in paid),
        "prompt_tokens": sum(vote.prompt_tokens for vote in paid),
        "completion_tokens": sum(vote.completion_tokens for vote in paid),
        "prompt": work.prompt.label(work.locales[pair]),
        "knowledge": _knowledge_fields(state, work),
    }


def _knowledge_fields(state: PairState, work: Work) -> str | None:
    """What was shown: names of the sources and a hash of their texts; null in a run without knowledge."""
    if work.knowledge is None:
        return None
    pair, sources = state["pair"], state["background"]
    texts = work.background(pair, sources)
    return json.dumps({"sources": list(sources), "hash": digest(*texts)[:HASH_DIGITS]}, ensure_ascii=False)


def _vote_fields(vote: Votes, in_full: bool) -> dict[str, Any]:
    """For the reviewer each path's reasoning is kept; for a kept pair the unified rationale says enough."""
    paths: list[dict[str, Any]] = []
    for outcome in vote.outcomes:
        path: dict[str, Any] = {"outcome": outcome.kind, "label": outcome.label}
        if in_full and outcome.reasoning:
            path["reasoning"] = outcome.reasoning[:REVIEW_REASONING_CHARACTERS]
        paths.append(path)
    return {"stable": vote.stable, "paths": paths}
