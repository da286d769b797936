"""The verbs evaluate and gate: read human judgments, score them with registered models, record and decide."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import polars as pl

from serm import registry
from serm.config import EvaluationSettings
from serm.evaluation.calibration import Calibration, calibrate, fit_temperature
from serm.evaluation.judged import answers, file_name, find
from serm.evaluation.metrics import PerQuery, parse_measures, per_query
from serm.evaluation.page import page
from serm.evaluation.paired import mean_interval
from serm.evaluation.reading import read_slices
from serm.evaluation.results import FOLDER, EvaluationSummary, SplitResult, written
from serm.evaluation.slices import LEVEL, SliceFigure, measure
from serm.evaluation.verdict import Verdict, decide
from serm.workspace import Workspace, WorkspaceError


def evaluate(
    workspace: Workspace,
    version: str | None = None,
    splits: Sequence[str] = ("fresh", "anchor"),
    round: int | None = None,
) -> EvaluationSummary:
    """Measure a version (the champion if none is named) on human judgments; the same call twice adds nothing.

    Overall and by slice, with 95% bootstrap intervals over queries, and the calibration of its label probabilities
    with the temperature that dev would set. A split without judged queries has no measures. Leaves a page and JSON.

    Raises:
        WorkspaceError: the version is not there, or no split has a human-judged query with a positive document.
        ValueError: a measure is unknown.
    """
    settings = workspace.config.evaluation
    parse_measures(settings.measures)
    model = registry.champion(workspace) if version is None else version
    manifest = registry.read_manifest(workspace, model)
    with workspace.run("evaluate", round, version=model, splits=list(splits)) as run:
        judgments_version = workspace.version("judgments")
        summary = _measure(workspace, model, splits, judgments_version)
        rows = [
            {
                "model": model, "round": manifest.get("round") if round is None else round, "split": result.split,
                "measure": measure, "value": interval.mean, "low": interval.low, "high": interval.high,
                "queries": interval.queries, "judgments_version": judgments_version,
            }
            for result in summary.splits
            for measure, interval in result.measures.items()
        ]  # fmt: skip
        workspace.write_text(FOLDER, f"{file_name(model)}.html", page(summary, settings))
        workspace.write_text(FOLDER, f"{file_name(model)}.json", json.dumps(written(asdict(summary)), indent=1))
        workspace.upsert("metrics", pl.DataFrame(rows, infer_schema_length=None))
        run.result.update({name: asdict(summary)[name] for name in ("model", "judgments_version", "splits", "page")})
    return summary


def _measure(workspace: Workspace, model: str, splits: Sequence[str], judgments_version: int) -> EvaluationSummary:
    config = workspace.config
    settings, subject = config.evaluation, find(workspace, model)
    results, notes = list[SplitResult](), list[str]()
    figures, calibration = list[SliceFigure](), list[Calibration]()
    temperature = None
    for split in splits:
        said = answers(workspace, subject, split, judgments_version)
        measured = per_query(said.pairs.select("query", "doc_id", "grade"), said.pairs, settings.measures)
        results.append(_summarise(split, measured, said.without_document, settings, config.seed))
        if measured.values.is_empty():
            continue
        slices, _ = read_slices(workspace, split, measured.values["query"], judgments_version)
        figures += measure(split, measured.values, slices, settings.measures, settings, config.seed)
        notes += [f"{split}, {note}" for note in slices.notes]
        if not calibration:
            temperature = _temperature(workspace, model, judgments_version)
        calibration.append(_calibration(split, said.pairs, temperature, workspace))
    if not any(result.queries for result in results):
        raise WorkspaceError(
            f"no human-judged query with a positive document in {' or '.join(splits)}; "
            "ingest judgments whose judge does not start with 'llm:'"
        )
    if temperature is None:
        notes.append("no temperature: dev has no human-judged pairs, or the model no finite probabilities for them")
    place = [workspace.url(FOLDER, f"{file_name(model)}.{kind}") for kind in ("html", "json")]
    return EvaluationSummary(model, judgments_version, results, figures, calibration, notes, *place)


def _temperature(workspace: Workspace, model: str, judgments_version: int) -> float | None:
    """What dev would divide the model's log-probabilities by."""
    pairs = answers(workspace, find(workspace, model), "dev", judgments_version).pairs
    scale = workspace.config.labels.scale
    pairs = pairs.filter(pl.col("grade").is_in(scale))
    if pairs.is_empty():
        return None
    return fit_temperature(_matrix(pairs), np.searchsorted(scale, pairs["grade"].to_numpy()))


def _calibration(split: str, pairs: pl.DataFrame, temperature: float | None, workspace: Workspace) -> Calibration:
    config = workspace.config
    queries = pairs["query"].rank("dense").to_numpy().astype(np.int64)
    return calibrate(
        split, _matrix(pairs), pairs["grade"].to_numpy().astype(np.int64), queries, config.labels.scale, temperature,
        config.evaluation.calibration_bins, LEVEL, config.evaluation.resamples, config.seed,
    )  # fmt: skip


def _matrix(pairs: pl.DataFrame) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Probabilities as (n, |Y|)."""
    return pairs["probabilities"].explode().to_numpy().astype(np.float64).reshape(pairs.height, -1)


def gate(workspace: Workspace, candidate: str, champion: str) -> Verdict:
    """Decide from human judgments whether `candidate` may replace `champion`; promotes nothing.

    Raises:
        WorkspaceError: a version is not there.
        ValueError: the gate's measure is unknown.
    """
    settings = workspace.config.evaluation
    parse_measures([settings.gate_measure])
    with workspace.run("gate", candidate=candidate, champion=champion) as run:
        judgments_version = workspace.version("judgments")
        measured = {
            model: {
                split: measure_split(workspace, model, split, [settings.gate_measure], judgments_version)[0].values
                for split in ("fresh", "anchor")
            }
            for model in (champion, candidate)
        }
        verdict = decide(measured[champion], measured[candidate], settings, workspace.config.seed)
        run.result.update(asdict(verdict))
    return verdict


def measure_split(
    workspace: Workspace, version: str, split: str, measures: Sequence[str], judgments_version: int | None = None
) -> tuple[PerQuery, int]:
    """Per-query measures of a version on one split's human judgments, and the pairs set aside for want of a document.

    Raises:
        WorkspaceError: the version is not there.
    """
    said = answers(workspace, find(workspace, version), split, judgments_version)
    return per_query(said.pairs.select("query", "doc_id", "grade"), said.pairs, measures), said.without_document


def _summarise(split: str, measured: PerQuery, lost: int, settings: EvaluationSettings, seed: int) -> SplitResult:
    values = measured.values
    intervals = {
        measure: mean_interval(values[measure].to_numpy(), LEVEL, settings.resamples, seed)
        for measure in settings.measures
        if not values.is_empty()
    }
    return SplitResult(split, values.height, measured.excluded, lost, intervals)
