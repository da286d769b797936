"""What earlier rounds' labels say of the champion and the agents: one frame, from the tables alone.

A pair is wrong when the label that the annotators agreed on contradicts f(q, d), the champion's score at mining time:
on a scale of two grades when f lies on the other side of the middle, on a longer scale when they are a grade or more
apart (ours). Pairs without an agreed label, or that no champion scored, are neither right nor wrong.
"""

from collections.abc import Sequence

import polars as pl

from serm.records import AGENTS, Strings
from serm.workspace import Workspace

PAIR = ["query", "doc_id"]
VALUES = [f"{agent}_value" for agent in AGENTS]

# One row a pair that was asked about.
SCHEMA = pl.Schema(
    {
        "round": pl.Int32,
        "query": pl.String,
        "doc_id": pl.String,
        "agents": Strings,  # who took it, or "random"
        **dict.fromkeys(VALUES, pl.Float64),  # null where unknown
        "wrong": pl.Boolean,  # null without an agreed label or a score
    }
)


def is_wrong(label: pl.Expr, score: pl.Expr, scale: Sequence[int]) -> pl.Expr:
    """Whether a label contradicts a champion's score; null where either is."""
    if len(scale) == 2:
        return (score >= (scale[0] + scale[1]) / 2) != (label == scale[1])
    return (label - score).abs() >= 1


def labelled(
    pairs: pl.DataFrame, considered: pl.DataFrame, labels: pl.DataFrame, round: int, scale: Sequence[int]
) -> pl.DataFrame:
    """One round's mined pairs and their labels as history, columns as in SCHEMA.

    Args:
        pairs: [query, doc_id, agents, score] that were mined and annotated.
        considered: [query, doc_id, <agent>_value, ...] of the same round; pairs that are not in it have null values.
        labels: [query, doc_id, label] that were agreed on.
        round: the round's number.
        scale: the label scale.
    """
    return (
        pairs.select(*PAIR, "agents", "score")
        .join(labels.select(*PAIR, "label"), on=PAIR, how="left")
        .join(considered.select(*PAIR, *VALUES), on=PAIR, how="left")
        .with_columns(round=pl.lit(round), wrong=is_wrong(pl.col("label"), pl.col("score"), scale))
        .select(pl.col(name).cast(dtype) for name, dtype in SCHEMA.items())
        .sort(PAIR)
    )


def history(workspace: Workspace, before: int) -> pl.DataFrame:
    """Every annotated pair of the rounds 1 to `before` - 1, columns as in SCHEMA, sorted by round and pair."""
    earlier = (pl.col("round") > 0) & (pl.col("round") < before)
    key = ["round", *PAIR]
    label = pl.when(pl.col("status") == "kept").then("label")
    return (
        workspace.scan("mined")
        .filter(earlier)
        .select(*key, "agents", "score")
        .join(workspace.scan("annotations").filter(earlier).select(*key, label=label), on=key)
        .join(last_considered(workspace).select(*key, *VALUES), on=key, how="left")
        .with_columns(wrong=is_wrong(pl.col("label"), pl.col("score"), workspace.config.labels.scale))
        .select(pl.col(name).cast(dtype) for name, dtype in SCHEMA.items())
        .sort(key)
        .collect()
    )


def last_considered(workspace: Workspace) -> pl.LazyFrame:
    """The table `considered` without the rows of runs that a later run of the same round replaced."""
    rows = workspace.scan("considered")
    started = workspace.scan("runs").filter(pl.col("status") == "started").select("ts", run="run_id")
    last = (
        rows.select("round", "run")
        .unique()
        .join(started, on="run")
        .sort("ts", "run")
        .group_by("round")
        .agg(pl.col("run").last())
    )
    return rows.join(last, on=["round", "run"], how="semi")
