"""Pairs in review, for tests: with votes, reasons and texts that look like markup."""

import json

import polars as pl

from serm.workspace import Workspace

MARKUP = '<script>document.title = "owned"</script><img src=x onerror="document.title = \'owned\'">'


def fill(workspace: Workspace, pairs: int) -> None:
    """Put the pairs (query i, d<i>) into review; the higher the number, the higher the priority."""
    numbers = range(pairs)
    votes = [
        json.dumps(
            {
                "ada": {
                    "stable": 1,
                    "paths": [{"outcome": "label", "label": 1, "reasoning": f"some <b>words</b> {i}"}],
                },
                "ben": {"stable": None, "paths": [{"outcome": "refused", "label": None}]},
            }
        )
        for i in numbers
    ]
    frame = pl.DataFrame({"query": [f"query {i}" for i in numbers], "doc_id": [f"d{i}" for i in numbers]})
    key = frame.with_columns(round=pl.lit(1, pl.Int32))
    mined = key.with_columns(
        agents=pl.lit(["click"]),
        locale=pl.lit("de"),
        priority=pl.Series([i / 1e6 for i in numbers]),
        reason=pl.Series([f"because {i}" for i in numbers]),
    )
    workspace.append("mined", mined)
    annotations = key.with_columns(
        status=pl.lit("review"), votes=pl.Series(votes), reason=pl.lit("no agreement"), calls=pl.lit(2, pl.Int32)
    )
    workspace.append("annotations", annotations)
    documents = frame.select(
        "doc_id",
        title=pl.Series([f"Title {i}" for i in numbers]),
        text=pl.Series([f"Title {i}. A text on query number {i}. {MARKUP}" for i in numbers]),
    )
    workspace.append("documents", documents)
