"""The miner: candidates, spam, agents, union and selection, each against a value worked out another way."""

import math
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray

from serm.config import MiningSettings
from serm.mining import scoring
from serm.mining.agents import OPINIONS
from serm.mining.candidates import gather
from serm.mining.selection import Basket, cluster_quotas, near_duplicates, pair_vectors, pick, random_pairs
from serm.mining.traffic import believable
from serm.mining.union import turns, unite
from serm.records import IMPRESSIONS
from serm.shift import Cluster

START = datetime(2026, 1, 5, tzinfo=UTC)
SETTINGS = MiningSettings()
NOTHING = pl.LazyFrame(schema={"query": pl.String, "doc_id": pl.String})


def impressions(*rows: tuple[str, str, str, int, bool, float | None]) -> pl.LazyFrame:
    """Rows of session, query, doc_id, position, clicked, dwell; a second apart."""
    names = ["session", "query", "doc_id", "position", "clicked", "dwell"]
    frame = pl.DataFrame(rows, schema=names, orient="row", infer_schema_length=None)
    times = pl.Series("ts", [START + timedelta(seconds=i) for i in range(len(rows))])
    return IMPRESSIONS.conform(frame.with_columns(times, score=pl.lit(1.5), locale=pl.lit("en"))).lazy()


def documents(*ids: str) -> pl.LazyFrame:
    return pl.LazyFrame({"doc_id": ids, "title": ids, "text": ids})


# --- traffic and candidates ---------------------------------------------------------------------------------------


def test_bots_go_and_bounces_are_skips() -> None:
    bot = [("bot", "q", f"d{i}", i, i <= 5, 0.5 if i <= 5 else None) for i in range(1, 11)]
    silent = [("silent", "q", f"d{i}", i, i <= 6, None) for i in range(1, 11)]  # clicks most, dwell never logged
    eager = [("eager", "q", f"d{i}", i, i <= 5, 40.0 if i <= 5 else None) for i in range(1, 11)]  # reads what it clicks
    hasty = [("hasty", "q", "d1", 1, True, 0.5), ("hasty", "q", "d2", 2, True, 60.0)]
    rows = believable(impressions(*bot, *silent, *eager, *hasty), SETTINGS).collect()
    assert sorted(rows["session"].unique()) == ["eager", "hasty"]
    assert rows.filter(session="hasty").select("clicked", "dwell").rows() == [(False, None), (True, 60.0)]


def test_candidates_by_hand() -> None:
    log = impressions(
        ("a", "q", "d1", 1, True, 15.0),
        ("a", "q", "d1", 3, True, 45.0),  # the same session again: one session, its longer dwell
        ("b", "q", "d1", 2, True, None),
        ("c", "q", "d1", 2, False, None),
        ("c", "q", "d2", 1, False, None),
        ("c", "q", "gone", 3, True, 99.0),
        ("c", "q", "judged", 4, True, 99.0),
    )
    exclude = pl.LazyFrame({"query": ["q"], "doc_id": ["judged"]})
    first, second = gather(log, documents("d1", "d2", "judged"), exclude, SETTINGS).to_dicts()
    assert first.pop("dwell") == pytest.approx(45.0, rel=0.045)  # the middle of its bucket
    assert first == {
        "query": "q", "doc_id": "d1", "locale": "en", "impressions": 4, "sessions": 3, "position": 2.0, "logged": 1.5,
        "click_sessions": 2, "engagement": 1.0 + 0.5,
    }  # fmt: skip
    assert (second["doc_id"], second["click_sessions"], second["engagement"]) == ("d2", 0, 0.0)


def test_a_session_speaks_for_three_results_and_once_for_each() -> None:
    greedy = [("s", "q", f"d{i}", i, True, 60.0) for i in range(1, 8)] + [("s", "q", "d1", 1, True, 60.0)] * 5
    found = gather(impressions(*greedy), documents(*(f"d{i}" for i in range(1, 8))), NOTHING, SETTINGS)
    assert found.filter(pl.col("click_sessions") > 0)["doc_id"].to_list() == ["d1", "d2", "d3"]
    assert found["click_sessions"].max() == 1


# --- model outputs ------------------------------------------------------------------------------------------------


class Fake:
    """Grade probabilities by lookup of the document's text; sampled judgments from 0.5 to 2.75."""

    def __init__(self) -> None:
        self.scale = [0, 1, 2, 3]

    def probabilities(self, queries: Sequence[str], documents: Sequence[str]) -> NDArray[np.float32]:
        table = {"sure": [1, 0, 0, 0], "torn": [0.25] * 4, "good": [0, 0, 0.1, 0.9]}
        return np.array([table[text] for text in documents], dtype=np.float32)

    def judgments(
        self, queries: Sequence[str], documents: Sequence[str], passes: int, seed: int
    ) -> NDArray[np.float32]:
        assert set(documents) == {"torn"}
        return np.tile(np.linspace(0.5, 2.75, passes, dtype=np.float32), (len(queries), 1))


def scored() -> pl.DataFrame:
    frame = pl.DataFrame({"query": ["q"] * 3, "doc_id": ["a", "b", "c"], "text": ["sure", "torn", "good"]})
    return scoring.with_model_scores(frame, Fake())


def test_model_scores_by_hand() -> None:
    frame = scored()
    assert frame["score"].to_list() == pytest.approx([0.0, 1.5, 2.9])
    assert frame["level"].to_list() == pytest.approx([0.0, 0.5, 2.9 / 3])
    assert frame["entropy"].to_list() == pytest.approx([0.0, math.log(4), -0.1 * math.log(0.1) - 0.9 * math.log(0.9)])


def test_judgments_go_to_the_most_uncertain_only() -> None:
    judged = scoring.with_judgments(scored(), Fake(), passes=4, limit=1, seed=0)
    assert judged["lowest"].to_list() == [None, 0.5, None]
    opinion = OPINIONS["disagreement"](judged, SETTINGS, Fake().scale)
    assert opinion["score"].to_list() == [None, 2.25, None]
    assert opinion["value"][1] == 0.75
    assert opinion["passes"].to_list() == [False, True, False]
    assert opinion["reason"][1] == "sampled judgments range from 0.5 to 2.75 of 3"


def test_uncertainty_is_a_share_of_the_largest_entropy() -> None:
    opinion = OPINIONS["uncertainty"](scored(), SETTINGS, Fake().scale)
    assert opinion["value"].to_list() == pytest.approx([0.0, 1.0, 0.2345], abs=1e-4)
    assert opinion["passes"].to_list() == [False, True, False]
    assert opinion["reason"][2] == "unsure: 0/0/10/90% for the grades 0/1/2/3 (entropy 0.33 of 1.39)"


def liked(**columns: object) -> pl.DataFrame:
    defaults = {
        "sessions": 7, "click_sessions": 5, "engagement": 4.5, "dwell": 64.2, "score": 0.21, "level": 0.07,
        "attractiveness": 0.8, "position": 4.26,
    }  # fmt: skip
    return pl.DataFrame({name: [value] for name, value in (defaults | columns).items()}, infer_schema_length=None)


def test_feedback_is_evidence_times_gap() -> None:
    opinion = OPINIONS["feedback"](liked(), SETTINGS, [0, 1, 2, 3])
    assert opinion["score"].item() == pytest.approx(4.5 / 9)
    assert opinion["value"].item() == pytest.approx(4.5 / 9 * (0.5 - 0.07) / 0.5)
    assert opinion["passes"].item()
    assert opinion["reason"].item() == "clicked in 5 of 7 sessions and read 64 s, but scored 0.21 of 3"
    assert (
        "session, but"
        in OPINIONS["feedback"](liked(sessions=1, dwell=None).cast({"dwell": pl.Float64}), SETTINGS, [0, 3])[
            "reason"
        ].item()
    )


@pytest.mark.parametrize(("agent", "columns"), [
    ("feedback", {"level": 0.6}), ("feedback", {"click_sessions": 0, "engagement": 0.0}),
    ("click", {"level": 0.5}), ("click", {"click_sessions": 0}),
])  # fmt: skip
def test_user_agents_pass_over_what_the_model_likes_or_nobody_clicked(agent: str, columns: dict[str, float]) -> None:
    opinion = OPINIONS[agent](liked(**columns), SETTINGS, [0, 1, 2, 3])
    assert opinion["value"].item() == 0
    assert not opinion["passes"].item()


def test_click_agent_reads_the_click_model_and_its_threshold() -> None:
    opinion = OPINIONS["click"](liked(), SETTINGS, [0, 1, 2, 3])
    assert opinion["score"].item() == 0.8
    assert opinion["value"].item() == pytest.approx(0.8 * 0.43 / 0.5)
    assert opinion["reason"].item() == "attracts 80% of those who look at it (mean position 4.3), but scored 0.21 of 3"
    assert opinion["passes"].item()
    assert not OPINIONS["click"](liked(attractiveness=0.4), SETTINGS, [0, 1, 2, 3])["passes"].item()


def test_more_sessions_are_stronger_evidence_than_a_lone_click() -> None:
    lone = liked(sessions=1, click_sessions=1, engagement=1.0)
    many = liked(sessions=10, click_sessions=10, engagement=10.0)
    values = [OPINIONS["feedback"](frame, SETTINGS, [0, 1, 2, 3])["value"].item() for frame in (lone, many)]
    assert values[0] < values[1]


def test_minimum_of_clicking_sessions() -> None:
    opinion = OPINIONS["feedback"](liked(), MiningSettings(sessions=6), [0, 1, 2, 3])
    assert (opinion["value"].item(), opinion["passes"].item()) == (0.0, False)


# --- union and selection ------------------------------------------------------------------------------------------


def opinions_of(**values: list[float]) -> dict[str, pl.DataFrame]:
    return {
        agent: pl.DataFrame(
            {"score": v, "value": v, "passes": [x > 0.5 for x in v], "reason": [f"{agent} {x}" for x in v]}
        )
        for agent, v in values.items()
    }


CANDIDATES = pl.DataFrame({"query": ["a", "b", "c", "d"], "doc_id": ["1", "1", "1", "1"]})


def test_union_by_hand() -> None:
    opinions = opinions_of(feedback=[0.9, 0.1, 0.0, 0.0], uncertainty=[0.7, 0.2, 0.8, 0.1])
    united = unite(CANDIDATES, opinions, SETTINGS, share=0.5)  # two pairs an agent
    assert united["query"].to_list() == ["a", "b", "c"]
    assert united["agents"].to_list() == [["feedback", "uncertainty"], ["feedback"], ["uncertainty"]]
    # strengths: first of two 2/3, second of two 1/3
    assert united["priority"].to_list() == pytest.approx([1 - (1 / 3) * (2 / 3), 1 / 3, 2 / 3])
    assert united["reason"].to_list() == ["feedback 0.9; uncertainty 0.7", "feedback 0.1", "uncertainty 0.8"]
    assert united["disagreement"].null_count() == 3
    assert united["uncertainty"].to_list() == [0.7, 0.2, 0.8]  # its score even where it did not take the pair


def test_absolute_thresholds_take_what_passes() -> None:
    opinions = opinions_of(feedback=[0.9, 0.1, 0.0, 0.0], uncertainty=[0.7, 0.6, 0.8, 0.1])
    united = unite(CANDIDATES, opinions, MiningSettings(thresholds="absolute"), share=0.01)
    assert united["agents"].to_list() == [["feedback", "uncertainty"], ["uncertainty"], ["uncertainty"]]


def test_agents_take_turns() -> None:
    candidates = pl.DataFrame({"query": [f"q{i}" for i in range(8)], "doc_id": ["1"] * 8})
    # uncertainty takes six pairs, feedback two weak ones; both are served
    opinions = opinions_of(uncertainty=[0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.0, 0.0], feedback=[0.0] * 6 + [0.02, 0.01])
    united = unite(candidates, opinions, SETTINGS, share=1.0)
    queries = united["query"].to_list()
    order = [queries[row] for row in turns(united, {"feedback": 0.5, "uncertainty": 0.5})]
    assert set(order[:2]) == {"q0", "q6"}
    assert set(order[2:4]) == {"q1", "q7"}
    assert order[4:] == ["q2", "q3", "q4", "q5"]
    # with three times the share, uncertainty has three turns for each of feedback's
    order = [queries[row] for row in turns(united, {"feedback": 0.25, "uncertainty": 0.75})]
    assert order[:2] == ["q0", "q1"]
    assert set(order[2:4]) == {"q2", "q6"}
    assert order[4:6] == ["q3", "q4"]
    assert set(order[6:8]) == {"q5", "q7"}


def cluster(id: int, share: float, grown: bool = False) -> Cluster:
    return Cluster(id, 0.1, share, 0.5, grown, ())


def test_quotas_follow_traffic_and_growth() -> None:
    settings = MiningSettings(coverage=0.6, grown_weight=3.0)
    quotas = cluster_quotas([cluster(0, 0.5), cluster(1, 0.25), cluster(2, 0.25, grown=True)], 100, settings)
    assert quotas == {0: 20, 1: 10, 2: 30}  # weights 2 : 1 : 3 of 60
    odd = cluster_quotas([cluster(i, 1 / 7) for i in range(7)], 50, settings)
    assert sum(odd.values()) == 30
    assert max(odd.values()) - min(odd.values()) == 1
    assert cluster_quotas([], 100, settings) == {}


def test_near_duplicates_match_brute_force() -> None:
    rng = np.random.default_rng(0)
    queries = rng.normal(size=(120, 6)).astype(np.float32)
    titles = rng.normal(size=(120, 6)).astype(np.float32)
    queries[60:], titles[60:] = queries[:60] + 0.03, titles[:60] - 0.02
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    titles /= np.linalg.norm(titles, axis=1, keepdims=True)
    cosines = ((queries @ queries.T) + (titles @ titles.T)) / 2  # what a pair's cosine is meant to be
    found = near_duplicates(pair_vectors(queries, titles), 0.9)
    for row, others in enumerate(found):
        assert sorted(others) == [other for other in range(120) if cosines[row, other] > 0.9 and other != row]


def picked(
    order: list[int], queries: list[str], budget: int, quotas: dict[int, int] | None = None,
    clusters: list[int] | None = None, twins: dict[int, list[int]] | None = None, per_query: int = 3,
    per_cluster: int = 99, forced: tuple[int, ...] = (),
) -> Basket:  # fmt: skip
    near = [np.array((twins or {}).get(row, []), dtype=np.int64) for row in range(len(queries))]
    basket = Basket(queries, clusters, near, per_query, per_cluster)
    for row in forced:
        basket.force(row)
    pick(basket, order, budget, quotas or {})
    return basket


def test_pick_keeps_quotas_caps_and_distance() -> None:
    queries = ["a", "a", "a", "b", "c", "d"]
    order = [0, 1, 2, 3, 4, 5]
    assert picked(order, queries, 10, per_query=2).taken == [0, 1, 3, 4, 5]
    assert picked(order, queries, 10, twins={3: [4], 4: [3]}).taken == [0, 1, 2, 3, 5]
    assert picked(order, queries, 3).taken == [0, 1, 2]
    clusters = [0, 0, 0, 0, 0, 1]
    assert picked(order, queries, 3, {0: 1, 1: 1}, clusters).taken == [0, 5, 1]
    assert picked(order, queries, 10, clusters=clusters, per_cluster=2).taken == [0, 1, 5]
    # what is drawn at random is of the budget, and counts towards the caps
    assert picked([0, 1, 3, 4, 5], queries, 3, per_query=2, forced=(2,)).taken == [2, 0, 3]


def test_every_row_that_was_passed_over_says_why() -> None:
    queries = ["a", "a", "b", "c", "d", "e"]
    basket = picked(
        [0, 1, 2, 3, 4, 5], queries, 3, clusters=[0, 0, 0, 1, 1, 2], twins={0: [3], 3: [0]}, per_query=1, per_cluster=2
    )
    told = basket.tell(pl.DataFrame({"query": queries, "doc_id": ["x"] * 6}))
    assert told["stage"].to_list() == ["taken", "query cap", "taken", "duplicate", "taken", "budget"]
    assert told["pick"].to_list() == [0, None, 1, None, 2, None]
    assert told["duplicate_query"].to_list() == [None, None, None, "a", None, None]
    full = picked([0, 1], ["a", "b"], 5, clusters=[0, 0], per_cluster=1)
    assert full.refusal(1) == ("cluster cap", None)


def test_random_pairs_are_uniform_and_repeatable() -> None:
    candidates = pl.DataFrame({"query": [f"q{i}" for i in range(10)], "doc_id": ["1"] * 10, "locale": ["en"] * 10})
    draws = [random_pairs(candidates, 4, seed) for seed in range(500)]
    counts = pl.concat(draws)["query"].value_counts()["count"].to_numpy()
    assert len(counts) == 10
    assert ((counts - 200) ** 2 / (200 * 0.6)).sum() < 30  # chi-square with 9 degrees of freedom: p < 0.0005 beyond
    assert draws[3].equals(random_pairs(candidates.reverse(), 4, 3))
