"""How the annotators err, measured on pairs that people judged: their agreed labels against the human grades.

The pairs are round 0 of the tables: mined by nobody, annotated like any other. What the annotators agree on is evidence
of known strength from then on, instead of truth (ours).
"""

from collections.abc import Sequence

import numpy as np
import polars as pl
from numpy.typing import NDArray

from serm.evaluation.scoring import human
from serm.workspace import Workspace

CALIBRATION = 0  # the round's number
MINIMUM = 30  # agreed pairs below which nothing is claimed about the annotators
PRIOR = 1.0  # pseudo-counts per cell


def draw_calibration(judged: pl.DataFrame, amount: int, seed: int) -> pl.DataFrame:
    """`amount` pairs of [query, doc_id, grade], as evenly over the grades as there are pairs of each."""
    shuffled = judged.sort("query", "doc_id").sample(fraction=1.0, shuffle=True, seed=seed)
    place = pl.int_range(pl.len()).over("grade")
    return shuffled.with_columns(place=place).sort("place", "grade").head(amount).drop("place")


def confusion(truth: Sequence[int], labels: Sequence[int], scale: Sequence[int]) -> NDArray[np.float64] | None:
    """P(agreed label | human grade), rows by grade, with pseudo-counts; None if there is too little to go by."""
    if len(truth) < MINIMUM:
        return None
    index = {grade: position for position, grade in enumerate(scale)}
    counts = np.full((len(scale), len(scale)), PRIOR)
    np.add.at(counts, ([index[grade] for grade in truth], [index[label] for label in labels]), 1)
    return np.asarray(counts / counts.sum(axis=1, keepdims=True))


def plan_calibration(workspace: Workspace) -> int:
    """Put the calibration pairs into the mined table as round 0, once; returns how many there are."""
    present = workspace.scan("mined").filter(round=CALIBRATION).select(pl.len()).collect().item()
    amount = workspace.config.update.calibration_pairs
    judged = human(workspace.read("judgments"), "train")
    if present or not amount or judged.is_empty():
        return int(present)
    known = judged.join(workspace.read("documents").select("doc_id"), on="doc_id", how="semi")
    chosen = draw_calibration(known, amount, workspace.config.seed)
    rows = chosen.select(
        "query", "doc_id", round=pl.lit(CALIBRATION, pl.Int32), agents=pl.lit(["calibration"]),
        reason=pl.lit("judged by people: shows how the annotators err"),
    )  # fmt: skip
    return workspace.append("mined", rows)


def measured_confusion(workspace: Workspace) -> NDArray[np.float64] | None:
    """The annotators' confusion on round 0, if enough of it is annotated."""
    labels = workspace.scan("annotations").filter((pl.col("round") == CALIBRATION) & (pl.col("status") == "kept"))
    both = (
        labels.collect()
        .join(human(workspace.read("judgments"), "train"), on=["query", "doc_id"])
        .sort("query", "doc_id")
    )
    return confusion(both["grade"].to_list(), both["label"].to_list(), workspace.config.labels.scale)
