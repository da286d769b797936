"""What became of every candidate that the champion scored: the rows of the table `considered`."""

from collections.abc import Mapping

import polars as pl

from serm.mining.union import scores_and_values
from serm.records import AGENTS, CONSIDERED

PAIR = ["query", "doc_id"]
FATE = ["stage", "agents", *(f"{agent}_chance" for agent in AGENTS), "priority", "cluster"]
FATE += ["duplicate_query", "duplicate_doc_id"]
COLUMNS = [name for name in CONSIDERED.schema if name not in ("round", "run")]


def considered(candidates: pl.DataFrame, opinions: Mapping[str, pl.DataFrame], pool: pl.DataFrame) -> pl.DataFrame:
    """One row a candidate, sorted by pair: columns of `considered` but for round and run.

    `pool` holds the candidates that somebody took, with their stage; of the others no agent would take any. A chance
    is null where the agent would not take the pair.
    """
    fates = pool.select(*PAIR, *(name for name in FATE if name in pool.columns))
    rows = candidates.with_columns(scores_and_values(opinions)).join(fates, on=PAIR, how="left")
    rows = rows.with_columns(pl.col("stage").fill_null("no agent"))
    rows = rows.with_columns(
        pl.when(pl.col("agents").list.contains(agent)).then(f"{agent}_chance").alias(f"{agent}_chance")
        for agent in opinions
        if f"{agent}_chance" in rows.columns
    )
    table = CONSIDERED.conform(
        rows.select(name for name in COLUMNS if name in rows.columns).with_columns(round=pl.lit(0), run=pl.lit(""))
    )
    return table.select(COLUMNS).sort(PAIR)
