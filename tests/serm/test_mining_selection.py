"""Calibration, bandit, coverage and the random share, each against a known truth, brute force or another library."""

from collections.abc import Sequence
from itertools import combinations

import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray
from scipy.optimize import isotonic_regression

from serm.config import MiningSettings
from serm.mining.bandit import marginal_yields, split
from serm.mining.calibration import chances, combined, labelled_values, mean_chance
from serm.mining.candidates import lottery
from serm.mining.coverage import facility_location, similarities
from serm.mining.history import SCHEMA, is_wrong
from serm.mining.precision import by_round, lift, wilson
from serm.mining.selection import Basket, pick
from serm.mining.union import turns, unite

AGENTS = ("feedback", "click", "uncertainty")


def history(rows: Sequence[tuple[int, list[str], float, bool | None]]) -> pl.DataFrame:
    """Rows of round, agents, uncertainty's value, wrong; every pair is another."""
    frame = pl.DataFrame(rows, schema=["round", "agents", "uncertainty_value", "wrong"], orient="row")
    named = frame.with_row_index("doc_id").with_columns(query=pl.lit("q"))
    columns = [
        (pl.col(name) if name in named.columns else pl.lit(None).alias(name)).cast(dtype)
        for name, dtype in SCHEMA.items()
    ]
    return named.select(columns)


# --- what is wrong --------------------------------------------------------------------------------------------------


def test_wrong_is_the_other_side_or_a_grade_apart() -> None:
    pairs = pl.DataFrame({"label": [1, 1, 0, 0, None, 1], "score": [0.4, 0.6, 0.4, 0.6, 0.9, None]})
    side = pairs.select(is_wrong(pl.col("label"), pl.col("score"), [0, 1])).to_series()
    assert side.to_list() == [True, False, False, True, None, None]
    graded = pl.DataFrame({"label": [3, 2, 0], "score": [2.0, 1.1, 0.9]})
    assert graded.select(is_wrong(pl.col("label"), pl.col("score"), [0, 1, 2, 3])).to_series().to_list() == [
        True,
        False,
        False,
    ]


# --- calibration ----------------------------------------------------------------------------------------------------


def test_calibration_recovers_a_known_curve() -> None:
    rng = np.random.default_rng(0)
    seen = rng.random(20_000)
    wrong = rng.random(20_000) < 0.1 + 0.6 * seen**2
    value = np.linspace(0.05, 0.95, 19)
    found = chances(value, np.arange(1, 20) / 20, seen, wrong, prior_labels=20)
    assert np.abs(found - (0.1 + 0.6 * value**2)).max() < 0.06
    assert (np.diff(found) >= 0).all()


def test_without_labels_the_ranks_come_back_and_few_labels_move_them_little() -> None:
    value, strength = np.array([0.2, 0.5, 0.9]), np.array([0.25, 0.5, 0.75])
    nothing = np.array([])
    assert (chances(value, strength, nothing, nothing.astype(bool), 20) == strength).all()
    few = chances(value, strength, np.array([0.9, 0.9]), np.array([False, False]), prior_labels=200)
    assert np.abs(few - strength).max() < 0.03
    assert few[2] < strength[2]
    # two labels at 0.9 against a weight of 3 in all: (0.75 + 0 + 0) / 3 = 0.25 would fall below its neighbours, so that
    # the last two are pooled: (0.5 + 0.75) / (1 + 3) = 0.3125
    assert chances(value, strength, np.array([0.9, 0.9]), np.array([False, False]), 3) == pytest.approx(
        [0.25, 0.3125, 0.3125]
    )


def test_calibration_agrees_with_another_library() -> None:
    rng = np.random.default_rng(1)
    seen = rng.permutation(200) / 200
    wrong = rng.random(200) < seen
    value = np.array([0.1234, 0.5555, 0.8765])
    strength = np.array([0.25, 0.5, 0.75])
    x = np.concatenate([value, seen])
    order = np.argsort(x)
    weights = np.concatenate([np.full(3, 30 / 3), np.ones(200)])
    fitted = isotonic_regression(np.concatenate([strength, wrong])[order], weights=weights[order]).x
    expected = fitted[np.searchsorted(x[order], value)]
    assert chances(value, strength, seen, wrong, 30) == pytest.approx(expected)


def test_an_agent_is_judged_by_its_own_pairs_and_the_random_ones() -> None:
    seen, wrong = labelled_values(
        history(
            [
                (1, ["uncertainty"], 0.9, True), (1, ["random"], 0.1, False), (1, ["click"], 0.2, True),
                (1, ["click", "uncertainty"], 0.7, False), (1, ["uncertainty"], 0.8, None),
            ]
        ),
        "uncertainty",
    )  # fmt: skip
    assert (seen.tolist(), wrong.tolist()) == ([0.9, 0.1, 0.7], [True, False, False])


def test_an_agents_mean_sets_the_level_where_nothing_is_labelled() -> None:
    labels = history([(1, ["uncertainty"], 0.3, i < 6) for i in range(30)] + [(1, ["random"], 0.1, True)] * 50)
    assert mean_chance(labels, "uncertainty", 10) == (6 + 5) / 40
    assert mean_chance(labels, "click", 10) == 0.5
    value, strength = np.array([0.8, 0.9]), np.array([1 / 3, 2 / 3])
    seen, wrong = np.full(30, 0.3), np.arange(30) < 6
    assert chances(value, strength, seen, wrong, 10, 0.3) == pytest.approx([0.2, 0.4])


def opinion(values: list[float]) -> pl.DataFrame:
    return pl.DataFrame({"score": values, "value": values, "passes": [True] * len(values), "reason": "why"})


def test_labels_change_the_order_of_the_union_and_no_labels_leave_it() -> None:
    candidates = pl.DataFrame({"query": list("abcd"), "doc_id": ["1"] * 4})
    opinions = {"uncertainty": opinion([0.9, 0.8, 0.1, 0.0]), "click": opinion([0.0, 0.0, 0.3, 0.9])}
    settings = MiningSettings(prior_labels=1)
    by_rank = unite(candidates, opinions, settings, share=1.0)
    assert unite(candidates, opinions, settings, 1.0, history([])).equals(by_rank)
    off = settings.model_copy(update={"calibration": False})
    told = history([(1, ["uncertainty"], 0.85, i % 10 == 0) for i in range(100)])
    assert unite(candidates, opinions, off, 1.0, told).equals(by_rank)
    united = unite(candidates, opinions, settings, 1.0, told)
    found = dict(united.select("query", "uncertainty_chance").rows())
    assert found["a"] < 0.2 < by_rank.filter(query="a")["uncertainty_chance"].item()
    assert united.sort("priority")["query"][-1] == "d"  # the click agent's best, on which nothing is known yet
    doubt = unite(candidates, opinions, MiningSettings(prior_labels=1e9), 1.0, told)
    assert doubt["priority"].to_list() == pytest.approx(by_rank["priority"].to_list())


def test_stacking_learns_that_two_agents_say_the_same() -> None:
    """Feedback and click are twins, whose value v is right with chance v / 2: noisy-or counts them twice."""
    rng = np.random.default_rng(5)

    def pairs(number: int) -> tuple[pl.DataFrame, NDArray[np.float64]]:
        value = rng.uniform(0.2, 1, number)
        frame = history([(1, ["feedback", "click"], 0.0, bool(x)) for x in rng.random(number) < value / 2])
        return frame.with_columns(feedback_value=value, click_value=value), value / 2

    seen, _ = pairs(3_000)
    fresh, truth = pairs(500)
    twice = pl.Series(1 - (1 - truth) ** 2)
    found = combined(fresh, twice, seen, AGENTS, 20).to_numpy()
    assert np.abs(found - truth).max() < 0.08
    assert np.abs(found - truth).mean() < 0.25 * np.abs(twice.to_numpy() - truth).mean()
    few = seen.head(10)
    assert few["wrong"].n_unique() == 2
    cautious = combined(fresh, twice, few, AGENTS, 990).to_numpy()
    assert np.abs(cautious - twice.to_numpy()).max() <= 10 / 1_000  # n / (n + prior) of the way, at most
    assert combined(fresh, twice, seen.filter("wrong"), AGENTS, 20).equals(twice)  # one kind of label teaches nothing


def test_random_pairs_are_scored_by_agents_but_taken_by_none() -> None:
    candidates = pl.DataFrame({"query": list("abc"), "doc_id": ["1"] * 3, "drawn": [True, False, False]})
    united = unite(candidates, {"uncertainty": opinion([0.9, 0.8, 0.1])}, MiningSettings(), share=1.0)
    assert united["query"].to_list() == ["b", "c"]
    assert united["uncertainty_strength"].to_list() == pytest.approx([2 / 3, 1 / 3])


# --- the bandit -----------------------------------------------------------------------------------------------------


def test_yields_count_what_one_agent_alone_took_and_fade() -> None:
    labels = history(
        [
            (1, ["click"], 0.5, True), (2, ["click"], 0.5, False), (2, ["click"], 0.5, None),
            (2, ["click", "feedback"], 0.5, True), (2, ["random"], 0.5, True), (2, ["feedback"], 0.5, True),
        ]
    )  # fmt: skip
    rows = marginal_yields(labels, AGENTS).rows()
    assert rows == [
        ("feedback", 1.0, 1.0),
        ("click", pytest.approx(2.8), pytest.approx(0.8)),
        ("uncertainty", 0.0, 0.0),
    ]


def test_budget_goes_to_the_better_agent_and_the_floor_stays() -> None:
    true_yield = {"feedback": 0.15, "click": 0.4, "uncertainty": 0.2}
    best = []
    for seed in range(5):
        rng = np.random.default_rng(seed)
        rows: list[tuple[int, list[str], float, bool | None]] = []
        shares = split(history(rows), AGENTS, 0.5, seed)
        assert shares == dict.fromkeys(AGENTS, 1 / 3)
        for number in range(1, 7):
            for agent, share in shares.items():
                rows += [(number, [agent], 0.5, bool(x < true_yield[agent])) for x in rng.random(round(150 * share))]
            shares = split(history(rows), AGENTS, 0.5, seed + number)
            assert sum(shares.values()) == pytest.approx(1)
            assert min(shares.values()) >= 0.5 / 3 - 1e-12
        best.append(shares["click"])
    assert min(best) > 0.6  # of 2/3 that the floor leaves at most


def test_split_is_seeded_blind_to_row_order_and_even_at_floor_one() -> None:
    rng = np.random.default_rng(3)
    rows = [(1, [agent], 0.5, bool(rng.random() < 0.3)) for agent in AGENTS for _ in range(30)]
    labels = history(rows)
    one = split(labels, AGENTS, 0.4, 7)
    assert one == split(labels.sample(fraction=1, shuffle=True, seed=1), AGENTS, 0.4, 7)
    assert one != split(labels, AGENTS, 0.4, 8)
    assert split(labels, AGENTS, 1.0, 7) == dict.fromkeys(AGENTS, 1 / 3)
    with_random = pl.concat([labels, history([(1, ["random"], 0.5, True)] * 500)])
    assert split(with_random, AGENTS, 0.4, 7) == one


def test_a_share_is_a_share_of_the_turns() -> None:
    candidates = pl.DataFrame({"query": [f"q{i:02}" for i in range(40)], "doc_id": ["1"] * 40})
    falling = [1 - i / 40 for i in range(20)]
    opinions = {"click": opinion(falling + [0.0] * 20), "uncertainty": opinion([0.0] * 20 + falling)}
    united = unite(candidates, opinions, MiningSettings(), share=1.0)
    first = turns(united, {"click": 0.2, "uncertainty": 0.8}).to_list()[:15]
    assert sum(row < 20 for row in first) == 3


# --- coverage -------------------------------------------------------------------------------------------------------


def value_of(similarity: NDArray[np.float32], weights: NDArray[np.float64], rows: Sequence[int]) -> float:
    return float(weights @ similarity[:, list(rows)].max(axis=1)) if rows else 0.0


def greedy(similarity: NDArray[np.float32], weights: NDArray[np.float64], number: int) -> list[int]:
    """Every gain worked out anew at every step."""
    chosen: list[int] = []
    for _ in range(number):
        left = [row for row in range(len(weights)) if row not in chosen]
        chosen.append(max(left, key=lambda row: (round(value_of(similarity, weights, [*chosen, row]), 9), -row)))
    return chosen


@pytest.mark.parametrize("seed", range(30))
def test_facility_location_against_brute_force(seed: int) -> None:
    rng = np.random.default_rng(seed)
    points = rng.normal(size=(9, 3)).astype(np.float32)
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    similarity, weights = similarities(points, points), rng.random(9)
    for number in (1, 2, 4):
        best = max(value_of(similarity, weights, rows) for rows in combinations(range(9), number))
        chosen = facility_location(similarity, weights, number)
        assert value_of(similarity, weights, chosen) >= (1 - 1 / np.e) * best
        assert chosen == greedy(similarity, weights, number)
    assert value_of(similarity, weights, facility_location(similarity, weights, 1)) == pytest.approx(
        max(value_of(similarity, weights, [row]) for row in range(9))
    )


def test_facility_location_is_optimal_on_separate_groups_and_heeds_what_is_covered() -> None:
    groups = np.repeat(np.eye(4, dtype=np.float32), 3, axis=0)  # four groups of three equal rows
    weights = np.repeat([4.0, 3.0, 2.0, 1.0], 3)
    similarity = similarities(groups, groups)
    assert facility_location(similarity, weights, 3) == [0, 3, 6]
    covered = np.repeat(np.array([1, 0, 0, 0], dtype=np.float32), 3)
    assert facility_location(similarity, weights, 2, covered) == [3, 6]
    assert facility_location(similarity, weights, 2, take=lambda row: row % 3 == 1) == [1, 4]


def test_pick_with_coverage_spreads_within_a_bounded_pool() -> None:
    vectors = np.repeat(np.eye(5, dtype=np.float32), 4, axis=0)  # rows 0-3 alike, 4-7 alike, ...
    names = [f"q{row}" for row in range(20)]
    nobody: list[NDArray[np.int64]] = [np.array([], dtype=np.int64)] * 20
    priority = np.linspace(1, 0.05, 20)

    def taken(facility: float) -> list[int]:
        basket = Basket(names, None, nobody, 5, 99)
        pick(basket, range(20), 4, {}, facility, vectors, priority)
        return sorted(basket.taken)

    assert taken(1.0) == [0, 1, 2, 3]
    assert len({row // 4 for row in taken(4.0)}) == 4  # among the first 16: one of each kind
    assert max(taken(2.0)) < 8  # among the first 8 only


# --- the random share -----------------------------------------------------------------------------------------------


def test_wilson_and_lift_by_hand() -> None:
    z, n, p = 1.959963984540054, 40, 0.25
    middle, half = p + z * z / (2 * n), z * np.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    assert wilson(10, 40) == pytest.approx(((middle - half) / (1 + z * z / n), (middle + half) / (1 + z * z / n)))
    assert wilson(0, 0) == (0.0, 1.0)
    ratio, low, high = lift(40, 100, 10, 100)
    assert ratio == pytest.approx(40.5 / 10.5)
    assert (low, high) == pytest.approx(
        (ratio * np.exp(-1.96 * np.sqrt(d)), ratio * np.exp(1.96 * np.sqrt(d)))
        if (d := 1 / 40.5 - 1 / 100.5 + 1 / 10.5 - 1 / 100.5)
        else (0, 0),
        rel=1e-3,
    )
    assert lift(40, 100, 0, 100)[0] < np.inf


def test_the_random_share_is_unbiased_and_its_interval_covers() -> None:
    rng = np.random.default_rng(0)
    wrong = rng.random(3_000) < 0.17
    shown = pl.DataFrame(
        {
            "query_key": [i // 10 for i in range(3_000)],
            "doc_key": [i % 10 for i in range(3_000)],
            "wrong": wrong,
        }
    )
    truth = float(wrong.mean())
    estimates, inside = [], []
    for seed in range(1_000):
        found = lottery(shown.lazy(), 60, seed)["wrong"]
        low, high = wilson(int(found.sum()), len(found))
        estimates.append(found.mean())
        inside.append(low <= truth <= high)
    assert np.mean(estimates) == pytest.approx(truth, abs=3 * 0.0485 / np.sqrt(1_000))  # three standard errors
    assert np.mean(inside) >= 0.93


def test_precision_is_told_round_by_round_with_lift_over_the_random_share() -> None:
    rows: list[tuple[int, list[str], float, bool | None]] = []
    rows += [(1, ["click"], 0.5, i < 8) for i in range(20)] + [(1, ["click", "uncertainty"], 0.5, True)] * 4
    rows += [(1, ["random"], 0.5, i < 2) for i in range(20)] + [(1, ["random"], 0.5, None)] * 3
    rows += [(2, ["uncertainty"], 0.5, False)] * 5
    told = {(row["round"], row["agent"]): row for row in by_round(history(rows), AGENTS)}
    assert told[1, "click"]["precision"] == 12 / 24
    assert told[1, "union"]["labelled"] == 24
    assert (told[1, "random"]["asked"], told[1, "random"]["labelled"]) == (23, 20)
    assert (told[1, "random"]["low"], told[1, "random"]["high"]) == wilson(2, 20)
    assert told[1, "click"]["lift"] == pytest.approx((12.5 / 24.5) / (2.5 / 20.5))
    assert told[1, "feedback"]["precision"] is None
    assert told[2, "uncertainty"]["lift"] is None  # no random share to compare with
