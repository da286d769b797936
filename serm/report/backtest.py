"""A backtest's finished cells as a report's facts: strategies by round and at the end, with intervals over searches."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from serm.evaluation.paired import Interval, mean_interval
from serm.evolution.compare import LEVEL, MEASURES, summarise
from serm.workspace import WorkspaceError

FOCUS = "serm"


@dataclass(frozen=True)
class Backtest:
    """What a backtest says; measures and intervals are in 0..1.

    `by_round` is strategy -> measure -> an interval for each of the rounds `measured`, on new searches (static: one
    alone, that of the start); `finals` and `differences` are the rows of `summarise`, in points of 100; `rounds` has a
    row a strategy and round, means over seeds of what the round's labels were worth.
    """

    name: str
    strategies: list[str]
    seeds: dict[str, int]
    measured: list[int]  # the last round alone, unless backtest.every_round is on
    by_round: dict[str, dict[str, list[Interval]]]
    finals: list[dict[str, Any]]
    differences: list[dict[str, Any]]
    table: list[dict[str, Any]]
    rounds: list[dict[str, Any]]


def gather_backtest(folder: str | Path, resamples: int = 2_000, seed: int = 0) -> Backtest:
    """Read the cells (seed<N>-<strategy>.json) of `folder`, or of its only sub-folder that holds some.

    Raises:
        WorkspaceError: there are no cells, or several backtests.
    """
    place = _cells_folder(Path(folder))
    cells = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(place.glob("seed*-*.json"))]
    found = summarise(cells, resamples, seed)
    names = list(dict.fromkeys(cell["strategy"] for cell in cells))
    return Backtest(
        place.name,
        names,
        {name: sum(cell["strategy"] == name for cell in cells) for name in names},
        _measured(cells),
        {name: _by_round([c for c in cells if c["strategy"] == name], resamples, seed) for name in names},
        found["finals"],
        found["differences"],
        found["table"],
        [row for name in names for row in _rounds([c for c in cells if c["strategy"] == name], name)],
    )


def difference(found: Backtest, split: str, measure: str, baseline: str) -> Interval | None:
    """The focus strategy less a baseline after the last round, in 0..1; None where one of them did not run."""
    for row in found.differences:
        if (row["strategy"], row["baseline"], row["split"], row["measure"]) == (FOCUS, baseline, split, measure):
            return interval(row)
    return None


def interval(row: dict[str, Any]) -> Interval:
    """A row of `summarise` in 0..1."""
    return Interval(row["mean"] / 100, row["low"] / 100, row["high"] / 100, row["queries"])


def _cells_folder(folder: Path) -> Path:
    if not folder.is_dir():
        raise WorkspaceError(f"{folder}: no such folder; name the one that serm backtest filled")
    if any(folder.glob("seed*-*.json")):
        return folder
    inside = sorted({path.parent for path in folder.rglob("seed*-*.json")})
    if not inside:
        raise WorkspaceError(f"{folder}: no finished cells (seed0-serm.json and so on); run: serm backtest")
    if len(inside) > 1:
        named = ", ".join(str(path) for path in inside)
        raise WorkspaceError(f"{folder}: holds {len(inside)} backtests; name one of them: {named}")
    return inside[0]


def _measured(cells: list[dict[str, Any]]) -> list[int]:
    """The rounds whose models every evolving strategy was measured after."""
    evolved = [cell for cell in cells if cell["rounds"]]
    if not evolved:
        return []
    rounds = [fact["round"] for fact in evolved[0]["rounds"]]
    every = all(len(cell["fresh"]) == len(rounds) for cell in evolved)
    return rounds if every else rounds[-1:]


def _by_round(cells: list[dict[str, Any]], resamples: int, seed: int) -> dict[str, list[Interval]]:
    """A query's value is its mean over seeds, as in `summarise`."""
    found: dict[str, list[Interval]] = {measure: [] for measure in MEASURES}
    for back in range(min(len(cell["fresh"]) for cell in cells), 0, -1):
        frames = [pl.DataFrame(cell["fresh"][-back]) for cell in cells]
        values = pl.concat(frames).group_by("query").agg(pl.selectors.float().mean()).sort("query")
        for measure in MEASURES:
            found[measure].append(mean_interval(values[measure].to_numpy(), LEVEL, resamples, seed))
    return found


def _rounds(cells: list[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    rows = []
    for place in range(min(len(cell["rounds"]) for cell in cells)):
        facts = [cell["rounds"][place] for cell in cells]
        row: dict[str, Any] = {"strategy": name, "round": facts[0]["round"]}
        for key in ("mined", "precision", "random_precision", "kept", "label_accuracy", "calls"):
            known = [fact[key] for fact in facts if fact.get(key) is not None]
            row[key] = float(np.mean(known)) if known else None
        rows.append(row)
    return rows
