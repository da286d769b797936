"""The verb demo: the whole loop on the embedded collection, with simulated users and stand-in annotators."""

import os
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from serm import registry
from serm.evaluation import evaluate, gate
from serm.evolution.round import RoundSummary, evolve, rounds_done
from serm.evolution.update import update
from serm.ingest import ingest
from serm.simulate import arrival_values, simulate
from serm.workspace import Workspace
from sps import progress

PACKAGE = Path(__file__).parent
LAST_OLD_YEAR = 2020
TRAIN, DEV, ANCHOR, FRESH = 160, 40, 100, 200  # queries
PERIOD = timedelta(days=14)
BEGIN = datetime(2026, 1, 5, tzinfo=UTC)


@dataclass(frozen=True)
class DemoSummary:
    """The rounds, the starting model against the champion on fresh queries, and where to look."""

    rounds: list[RoundSummary]
    comparison: list[dict[str, Any]]
    places: dict[str, str]


def demo(where: str = "demo", rounds: int = 2) -> DemoSummary:
    """Start from old searches, let newer ones arrive, and evolve; a second call with the same folder adds nothing.

    Raises:
        ValueError: the embedded collection is not there, or `where` holds another workspace.
    """
    from serm.simulate.llm_server import llm_server, running

    data, settings = _embedded("demo", "data/demo"), _embedded("demo.yaml", "configs/demo.yaml")
    progress.note(f"a shop's pages and graded searches go into the workspace {where}")
    workspace = Workspace.create(where, settings.read_text(encoding="utf-8"))
    ingest(workspace, [str(data / "documents.parquet")], kind="documents", columns={"locale": "language"})
    queries = _ingest_judgments(workspace, data / "judgments.parquet", rounds)
    if registry.history(workspace).is_empty():
        progress.note(f"the first model learns from searches up to {LAST_OLD_YEAR} (the longest step)")
        update(workspace)
    simulate(workspace, start=BEGIN.isoformat(), queries=queries["train"])
    os.environ.setdefault("OPENAI_API_KEY", "none-needed-on-loopback")
    with running(llm_server(workspace), "127.0.0.1", 0) as address:
        annotators = [a.model_copy(update={"base_url": address}) for a in workspace.config.annotation.annotators]
        workspace.config.annotation.annotators = annotators
        for number in range(len(rounds_done(workspace)) + 1, rounds + 1):
            progress.note(f"round {number} of {rounds}: newer searches arrive; mine, annotate, update, evaluate, gate")
            simulate(workspace, start=(BEGIN + number * PERIOD).isoformat(), queries=queries[f"era {number}"])
            evolve(workspace)
    progress.note("the champion against the starting model")
    return DemoSummary(rounds_done(workspace), _compare(workspace), _places(workspace))


def _embedded(inside: str, checkout: str) -> Path:
    """A file that lies in the installed package, or in the checkout the package is installed from."""
    for path in (PACKAGE / "embedded" / inside, PACKAGE.parent / checkout):
        if path.exists():
            return path
    raise ValueError(f"{checkout} is not there; reinstall serm, or run the demo from a checkout")


def _ingest_judgments(workspace: Workspace, path: Path, rounds: int) -> dict[str, list[str]]:
    """Cut the judged queries by the year of their arrival and ingest each part under its split; returns its queries."""
    judgments = pl.read_parquet(path)
    scale = workspace.config.labels.scale
    arrival = arrival_values(judgments, workspace.read("documents"), "year", scale)
    rng = np.random.default_rng(workspace.config.seed)
    old = arrival.filter(pl.col("arrival") <= LAST_OLD_YEAR)["query"].to_numpy()
    new = arrival.filter(pl.col("arrival") > LAST_OLD_YEAR)
    old = rng.permutation(old)
    drawn = rng.permutation(new["query"].to_numpy())
    hidden = new.filter(pl.col("query").is_in(drawn[FRESH:].tolist())).sort("arrival", "query")["query"].to_numpy()
    parts = {
        "train": old[:TRAIN],
        "dev": old[TRAIN : TRAIN + DEV],
        "anchor": old[TRAIN + DEV : TRAIN + DEV + ANCHOR],
        "fresh": drawn[:FRESH],
        "hidden": hidden,
    }
    for split, chosen in parts.items():
        part = workspace.local("input", f"{split}.parquet")
        judgments.filter(pl.col("query").is_in(chosen.tolist())).write_parquet(part)
        ingest(workspace, [str(part)], kind="judgments", split=split, judge="human")
    eras = {f"era {i + 1}": era for i, era in enumerate(np.array_split(hidden, rounds))}
    return {name: chosen.tolist() for name, chosen in (parts | eras).items()}


def _compare(workspace: Workspace) -> list[dict[str, Any]]:
    """The starting model and the champion on fresh and on anchor queries, with the paired interval."""
    first, champion = registry.versions(workspace)[0], registry.champion(workspace)
    for version in (first, champion):
        evaluate(workspace, version)
    verdict = gate(workspace, champion, first)
    rows = []
    for split, found in (("fresh", verdict.fresh), ("anchor", verdict.anchor)):
        if found:
            difference = found.difference
            rows.append(
                {
                    "searches": split, "measure": verdict.measure, "start": found.champion, "evolved": found.candidate,
                    "difference": difference.mean, "low": difference.low, "high": difference.high,
                    "queries": difference.queries,
                }
            )  # fmt: skip
    return rows


def _places(workspace: Workspace) -> dict[str, str]:
    return {
        "workspace": workspace.root,
        "settings": workspace.url("config.yaml"),
        "tables (Delta)": workspace.url("tables"),
        "models": workspace.url("models"),
        "champion": workspace.url("models", registry.champion(workspace)),
        "next": f"serm status -w {workspace.root};  serm review -w {workspace.root}",
    }
