"""Labels, votes, agreement and cost by round, counted lazily: a hundred thousand annotations are a small table."""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl

from serm.annotation.dawid_skene import NONE, Ints
from serm.annotation.reliability_measures import krippendorff_alpha
from serm.evolution.calibration import CALIBRATION
from serm.report.facts import Annotator, Labels
from serm.report.runs import results
from serm.review.queue import PAIR, judged_by_people
from serm.workspace import Workspace

COUNTS = ("annotated", "kept", "review", "calls", "tokens")


def annotator_names(workspace: Workspace) -> list[str]:
    """Every annotator that is configured or has voted, in order of name."""
    names = {annotator.name for annotator in workspace.config.annotation.annotators}
    for run in results(workspace, "annotate"):
        names |= set(run["result"].get("outcomes", {}))
    # Rounds whose runs are not recorded are known by two rows' votes.
    ends = workspace.scan("annotations").group_by("round").agg(low=pl.col("votes").min(), high=pl.col("votes").max())
    for low, high in ends.select("low", "high").collect().iter_rows():
        names |= set(json.loads(low)) | set(json.loads(high))
    return sorted(names)


def vote_counts(workspace: Workspace, names: Sequence[str]) -> pl.DataFrame:
    """How many pairs have the same round, status, label, person's grade and stable labels.

    Returns columns round, status, label, grade (people's median, rounded down; null if none), vote_0, vote_1, ... in
    the order of `names` (null: no stable label), pairs.
    """
    shape = pl.Struct({name: pl.Struct({"stable": pl.Int32}) for name in names})
    people = judged_by_people(workspace).group_by(PAIR).agg(grade=pl.col("grade").median().floor().cast(pl.Int32))
    said = pl.col("votes").str.json_decode(shape)
    votes = [said.struct.field(name).struct.field("stable").alias(f"vote_{i}") for i, name in enumerate(names)]
    key = ["round", "status", "label", "grade", *(f"vote_{i}" for i in range(len(names)))]
    return (
        workspace.scan("annotations")
        .select("round", *PAIR, "status", "label", *votes)
        .join(people, on=PAIR, how="left")
        .group_by(key)
        .agg(pairs=pl.len())
        .sort(key)
        .collect(engine="streaming")
    )


def labels_by_round(workspace: Workspace, counts: pl.DataFrame, names: Sequence[str]) -> dict[int, Labels]:
    """Each round's labels; `counts` as from `vote_counts`."""
    tokens = pl.col("prompt_tokens").fill_null(0) + pl.col("completion_tokens").fill_null(0)
    sums = (
        workspace.scan("annotations")
        .group_by("round")
        .agg(calls=pl.col("calls").sum().cast(pl.Int64), tokens=tokens.sum())
        .collect(engine="streaming")
    )
    spent = {number: (calls, tokens) for number, calls, tokens in sums.iter_rows()}
    costs = _costs(workspace)
    scale = workspace.config.labels.scale
    found = {}
    for (number,), rows in counts.group_by("round", maintain_order=True):
        votes, pairs = _votes(rows, names, scale), rows["pairs"].to_numpy()
        kept = rows.filter(pl.col("status") == "kept")
        labels = kept.drop_nulls("label").group_by("label").agg(pl.col("pairs").sum()).sort("label")
        both = (votes != NONE).sum(axis=1) > 1
        least, most = (
            np.where(votes == NONE, len(scale), votes).min(axis=1, initial=len(scale)),
            votes.max(axis=1, initial=NONE),
        )
        found[int(str(number))] = Labels(
            annotated=int(pairs.sum()),
            kept=int(kept["pairs"].sum()),
            review=int(rows.filter(pl.col("status") == "review")["pairs"].sum()),
            by_label=dict(labels.iter_rows()),
            both=int(pairs[both].sum()),
            same=int(pairs[both & (least == most)].sum()),
            alpha=krippendorff_alpha(np.repeat(votes, pairs, axis=0), len(scale), ordinal=True),
            calls=spent[number][0],
            tokens=spent[number][1],
            cost=costs.get(int(str(number))),
        )
    return found


def annotators(workspace: Workspace, counts: pl.DataFrame, names: Sequence[str]) -> list[Annotator]:
    """Each annotator over all rounds, that of calibration too: there people's grades are."""
    scale = workspace.config.labels.scale
    votes, pairs = _votes(counts, names, scale), counts["pairs"].to_numpy()
    grades = _indices(counts["grade"], scale)
    found = []
    for i, name in enumerate(names):
        own = votes[:, i]
        by_label = {label: int(pairs[own == place].sum()) for place, label in enumerate(scale)}
        found.append(Annotator(name, int(pairs.sum()), sum(by_label.values()), **_against(grades, own, pairs),
                               by_label=by_label))  # fmt: skip
    return [annotator for annotator in found if annotator.labelled]


def agreed(workspace: Workspace, counts: pl.DataFrame) -> dict[str, Any]:
    """The kept labels against people's grades: judged, accuracy, bias."""
    scale = workspace.config.labels.scale
    kept = counts.filter(pl.col("status") == "kept")
    return _against(_indices(kept["grade"], scale), _indices(kept["label"], scale), kept["pairs"].to_numpy())


def _against(grades: Ints, labels: Ints, pairs: Ints) -> dict[str, Any]:
    both = (grades != NONE) & (labels != NONE)
    judged, weights = int(pairs[both].sum()), pairs[both]
    errors = labels[both] - grades[both]
    return {
        "judged": judged,
        "accuracy": float((weights * (errors == 0)).sum() / judged) if judged else None,
        "bias": float((weights * errors).sum() / judged) if judged else None,
    }


def _costs(workspace: Workspace) -> dict[int, float]:
    """What annotation cost by round, as its finished runs recorded it; empty where no annotator has a price."""
    found: dict[int, float] = {}
    for run in results(workspace, "annotate"):
        if run["round"] is not None and run["round"] != CALIBRATION and run["result"].get("cost"):
            found[run["round"]] = found.get(run["round"], 0.0) + run["result"]["cost"]
    return found


def _votes(rows: pl.DataFrame, names: Sequence[str], scale: Sequence[int]) -> Ints:
    """Stable labels as indices of the scale, shape (rows, annotators)."""
    columns = [_indices(rows[f"vote_{i}"], scale) for i in range(len(names))]
    return np.stack(columns, axis=1) if columns else np.zeros((rows.height, 0), np.int64)


def _indices(labels: pl.Series, scale: Sequence[int]) -> Ints:
    return labels.replace_strict(
        {label: place for place, label in enumerate(scale)}, default=NONE, return_dtype=pl.Int64
    ).to_numpy()
