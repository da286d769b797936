"""What the tables say about the annotators before a round: their votes in earlier rounds, and people's grades."""

import json
from collections.abc import Sequence

import numpy as np
import polars as pl

from serm.annotation.dawid_skene import NONE, Ints, Reliability, fit
from serm.evaluation.scoring import human
from serm.workspace import Workspace

MINIMUM = 30  # pairs with votes below which nothing is claimed about the annotators
PAIR = ["query", "doc_id"]


def measure(workspace: Workspace, round: int, annotators: Sequence[str]) -> Reliability | None:
    """The reliability of `annotators` from all rounds before `round`; None while there are too few votes.

    Pairs of round 0 are drawn evenly over people's grades: they show how annotators err, not how common a grade is.
    The prior is counted on mined rounds alone, and is uniform in the first of them. Grades of the train split are
    anchors; evaluation never is. Round 0 itself, or a first round without it, is decided unmeasured.
    """
    earlier = workspace.scan("annotations").filter(pl.col("round") < round).select("round", *PAIR, "votes").collect()
    rows = earlier.join(human(workspace.read("judgments"), "train"), on=PAIR, how="left").sort("round", *PAIR)
    scale = workspace.config.labels.scale
    votes = stable_votes(rows["votes"], annotators, scale)
    voted = (votes != NONE).any(axis=1)
    if voted.sum() < MINIMUM:
        return None
    index = {grade: position for position, grade in enumerate(scale)}
    anchors = np.array([index.get(grade, NONE) for grade in rows["grade"]], np.int64)
    ordinal = workspace.config.annotation.agreement_scale == "ordinal"
    mined = rows["round"].to_numpy() > 0
    return fit(votes[voted], len(scale), anchors[voted], ordinal=ordinal, in_prior=mined[voted])


def stable_votes(votes: pl.Series, annotators: Sequence[str], scale: Sequence[int]) -> Ints:
    """Stable labels of the table's `votes` (JSON) as indices of the scale, shape (pairs, annotators); NONE for none."""
    index = {label: position for position, label in enumerate(scale)}
    said = [json.loads(text) for text in votes]
    found = [[index.get(pair.get(name, {}).get("stable"), NONE) for name in annotators] for pair in said]
    return np.array(found, np.int64).reshape(len(said), len(annotators))
