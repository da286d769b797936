"""Measures against hand computation and scikit-learn; intervals against closed forms; judges and missing documents."""

import itertools
import math

import numpy as np
import polars as pl
import pytest
from scipy import stats
from sklearn.metrics import ndcg_score

from serm.evaluation import human, mean_interval, per_query, score_judged, sign_flip_p
from serm.evaluation.metrics import parse_measures


def frames(rows: list[tuple[str, str, int, float]]) -> tuple[pl.DataFrame, pl.DataFrame]:
    table = pl.DataFrame(rows, schema=["query", "doc_id", "grade", "score"], orient="row")
    return table.select("query", "doc_id", "grade"), table.select("query", "doc_id", "score")


def test_ndcg_and_rr_by_hand() -> None:
    judgments, scores = frames([("q", "a", 0, 0.9), ("q", "b", 3, 0.8), ("q", "c", 0, 0.7), ("q", "d", 1, 0.1)])
    row = per_query(judgments, scores, ["nDCG@1", "nDCG@2", "nDCG@10", "RR"]).values.row(0, named=True)
    ideal = 3 + 1 / math.log2(3)
    assert row["query"] == "q"
    assert row["nDCG@1"] == 0.0
    assert row["nDCG@2"] == pytest.approx(3 / math.log2(3) / ideal)
    assert row["nDCG@10"] == pytest.approx((3 / math.log2(3) + 1 / math.log2(5)) / ideal)
    assert row["RR"] == 0.5


def test_ndcg_agrees_with_scikit_learn() -> None:
    rng = np.random.default_rng(3)
    grades, points = rng.integers(0, 4, (40, 12)), rng.normal(size=(40, 12))
    rows = [(f"q{i:02}", f"d{j}", int(grades[i, j]), float(points[i, j])) for i in range(40) for j in range(12)]
    judgments, scores = frames(rows)
    found = per_query(judgments, scores, ["nDCG@1", "nDCG@5", "nDCG@10"]).values
    for k in (1, 5, 10):
        expected = [ndcg_score(grades[[i]], points[[i]], k=k) for i in range(40)]
        np.testing.assert_allclose(found[f"nDCG@{k}"].to_numpy(), expected, atol=1e-12)


def test_measures_with_parameters_agree_with_brute_force() -> None:
    rng = np.random.default_rng(5)
    grades, points = rng.integers(0, 4, (25, 9)), rng.normal(size=(25, 9))
    grades[:, 0] = 3
    rows = [(f"q{i:02}", f"d{j}", int(grades[i, j]), float(points[i, j])) for i in range(25) for j in range(9)]
    found = per_query(*frames(rows), ["P(rel=2)@5", "RR@3", "AP(rel=3)"]).values
    for i in range(25):
        ranked = grades[i][np.argsort(-points[i])]
        first = next((rank for rank, grade in enumerate(ranked, 1) if grade >= 1), 99)
        excellent = [rank for rank, grade in enumerate(ranked, 1) if grade >= 3]
        assert found["P(rel=2)@5"][i] == pytest.approx((ranked[:5] >= 2).mean())
        assert found["RR@3"][i] == pytest.approx(1 / first if first <= 3 else 0)
        assert found["AP(rel=3)"][i] == pytest.approx(
            np.mean([n / rank for n, rank in enumerate(excellent, 1)]), rel=1e-6
        )


def test_ties_favour_no_identifier() -> None:
    # The one relevant document of five has the smallest, then the largest identifier; every score is the same.
    chance = sum(1 / rank for rank in range(1, 6)) / 5
    for relevant in ("d0", "d4"):
        rows = [(f"query {i}", f"d{j}", int(f"d{j}" == relevant), 1.0) for i in range(800) for j in range(5)]
        values = per_query(*frames(rows), ["RR"]).values["RR"].to_numpy()
        assert abs(values.mean() - chance) < 4 * values.std() / math.sqrt(800)


def test_order_of_rows_does_not_matter_and_single_precision_does_not_tie() -> None:
    rows = [("q", f"d{j}", int(j == 7), 1.0 + 1e-12 * j) for j in range(8)] + [
        ("p", f"d{j}", j % 2, 0.0) for j in range(8)
    ]
    expected = per_query(*frames(rows), ["RR", "nDCG@3"]).values
    assert expected.filter(query="q")["RR"].item() == 1.0  # the last bits of a double count
    for seed in range(5):
        shuffled = [rows[i] for i in np.random.default_rng(seed).permutation(len(rows))]
        assert per_query(*frames(shuffled), ["RR", "nDCG@3"]).values.equals(expected)


def test_queries_without_a_positive_are_excluded_and_counted() -> None:
    judgments, scores = frames(
        [("none", "a", 0, 1.0), ("one", "a", 1, 1.0), ("none", "b", -1, 0.0), ("one", "b", 0, 2.0)]
    )
    result = per_query(judgments, scores, ["RR"])
    assert result.values.rows() == [("one", 0.5)]
    assert result.excluded == 1
    assert per_query(judgments.clear(), scores.clear(), ["RR"]).values.is_empty()


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf"), None])
def test_a_score_that_is_no_number_spoils_its_query_alone(bad: float | None) -> None:
    judgments, scores = frames(
        [("bad", "a", 1, 1.0), ("bad", "b", 0, 0.0), ("good", "a", 1, 1.0), ("good", "b", 0, 0.0)]
    )
    broken = scores.with_columns(
        pl.when(query="bad", doc_id="b").then(pl.lit(bad, pl.Float64)).otherwise("score").alias("score")
    )
    values = dict(per_query(judgments, broken, ["nDCG@10"]).values.rows())
    assert math.isnan(values["bad"])
    assert values["good"] == 1.0


def test_judged_documents_without_score_are_not_retrieved_and_unjudged_ones_push_down() -> None:
    judgments, scores = frames([("q", "a", 1, 0.5), ("q", "b", 1, 0.4), ("empty", "a", 1, 0.0)])
    scores = pl.concat(
        [scores.filter(query="q", doc_id="a"), pl.DataFrame({"query": "q", "doc_id": "x", "score": 0.9})]
    )
    values = {row["query"]: row for row in per_query(judgments, scores, ["RR", "nDCG@10"]).values.rows(named=True)}
    assert values["q"]["RR"] == 0.5
    assert values["q"]["nDCG@10"] == pytest.approx((1 / math.log2(3)) / (1 + 1 / math.log2(3)))
    assert values["empty"]["RR"] == 0.0


def test_odd_query_texts_are_only_identifiers() -> None:
    texts = ["Q0 1 d 2", "tab\there", "emoji 🦜", " lead", "", "naïve", "a\x00b", "a\x00c"]
    rows = [(text, f"doc {j}", int(j == 1), float(j)) for text in texts for j in range(3)]
    values = dict(per_query(*frames(rows), ["RR"]).values.rows())
    assert values == dict.fromkeys(texts, 0.5)


def test_a_pair_twice_is_an_error() -> None:
    judgments, scores = frames([("q", "a", 1, 0.5), ("q", "b", 0, 0.4)])
    with pytest.raises(ValueError, match=r"scores.*'q', 'a'.*twice"):
        per_query(judgments, pl.concat([scores, scores[:1]]), ["RR"])
    with pytest.raises(ValueError, match=r"judgments.*twice"):
        per_query(pl.concat([judgments, judgments[:1]]), scores, ["RR"])


@pytest.mark.parametrize("name", ["nDGC@10", "nDCG@0", "nDCG@'a'", "P", "", "P(rel=2", "os.system('x')", "RBP(p=2)"])
def test_unknown_measures_are_named(name: str) -> None:
    with pytest.raises(ValueError, match="evaluation"):
        parse_measures([name])


def test_interval_matches_the_normal_closed_form() -> None:
    values = np.random.default_rng(0).normal(0.3, 0.2, 900)
    interval = mean_interval(values, 0.95, 4_000, seed=1)
    half = stats.norm.ppf(0.975) * values.std() / math.sqrt(900)
    assert interval.mean == pytest.approx(values.mean())
    assert interval.low == pytest.approx(values.mean() - half, abs=0.05 * half)
    assert interval.high == pytest.approx(values.mean() + half, abs=0.05 * half)
    assert interval.queries == 900
    assert mean_interval(values, 0.95, 4_000, seed=1) == interval


def test_interval_matches_the_exact_bootstrap_of_a_small_sample() -> None:
    values = np.array([0.0, 1.0, 1.0, 4.0, 9.0])
    every = np.array([np.mean(draw) for draw in itertools.product(values, repeat=5)])
    interval = mean_interval(values, 0.8, 40_000, seed=2)
    assert [interval.low, interval.high] == pytest.approx(np.quantile(every, [0.1, 0.9]), abs=0.21)
    assert interval.low == pytest.approx(np.quantile(every, 0.1), abs=1e-9)


def test_resamples_are_all_drawn_when_one_batch_does_not_hold_them(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(7).normal(0.05, 1.0, 50)
    half = 1.96 * values.std() / math.sqrt(50)
    monkeypatch.setattr("serm.evaluation.paired.BATCH_CELLS", 333)
    batched = mean_interval(values, 0.95, 4_001, seed=1)
    assert batched.low == pytest.approx(values.mean() - half, abs=0.1 * half)
    p = sign_flip_p(values, 4_001, seed=1)
    assert p == pytest.approx(float(stats.norm.sf(values.sum() / math.sqrt((values**2).sum()))), abs=0.04)


def test_sign_flip_matches_full_enumeration() -> None:
    differences = np.array([0.5, 0.25, -0.125, 0.0, 0.3, -0.05, 0.2, 0.1, -0.3, 0.4])
    flips = np.array(list(itertools.product([-1, 1], repeat=10))) @ differences
    exact = (flips >= differences.sum() - 1e-12).mean()
    assert sign_flip_p(differences, 20_000, seed=0) == pytest.approx(exact, abs=0.01)
    assert sign_flip_p(np.zeros(30), 200, seed=0) == 1.0
    assert sign_flip_p(np.ones(30), 199, seed=0) == 1 / 200


def test_intervals_refuse_nothing_and_pass_nan_on() -> None:
    with pytest.raises(ValueError, match="at least one query"):
        mean_interval(np.array([]), 0.95, 100, 0)
    assert math.isnan(mean_interval(np.array([1.0, math.nan]), 0.95, 100, 0).low)
    with pytest.raises(ValueError, match="finite"):
        sign_flip_p(np.array([1.0, math.inf]), 100, 0)


def test_only_people_are_heard_and_their_median_rounds_down() -> None:
    rows = [
        ("q", "a", 3, "fresh", "llm:ada"), ("q", "a", 1, "fresh", "ann"), ("q", "a", 2, "fresh", "bob"),
        ("q", "b", 3, "fresh", "llm:ada"), ("q", "c", 2, "anchor", "ann"), ("q", "d", 0, "fresh", "illm:x"),
    ]  # fmt: skip
    judgments = pl.DataFrame(rows, schema=["query", "doc_id", "grade", "split", "judge"], orient="row")
    assert human(judgments, "fresh").rows() == [("q", "a", 1), ("q", "d", 0)]
    assert human(judgments, "anchor").rows() == [("q", "c", 2)]


class Lookup:
    """A model whose Pr(y) puts all mass on the number at the end of the document's text."""

    def __init__(self) -> None:
        self.scale = [0, 1, 3]

    def probabilities(self, queries: list[str], documents: list[str]) -> np.ndarray:
        return np.array([[float(text.endswith(str(grade))) for grade in self.scale] for text in documents], np.float32)

    def judgments(self, queries: list[str], documents: list[str], passes: int, seed: int) -> np.ndarray:
        raise NotImplementedError


def test_score_judged_is_the_expected_label_of_pairs_whose_document_is_there() -> None:
    documents = pl.DataFrame({"doc_id": ["a", "b", "c"], "text": ["is 3", "is 0", "is 1"]})
    judgments = pl.DataFrame({"query": ["q", "q", "p"], "doc_id": ["c", "gone", "a"], "grade": [1, 2, 3]})
    assert score_judged(Lookup(), judgments, documents).rows() == [("q", "c", 1.0), ("p", "a", 3.0)]
    assert score_judged(Lookup(), judgments.clear(), documents).is_empty()
