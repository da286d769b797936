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
MEASURES = ("nDCG@1", "nDCG@10")
FACTS = ("precision", "random_precision", "kept", "label_accuracy", "calls")  # means over rounds and seeds


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
    finals = [
        {"strategy": name, "split": split, "measure": measure, **_percent(frames[name][measure], resamples, seed)}
        for name in names
        for split, frames in (("fresh", final), ("old", old))
        for measure in MEASURES
    ]
    table = []
    for name in names:
        row: dict[str, Any] = {"strategy": name, "seeds": len(seeds[name])}
        row |= {f"{f['split']} {f['measure']}": _spread(f) for f in finals if f["strategy"] == name}
        row |= {fact: _mean_fact(cells, name, fact) for fact in FACTS}
        table.append(row)
    differences = [
        _difference(frames[name], frames[base], where, measure, name, base, resamples, seed)
        for base in BASELINES if base in names
        for name in names if name != base
        for where, frames in (("fresh", final), ("old", old))
        for measure in MEASURES
    ]  # fmt: skip
    return {
        "table": table,
        "finals": finals,
        "differences": differences,
        "curves": _curves(cells, names),
        "cells": cells,
    }


def _by_query(cells: list[dict[str, Any]], name: str, pick: Any) -> pl.DataFrame:
    frames = [pl.DataFrame(pick(cell)) for cell in cells if cell["strategy"] == name]
    return pl.concat(frames).group_by("query").agg(pl.selectors.float().mean()).sort("query")


def _difference(
    ours: pl.DataFrame, theirs: pl.DataFrame, where: str, measure: str, name: str, base: str, resamples: int, seed: int
) -> dict[str, Any]:
    pairs = ours.select("query", a=measure).join(theirs.select("query", b=measure), on="query").sort("query")
    figures = _percent(pairs["a"] - pairs["b"], resamples, seed)
    return {"strategy": name, "baseline": base, "split": where, "measure": measure, **figures}


def _percent(values: pl.Series, resamples: int, seed: int) -> dict[str, float]:
    """Mean over queries and its interval, in points of a hundred."""
    interval = mean_interval(values.to_numpy() * 100, LEVEL, resamples, seed)
    return {"mean": interval.mean, "low": interval.low, "high": interval.high, "queries": interval.queries}


def _curves(cells: list[dict[str, Any]], names: list[str]) -> dict[str, dict[str, list[float]]]:
    """Mean fresh measures after every round, per strategy; empty unless all rounds were measured."""
    evolved = [cell for cell in cells if cell["strategy"] != "static"]
    if not evolved or any(len(cell["fresh"]) != len(cell["rounds"]) for cell in evolved):
        return {}
    curves: dict[str, dict[str, list[float]]] = {}
    for name in names:
        same = [cell["fresh"] for cell in cells if cell["strategy"] == name]
        curves[name] = {
            measure: [float(np.mean([np.mean(fresh[r][measure]) for fresh in same]) * 100) for r in range(len(same[0]))]
            for measure in MEASURES
        }
    return curves


def _mean_fact(cells: list[dict[str, Any]], name: str, key: str) -> float | None:
    values = [
        fact[key] for cell in cells if cell["strategy"] == name for fact in cell["rounds"] if fact.get(key) is not None
    ]
    return float(np.mean(values)) if values else None


def _spread(final: dict[str, Any]) -> str:
    return f"{final['mean']:.1f} [{final['low']:.1f}, {final['high']:.1f}]"
