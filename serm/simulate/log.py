"""The verb `simulate`: read a workspace's judged collection, simulate a stream over it, and append it to its log."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, cast

import numpy as np
import polars as pl
from numpy.typing import NDArray

from serm.config import SimulateSettings
from serm.simulate.ranker import lexical_overlap
from serm.simulate.standin import true_grades
from serm.simulate.traffic import arrival_values, stream
from serm.workspace import Workspace
from sps.progress import track

SCORED_AT_ONCE = 2_048

# Scores aligned query and document texts, as RelevanceModel does once reduced to f(q, d).
Scorer = Callable[[Sequence[str], Sequence[str]], NDArray[np.floating[Any]]]


@dataclass(frozen=True)
class SimulationSummary:
    """What a simulation made; `new_impressions` counts those that the log did not hold yet."""

    sessions: int
    bot_sessions: int
    queries: int
    impressions: int
    new_impressions: int
    clicks: int
    first: datetime
    last: datetime
    judged_without_document: int
    truth: Path


def simulate(
    workspace: Workspace,
    sessions: int | None = None,
    days: float | None = None,
    start: str | None = None,
    seed: int | None = None,
    queries: Sequence[str] | None = None,
    score: Scorer | None = None,
) -> SimulationSummary:
    """Append a simulated stream over the workspace's judged collection to its impressions.

    Arguments that are given stand in for the settings of the room `simulate` and for the configuration's seed.
    `queries` restricts the stream to these judged queries. `score` ranks the results, and its values are logged;
    without it results are ranked by lexical overlap and no score is logged. The truth (grades, who is a bot, what was
    examined) goes to truth/<stream>.parquet on this machine, never into a table. The same call again adds nothing.

    Raises:
        ValueError: there are no judged documents, a query is not judged, or a setting does not fit.
    """
    given = {"sessions": sessions, "days": days, "start": start}
    settings = SimulateSettings(
        **workspace.config.simulate.model_dump() | {name: value for name, value in given.items() if value is not None}
    )
    seed = workspace.config.seed if seed is None else seed
    scale = workspace.config.labels.scale
    with workspace.run("simulate", **settings.model_dump(), stream_seed=seed) as run:
        documents = workspace.read("documents")
        judged = true_grades(_chosen(workspace.read("judgments"), queries), scale)
        judgments = judged.join(documents.select("doc_id"), on="doc_id", how="semi")
        if judgments.is_empty():
            raise ValueError(f"{workspace.root}: no judged documents to show; add some with: serm ingest")
        arrival = arrival_values(judgments, documents, settings.arrival, scale) if settings.arrival else None
        scores = lexical_overlap(judgments, documents) if score is None else _scored(judgments, documents, score)
        impressions, truth = stream(judgments, arrival, scores, settings, scale, seed, log_scores=score is not None)
        # A stream's sessions carry its name before the dash; the truth is filed under it.
        path = workspace.local("truth", f"{truth['session'][0].rsplit('-', 1)[0]}.parquet")
        truth.write_parquet(path)
        new = workspace.append("impressions", impressions)
        summary = SimulationSummary(
            sessions=impressions["session"].n_unique(),
            bot_sessions=truth.filter("is_bot")["session"].n_unique(),
            queries=impressions["query"].n_unique(),
            impressions=impressions.height,
            new_impressions=new,
            clicks=int(impressions["clicked"].sum()),
            first=cast(datetime, impressions["ts"].min()),
            last=cast(datetime, impressions["ts"].max()),
            judged_without_document=judged.height - judgments.height,
            truth=path,
        )
        run.result.update(vars(summary))
    return summary


def _chosen(judgments: pl.DataFrame, queries: Sequence[str] | None) -> pl.DataFrame:
    if queries is None:
        return judgments
    unknown = sorted(set(queries) - set(judgments["query"].unique()))
    if unknown:
        raise ValueError(f"simulate: query {unknown[0]!r} has no judgments ({len(unknown)} such); leave it out")
    return judgments.filter(pl.col("query").is_in(list(queries)))


def _scored(judgments: pl.DataFrame, documents: pl.DataFrame, score: Scorer) -> pl.DataFrame:
    pairs = judgments.join(documents.select("doc_id", "text"), on="doc_id", how="left", maintain_order="left")
    parts = []
    with track("scoring the judged pairs", pairs.height) as advance:
        for part in pairs.iter_slices(SCORED_AT_ONCE):
            parts.append(np.asarray(score(part["query"].to_list(), part["text"].to_list()), dtype=np.float64))
            advance(part.height)
    return pairs.select("query", "doc_id").with_columns(pl.Series("score", np.concatenate(parts)))
