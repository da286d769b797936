"""The backtest: evolve a model by several strategies on one simulated stream, and compare them on human judgments.

Every (seed, strategy) is a cell whose result is written when it is done; a killed backtest goes on with the next cell.
Strategies see the same starting model, the same logs and the same label budget.
"""

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from serm.config import Config
from serm.evaluation.metrics import per_query
from serm.evaluation.scoring import score_judged
from serm.evolution.fitting import train_first, train_next
from serm.evolution.scenario import Scenario, cut, windows
from serm.evolution.strategies import Lab, Labelled, gather_labels
from serm.fingerprint import fingerprint
from serm.relevance.embedding import embed
from sps import progress

PAIR = ["query", "doc_id"]
# What a cell depends on, besides the data; evaluation counts by its measures alone.
ROOMS = {
    "labels", "relevance", "shift", "clicks", "mining", "annotation", "update", "simulate", "simulate_llm", "backtest",
}  # fmt: skip


@dataclass(frozen=True)
class Cell:
    """One strategy under one seed."""

    seed: int
    strategy: str


def backtest(
    judgments: pl.DataFrame, documents: pl.DataFrame, config: Config, folder: Path, cells: Iterable[Cell] | None = None
) -> list[dict[str, Any]]:
    """Run every cell that `folder` does not hold yet and return all results.

    Args:
        judgments: query, doc_id, grade of people; documents: doc_id, title, text, attributes.
        cells: which to run; all of `config.backtest` by default. Several processes may share a folder: each takes
            the cells it names.
    """
    settings = config.backtest
    wanted = list(cells or (Cell(seed, name) for seed in settings.seeds for name in settings.strategies))
    folder = folder / digest(judgments, documents, config)
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / "config.json", config.model_dump(mode="json"))
    remember = _remembering(config)
    results = []
    with progress.track("backtest cells", len(wanted)) as advance:
        for cell in wanted:
            path = folder / f"seed{cell.seed}-{cell.strategy}.json"
            if not path.exists():
                _write(path, _run(cell, judgments, documents, config, folder, remember))
            results.append(json.loads(path.read_text(encoding="utf-8")))
            advance(1)
    return results


def digest(judgments: pl.DataFrame, documents: pl.DataFrame, config: Config) -> str:
    """A name for everything that a cell's result depends on but seed and strategy."""
    rooms = config.model_dump(mode="json", include=ROOMS)
    rooms["backtest"] = {k: v for k, v in rooms["backtest"].items() if k not in ("seeds", "strategies")}
    parts = [rooms, config.evaluation.measures, fingerprint(judgments), fingerprint(documents)]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:12]


def _run(
    cell: Cell, judgments: pl.DataFrame, documents: pl.DataFrame, config: Config, folder: Path, embedder: Any
) -> dict[str, Any]:
    from serm.relevance.cross_encoder import CrossEncoder

    config = config.model_copy(update={"seed": cell.seed})
    settings = config.backtest
    scenario = cut(judgments, documents, config.model_copy(update={"seed": settings.split_seed}), cell.seed)
    logs = windows(scenario, settings, config, cell.seed)
    start = _starting_model(scenario, config, folder)
    model = CrossEncoder(start, config.relevance, config.labels.scale)
    lab = Lab(scenario, judgments, documents, config, embedder)
    original = scenario.start.select("query", "text", label="grade")
    rounds: list[dict[str, Any]] = []
    gathered: list[Labelled] = []
    fresh: list[dict[str, Any]] = []
    if cell.strategy != "static":
        for number in range(1, settings.rounds + 1):
            labelled = gather_labels(cell.strategy, lab, model, logs[number - 1], logs[number], gathered, number)
            earlier = pl.concat([batch.pairs for batch in gathered]) if gathered else labelled.pairs.clear()
            errors = lab.errors if cell.strategy not in ("self_training", "oracle") else None
            trained = train_next(model, labelled.pairs, earlier, original, config, number, errors)
            gathered.append(labelled)
            rounds.append({"round": number, "steps": trained.steps, **labelled.facts})
            if settings.every_round or number == settings.rounds:
                fresh.append(measure(model, scenario.fresh, config))
    else:
        fresh.append(measure(model, scenario.fresh, config))
    old = measure(model, scenario.old, config)
    return {"seed": cell.seed, "strategy": cell.strategy, "rounds": rounds, "fresh": fresh, "old": old}


def measure(model: Any, pairs: pl.DataFrame, config: Config) -> dict[str, Any]:
    """Measures by query of pairs [query, doc_id, grade, text]: {"query": [...], measure: [...]}."""
    scores = score_judged(model, pairs, pairs.select("doc_id", "text").unique("doc_id"))
    values = per_query(pairs.select(*PAIR, "grade"), scores, config.evaluation.measures).values
    return values.with_columns(pl.selectors.float().round(6)).to_dict(as_series=False)


def _starting_model(scenario: Scenario, config: Config, folder: Path) -> Path:
    """The seed's starting model, trained once and kept beside the cells."""
    target = folder / f"start-{config.seed}"
    if not target.exists():
        original = scenario.start.select("query", "text", label="grade")
        checkpoint = folder / f"start-{config.seed}.pt"
        model, trained = train_first(original, scenario.dev, config, checkpoint)
        scratch = folder / f".start-{uuid.uuid4().hex}"
        model.save(scratch)
        _write(scratch / "training.json", {"steps": trained.steps, "best_step": trained.best_step, "dev": trained.dev})
        try:
            scratch.rename(target)
        except OSError:
            shutil.rmtree(scratch)  # another process was faster; both trained the same model
        checkpoint.unlink(missing_ok=True)
    return target


def _remembering(config: Config) -> Callable[[list[str]], np.ndarray]:
    """The embedder, that embeds no text twice."""
    known: dict[str, np.ndarray] = {}

    def remember(texts: list[str]) -> np.ndarray:
        new = [text for text in dict.fromkeys(texts) if text not in known]
        if new:
            known.update(zip(new, embed(new, config.relevance), strict=True))
        return np.stack([known[text] for text in texts]) if texts else embed([], config.relevance)

    return remember


def _write(path: Path, content: dict[str, Any]) -> None:
    scratch = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    scratch.write_text(json.dumps(content), encoding="utf-8")
    os.replace(scratch, path)
