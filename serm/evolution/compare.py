"""The verb backtest: run the cells, compare strategies query by query, and leave a table, a page and JSON."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from serm.evaluation.paired import mean_interval
from serm.evolution.backtest import backtest as run_cells
from serm.evolution.backtest import digest
from serm.evolution.plot import page
from serm.workspace import Workspace, WorkspaceError

LEVEL = 0.95
BASELINES = ("static", "self_training", "random")


def backtest(workspace: Workspace) -> dict[str, Any]:
    """Compare the configured strategies on the workspace's human judgments; finished cells are not run again.

    Returns a dictionary with `table` (a row per strategy), `differences` (strategy minus baseline, paired by query),
    `cells` (everything measured), and the addresses `page` and `json`.

    Raises:
        WorkspaceError: there are no judgments or documents.
        ValueError: the collection is too small for the cut, or lacks the arrival attribute.
    """
    judgments, documents = workspace.read("judgments"), workspace.read("documents")
    if judgments.is_empty() or documents.is_empty():
        raise WorkspaceError("a backtest needs documents and human judgments; add them with: serm ingest")
    config = workspace.config
    people = (
        judgments.filter(~pl.col("judge").str.starts_with("llm:"))
        .select("query", "doc_id", "grade")
        .sort("query", "doc_id")
    )
    documents = documents.select("doc_id", "title", "text", "attributes").sort("doc_id")
    folder = workspace.local("backtests", "cells").parent
    with workspace.run("backtest") as run:
        cells = run_cells(people, documents, config, folder)
        result = summarise(cells, config.evaluation.resamples, config.seed)
        result["config"] = config.model_dump(mode="json")
        result["versions"] = workspace.package_versions()
        base = Path(folder) / digest(people, documents, config)
        result |= {"page": str(base / "backtest.html"), "json": str(base / "backtest.json")}
        (base / "backtest.html").write_text(page(result), encoding="utf-8")
        (base / "backtest.json").write_text(json.dumps(result, indent=1), encoding="utf-8")
        run.result.update({"table": result["table"], "json": result["json"]})
    return result


def summarise(cells: list[dict[str, Any]], resamples: int, seed: int) -> dict[str, Any]:
    """Table, paired differences and curves of a backtest's cells.

    A query's value is its mean over seeds (the held-out queries are the same for all); intervals are bootstrap
    intervals over queries, so they speak of other queries, and `seeds` shows the spread over seeds.
    """
    names = list(dict.fromkeys(cell["strategy"] for cell in cells))
    seeds = {name: [cell["seed"] for cell in cells if cell["strategy"] == name] for name in names}
    final = {name: _by_query(cells, name, lambda cell: cell["fresh"][-1]) for name in names}
    old = {name: _by_query(cells, name, lambda cell: cell["old"]) for name in names}
    table = []
    for name in names:
        row: dict[str, Any] = {"strategy": name, "seeds": len(seeds[name])}
        for label, frames, measures in (("fresh", final, ("nDCG@1", "nDCG@10")), ("old", old, ("nDCG@1", "nDCG@10"))):
            for measure in measures:
                interval = mean_interval(frames[name][measure].to_numpy() * 100, LEVEL, resamples, seed)
                row[f"{label} {measure}"] = _spread(interval.mean, interval.low, interval.high)
        row |= {
            key: _mean_fact(cells, name, key)
            for key in ("precision", "random_precision", "kept", "label_accuracy", "calls")
        }
        table.append(row)
    differences = [
        _difference(frames[name], frames[base], where, measure, name, base, resamples, seed)
        for base in BASELINES if base in names
        for name in names if name != base
        for where, frames in (("fresh", final), ("old", old))
        for measure in ("nDCG@1", "nDCG@10")
    ]  # fmt: skip
    return {"table": table, "differences": differences, "curves": _curves(cells, names), "cells": cells}


def _by_query(cells: list[dict[str, Any]], name: str, pick: Any) -> pl.DataFrame:
    frames = [pl.DataFrame(pick(cell)) for cell in cells if cell["strategy"] == name]
    return pl.concat(frames).group_by("query").agg(pl.selectors.float().mean()).sort("query")


def _difference(
    ours: pl.DataFrame, theirs: pl.DataFrame, where: str, measure: str, name: str, base: str, resamples: int, seed: int
) -> dict[str, Any]:
    pairs = ours.select("query", a=measure).join(theirs.select("query", b=measure), on="query").sort("query")
    interval = mean_interval((pairs["a"] - pairs["b"]).to_numpy() * 100, LEVEL, resamples, seed)
    return {
        "strategy": name, "baseline": base, "split": where, "measure": measure, "difference": interval.mean,
        "low": interval.low, "high": interval.high, "queries": interval.queries,
    }  # fmt: skip


def _curves(cells: list[dict[str, Any]], names: list[str]) -> dict[str, dict[str, list[float]]]:
    """Mean fresh nDCG@1 and @10 after each round, per strategy; static is a flat line's single point."""
    curves: dict[str, dict[str, list[float]]] = {}
    for name in names:
        mine = [cell for cell in cells if cell["strategy"] == name]
        rounds = min(len(cell["fresh"]) for cell in mine)
        curves[name] = {
            measure: [
                float(np.mean([np.mean(cell["fresh"][r][measure]) for cell in mine]) * 100) for r in range(rounds)
            ]
            for measure in ("nDCG@1", "nDCG@10")
        }
    return curves


def _mean_fact(cells: list[dict[str, Any]], name: str, key: str) -> float | None:
    values = [
        fact[key] for cell in cells if cell["strategy"] == name for fact in cell["rounds"] if fact.get(key) is not None
    ]
    return float(np.mean(values)) if values else None


def _spread(mean: float, low: float, high: float) -> str:
    return f"{mean:.1f} [{low:.1f}, {high:.1f}]"
