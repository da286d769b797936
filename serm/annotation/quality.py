"""The report of the annotations: what is kept, how right it is, how the annotators agree, and what a label costs."""

import json
from typing import Any

import numpy as np
import polars as pl

from serm.annotation.dawid_skene import NONE, Ints
from serm.annotation.measuring import PAIR, stable_votes
from serm.annotation.reliability_measures import kappa, krippendorff_alpha
from serm.evaluation.scoring import LLM_JUDGE
from serm.traffic import bands
from serm.workspace import Workspace


def report_annotations(workspace: Workspace, round: int | None = None) -> dict[str, Any]:
    """Figures of a round's annotations, or of all: totals, one row an annotator, one row a group of pairs.

    Accuracy, confusion (rows by grade), bias (mean of label minus grade, in steps of the scale) and kappa are against
    people's grades wherever a pair has one that is not hidden; groups are query class, locale and mining agent.
    """
    scale = workspace.config.labels.scale
    rows = _rows(workspace, round)
    names = sorted({name for text in rows["votes"] for name in json.loads(text)})
    votes = stable_votes(rows["votes"], names, scale)
    index = {grade: position for position, grade in enumerate(scale)}
    grades = np.array([index.get(grade, NONE) for grade in rows["grade"]], np.int64)
    labels = np.array([index.get(label, NONE) for label in rows["label"]], np.int64)
    kept = (rows["status"] == "kept").to_numpy()
    return {
        "pairs": rows.height,
        "kept_rate": _mean(kept),
        **_against(grades, labels, len(scale)),
        "alpha_nominal": krippendorff_alpha(votes, len(scale), ordinal=False),
        "alpha_ordinal": krippendorff_alpha(votes, len(scale), ordinal=True),
        "error_correlation": _error_correlation(names, votes, grades),
        "unfounded_sentences": int(rows["unfounded"].sum() or 0),
        **_cost(rows),
        "annotators": [
            {"annotator": name, "labelled": _mean(votes[:, i] != NONE), **_against(grades, votes[:, i], len(scale))}
            for i, name in enumerate(names)
        ],
        "groups": _groups(rows, grades, labels),
    }


def _rows(workspace: Workspace, round: int | None) -> pl.DataFrame:
    """Annotations with people's median grade, query class, locale and mining agents."""
    annotations = workspace.scan("annotations")
    mined = workspace.scan("mined").select("round", *PAIR, "locale", "agents")
    if round is not None:
        annotations = annotations.filter(pl.col("round") == round)
    people = (
        workspace.scan("judgments")
        .filter((pl.col("split") != "hidden") & ~pl.col("judge").str.starts_with(LLM_JUDGE))
        .group_by(PAIR)
        .agg(grade=pl.col("grade").median().floor().cast(pl.Int32))
    )
    traffic = workspace.scan("impressions").group_by("query").agg(seen=pl.len())
    classes = bands(traffic.collect(engine="streaming"), "seen").select("query", query_class="band")
    return (
        annotations.join(people, on=PAIR, how="left")
        .join(classes.lazy(), on="query", how="left")
        .join(mined, on=["round", *PAIR], how="left")
        .sort("round", *PAIR)
        .collect()
    )


def _against(grades: Ints, labels: Ints, classes: int) -> dict[str, Any]:
    both = (grades != NONE) & (labels != NONE)
    confusion = np.zeros((classes, classes), np.int64)
    np.add.at(confusion, (grades[both], labels[both]), 1)
    return {
        "judged": int(both.sum()),
        "accuracy": _mean(grades[both] == labels[both]),
        "bias": _mean(labels[both] - grades[both]),
        "kappa": kappa(grades, labels, classes),
        "kappa_quadratic": kappa(grades, labels, classes, "quadratic"),
        "confusion": {str(grade): row.tolist() for grade, row in enumerate(confusion)},
    }


def _error_correlation(names: list[str], votes: Ints, grades: Ints) -> dict[str, float]:
    """Correlation of signed errors (label minus grade) for every two annotators, where both err at all."""
    found = {}
    for one in range(len(names)):
        for other in range(one + 1, len(names)):
            both = (grades != NONE) & (votes[:, one] != NONE) & (votes[:, other] != NONE)
            errors = [votes[both, annotator] - grades[both] for annotator in (one, other)]
            if all(len(error) > 1 and np.ptp(error) > 0 for error in errors):
                found[f"{names[one]} and {names[other]}"] = float(np.corrcoef(*errors)[0, 1])
    return found


def _cost(rows: pl.DataFrame) -> dict[str, float | None]:
    kept = int((rows["status"] == "kept").sum())
    calls, prompt, completion = (int(rows[c].sum() or 0) for c in ("calls", "prompt_tokens", "completion_tokens"))
    return {
        "calls_per_kept_label": calls / kept if kept else None,
        "tokens_per_kept_label": (prompt + completion) / kept if kept else None,
    }


def _groups(rows: pl.DataFrame, grades: Ints, labels: Ints) -> list[dict[str, Any]]:
    facts = rows.select("query_class", "locale", "agents", "calls", kept=pl.col("status") == "kept").with_columns(
        right=pl.when(pl.Series((grades != NONE) & (labels != NONE))).then(pl.Series(grades == labels))
    )
    found: list[dict[str, Any]] = []
    for title, column in (("query class", "query_class"), ("locale", "locale"), ("agent", "agents")):
        split = facts.explode(column) if column == "agents" else facts
        found += (
            split.drop_nulls(column)
            .group_by(pl.col(column).alias("value"))
            .agg(
                pairs=pl.len(), kept_rate=pl.col("kept").mean(), judged=pl.col("right").count(),
                accuracy=pl.col("right").mean(), calls_per_kept_label=pl.col("calls").sum() / pl.col("kept").sum(),
            )
            .sort("value")
            .select(pl.lit(title).alias("group"), pl.all())
            .to_dicts()
        )  # fmt: skip
    return found


def _mean(values: Any) -> float | None:
    return float(np.mean(values)) if len(values) else None
