"""Shift: exact p-values, rare false alarms, planted clusters found, verdicts that do not depend on a window's size."""

from collections.abc import Sequence
from itertools import combinations
from zlib import crc32

import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray
from scipy.stats import fisher_exact, hypergeom

from serm.config import ShiftSettings
from serm.shift import View, detect
from serm.shift.clusters import change_test
from serm.shift.detect import correct, verdict
from serm.shift.sample import draw, with_rows
from serm.shift.text import classifier_test
from serm.shift.words import words_view

DIMENSIONS = 12
TOPICS = 6
VIEWS = ("text", "kernel", "words", "clusters", "clicks", "dwell", "reformulation", "score")


def embed(texts: Sequence[str]) -> NDArray[np.float32]:
    """A unit vector near its topic's axis for queries such as "topic3 word17": Gaussian, fixed by the text."""
    rows = []
    for text in texts:
        topic = int(text.split()[0].removeprefix("topic"))
        noise = np.random.default_rng(crc32(text.encode())).normal(scale=0.25, size=DIMENSIONS)
        noise[topic] += 1
        rows.append(noise / np.linalg.norm(noise))
    return np.array(rows, dtype=np.float32)


def stream(sessions: int, seed: int, topics: Sequence[float] = (1,) * 5 + (0,), click: float = 0.4) -> pl.DataFrame:
    """Sessions of one search with three results each; topic drawn by weight, word from a Zipf of 400."""
    rng = np.random.default_rng(seed)
    weights = np.array(topics) / sum(topics)
    topic = rng.choice(TOPICS, sessions, p=weights)
    word = rng.choice(400, sessions, p=(z := 1 / np.arange(1, 401)) / z.sum())
    clicked = rng.random((sessions, 3)) < click / np.arange(1, 4)
    dwell = np.where(clicked, rng.lognormal(3, 1, (sessions, 3)), np.nan)
    return pl.DataFrame(
        {
            "session": np.repeat([f"{seed}-{i}" for i in range(sessions)], 3),
            "query": np.repeat([f"topic{t} word{w}" for t, w in zip(topic, word, strict=True)], 3),
            "doc_id": [f"d{i}" for i in range(3 * sessions)],
            "position": np.tile([1, 2, 3], sessions),
            "clicked": clicked.ravel(),
            "dwell": dwell.ravel(),
            "score": rng.normal(size=3 * sessions),
        },
        strict=False,
    ).with_columns(pl.col("dwell").fill_nan(None))


SMALL = ShiftSettings(sample=300, minimum=30, clusters=8)


def test_false_alarms_are_rare() -> None:
    reports = [detect(stream(500, 2 * i), stream(500, 2 * i + 1), SMALL, embed, seed=i) for i in range(40)]
    alarms = sum(report.verdict != "none" for report in reports)
    grown = sum(bool(report.grown) for report in reports)
    # at a false discovery rate of 1% the expected number is at most 0.4; P(Binomial(40, 0.01) > 3) < 0.001
    assert alarms <= 3
    assert grown <= 3
    assert {view.name for view in reports[0].views} == set(VIEWS)
    # under equal distributions p-values are uniform: their median over 40 windows is near a half
    for name in ("text", "dwell", "score"):
        p_values = [view.p_value for report in reports for view in report.views if view.name == name]
        assert 0.25 < np.median(np.array(p_values, dtype=float)) < 0.75


def test_planted_cluster_is_found_and_named() -> None:
    report = detect(stream(800, 1), stream(800, 2, (1, 1, 1, 1, 1, 2)), SMALL, embed)
    assert report.verdict == "strong"
    assert report.grown
    assert all(query.startswith("topic5") for cluster in report.grown for query in cluster.examples)
    share = sum(cluster.share_current for cluster in report.grown)
    assert share == pytest.approx(2 / 7, abs=0.08)  # what was planted
    assert "topic5" in report.describe()
    assert {view["name"] for view in report.to_dict()["views"]} >= {"text", "words"}
    planted = report.assign(embed(["topic5 word1", "topic5 word2"]))
    assert planted is not None
    assert set(planted.tolist()) <= {cluster.id for cluster in report.grown}


@pytest.mark.parametrize("topics", [(1,) * 5 + (0,), (1,) * 5 + (2,), (1,) * 5 + (0.5,)])
def test_verdict_does_not_depend_on_the_windows_size(topics: tuple[float, ...]) -> None:
    small = detect(stream(600, 5), stream(600, 6, topics), SMALL, embed)
    large = detect(stream(6_000, 7), stream(6_000, 8, topics), SMALL, embed)
    assert small.verdict == large.verdict
    assert [view.reference for view in small.views if view.name == "text"] == [300]
    assert [view.reference for view in large.views if view.name == "text"] == [300]


def test_changed_behaviour_shows_in_clicks_alone() -> None:
    report = detect(stream(2_000, 11), stream(2_000, 12, click=0.8), ShiftSettings(sample=1_500, clusters=4), embed)
    assert [view.name for view in report.views if view.significant] == ["clicks"]
    assert report.verdict != "none"


def test_more_results_on_a_page_are_not_a_change_of_behaviour() -> None:
    short = stream(2_000, 12).filter(pl.col("position") <= 2)
    report = detect(stream(2_000, 11), short, ShiftSettings(sample=1_500, clusters=4), embed)
    assert not any(view.significant for view in report.views if view.name == "clicks")


def test_model_view_sees_scores_and_doubt() -> None:
    surer = {f"d{i}": i for i in range(3 * 1_000)}

    def judge(pairs: pl.DataFrame) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        number = np.array([surer[doc] for doc in pairs["doc_id"]], dtype=float)
        topic = pairs["query"].str.starts_with("topic5").to_numpy()
        return number, np.where(topic, 1.0, number % 7 / 100)

    report = detect(stream(1_000, 1), stream(1_000, 2, (1,) * 5 + (2,)), SMALL, embed, judge)
    views = {view.name: view for view in report.views}
    assert views["entropy"].significant
    assert not views["score"].significant


def test_no_reference_or_too_little_is_unknown() -> None:
    current = stream(500, 1)
    nothing = detect(current.clear(), current, SMALL, embed)
    assert nothing.verdict == "unknown"
    assert len(nothing.clusters) == SMALL.clusters
    assert not nothing.grown
    assert "needed" in nothing.describe()
    assert detect(current, current.head(9), SMALL, embed).verdict == "unknown"


def test_bare_queries_are_a_reference_for_text_and_words() -> None:
    bare = stream(800, 1).select("query").unique()
    report = detect(bare, stream(800, 2, (1,) * 5 + (2,)), SMALL, embed)
    assert [view.name for view in report.views] == ["text", "kernel", "words", "clusters"]
    assert report.verdict == "strong"


def test_equal_inputs_in_another_order_give_equal_reports() -> None:
    reference, current = stream(500, 1), stream(500, 2)
    one = detect(reference, current, SMALL, embed, seed=3)
    shuffled = detect(reference.sample(fraction=1, shuffle=True, seed=9), current.reverse(), SMALL, embed, seed=3)
    assert one.to_dict() == shuffled.to_dict()


def test_sample_is_one_search_a_session() -> None:
    window = pl.concat([stream(300, 1), stream(300, 1).with_columns(query=pl.lit("topic0 again"))])
    sample = draw(window.lazy(), 100, seed=0)
    assert sample.size == 100
    assert sample.searches["session"].is_unique().all()
    assert (sample.searches["queries"] == 2).all()
    assert 25 < (sample.searches["query"] == "topic0 again").sum() < 75  # either search of a session is as likely
    assert with_rows(sample, window.lazy()).rows.height == 300


def test_permutation_p_value_is_uniform_though_folds_depend() -> None:
    """With 40 points in 30 dimensions a Mann-Whitney test on pooled scores would reject far too often."""
    p_values = []
    for seed in range(60):
        points = np.random.default_rng(seed).normal(size=(40, 30)).astype(np.float32)
        p_values.append(classifier_test(points[:20], points[20:], seed)[1])
    rejected = np.mean(np.array(p_values) <= 0.1)
    assert rejected <= 0.22  # Binomial(60, 0.1) exceeds 13 with probability 0.003


def test_classifier_auc_approaches_the_best_possible() -> None:
    rng = np.random.default_rng(0)
    shift = 1.0
    reference = rng.normal(size=(1_500, 3)).astype(np.float32)
    current = rng.normal(size=(1_500, 3)).astype(np.float32) + np.array([shift, 0, 0], dtype=np.float32)
    auc, p_value = classifier_test(reference, current, 0)
    assert auc == pytest.approx(0.7602, abs=0.02)  # Phi(shift / sqrt 2), the optimum for two unit Gaussians
    assert p_value == 0.001  # the smallest of 999 permutations


def test_words_by_hand() -> None:
    view = words_view(["old one", "old two"], ["old one", "new? two"], ["OLD one", "fresh two", "fresh one"])
    # vocabulary {old, one, two}; unseen words in 1 of 2 earlier searches, and in 2 of 3 now
    assert view.effect == pytest.approx((2 / 3 - 1 / 2) / (1 - 1 / 2))
    assert view.p_value == pytest.approx(hypergeom.sf(1, 5, 3, 3))
    assert "most often fresh" in view.text


def test_words_effect_is_the_share_of_new_intent() -> None:
    """30% of searches of another kind, all with a new word, over a tail in which a fifth of searches has one anyway."""
    old = ["seen"] * 800 + ["tail"] * 200
    now = ["seen"] * 560 + ["tail"] * 140 + ["fresh"] * 300
    assert words_view(["seen"], old, now).effect == pytest.approx(0.3)


def test_change_test_is_fishers_either_way() -> None:
    now, before = np.array([12, 5, 3]), np.array([4, 6, 10])
    raw = []
    for n, b in zip(now, before, strict=True):
        table = [[n, 20 - n], [b, 20 - b]]
        raw.append(min(1.0, 2 * min(fisher_exact(table, alternative=side).pvalue for side in ("greater", "less"))))
    order = np.argsort(raw)
    stepped = [
        min(raw[k] * 3 / (place + 1) for place, k in enumerate(order) if place >= list(order).index(i))
        for i in range(3)
    ]
    assert change_test(now, before) == pytest.approx(np.minimum(stepped, 1))


def test_correction_is_benjamini_and_hochbergs() -> None:
    p_values = [0.001, 0.004, 0.019, 0.03, 0.9]
    views = [View(str(i), 0.5, p, 1, 1, "") for i, p in enumerate(p_values)]
    marked = {view.name for view in correct([*views, View("empty", None, None, 0, 0, "")], 0.05) if view.significant}
    # the largest k with p_(k) <= 0.05 k / 5 is 4; brute force over subsets agrees
    largest = max(
        (
            len(group)
            for size in range(1, 6)
            for group in combinations(p_values, size)
            if max(group) <= 0.05 * len(group) / 5
        ),
        default=0,
    )
    assert marked == {str(i) for i in range(largest)}


def test_verdict_is_the_largest_significant_effect() -> None:
    settings = ShiftSettings(mild_effect=0.05, strong_effect=0.15)
    big_noise = View("a", 0.9, 0.5, 1, 1, "", significant=False)
    tiny = View("b", 0.01, 1e-9, 1, 1, "", significant=True)
    some = View("c", 0.1, 1e-9, 1, 1, "", significant=True)
    much = View("d", 0.2, 1e-9, 1, 1, "", significant=True)
    assert verdict([big_noise, tiny], settings) == "none"
    assert verdict([big_noise, tiny, some], settings) == "mild"
    assert verdict([some, much], settings) == "strong"
    assert verdict([View("e", None, None, 0, 0, "")], settings) == "unknown"
