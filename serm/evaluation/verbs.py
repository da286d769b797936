"""The verbs evaluate and gate: read human judgments, score them with registered models, record and decide.

Scores of a version never change, so they are kept on this machine under `scores/`, named by everything they depend on:
a gate after an evaluation, or a second candidate against the same champion, scores nothing twice.
"""

import hashlib
import uuid
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import polars as pl

from serm import registry
from serm.config import EvaluationSettings
from serm.evaluation.metrics import PerQuery, parse_measures, per_query
from serm.evaluation.paired import Interval, mean_interval
from serm.evaluation.scoring import human, score_judged, with_texts
from serm.evaluation.verdict import Verdict, decide
from serm.fingerprint import fingerprint
from serm.workspace import Workspace, WorkspaceError

LEVEL = 0.95  # of the intervals in the metrics table


@dataclass(frozen=True)
class SplitResult:
    """One split's means over queries, and what could not be measured."""

    split: str
    queries: int
    excluded: int  # judged queries without a positive document
    without_document: int  # judged pairs whose document is not in the documents table
    measures: dict[str, Interval]


@dataclass(frozen=True)
class EvaluationSummary:
    """What `evaluate` measured and wrote to the metrics table."""

    model: str
    judgments_version: int
    splits: list[SplitResult]


def evaluate(
    workspace: Workspace,
    version: str | None = None,
    splits: Sequence[str] = ("fresh", "anchor"),
    round: int | None = None,
) -> EvaluationSummary:
    """Measure a version (the champion if none is named) on human judgments; the same call twice adds nothing.

    Intervals are 95% bootstrap intervals over queries. A split without judged queries has no measures.

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
        results = []
        for split in splits:
            measured, lost = measure_split(workspace, model, split, settings.measures, judgments_version)
            results.append(_summarise(split, measured, lost, settings, workspace.config.seed))
        if not any(result.queries for result in results):
            raise WorkspaceError(
                f"no human-judged query with a positive document in {' or '.join(splits)}; "
                "ingest judgments whose judge does not start with 'llm:'"
            )
        summary = EvaluationSummary(model, judgments_version, results)
        rows = [
            {
                "model": model, "round": manifest.get("round") if round is None else round, "split": result.split,
                "measure": measure, "value": interval.mean, "low": interval.low, "high": interval.high,
                "queries": interval.queries, "judgments_version": judgments_version,
            }
            for result in results
            for measure, interval in result.measures.items()
        ]  # fmt: skip
        workspace.upsert("metrics", pl.DataFrame(rows, infer_schema_length=None))
        run.result.update(asdict(summary))
    return summary


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
    judged = human(workspace.read("judgments", judgments_version), split)
    documents = workspace.scan("documents").select("doc_id", "text")
    wanted = documents.join(judged.select("doc_id").unique().lazy(), on="doc_id", how="semi").collect()
    known, lost = with_texts(judged, wanted)
    scores = _scores(workspace, version, known)
    return per_query(known.select("query", "doc_id", "grade"), scores, measures), lost


def _scores(workspace: Workspace, version: str, pairs: pl.DataFrame) -> pl.DataFrame:
    """Scores of `pairs` (query, doc_id, text), from this machine's cache where they were computed before."""
    if pairs.is_empty():
        return pl.DataFrame(schema={"query": pl.String, "doc_id": pl.String, "score": pl.Float64})
    cache = workspace.local("scores", f"{version}-{_fingerprint(workspace, version, pairs)}.parquet")
    if cache.exists():
        return pl.read_parquet(cache)
    from serm.relevance import load

    config = workspace.config
    model = load(registry.folder(workspace, version), config.relevance, config.labels.scale)
    scores = score_judged(model, pairs, pairs.select("doc_id", "text").unique("doc_id"))
    scratch = cache.with_name(f".{uuid.uuid4().hex}")
    scores.write_parquet(scratch)
    scratch.replace(cache)
    return scores


def _fingerprint(workspace: Workspace, version: str, pairs: pl.DataFrame) -> str:
    """A name for everything that scores depend on: the version, how it is asked, and the pairs with their texts."""
    relevance = workspace.config.relevance
    asked: list[Any] = [
        registry.read_manifest(workspace, version)["created"],
        relevance.family, relevance.max_tokens, relevance.precision, workspace.config.labels.scale,
        relevance.instructions, relevance.chat_template,
    ]  # fmt: skip
    content = fingerprint(pairs.select("query", "doc_id", "text"))
    return hashlib.blake2b(f"{asked} {content}".encode(), digest_size=12).hexdigest()


def _summarise(split: str, measured: PerQuery, lost: int, settings: EvaluationSettings, seed: int) -> SplitResult:
    values = measured.values
    intervals = {
        measure: mean_interval(values[measure].to_numpy(), LEVEL, settings.resamples, seed)
        for measure in settings.measures
        if not values.is_empty()
    }
    return SplitResult(split, values.height, measured.excluded, lost, intervals)
