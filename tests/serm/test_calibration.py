"""How the annotators err: the estimate, and the draw of pairs it rests on."""

import numpy as np
import polars as pl
import pytest

from serm.evolution.calibration import confusion, draw_calibration


def test_the_confusion_is_counted_with_one_pseudo_count_a_cell() -> None:
    truth, labels = [0] * 20 + [1] * 20, [0] * 15 + [1] * 5 + [1] * 18 + [0] * 2
    assert confusion(truth, labels, [0, 1]) == pytest.approx(np.array([[16 / 22, 6 / 22], [3 / 22, 19 / 22]]))


def test_too_few_pairs_claim_nothing() -> None:
    assert confusion([0] * 29, [0] * 29, [0, 1]) is None


def test_grades_are_drawn_evenly_as_long_as_there_are_pairs() -> None:
    grades = [0] * 50 + [1] * 5 + [2] * 20
    judged = pl.DataFrame({"query": [f"q{i}" for i in range(75)], "doc_id": ["d"] * 75, "grade": grades})
    drawn = draw_calibration(judged, 35, seed=1)
    assert dict(drawn.group_by("grade").len().iter_rows()) == {0: 15, 1: 5, 2: 15}
    assert drawn.equals(draw_calibration(judged.sample(fraction=1, shuffle=True, seed=4), 35, seed=1))
