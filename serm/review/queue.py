"""The review queue: pairs that the annotators could not agree on and no person has judged, most useful first."""

import json
from typing import Any

import polars as pl

from serm.evaluation.scoring import LLM_JUDGE
from serm.records import EVALUATED
from serm.workspace import Workspace

PAIR = ["query", "doc_id"]
ORDER: dict[str, Any] = {"by": ["round", "priority", *PAIR], "descending": [True, True, False, False]}
MOST_CHARACTERS = 20_000  # of a document's text on the page and in exports


def review_queue(workspace: Workspace, round: int | None = None) -> pl.DataFrame:
    """Pairs that the annotators could not agree on and no person has judged, most useful first.

    Returns columns round, query, doc_id, title, reason, votes (JSON), agents, mined_because, priority.
    """
    titles = workspace.scan("documents").select("doc_id", "title").unique("doc_id")
    return (
        _open(workspace, round)
        .join(titles, on="doc_id", how="left")
        .select("round", *PAIR, "title", "reason", "votes", "agents", "mined_because", "priority")
        .sort(**ORDER, nulls_last=True)
        .collect()
    )


def open_pairs(workspace: Workspace, round: int | None = None) -> pl.DataFrame:
    """The queue's order alone: columns query, doc_id and round, every pair once, in its newest round.

    Pairs of queries that were judged for evaluation (anchor, fresh) are left out: a decision on them may not train.
    """
    return (
        _open(workspace, round)
        .join(held_out_queries(workspace), on="query", how="anti")
        .sort(**ORDER, nulls_last=True)
        .select(*PAIR, "round")
        .unique(PAIR, keep="first", maintain_order=True)
        .collect()
    )


def held_out_queries(workspace: Workspace) -> pl.LazyFrame:
    """The queries of the evaluation's judgments, one column."""
    return workspace.scan("judgments").filter(pl.col("split").is_in(EVALUATED)).select("query").unique()


def details(workspace: Workspace, pairs: pl.DataFrame) -> pl.DataFrame:
    """What a person needs to judge `pairs` (query, doc_id, round), a row each, in their order.

    Returns columns round, query, doc_id, locale, title, text (cut at 20,000 characters; null if the document is not
    there), reason, votes (JSON), agents, mined_because.
    """
    key = ["round", *PAIR]
    named = pl.col("doc_id").is_in(pairs["doc_id"].unique().implode())
    wanted = pairs.lazy().with_row_index("place")
    documents = workspace.scan("documents").filter(named).unique("doc_id")
    texts = documents.select("doc_id", "title", pl.col("text").str.head(MOST_CHARACTERS), doc_locale="locale")
    votes = workspace.scan("annotations").filter(named).select(*key, "reason", "votes")
    mined = _mined(workspace).filter(named)
    return (
        wanted.join(votes, on=key, how="left")
        .join(mined, on=key, how="left")
        .join(texts, on="doc_id", how="left")
        .with_columns(locale=pl.coalesce("locale", "doc_locale"))
        .sort("place")
        .select(*key, "locale", "title", "text", "reason", "votes", "agents", "mined_because")
        .collect()
    )


def votes_of(votes: str | None, scale_names: dict[int, str]) -> list[dict[str, Any]]:
    """The votes' JSON as a list: annotator, label (null: none stable), its name, and what each path said and why."""
    told = json.loads(votes) if votes else {}
    return [
        {
            "annotator": annotator,
            "label": vote.get("stable"),
            "name": scale_names.get(vote.get("stable"), ""),
            "paths": [
                {
                    "label": path.get("label"),
                    "outcome": path.get("outcome", ""),
                    "reasoning": path.get("reasoning", ""),
                }
                for path in vote.get("paths", [])
            ],
        }
        for annotator, vote in told.items()
    ]


def _open(workspace: Workspace, round: int | None) -> pl.LazyFrame:
    review = workspace.scan("annotations").filter(pl.col("status") == "review")
    if round is not None:
        review = review.filter(pl.col("round") == round)
    return (
        review.select("round", *PAIR, "reason", "votes")
        .join(judged_by_people(workspace).select(PAIR), on=PAIR, how="anti")
        .join(_mined(workspace), on=["round", *PAIR], how="left")
    )


def judged_by_people(workspace: Workspace) -> pl.LazyFrame:
    """Judgments that people gave and that may be seen: not hidden, not an LLM's."""
    return workspace.scan("judgments").filter(
        (pl.col("split") != "hidden") & ~pl.col("judge").str.starts_with(LLM_JUDGE)
    )


def _mined(workspace: Workspace) -> pl.LazyFrame:
    return workspace.scan("mined").select(
        "round", *PAIR, "locale", "agents", pl.col("reason").alias("mined_because"), "priority"
    )
