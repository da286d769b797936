"""The runs table as the report reads it: results of finished runs, and the newest runs with how they ended."""

import json
from collections.abc import Sequence
from typing import Any

import polars as pl

from serm.workspace import Workspace

NEWEST = 40  # runs listed
ERROR_CHARACTERS = 300


def results(workspace: Workspace, verb: str, parameters: Sequence[str] = ()) -> list[dict[str, Any]]:
    """Finished runs of a verb, oldest first: run_id, round, ts, result (parsed), and what they were called with."""
    runs = workspace.scan("runs").filter(pl.col("verb") == verb)
    asked = [pl.col("config").str.json_path_match(f"$.parameters.{name}").alias(name) for name in parameters]
    rows = (
        runs.filter(pl.col("status") == "finished")
        .select("run_id", "round", "ts", "result")
        .join(runs.filter(pl.col("status") == "started").select("run_id", *asked), on="run_id")
        .sort("ts", "run_id")
        .collect()
    )
    return [row | {"result": json.loads(row["result"] or "{}")} for row in rows.to_dicts()]


def newest(workspace: Workspace) -> list[dict[str, Any]]:
    """The last runs, oldest first: verb, round, started, seconds, status (finished, failed or cut off), error."""
    table = workspace.scan("runs").select("run_id", "verb", "round", "status", "ts", "result")
    started = table.filter(pl.col("status") == "started").sort("ts", "run_id").tail(NEWEST).drop("result", "status")
    ended = table.filter(pl.col("status") != "started").select("run_id", "status", "result", end="ts")
    rows = started.join(ended, on="run_id", how="left").sort("ts", "run_id").collect()
    return [
        {
            "verb": row["verb"],
            "round": row["round"],
            "started": f"{row['ts']:%Y-%m-%d %H:%M}",
            "seconds": None if row["end"] is None else (row["end"] - row["ts"]).total_seconds(),
            "status": row["status"] or "cut off",
            "error": _error(row["result"]) if row["status"] == "failed" else "",
        }
        for row in rows.to_dicts()
    ]


def _error(result: str | None) -> str:
    return str(json.loads(result or "{}").get("error", ""))[:ERROR_CHARACTERS]
