"""The verb status: what a workspace holds and where its evolution stands."""

from dataclasses import dataclass
from typing import Any

import polars as pl

from serm import registry
from serm.records import TABLES
from serm.review.queue import open_pairs
from serm.workspace import Workspace


@dataclass(frozen=True)
class Status:
    """A workspace at a glance."""

    workspace: str
    rows: dict[str, int]
    first_impression: str | None
    last_impression: str | None
    champion: str | None
    models: list[str]
    rounds: int
    review: int  # pairs waiting for a person
    last_run: dict[str, Any] | None


def status(workspace: Workspace) -> Status:
    """Count the tables and name the champion, without loading anything large."""
    rows = {table: workspace.scan(table).select(pl.len()).collect().item() for table in TABLES}
    first, last = workspace.scan("impressions").select(a=pl.col("ts").min(), b=pl.col("ts").max()).collect().row(0)
    champions = registry.history(workspace)
    runs = workspace.scan("runs").sort("ts").tail(1).select("verb", "status", "ts", "round").collect()
    return Status(
        workspace.root,
        rows,
        str(first) if first else None,
        str(last) if last else None,
        None if champions.is_empty() else champions["version"][-1],
        registry.versions(workspace),
        int(workspace.scan("mined").select(pl.col("round").max()).collect().item() or 0),
        open_pairs(workspace).height,
        None if runs.is_empty() else runs.row(0, named=True),
    )
