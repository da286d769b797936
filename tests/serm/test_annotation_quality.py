"""The quality report: published values, scikit-learn, and a small workspace counted by hand."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from sklearn.metrics import cohen_kappa_score

from serm.annotation.dawid_skene import NONE
from serm.annotation.measuring import measure
from serm.annotation.quality import report_annotations
from serm.annotation.reliability_measures import kappa, krippendorff_alpha
from serm.workspace import Workspace


def test_alpha_is_krippendorffs_published_example() -> None:
    """Krippendorff 2011, section C: four observers, twelve units, missing data; nominal 0.743, ordinal 0.815."""
    text = ["1 2 3 3 2 1 4 1 2 * * *", "1 2 3 3 2 2 4 1 2 5 * 3", "* 3 3 3 2 3 4 2 2 5 1 *", "1 2 3 3 2 4 4 1 2 5 1 *"]
    votes = np.array([[NONE if v == "*" else int(v) - 1 for v in row.split()] for row in text]).T
    assert krippendorff_alpha(votes, 5, ordinal=False) == pytest.approx(0.743, abs=5e-4)
    assert krippendorff_alpha(votes, 5, ordinal=True) == pytest.approx(0.815, abs=5e-4)
    assert krippendorff_alpha(np.zeros((4, 2), np.int64), 3, ordinal=True) is None


@pytest.mark.parametrize("weights", [None, "quadratic"])
def test_kappa_leaves_out_what_is_missing(weights: str | None) -> None:
    truth, labels = np.array([0, 1, 2, 2, NONE, 1]), np.array([0, 2, 2, 1, 1, NONE])
    assert kappa(truth, labels, 3, weights) == pytest.approx(
        cohen_kappa_score([0, 1, 2, 2], [0, 2, 2, 1], weights=weights)
    )
    assert kappa(truth[:1], labels[:1], 3, weights) is None


def test_a_small_workspace_by_hand(tmp_path: Path) -> None:
    workspace = Workspace.create(tmp_path / "w", "")
    said = [(0, 0), (2, 2), (1, 2), (2, 2)]
    frame = pl.DataFrame({"round": [1] * 4, "query": ["q"] * 4, "doc_id": list("abcd")}).with_columns(
        pl.Series("votes", [json.dumps({"ada": {"stable": x}, "ben": {"stable": y}}) for x, y in said]),
        status=pl.Series(["kept", "kept", "review", "kept"]), label=pl.Series([0, 2, None, 2]), calls=pl.lit(3),
    )  # fmt: skip
    workspace.append("annotations", frame)
    judged = pl.DataFrame({"query": ["q"] * 4, "doc_id": list("abcd"), "grade": [0, 1, 2, 2], "judge": ["x"] * 4})
    splits = pl.Series("split", ["train", "train", "train", "hidden"])
    workspace.append("judgments", judged.with_columns(splits))
    found = report_annotations(workspace, 1)
    assert (found["pairs"], found["kept_rate"], found["judged"], found["accuracy"]) == (4, 0.75, 2, 0.5)
    assert (found["bias"], found["calls_per_kept_label"]) == (0.5, 4)
    ada, ben = found["annotators"]
    assert (ada["accuracy"], ada["bias"]) == (pytest.approx(1 / 3), 0)
    assert ben["accuracy"] == pytest.approx(2 / 3)
    assert ben["confusion"]["1"][2] == 1
    assert report_annotations(workspace, 9)["kept_rate"] is None


def test_weighing_is_measured_on_earlier_rounds_and_people(tmp_path: Path) -> None:
    workspace = Workspace.create(tmp_path / "w", "")
    n = 80
    doc_ids, grades = [f"d{i}" for i in range(n)], [i % 4 for i in range(n)]
    votes = [json.dumps({"ada": {"stable": g}, "ben": {"stable": 0}}) for g in grades]
    frame = pl.DataFrame({"round": [0] * n, "query": ["q"] * n, "doc_id": doc_ids, "votes": votes})
    workspace.append("annotations", frame.with_columns(status=pl.lit("review"), calls=pl.lit(1)))
    judged = pl.DataFrame({"query": ["q"] * n, "doc_id": doc_ids, "grade": grades, "split": ["train"] * n})
    assert measure(workspace, 0, ["ada", "ben"]) is None
    workspace.append("judgments", judged.with_columns(judge=pl.lit("x")))
    found = measure(workspace, 1, ["ada", "ben"])
    assert found is not None
    assert found.prior == pytest.approx([0.25] * 4)  # round 0 was drawn evenly: it says nothing of the mined pairs
    assert found.confusion[0] == pytest.approx((20 * np.eye(4) + 1) / 24)
    assert found.posterior(np.array([[3, 0]])).argmax() == 3
