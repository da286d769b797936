"""Why a pair was or was not mined in a round, from the tables as they were then; nothing is scored again."""

import json
from dataclasses import dataclass, field
from typing import Any

import polars as pl

from serm.configure import Explicit
from serm.mining.history import last_considered
from serm.mining.mine import windows
from serm.mining.traffic import believable
from serm.records import AGENTS, UNMINED
from serm.workspace import Workspace, WorkspaceError

PAIR = ["query", "doc_id"]


@dataclass(frozen=True)
class Explanation:
    """How far a pair came in a round, and why no further.

    `stage` is one of STAGES in serm.records for a pair that the champion scored; before that "unknown document", "held
    out", "not shown", "not believable", "judged", "mined before", "cascade", and "not recorded" where the round kept no
    record of its candidates.
    """

    query: str
    doc_id: str
    round: int
    taken: bool
    stage: str
    why: str
    facts: dict[str, Any] = field(default_factory=dict)  # what the window showed, and the champion's score
    agents: dict[str, dict[str, Any]] = field(default_factory=dict)  # score, value, threshold, takes it, chance


class _Then(Workspace):
    """A workspace as it was when a run began: its settings and its tables' versions."""

    def __init__(self, workspace: Workspace, run: dict[str, Any]) -> None:
        given = json.loads(run["config"])
        given.pop("parameters", None)
        super().__init__(workspace.root, Explicit(**given), workspace.storage_options)
        self.then: dict[str, int] = json.loads(run["data_versions"])

    def scan(self, table: str, version: int | None = None) -> pl.LazyFrame:
        return super().scan(table, self.then.get(table, -1) if version is None else version)


def explain(workspace: Workspace, query: str, doc_id: str, round: int | None = None) -> Explanation:
    """Say why a pair was or was not mined in `round` (the newest mined one, if absent).

    Raises:
        WorkspaceError: the round is not mined.
    """
    mined = workspace.scan("mined").filter(pl.col("round") > 0)
    number = mined.select(pl.col("round").max()).collect().item() if round is None else round
    of_round = mined.filter(pl.col("round") == number).collect()
    if of_round.is_empty():
        raise WorkspaceError(f"round {number or 1} is not mined yet; run: serm mine")
    table = last_considered(workspace).filter(pl.col("round") == number).collect()
    then = _Then(workspace, _run(workspace, number, table))
    facts = _shown(then, query, doc_id)
    rows = table.filter(query=query, doc_id=doc_id)
    taken = of_round.filter(query=query, doc_id=doc_id)
    if not rows.is_empty():
        row = rows.row(0, named=True)
        facts |= {name: row[name] for name in ("score", "priority", "cluster")}
        why = _fate(row, taken, table, then)
        return Explanation(query, doc_id, number, not taken.is_empty(), row["stage"], why, facts, _agents(row, table))
    if not taken.is_empty():
        return Explanation(query, doc_id, number, True, "taken", taken["reason"].item(), facts)
    stage, why = _before_scoring(then, query, doc_id, number, table, facts)
    return Explanation(query, doc_id, number, False, stage, why, facts)


def _run(workspace: Workspace, number: int, table: pl.DataFrame) -> dict[str, Any]:
    """The row of the run that mined the round, as it started."""
    runs = workspace.scan("runs").filter(verb="mine", status="started", round=number).sort("ts", "run_id").collect()
    if not table.is_empty():
        runs = runs.filter(run_id=table["run"][0])
    if runs.is_empty():
        raise WorkspaceError(f"round {number}: no run of serm mine is recorded for it; it came from another program")
    return runs.row(-1, named=True)


def _shown(then: Workspace, query: str, doc_id: str) -> dict[str, Any]:
    """How often the window showed the pair, and how much of that is believable."""
    _, current = windows(then)
    pair = (pl.col("query") == query) & (pl.col("doc_id") == doc_id)
    counts = [pl.len().alias("shown"), pl.col("clicked").sum().alias("clicks")]
    raw = current.filter(pair).select(counts).collect(engine="streaming").row(0)
    kept = believable(current, then.config.mining).filter(pair).select(counts).collect(engine="streaming").row(0)
    return {"shown": raw[0], "clicks": raw[1], "believable_shown": kept[0], "believable_clicks": kept[1]}


def _before_scoring(
    then: Workspace, query: str, doc_id: str, number: int, table: pl.DataFrame, facts: dict[str, Any]
) -> tuple[str, str]:
    """(stage, why) of a pair that no champion scored, in the order in which the miner looks."""
    if then.scan("documents").filter(doc_id=doc_id).head(1).collect().is_empty():
        return "unknown document", "the document is not in the table documents; add it with: serm ingest"
    judged = then.scan("judgments").filter(pl.col("query") == query).collect()
    held_out = judged.filter(pl.col("split").is_in(UNMINED))["split"].unique().sort()
    if len(held_out):
        return "held out", f"the query is held out for evaluation ({', '.join(held_out)}): its labels would leak"
    if not facts["shown"]:
        ever = then.scan("impressions").filter(query=query, doc_id=doc_id).select(pl.len()).collect().item()
        days = then.config.window.days
        return "not shown", f"not shown in the window of {days:g} days ({ever} times in the whole log)"
    if not facts["believable_shown"]:
        return "not believable", f"all {facts['shown']} impressions are from sessions that behave like bots"
    grades = judged.filter((pl.col("doc_id") == doc_id) & (pl.col("split") != "hidden"))
    if not grades.is_empty():
        return "judged", f"people judged it already (grade {grades['grade'][0]}, split {grades['split'][0]})"
    other = then.scan("mined").filter((pl.col("round") != number), query=query, doc_id=doc_id).collect()
    if not other.is_empty():
        return "mined before", f"mined in round {other['round'][0]} already"
    if table.is_empty():
        return "not recorded", "a candidate, but the round kept no record of its candidates (drawn at random, or old)"
    clicks = facts["believable_clicks"]
    return "cascade", (
        f"the cascade scored {table.height} pairs with stronger evidence or by lot (mining.candidates="
        f"{then.config.mining.candidates}); this one has {clicks} believable clicks in {facts['believable_shown']}"
    )


def _fate(row: dict[str, Any], taken: pl.DataFrame, table: pl.DataFrame, then: Workspace) -> str:
    """In words, what became of a pair that the champion scored."""
    mining = then.config.mining
    agents = ", ".join(row["agents"] or [])
    stage = row["stage"]
    if stage in ("taken", "random"):
        return str(taken["reason"].item()) if taken.height else "chosen, but not in the table mined"
    if stage == "no agent":
        return "no agent would take it: its value is below every agent's threshold"
    if stage == "query cap":
        return f"{agents} would take it, but its query has mining.per_query={mining.per_query} pairs already"
    if stage == "cluster cap":
        return f"{agents} would take it, but query cluster {row['cluster']} has its share (mining.per_cluster) already"
    if stage == "duplicate":
        twin = f"({row['duplicate_query']!r}, {row['duplicate_doc_id']!r})"
        return f"{agents} would take it, but it is a near-duplicate of {twin}, which is taken"
    last = table.filter(stage="taken").select(pl.col("priority").min()).item()
    return (
        f"{agents} would take it, but the budget went to others (its priority {row['priority']:.3f}; lowest {last:.3f})"
    )


def _agents(row: dict[str, Any], table: pl.DataFrame) -> dict[str, dict[str, Any]]:
    """Every agent's say on a pair; threshold is the lowest value that it took in the round."""
    return {
        agent: {
            "score": row[agent],
            "value": row[f"{agent}_value"],
            "threshold": table.filter(pl.col("agents").list.contains(agent))[f"{agent}_value"].min(),
            "takes it": agent in (row["agents"] or []),
            "chance": row[f"{agent}_chance"],
        }
        for agent in AGENTS
        if row[f"{agent}_value"] is not None or table[f"{agent}_value"].count()
    }
