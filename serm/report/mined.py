"""What was mined and by whom: overlaps of the agents, their precision, and a few pairs a round to read."""

import json
from collections.abc import Sequence
from typing import Any

import polars as pl

from serm.evolution.calibration import CALIBRATION
from serm.mining.history import history
from serm.mining.precision import by_round
from serm.records import AGENTS
from serm.report.facts import Agent, Example, Overlap
from serm.workspace import Workspace

PAIR = ["query", "doc_id"]
KEY = ["round", *PAIR]
PER_OVERLAP = 3  # examples of each combination of agents
OVERLAPS_SHOWN = 6  # combinations with examples, the largest first
# Most characters of a text on the page.
CUT = {
    "query": 200,
    "doc_id": 120,
    "title": 160,
    "text": 320,
    "reason": 500,
    "rationale": 600,
    "why": 600,
}


def overlaps(workspace: Workspace) -> dict[int, list[Overlap]]:
    """Round -> its exact combinations of agents, the largest first."""
    status = workspace.scan("annotations").select(*KEY, "status")
    rows = (
        workspace.scan("mined")
        .filter(pl.col("round") > CALIBRATION)
        .select(*KEY, pl.col("agents").list.unique().list.sort().list.join(","))
        .join(status, on=KEY, how="left")
        .group_by("round", "agents")
        .agg(pairs=pl.len(), annotated=pl.col("status").count(), kept=(pl.col("status") == "kept").sum())
        .sort("round", -pl.col("pairs").cast(pl.Int64), "agents")
        .collect(engine="streaming")
    )
    found: dict[int, list[Overlap]] = {}
    for number, agents, pairs, annotated, kept in rows.iter_rows():
        names = tuple(sorted(agents.split(","), key=place))
        found.setdefault(number, []).append(Overlap(names, pairs, annotated, kept or 0))
    return found


def agents(combined: dict[int, list[Overlap]], precision: Sequence[dict[str, Any]]) -> dict[int, list[Agent]]:
    """Round -> what each agent brought; `precision` are the rows of `serm.mining.precision.by_round`."""
    known = {(row["round"], row["agent"]): row for row in precision}
    found = {}
    for number, rows in combined.items():
        names = sorted({name for row in rows for name in row.agents}, key=place)
        found[number] = [_agent(name, rows, known.get((number, name), {})) for name in names]
    return found


def precision(workspace: Workspace) -> list[dict[str, Any]]:
    """The rows of `by_round` over every annotated round."""
    newest = workspace.scan("annotations").select(pl.col("round").max()).collect().item()
    return [] if newest is None else by_round(history(workspace, newest + 1), AGENTS)


def examples(workspace: Workspace, rounds: Sequence[int]) -> dict[int, list[Example]]:
    """Round -> the best few pairs of each of its largest combinations of agents, by the priority they had."""
    mined = workspace.scan("mined").filter(pl.col("round").is_in(list(rounds)))
    ranked = (
        mined.select(*KEY, "priority", together=pl.col("agents").list.unique().list.sort().list.join(","))
        .with_columns(size=pl.len().over("round", "together"))
        .with_columns(
            place=pl.struct(-pl.col("priority").fill_null(0.0), *PAIR).rank("ordinal").over("round", "together"),
            group=pl.struct(-pl.col("size").cast(pl.Int64), "together").rank("dense").over("round"),
        )
        .filter(pl.col("place") <= PER_OVERLAP, pl.col("group") <= OVERLAPS_SHOWN)
        .select(*KEY, "group", "place")
        .collect(engine="streaming")
    )
    if ranked.is_empty():
        return {}
    named = pl.col("doc_id").is_in(ranked["doc_id"].unique().implode())
    titles = workspace.scan("documents").filter(named).unique("doc_id").select("doc_id", _cut("title"), _cut("text"))
    labels = workspace.scan("annotations").filter(named).select(
        *KEY, "status", "label", "votes", _cut("rationale"), _cut("reason", "why")
    )  # fmt: skip
    rows = (
        ranked.lazy()
        .join(mined.filter(named).select(*KEY, "agents", "score", _cut("reason")), on=KEY)
        .join(labels, on=KEY, how="left")
        .join(titles, on="doc_id", how="left")
        .sort("round", "group", "place")
        .collect()
    )
    found: dict[int, list[Example]] = {}
    for row in rows.to_dicts():
        found.setdefault(row["round"], []).append(_example(row))
    return found


def _agent(name: str, rows: Sequence[Overlap], known: dict[str, Any]) -> Agent:
    own = [row for row in rows if name in row.agents]
    figures: dict[str, Any] = {key: known.get(key) for key in ("lift", "lift_low", "lift_high")}
    if known.get("labelled"):
        figures |= {key: known[key] for key in ("labelled", "precision", "low", "high")}
    return Agent(
        name, sum(row.pairs for row in own), sum(row.pairs for row in own if len(row.agents) == 1),
        sum(row.annotated for row in own), sum(row.kept for row in own), **figures,
    )  # fmt: skip


def _example(row: dict[str, Any]) -> Example:
    votes = {name: vote.get("stable") for name, vote in json.loads(row["votes"] or "{}").items()}
    return Example(
        row["round"], shortened(row["query"], CUT["query"]), shortened(row["doc_id"], CUT["doc_id"]),
        row["title"] or "", row["text"] or "", tuple(sorted(row["agents"], key=place)), row["reason"], row["score"],
        row["status"] or "waiting", row["label"], row["rationale"] or row["why"] or "", votes,
    )  # fmt: skip


def shortened(text: str, most: int) -> str:
    """Text of at most `most` characters."""
    return text if len(text) <= most else text[: most - 1].rstrip() + "…"


def _cut(column: str, alias: str = "") -> pl.Expr:
    most = CUT[alias or column]
    text = pl.col(column)
    short = pl.when(text.str.len_chars() > most).then(text.str.head(most - 1) + "…").otherwise(text)
    return short.alias(alias or column)


def place(agent: str) -> tuple[int, str]:
    return (AGENTS.index(agent) if agent in AGENTS else len(AGENTS), agent)
