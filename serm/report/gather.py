"""Gather a report's facts from a workspace: lazy counts over the tables, a few rows to read, nothing is scored."""

from collections.abc import Sequence
from typing import Any

import polars as pl

from serm.records import TABLES
from serm.report import labelling, mined, quality
from serm.report import reading as side_by_side
from serm.report.decide import decisions
from serm.report.facts import Change, Facts, Gate, Labels, Model, Round
from serm.report.runs import newest, results
from serm.review.queue import judged_by_people, open_pairs
from serm.workspace import Workspace

ROUNDS_IN_FULL = 26  # a year of rounds with examples; older ones keep their figures
NO_LABELS = Labels(0, 0, 0, {}, 0, 0, None, 0, 0, None)


def gather(workspace: Workspace) -> Facts:
    """Everything that the page says, ready for JSON; reads only."""
    config = workspace.config
    verdicts = quality.gates(workspace)
    models = quality.models(workspace, verdicts)
    changes = quality.changes(workspace)
    names = labelling.annotator_names(workspace)
    counts = labelling.vote_counts(workspace, names)
    champion = changes[-1].version if changes else None
    rounds = _rounds(workspace, models, changes, verdicts, labelling.labels_by_round(workspace, counts, names))
    first, last = workspace.scan("impressions").select(a=pl.col("ts").min(), b=pl.col("ts").max()).collect().row(0)
    runs = newest(workspace)
    review = open_pairs(workspace).height
    judged = _judged(workspace)
    first_model = changes[0].version if changes else None
    overall = None
    if champion and first_model and champion != first_model:
        overall = side_by_side.overall(workspace, first_model, champion) or verdicts.get((champion, first_model))
    return Facts(
        workspace=workspace.root.rsplit("/", 1)[-1],
        measure=config.evaluation.gate_measure,
        scale={grade: config.labels.names.get(grade, str(grade)) for grade in config.labels.scale},
        first=f"{first:%Y-%m-%d}" if first else None,
        last=f"{last:%Y-%m-%d}" if last else None,
        rows={name: workspace.scan(name).select(pl.len()).collect().item() for name in TABLES},
        judged=judged,
        champion=champion,
        models=models,
        changes=changes,
        overall=overall,
        rounds=rounds,
        annotators=labelling.annotators(workspace, counts, names),
        agreed=labelling.agreed(workspace, counts),
        review=review,
        runs=runs,
        decisions=decisions(config, champion, rounds, review, runs, judged, _watch(workspace)),
        reading=side_by_side.reading(workspace, models, rounds),
    )


def _rounds(
    workspace: Workspace,
    models: Sequence[Model],
    changes: Sequence[Change],
    verdicts: dict[tuple[str, str], Gate],
    labels: dict[int, Labels],
) -> list[Round]:
    combined = mined.overlaps(workspace)
    agents = mined.agents(combined, mined.precision(workspace))
    examples = mined.examples(workspace, sorted(combined)[-ROUNDS_IN_FULL:])
    mining = {run["round"]: run["result"] for run in results(workspace, "mine")}
    summaries = {run["round"]: run["result"] for run in results(workspace, "evolve")}
    found = []
    for number, rows in combined.items():
        model = _model_of(number, models, summaries.get(number, {}))
        gate = verdicts.get((model.version, model.parent or "")) if model else None
        annotated = labels.get(number, NO_LABELS)
        total = sum(row.pairs for row in rows)
        found.append(
            Round(
                number, _state(number, model, gate, changes, number in summaries),
                mining.get(number, {}).get("report", {}), total, mining.get(number, {}).get("candidates"),
                agents[number], rows, annotated, total - annotated.annotated, gate,
                model.version if model else None, examples.get(number, []),
            )
        )  # fmt: skip
    return found


def _model_of(number: int, models: Sequence[Model], summary: dict[str, Any]) -> Model | None:
    """The round's candidate: the one that evolve names, else the newest of the round."""
    own = [model for model in models if model.round == number]
    named = [model for model in own if model.version == summary.get("candidate")]
    chosen = named or own
    return chosen[-1] if chosen else None


def _state(number: int, model: Model | None, gate: Gate | None, changes: Sequence[Change], finished: bool) -> str:
    if model is None:
        return "no candidate" if finished else "unfinished"
    led = [change for change in changes if change.version == model.version and change.action == "promote"]
    if led:
        back = any(change.action == "rollback" and change.previous == model.version for change in changes)
        return "rolled back" if back else "promoted"
    return "not judged" if gate is None else "refused"


def _judged(workspace: Workspace) -> dict[str, int]:
    """Queries with a result that people found relevant, by split: on others no model can do well or badly."""
    people = judged_by_people(workspace).filter(pl.col("grade") > 0)
    return dict(people.group_by("split").agg(pl.col("query").n_unique()).sort("split").collect().iter_rows())


def _watch(workspace: Workspace) -> dict[str, Any] | None:
    """What the last shift check said, if no round was mined after it."""
    checks, mines = results(workspace, "shift"), results(workspace, "mine")
    if not checks or (mines and mines[-1]["ts"] > checks[-1]["ts"]):
        return None
    return dict(checks[-1]["result"])
