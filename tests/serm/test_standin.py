"""The stand-in annotator: its confusion, what its errors share, and that it never changes its mind unasked."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from scipy.stats import multivariate_normal, norm

from serm.config import SimulateLLMSettings
from serm.simulate import StandIn
from serm.simulate.judges import CONFUSION, CORRELATION, GRADE_COUNTS, confusion_for
from serm.simulate.standin import true_grades

SCALE = [0, 1, 2, 3]


def judged(n: int, scale: list[int]) -> pl.DataFrame:
    return pl.DataFrame(
        {"query": [f"q{i}" for i in range(n)], "doc_id": ["d"] * n, "grade": [scale[i % len(scale)] for i in range(n)]}
    )


def test_every_path_has_the_measured_confusion() -> None:
    truth = judged(80_000, SCALE)
    standin = StandIn(truth, SCALE, SimulateLLMSettings(path_share=0.4), seed=3)
    labels = standin.labels("ada", truth["query"].to_list(), truth["doc_id"].to_list(), 3)
    assert labels.shape == (80_000, 3)
    for path in range(3):
        for grade in SCALE:
            shares = np.bincount(labels[truth["grade"].to_numpy() == grade, path], minlength=4) / 20_000
            assert shares == pytest.approx(np.array(CONFUSION[grade]), abs=0.016)


def agreement(correlation: float, row: np.ndarray) -> float:
    """P(two correlated normals fall into the same cell of a row of the confusion), by integration."""
    edges = np.clip(norm.ppf(np.append(0, np.cumsum(row)).clip(0, 1)), -8, 8)
    joint = multivariate_normal([0, 0], [[1, correlation], [correlation, 1]])
    return sum(
        joint.cdf([b, b]) - joint.cdf([a, b]) - joint.cdf([b, a]) + joint.cdf([a, a]) for a, b in pairwise(edges)
    )


@pytest.mark.parametrize(("rho", "share"), [(0.72, 0.1), (0.0, 0.0), (0.9, 0.5)])
def test_paths_and_annotators_agree_as_the_copula_says(rho: float, share: float) -> None:
    truth = judged(40_000, [1])
    standin = StandIn(truth, SCALE, SimulateLLMSettings(correlation=rho, path_share=share))
    queries, doc_ids = truth["query"].to_list(), truth["doc_id"].to_list()
    ada, ben = (standin.labels(name, queries, doc_ids, 2) for name in ("ada", "ben"))
    row = np.array(CONFUSION[1])
    assert (ada[:, 0] == ben[:, 0]).mean() == pytest.approx(agreement(rho * (1 - share), row), abs=0.013)
    if share == 0:
        assert (ada[:, 0] == ada[:, 1]).all()
    else:
        assert (ada[:, 0] == ada[:, 1]).mean() == pytest.approx(agreement(1 - share, row), abs=0.013)


def test_the_same_question_gets_the_same_answer_whatever_else_is_asked() -> None:
    truth = judged(500, SCALE)
    queries, doc_ids = truth["query"].to_list(), truth["doc_id"].to_list()
    settings = SimulateLLMSettings(path_share=0.5)
    whole = StandIn(truth, SCALE, settings, seed=1).labels("ada", queries, doc_ids, 4, seed=9)
    backwards = StandIn(truth.reverse(), SCALE, settings, seed=1).labels("ada", queries[::-1], doc_ids, 4, seed=9)
    assert (whole == backwards[::-1]).all()
    one = StandIn(truth, SCALE, settings, seed=1)
    assert [one.label("ada", q, d, 9) for q, d in zip(queries, doc_ids, strict=True)] == whole[:, 0].tolist()
    for other in (
        StandIn(truth, SCALE, settings, seed=2).labels("ada", queries, doc_ids, 4, seed=9),
        one.labels("eve", queries, doc_ids, 4, seed=9),
        one.labels("ada", queries, doc_ids, 4, seed=8),
    ):
        assert (other != whole).any()


def test_a_path_seed_moves_paths_but_not_settled_opinions() -> None:
    truth = judged(5_000, SCALE)
    queries, doc_ids = truth["query"].to_list(), truth["doc_id"].to_list()
    settled = StandIn(truth, SCALE, SimulateLLMSettings(path_share=0))
    assert (settled.labels("ada", queries, doc_ids, 1, 0) == settled.labels("ada", queries, doc_ids, 1, 1)).all()
    whims = StandIn(truth, SCALE, SimulateLLMSettings(path_share=1))
    one, two = (whims.labels("ada", queries, doc_ids, 1, seed)[truth["grade"] == 1, 0] for seed in (0, 1))
    assert (one == two).mean() == pytest.approx(sum(p * p for p in CONFUSION[1]), abs=0.04)


def test_unjudged_pairs_count_as_the_lowest_grade() -> None:
    standin = StandIn(judged(4, SCALE), SCALE, SimulateLLMSettings())
    unknown = [f"never {i}" for i in range(20_000)]
    shares = np.bincount(standin.labels("ada", unknown, unknown, 1)[:, 0], minlength=4) / len(unknown)
    assert shares == pytest.approx(np.array(CONFUSION[0]), abs=0.01)


def test_a_configured_confusion_and_a_scale_that_does_not_begin_at_zero() -> None:
    truth = judged(300, [1, 2, 5])
    perfect = StandIn(truth, [1, 2, 5], SimulateLLMSettings(confusion=np.eye(3).tolist()))
    labels = perfect.labels("ada", truth["query"].to_list(), truth["doc_id"].to_list(), 2)
    assert (labels == truth["grade"].to_numpy()[:, None]).all()
    with pytest.raises(ValueError, match="2 rows of 2 probabilities"):
        StandIn(judged(4, [0, 1]), [0, 1], SimulateLLMSettings(confusion=[[0.9, 0.2], [0, 1]]))
    with pytest.raises(ValueError, match=r"grade 5 of .* is not on labels.scale \[0, 1\]"):
        StandIn(truth.with_columns(grade=pl.lit(5)), [0, 1], SimulateLLMSettings())


def test_four_grades_are_as_measured_and_two_are_pooled_by_frequency() -> None:
    assert confusion_for(SCALE) == pytest.approx(np.array(CONFUSION))
    pooled = confusion_for([0, 1])
    # By hand: of 318 fair, 190 good and 125 excellent pairs, those not answered 0; and the same from grade 2 on.
    assert pooled[0, 1] == pytest.approx(1 - 0.779)
    assert pooled[1, 1] == pytest.approx((318 * 0.742 + 190 * 0.716 + 125 * 0.840) / 633)
    strict = confusion_for([0, 1], binary_from=2)
    assert strict[0, 1] == pytest.approx((1080 * 0.118 + 318 * 0.567) / 1398)
    assert strict[1, 1] == pytest.approx((190 * 0.571 + 125 * 0.660) / 315)


@pytest.mark.parametrize("size", [2, 3, 4, 5, 11])
def test_any_scale_has_proper_rows_and_ends_as_strict_as_measured(size: int) -> None:
    matrix = confusion_for(range(size))
    assert matrix.shape == (size, size)
    assert (matrix >= 0).all()
    assert matrix.sum(axis=1) == pytest.approx(np.ones(size))
    mean_label = matrix @ np.arange(size)
    assert mean_label[0] < mean_label[-1]


def test_judges_of_one_pair_are_averaged_and_rounded_half_up() -> None:
    frame = pl.DataFrame(
        [("q", "a", 0, None), ("q", "a", 3, "de"), ("q", "b", 1, None), ("p", "c", 0, None), ("p", "c", 1, None)],
        schema=["query", "doc_id", "grade", "locale"],
        orient="row",
    )
    rows = [("p", "c", 1, None), ("q", "a", 2, "de"), ("q", "b", 1, None)]
    assert true_grades(frame, SCALE).rows() == rows
    assert true_grades(frame, [0, 1, 3]).filter(doc_id="a")["grade"].to_list() == [1]  # 1.5 is nearer to 1 than to 3


def test_reasons_name_the_shared_words_and_the_label() -> None:
    standin = StandIn(judged(4, SCALE), SCALE, SimulateLLMSettings())
    reason = standin.reasoning("Red fish pond", "A pond, with a red fence.", 3)
    assert "shares red, pond with" in reason
    assert "Label 3" in reason
    assert "No word is shared" in standin.reasoning("x", "y", 0)


def test_constants_are_what_the_real_judges_show(shared_data: Path) -> None:
    table = pl.read_parquet(shared_data / "judges" / "llmjudge_scores.parquet")
    judges = ["Olz-gpt4o", "RMITIR-llama70B"]
    table = table.filter(pl.all_horizontal(pl.col(f"llm_{name}") <= 3 for name in judges))
    long = table.unpivot([f"llm_{name}" for name in judges], index="human_grade", value_name="answer")
    shares = long.pivot("answer", index="human_grade", values="answer", aggregate_function="len").sort("human_grade")
    cells = shares.select("0", "1", "2", "3").to_numpy().astype(float)
    assert cells / cells.sum(axis=1, keepdims=True) == pytest.approx(np.array(CONFUSION), abs=6e-4)
    assert tuple(table["human_grade"].value_counts().sort("human_grade")["count"]) == GRADE_COUNTS
    assert SimulateLLMSettings().correlation == CORRELATION
    # The copula with these constants reproduces how often the two real judges agree, 67.4%: it has both judge alike in
    # their marginals, which the real ones are not, and so agrees somewhat more.
    expected = np.average([agreement(CORRELATION, np.array(row)) for row in CONFUSION], weights=GRADE_COUNTS)
    assert expected == pytest.approx((table["llm_Olz-gpt4o"] == table["llm_RMITIR-llama70B"]).mean(), abs=0.06)
