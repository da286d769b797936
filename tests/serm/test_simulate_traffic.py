"""Simulated streams: what users do, when queries arrive, what is shown, and what is kept apart."""

import json
import time
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from serm.config import SimulateSettings
from serm.records import IMPRESSIONS
from serm.simulate import arrival_values, simulate, stream
from serm.simulate.ranker import lexical_overlap, show, standardised
from serm.workspace import Workspace

SCALE = [0, 1, 2, 3]


def collection(queries: int, documents: int, seed: int = 0) -> pl.DataFrame:
    """Judgments with uniform random grades; query qNNN has documents qNNN-dMM."""
    rng = np.random.default_rng(seed)
    rows = [(f"q{i:03}", f"q{i:03}-d{k:02}") for i in range(queries) for k in range(documents)]
    grades = pl.Series("grade", rng.integers(0, 4, len(rows)), dtype=pl.Int32)
    return pl.DataFrame(rows, schema=["query", "doc_id"], orient="row").with_columns(
        grades, locale=pl.when(pl.col("query") < "q005").then(pl.lit("de")).otherwise(pl.lit("fr"))
    )


def both(frames: tuple[pl.DataFrame, pl.DataFrame]) -> pl.DataFrame:
    impressions, truth = frames
    keys = list(IMPRESSIONS.key)
    assert impressions.select(keys).equals(truth.select(keys))
    return impressions.with_columns(truth["grade"], truth["examined"], truth["is_bot"])


def test_equal_arguments_give_equal_streams_and_the_seed_changes_them() -> None:
    judgments = collection(20, 12)
    shuffled = judgments.sample(fraction=1.0, shuffle=True, seed=3)
    settings = SimulateSettings(sessions=200)
    first, truth = stream(judgments, None, None, settings, SCALE, 7)
    again, same_truth = stream(shuffled, None, None, settings, SCALE, 7)
    other, _ = stream(judgments, None, None, settings, SCALE, 8)
    assert first.equals(again)
    assert truth.equals(same_truth)
    assert not set(first["session"]) & set(other["session"])


def test_a_log_holds_nothing_that_a_log_would_not_and_its_lists_are_whole() -> None:
    judgments = collection(8, 12).filter(pl.col("doc_id") != "q003-d00")
    judgments = judgments.filter((pl.col("query") != "q001") | (pl.col("doc_id") < "q001-d04"))
    impressions, truth = stream(judgments, None, None, SimulateSettings(sessions=500), SCALE, 0)
    assert dict(impressions.schema) == dict(IMPRESSIONS.schema)
    assert impressions.select(IMPRESSIONS.key).is_unique().all()
    lists = impressions.group_by("ts", "session", "query").agg("position", "doc_id")
    for query, positions, documents in lists.select("query", "position", "doc_id").iter_rows():
        assert positions == list(range(1, (4 if query == "q001" else 10) + 1))
        assert len(set(documents)) == len(documents)
    assert impressions.join(judgments, on=["query", "doc_id"], how="anti").is_empty()
    assert set(impressions.filter(pl.col("query") < "q005")["locale"]) == {"de"}
    assert impressions["score"].null_count() == impressions.height
    assert (impressions["dwell"].is_not_null() == impressions["clicked"]).all()
    clicked = impressions["clicked"]
    assert (truth["examined"] | ~clicked).all()


def test_position_based_users_click_by_rank_and_grade() -> None:
    settings = SimulateSettings(sessions=20_000, user="pbm", bots=0, attraction=(0.2, 0.8), examination_decay=0.5)
    frame = both(stream(collection(20, 12), None, None, settings, SCALE, 1))
    table = frame.group_by("position", "grade").agg(
        pl.col("clicked").mean(), pl.len(), pl.col("examined").mean().alias("seen")
    )
    for position, grade, clicked, n, seen in table.iter_rows():
        examine = position**-0.5
        expected = examine * (0.2 + 0.6 * grade / 3)
        assert clicked == pytest.approx(expected, abs=5 * np.sqrt(expected * (1 - expected) / n))
        assert seen == pytest.approx(examine, abs=5 * np.sqrt(examine * (1 - examine) / n) + 1e-12)


def test_dynamic_bayesian_users_go_down_until_satisfied() -> None:
    settings = SimulateSettings(
        sessions=20_000, bots=0, attraction=(0.1, 0.9), satisfaction=(0.2, 0.7), continuation=0.8
    )
    frame = both(stream(collection(20, 12), None, None, settings, SCALE, 2)).sort("ts", "session", "position")
    # By the model's own equation, from each row's grade: the chance to examine the next row, given this one is.
    attraction, satisfaction = 0.1 + 0.8 * pl.col("grade") / 3, 0.2 + 0.5 * pl.col("grade") / 3
    frame = frame.with_columns(
        onward=0.8 * (1 - attraction * satisfaction), next=pl.col("examined").shift(-1).over("session")
    )
    seen = frame.filter("examined").drop_nulls("next")
    assert seen["next"].mean() == pytest.approx(seen["onward"].mean(), abs=0.006)
    assert frame.filter(~pl.col("examined"))["next"].sum() == 0
    assert frame.filter(pl.col("position") == 1)["examined"].all()
    for (grade,), part in frame.filter("examined").group_by("grade"):
        assert part["clicked"].mean() == pytest.approx(0.1 + 0.8 * grade / 3, abs=0.012)


def test_dwell_medians_run_from_the_lowest_to_the_top_grade() -> None:
    settings = SimulateSettings(sessions=20_000, bots=0, dwell=(8, 80), attraction=(0.5, 0.5))
    frame = both(stream(collection(20, 12), None, None, settings, SCALE, 3)).filter("clicked")
    medians = dict(frame.group_by("grade").agg(pl.col("dwell").median()).iter_rows())
    assert [medians[g] for g in SCALE] == pytest.approx([8, 8 * 10 ** (1 / 3), 8 * 10 ** (2 / 3), 80], rel=0.06)


def test_bots_click_blindly_leave_at_once_and_are_marked_in_the_truth_alone() -> None:
    settings = SimulateSettings(sessions=5_000, bots=0.1, bot_searches=4, bot_clicks=0.6)
    frame = both(stream(collection(20, 12), None, None, settings, SCALE, 4))
    robots = frame.filter("is_bot")
    assert robots["session"].n_unique() / 5_000 == pytest.approx(0.1, abs=0.02)
    assert robots.group_by("session").agg(pl.col("ts").n_unique())["ts"].unique().to_list() == [4]
    assert frame.filter(~pl.col("is_bot")).group_by("session").agg(pl.col("ts").n_unique())["ts"].max() == 1
    for (_,), part in robots.group_by("grade"):
        assert part["clicked"].mean() == pytest.approx(0.6, abs=0.03)
    assert robots["dwell"].max() <= 1.0


def test_bots_with_targets_click_these_and_nothing_else() -> None:
    settings = SimulateSettings(sessions=3_000, bots=0.2, bot_targets=["q003-d01", "q011-d02"])
    frame = both(stream(collection(20, 12), None, None, settings, SCALE, 5)).filter("is_bot")
    assert set(frame["query"]) == {"q003", "q011"}
    target = frame["doc_id"].is_in(["q003-d01", "q011-d02"])
    assert (frame["clicked"] == target).all()


def test_queries_enter_in_order_of_arrival_and_at_an_even_pace() -> None:
    judgments = collection(40, 10)
    values = pl.DataFrame({"query": [f"q{i:03}" for i in range(40)], "arrival": [2000.0 + i // 10 for i in range(40)]})
    settings = SimulateSettings(sessions=20_000, bots=0, zipf=0, days=40)
    frame, _ = stream(judgments, values, None, settings, SCALE, 6)
    began = frame["ts"].min()
    first = (
        frame.group_by("query")
        .agg(day=(pl.col("ts").min() - began).dt.total_seconds() / 86_400)
        .join(values, on="query")
    )
    for year, days in first.group_by("arrival").agg("day").iter_rows():
        assert min(days) >= (year - 2000) * 10 - 0.1
        assert max(days) <= (year - 2000) * 10 + 1.0
    # While only the first ten are there, they share the traffic evenly.
    early = frame.filter(pl.col("ts") < began + pl.duration(days=9)).group_by("query").len()
    assert early.height == 10
    assert early["len"].min() / early["len"].max() > 0.75


def test_only_queries_after_arrival_from_enter_and_unknown_ones_do_only_without_it() -> None:
    judgments = collection(4, 10)
    values = pl.DataFrame({"query": ["q000", "q001", "q002"], "arrival": [2010.0, 2012.0, 2015.0]})
    later = SimulateSettings(sessions=300, arrival_from=2012)
    assert set(stream(judgments, values, None, later, SCALE, 0)[0]["query"]) == {"q002"}
    everyone = stream(judgments, values, None, SimulateSettings(sessions=300, days=30), SCALE, 0)[0]
    assert set(everyone.filter(pl.col("ts") < everyone["ts"].min() + pl.duration(days=9))["query"]) == {"q000", "q003"}
    with pytest.raises(ValueError, match="arrival_from"):
        stream(judgments, values, None, SimulateSettings(arrival_from=2020), SCALE, 0)


def test_zipf_frequencies() -> None:
    settings = SimulateSettings(sessions=50_000, bots=0, zipf=1.0, results=1)
    frame, _ = stream(collection(5, 2), None, None, settings, SCALE, 9)
    shares = sorted((frame["query"].value_counts()["count"] / frame.height).to_list(), reverse=True)
    harmonic = sum(1 / k for k in range(1, 6))
    assert shares == pytest.approx([1 / k / harmonic for k in range(1, 6)], abs=0.01)


def test_without_noise_results_stand_in_order_of_score_and_noise_disorders_them() -> None:
    judgments = collection(6, 15)
    rng = np.random.default_rng(0)
    scores = judgments.select("query", "doc_id").with_columns(score=pl.Series(rng.normal(size=judgments.height)))
    calm, _ = stream(judgments, None, scores, SimulateSettings(sessions=50, ranker_noise=0), SCALE, 0)
    expected = scores.with_columns(place=pl.col("score").rank("ordinal", descending=True).over("query").cast(pl.Int32))
    joined = calm.join(expected, on=["query", "doc_id"], how="left")
    assert (joined["position"] == joined["place"]).all()
    assert (joined["score"] == joined["score_right"]).all()
    noisy, _ = stream(judgments, None, scores, SimulateSettings(sessions=50, ranker_noise=1.0), SCALE, 0)
    moved = noisy.join(expected, on=["query", "doc_id"], how="left")
    assert (moved["position"] != moved["place"]).mean() > 0.2
    with pytest.raises(ValueError, match="no finite score for"):
        stream(judgments, None, scores.head(3), SimulateSettings(), SCALE, 0)


def test_noise_flips_two_documents_as_often_as_the_normal_distribution_says() -> None:
    # Standardised scores of two documents are +1 and -1; noise of deviation 1 flips them with chance Phi(-2 / sqrt 2).
    scores = standardised(np.array([0.3, 0.9]), np.array([0]))
    assert scores == pytest.approx([-1, 1])
    shown = show(scores, np.array([0]), np.zeros(40_000, dtype=np.int64), 1, 1.0, np.random.default_rng(0))
    assert (shown[:, 0] == 0).mean() == pytest.approx(0.0786, abs=0.006)


def test_lexical_overlap_weighs_words_by_rarity() -> None:
    documents = pl.DataFrame({"doc_id": ["a", "b", "c"], "text": ["red fish", "blue fish", "a red, red house"]})
    pairs = pl.DataFrame({"query": ["Red fish", "blue Fish", "green", "red fish"], "doc_id": ["a", "a", "a", "gone"]})
    rare, common = np.log(1 + 3 / 1), np.log(1 + 3 / 2)  # blue is in one of three, fish and red are in two
    assert lexical_overlap(pairs, documents)["score"].to_list() == pytest.approx([1.0, common / (rare + common), 0, 0])


def test_arrival_is_the_median_over_the_best_documents() -> None:
    judgments = pl.DataFrame(
        [("a", "1", 3), ("a", "2", 3), ("a", "3", 3), ("a", "4", 1), ("b", "1", 0), ("c", "5", 2), ("d", "6", 2)],
        schema=["query", "doc_id", "grade"],
        orient="row",
    )
    years = {"1": 1990, "2": 2005, "3": 2001, "4": 2020, "5": "soon", "6": 1999}
    documents = pl.DataFrame(
        {"doc_id": list(years), "attributes": [json.dumps({"it's year": y, "other": 1}) for y in years.values()]}
    )
    assert arrival_values(judgments, documents, "it's year", SCALE).rows() == [("a", 2001.0), ("d", 1999.0)]
    with pytest.raises(ValueError, match="no attribute 'price'"):
        arrival_values(judgments, documents, "price", SCALE)


@pytest.fixture
def filled(workspace: Workspace) -> Workspace:
    judgments = collection(12, 12).with_columns(split=pl.lit("train"), judge=pl.lit("human"))
    workspace.append("judgments", judgments)
    known = judgments.select("doc_id").filter(pl.col("doc_id") != "q000-d00")
    workspace.append(
        "documents",
        known.with_columns(text=pl.col("doc_id"), attributes=pl.lit('{"year": 2001}')),
    )
    return workspace


def test_the_verb_appends_once_and_keeps_the_truth_apart(filled: Workspace) -> None:
    summary = simulate(filled, sessions=100, seed=5)
    assert (summary.new_impressions, summary.judged_without_document) == (summary.impressions, 1)
    again = simulate(filled, sessions=100, seed=5)
    assert again.new_impressions == 0
    log = filled.read("impressions")
    assert log.height == summary.impressions
    assert "q000-d00" not in set(log["doc_id"])
    truth = pl.read_parquet(summary.truth)
    assert truth.height == log.height
    assert {"grade", "is_bot", "examined"} <= set(truth.columns)
    later = simulate(filled, sessions=100, seed=5, start="2026-03-01", queries=["q001", "q002"])
    assert later.new_impressions == later.impressions
    assert set(filled.read("impressions").filter(pl.col("ts") >= later.first)["query"]) == {"q001", "q002"}
    assert not set(pl.read_parquet(later.truth)["session"]) & set(truth["session"])


def test_the_verb_logs_a_given_models_scores(filled: Workspace) -> None:
    simulate(filled, sessions=20, score=lambda queries, texts: np.array([float(text[-2:]) for text in texts]))
    log = filled.read("impressions")
    assert (log["score"] == log["doc_id"].str.slice(-2).cast(pl.Float64)).all()


def test_the_verb_says_what_is_missing(filled: Workspace) -> None:
    with pytest.raises(ValueError, match="'nothing' has no judgments"):
        simulate(filled, queries=["nothing"])
    with pytest.raises(ValueError, match="not an ISO 8601 time"):
        simulate(filled, start="tomorrow")


def test_the_verb_refuses_an_empty_workspace(workspace: Workspace) -> None:
    with pytest.raises(ValueError, match="no judged documents"):
        simulate(workspace)


def test_real_searches_arrive_by_year_and_twenty_thousand_sessions_take_seconds(shared_data: Path) -> None:
    corpus = pl.read_parquet(shared_data / "msrd" / "corpus.parquet")
    documents = corpus.select(doc_id="id", attributes=pl.struct("year").struct.json_encode())
    judgments = pl.read_parquet(shared_data / "msrd" / "judgments.parquet").join(documents, on="doc_id", how="semi")
    arrival = arrival_values(judgments, documents, "year", [0, 1])
    settings = SimulateSettings(sessions=20_000, arrival="year", arrival_from=2012)
    began = time.perf_counter()
    impressions, _ = stream(judgments, arrival, None, settings, [0, 1], 0)
    assert time.perf_counter() - began < 10
    years = impressions.join(arrival, on="query")
    assert years["arrival"].min() > 2012
    weekly = years.sort("ts").group_by_dynamic("ts", every="1w").agg(pl.col("arrival").mean())
    assert weekly["arrival"].is_sorted()
