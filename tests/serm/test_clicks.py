"""Click models: against enumeration of what users might have done, closed forms, and numerical optimisation."""

import itertools
from collections import defaultdict
from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl
import pytest
from scipy.optimize import minimize

from serm import clicks
from serm.clicks import BASELINES, MODELS, ClickModel, Patterns, dcm, perplexity, sdbn
from serm.clicks.chain import Chain
from serm.clicks.pbm import PositionBased
from serm.clicks.ubm import UserBrowsing
from serm.config import ClickSettings

KNOWN = [*MODELS, *BASELINES]
DOCS = pl.DataFrame({"query": ["q"] * 6, "doc_id": list("abcdef")})
One = list[tuple[str, int, int]]  # a list: (document, position, clicked)


def log(lists: list[One]) -> pl.DataFrame:
    """A log of these lists, all for one query."""
    rows = [(f"s{i}", "q", doc, position, bool(c)) for i, one in enumerate(lists) for doc, position, c in one]
    frame = pl.DataFrame(rows, schema=["session", "query", "doc_id", "position", "clicked"], orient="row")
    return frame.with_columns(ts=pl.lit(0).cast(pl.Datetime("us", "UTC")))


def random_lists(rng: np.random.Generator, n: int) -> list[One]:
    """Lists of up to four rows with gaps, missing tops and different lengths."""
    lists = []
    for _ in range(n):
        places = sorted(rng.choice(np.arange(1, 7), size=rng.integers(1, 5), replace=False).tolist())
        docs = rng.choice(list("abcdef"), size=len(places), replace=False)
        lists.append([(str(d), p, int(rng.random() < 0.35)) for d, p in zip(docs, places, strict=True)])
    return lists


# --- probabilities: enumeration of all hidden states, with parameters given -----------------------------------------


ALPHA = dict(zip("abcdef", (0.1, 0.3, 0.5, 0.7, 0.9, 0.4), strict=True))
SIGMA = dict(zip("abcdef", (0.6, 0.2, 0.8, 0.3, 0.5, 0.9), strict=True))
ONWARD = {1: 0.9, 2: 0.5, 3: 0.7, 4: 0.2, 5: 0.6, 6: 0.3}
SEEN = {1: 1.0, 2: 0.6, 3: 0.5, 4: 0.3, 5: 0.2, 6: 0.1}


def browsing(position: int, last: int) -> float:
    """P(examined at a position | the last click above was at `last`)."""
    return 1.0 if (position, last) == (1, 0) else 0.95 - 0.1 * position + 0.07 * last


# sigma, lambda and gamma of the models in which users stop
CHAINS: dict[str, tuple[dict, dict, float]] = {
    "cascade": (dict.fromkeys("abcdef", 1.0), dict.fromkeys(ONWARD, 1.0), 1.0),
    "dcm": (dict.fromkeys("abcdef", 0.0), ONWARD, 1.0),
    "sdbn": (SIGMA, dict.fromkeys(ONWARD, 1.0), 1.0),
    "dbn": (SIGMA, dict.fromkeys(ONWARD, 1.0), 0.7),
}


def worlds(one: One, alpha: dict, sigma: dict, onward: dict, gamma: float) -> list[tuple]:
    """All that a user who goes down may have done: (probability, examined, attracted, stopped)."""
    found = []
    for examined, attracted, stopped in itertools.product(itertools.product((0, 1), repeat=len(one)), repeat=3):
        probability, going, before = 1.0, True, 1
        for (doc, position, _), e, a, s in zip(one, examined, attracted, stopped, strict=True):
            reach = gamma ** (position - before) if going else 0.0
            stop = 1 - (1 - sigma[doc]) * onward[position]
            probability *= reach if e else 1 - reach
            probability *= alpha[doc] if a else 1 - alpha[doc]
            probability *= stop if s else 1 - stop
            going, before = bool(e and not (a and s)), position
        if probability:
            found.append((probability, examined, attracted, stopped))
    return found


def clicks_of(examined: tuple, attracted: tuple) -> tuple:
    return tuple(e & a for e, a in zip(examined, attracted, strict=True))


def states(name: str, one: One) -> list[tuple]:
    """(probability, examined, attracted) of all that may have been on a list."""
    if name in CHAINS:
        return [world[:3] for world in worlds(one, ALPHA, *CHAINS[name])]
    found = []
    for examined, attracted in itertools.product(itertools.product((0, 1), repeat=len(one)), repeat=2):
        probability, last = 1.0, 0
        for (doc, position, _), e, a in zip(one, examined, attracted, strict=True):
            look = SEEN[position] if name == "pbm" else browsing(position, last)
            probability *= look if e else 1 - look
            probability *= ALPHA[doc] if a else 1 - ALPHA[doc]
            last = position if e and a else last
        found.append((probability, examined, attracted))
    return found


def others(vector: tuple, k: int) -> tuple:
    return vector[:k] + vector[k + 1 :]


def given(name: str) -> ClickModel:
    """A model with the parameters above."""
    every = log([[(d, p, 0)] for d, p in zip("abcdef", range(1, 7), strict=True)])
    model: Any = clicks.fit(name, ClickSettings(iterations=1), every)
    alpha = np.array([*ALPHA.values(), 0.2])
    if isinstance(model, Chain):
        sigma, onward, gamma = CHAINS[name]
        return replace(
            model, alpha=alpha, sigma=np.array([*sigma.values(), 0.5]), onward=np.array([*onward.values()]), gamma=gamma
        )
    if isinstance(model, PositionBased):
        return replace(model, alpha=alpha, gamma=np.array([*SEEN.values()]))
    assert isinstance(model, UserBrowsing)
    table = np.array([[browsing(p, last) if last < p else np.nan for last in range(7)] for p in range(1, 7)])
    return replace(model, alpha=alpha, gamma=table)


@pytest.mark.parametrize("name", MODELS)
def test_all_probabilities_equal_enumeration_of_hidden_states(name: str) -> None:
    """predict, predict_conditional, examined and log_likelihood, to 1e-9, on every click vector that is possible."""
    lists, expected, total = [], [], 0.0
    for one in random_lists(np.random.default_rng(2), 25):
        hidden = states(name, one)
        chances: dict[tuple, float] = defaultdict(float)
        for probability, examined, attracted in hidden:
            chances[clicks_of(examined, attracted)] += probability
        assert sum(chances.values()) == pytest.approx(1)
        for seen, chance in chances.items():
            if chance == 0:
                continue
            lists.append([(d, p, c) for (d, p, _), c in zip(one, seen, strict=True)])
            total += np.log(chance)
            for k, (doc, _, _) in enumerate(one):
                marginal = sum(p for vector, p in chances.items() if vector[k])
                above = sum(p for vector, p in chances.items() if vector[:k] == seen[:k])
                both = sum(p for vector, p in chances.items() if vector[:k] == seen[:k] and vector[k])
                # Not attracted by this one, and all the others as they were: how likely is it that it was examined?
                rest = [(p, e[k]) for p, e, a in hidden if not a[k] and others(clicks_of(e, a), k) == others(seen, k)]
                looked = sum(p * e for p, e in rest) / max(sum(p for p, _ in rest), 1e-300)
                expected.append((f"s{len(lists) - 1}", doc, marginal, both / above, looked))
    assert len(lists) > 80
    impressions = log(lists).sample(fraction=1, shuffle=True, seed=0)
    model = given(name)
    columns = ["session", "doc_id", "marginal", "conditional", "examined"]
    wanted = impressions.join(
        pl.DataFrame(expected, schema=columns, orient="row"), on=["session", "doc_id"], maintain_order="left"
    )
    assert model.predict(impressions).to_list() == pytest.approx(wanted["marginal"].to_list(), abs=1e-9)
    assert model.predict_conditional(impressions).to_list() == pytest.approx(wanted["conditional"].to_list(), abs=1e-9)
    assert model.examined(impressions).to_list() == pytest.approx(wanted["examined"].to_list(), abs=1e-9)
    assert model.log_likelihood(impressions) == pytest.approx(total)


def test_a_click_that_the_cascade_holds_impossible_costs_a_billionth() -> None:
    twice = log([[("a", 1, 1), ("b", 2, 1)]])
    assert given("cascade").log_likelihood(twice) == pytest.approx(np.log(0.1) + np.log(1e-9))
    assert given("cascade").predict_conditional(twice).to_list() == [pytest.approx(0.1), 0.0]


@pytest.mark.parametrize("name", MODELS)
def test_unseen_pairs_and_positions_follow_the_prior_and_the_place_above(name: str) -> None:
    model = given(name)
    asked = pl.DataFrame({"query": ["q", "other"], "doc_id": ["never", "a"]})
    assert model.attractiveness(asked).to_list() == [0.2, 0.2]
    deep = log([[("new", 6, 0)], [("new", 99, 0)]])
    near, far = model.predict(deep)
    assert far == near if name in ("pbm", "ubm", "cascade", "dcm", "sdbn") else far < near


def test_a_gap_is_crossed_and_a_missing_top_is_no_certainty() -> None:
    impressions = log([[("a", 1, 0), ("b", 4, 1)], [("b", 4, 0)], [("c", 1, 0)]])
    model = replace(given("dbn"), gamma=0.5)  # type: ignore[type-var]
    # By hand: position 4 is three steps below position 1, in the first list past an `a` that may have been clicked.
    past_a = 1 - 0.1 * 0.6
    expected = [0.1, past_a * 0.5**3 * 0.3, 0.5**3 * 0.3, 0.5]
    assert model.predict(impressions).to_list() == pytest.approx(expected)


# --- fitting: closed forms, one step of expectation-maximisation, optima -----------------------------------------


def test_with_one_position_attractiveness_is_the_shrunk_click_rate() -> None:
    impressions = log([[("a", 1, 1)], [("a", 1, 0)], [("a", 1, 1)], [("b", 1, 0)]])
    asked = pl.DataFrame({"query": ["q", "q", "q", "other"], "doc_id": ["b", "a", "never", "a"]})
    for name in [*MODELS, "ctr_pair"]:
        model = clicks.fit(name, ClickSettings(prior_clicks=2, prior_skips=6), impressions)
        assert model.attractiveness(asked).to_list() == pytest.approx([2 / 9, 4 / 11, 2 / 8, 2 / 8]), name


THREE = [
    [("a", 1, 0), ("b", 2, 1), ("c", 3, 0)],
    [("b", 1, 1), ("a", 2, 0), ("c", 3, 1)],
    [("c", 1, 0), ("a", 2, 0), ("b", 3, 0)],
]


def test_cascade_counts_first_clicks_and_what_was_looked_at_until_then() -> None:
    model = clicks.fit("cascade", ClickSettings(prior_clicks=1, prior_skips=3), log(THREE))
    # a: looked at in lists 1 and 3, never clicked; b: clicked first in 1 and 2, looked at in 3; c: looked at in 3.
    assert model.attractiveness(DOCS.head(3)).to_list() == pytest.approx([1 / 6, 3 / 7, 1 / 5])
    assert model.examination()["examination"].to_list() == pytest.approx(
        [1, (5 / 6 + 4 / 7 + 4 / 5) / 3, (5 / 6 * 4 / 7 + 4 / 7 * 5 / 6 + 4 / 5 * 5 / 6) / 3]
    )


def test_the_papers_counts_of_dcm_and_simplified_dbn() -> None:
    settings = ClickSettings(prior_clicks=1e-9, prior_skips=1e-9)
    patterns = Patterns.of(log(THREE))
    # At or above the last click, or in a list without any: a 1 + 1 + 1, b 1 + 1 + 1, c 0 + 1 + 1.
    alpha, onward = dcm.counted(settings, patterns)
    assert alpha == pytest.approx([0, 2 / 3, 1 / 2], abs=1e-8)
    # Clicks at 1: b, not the last; at 2: b, the last; at 3: c, the last; each with one success and failure added.
    assert onward == pytest.approx([2 / 3, 1 / 3, 1 / 3])
    alpha, sigma = sdbn.counted(settings, patterns)
    assert alpha == pytest.approx([0, 2 / 3, 1 / 2], abs=1e-8)
    assert sigma == pytest.approx([1 / 2, 2 / 4, 2 / 3])


def test_click_through_rates_are_counts() -> None:
    settings = ClickSettings(prior_clicks=1, prior_skips=1)
    predict = {name: clicks.fit(name, settings, log(THREE)).predict(log(THREE)).to_list() for name in BASELINES}
    assert predict["ctr_global"] == pytest.approx([4 / 11] * 9)
    assert predict["ctr_rank"] == pytest.approx([2 / 5] * 9)
    by_doc = {"a": 1 / 5, "b": 3 / 5, "c": 2 / 5}
    assert predict["ctr_pair"] == pytest.approx([by_doc[d] for one in THREE for d, _, _ in one])


def test_one_em_step_of_dbn_and_dcm_equals_enumerated_expectations() -> None:
    lists = random_lists(np.random.default_rng(3), 60)
    settings = ClickSettings(iterations=1, prior_clicks=1, prior_skips=4)
    shown, clicked = defaultdict(float), defaultdict(float)
    for doc, _, c in itertools.chain.from_iterable(lists):
        shown[doc] += 1
        clicked[doc] += c
    # The starts that the models document: shrunk click rates, one half, 0.9; and the paper's counts.
    alpha, onward = dcm.counted(settings, Patterns.of(log(lists)))
    rates, half = {d: (clicked[d] + 1) / (shown[d] + 5) for d in shown}, dict.fromkeys(shown, 0.5)
    starts = {
        "dbn": (rates, half, CHAINS["dbn"][1], 0.9),
        "dcm": (
            dict(zip("abcdef", alpha, strict=True)), dict.fromkeys(shown, 0.0),
            dict(zip(range(1, 7), onward, strict=True)), 1.0,
        ),
    }  # fmt: skip
    for name, start in starts.items():
        model = clicks.fit(name, settings, log(lists))
        assert isinstance(model, Chain)
        looked, pleased, on, asked = (defaultdict(float) for _ in range(4))
        went = could = 0.0
        for one in lists:
            seen = tuple(c for _, _, c in one)
            fitting = [w for w in worlds(one, *start) if clicks_of(w[1], w[2]) == seen]
            norm = sum(w[0] for w in fitting)
            for p, e, _, s in fitting:
                for k, (doc, position, c) in enumerate(one):
                    looked[doc] += p / norm * e[k]
                    pleased[doc] += p / norm * (c and s[k])
                    if k + 1 < len(one):
                        on[position] += p / norm * (c and not s[k])
                        asked[position] += p / norm * c
                    if k and position - one[k - 1][1] == 1:
                        ready = e[k - 1] and not (seen[k - 1] and s[k - 1])
                        could += p / norm * ready
                        went += p / norm * e[k]
        expected = [(clicked[d] + 1) / (looked[d] + 5) for d in "abcdef"]
        assert model.attractiveness(DOCS).to_list() == pytest.approx(expected)
        if name == "dbn":
            assert model.gamma == pytest.approx(went / could)
            expected = [(pleased[d] + 1) / (clicked[d] + 2) for d in "abcdef"]
            assert model.satisfaction(DOCS).to_list() == pytest.approx(expected)
        else:
            expected = [(on[p] + 1) / (asked[p] + 2) for p in range(1, 7)]
            assert model.onward.tolist() == pytest.approx(expected)


def test_pbm_reaches_the_optimum_that_a_numerical_optimiser_finds() -> None:
    rng = np.random.default_rng(1)
    chance = {"a": 0.8, "b": 0.4, "c": 0.2}
    seen = {1: 1.0, 2: 0.6, 3: 0.3}
    lists = [
        [(d, p, int(rng.random() < chance[d] * seen[p])) for p, d in enumerate(rng.permutation(list("abc")), 1)]
        for _ in range(400)
    ]
    impressions = log(lists)
    model = clicks.fit("pbm", ClickSettings(iterations=3_000, prior_clicks=1, prior_skips=2), impressions)
    pair = impressions["doc_id"].replace_strict({"a": 0, "b": 1, "c": 2}).to_numpy()
    place = impressions["position"].to_numpy() - 1
    clicked = impressions["clicked"].to_numpy()

    def cost(x: np.ndarray) -> float:
        alpha = 1 / (1 + np.exp(-x[:3]))
        gamma = np.append(1.0, 1 / (1 + np.exp(-x[3:])))
        p = alpha[pair] * gamma[place]
        prior = (np.log(alpha) + 2 * np.log(1 - alpha)).sum()
        return -float(np.log(np.where(clicked, p, 1 - p)).sum() + prior)

    best = minimize(cost, np.zeros(5), method="BFGS").x
    alpha = model.attractiveness(DOCS.head(3))
    assert alpha.to_list() == pytest.approx((1 / (1 + np.exp(-best[:3]))).tolist(), abs=1e-3)
    assert model.examination()["examination"].to_list() == pytest.approx(
        [1.0, *(1 / (1 + np.exp(-best[3:]))).tolist()], abs=1e-3
    )
    assert model.log_likelihood(impressions) == pytest.approx(
        -cost(best) - float((np.log(alpha) + 2 * np.log(1 - alpha)).sum()), abs=1e-2
    )


@pytest.mark.parametrize("name", MODELS)
def test_no_iteration_lowers_what_em_maximises(name: str) -> None:
    """The log-likelihood and the logarithm of the Beta priors."""
    rng = np.random.default_rng(4)
    lists = [
        [(str(d), p, int(rng.random() < 0.3)) for p, d in enumerate(rng.permutation(list("abcde")), 1)]
        for _ in range(200)
    ]
    impressions = log(lists)
    patterns = Patterns.of(impressions)
    series = []
    for k in range(1, 15):
        model: Any = clicks.fit(name, ClickSettings(iterations=k, prior_clicks=1, prior_skips=4), patterns)
        alpha = model.attractiveness(DOCS.head(5)).to_numpy()
        objective = model.log_likelihood(impressions) + (np.log(alpha) + 4 * np.log(1 - alpha)).sum()
        free = {
            "dbn": lambda m: m.sigma[:-1], "sdbn": lambda m: m.sigma[:-1], "dcm": lambda m: m.onward,
            "ubm": lambda m: m.gamma[np.tril_indices(5, 0, 6)][1:],
        }.get(name, lambda m: np.array([0.5]))(model)  # fmt: skip
        series.append(objective + (np.log(free) + np.log(1 - free)).sum())
    assert all(later >= earlier - 1e-9 for earlier, later in itertools.pairwise(series))
    if name != "cascade":  # closed form
        assert series[-1] > series[0] + 0.001


@pytest.mark.parametrize("name", KNOWN)
def test_row_order_and_extra_columns_do_not_matter(name: str) -> None:
    impressions = log(random_lists(np.random.default_rng(5), 100))
    shuffled = impressions.sample(fraction=1, shuffle=True, seed=1).with_columns(dwell=pl.lit(3.0))
    one, two = (clicks.fit(name, ClickSettings(), frame) for frame in (impressions, shuffled))
    assert one.attractiveness(DOCS).to_list() == two.attractiveness(DOCS).to_list()
    assert one.log_likelihood(impressions) == pytest.approx(two.log_likelihood(shuffled))
    assert one.examination().rows() == two.examination().rows()
    assert one.examination()["position"].to_list() == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("name", KNOWN)
def test_logs_without_clicks_with_nothing_else_and_of_single_rows_stay_finite(name: str) -> None:
    lists = [[("a", 1, 0), ("b", 2, 0), ("c", 3, 0)], [("a", 1, 1), ("b", 2, 1), ("c", 3, 1)], [("a", 7, 1)]]
    for one in lists:
        impressions = log([one] * 5)
        model = clicks.fit(name, ClickSettings(), impressions)
        alpha = model.attractiveness(impressions)
        assert alpha.is_finite().all()
        assert alpha.is_between(0, 1).all()
        found = perplexity(model, impressions)
        assert np.isfinite([found.overall, found.conditional, found.log_likelihood]).all()
        assert model.examination()["examination"].is_between(0, 1).all()


def test_perplexity_by_hand() -> None:
    class Fixed(PositionBased):
        """Says one half at the top and a quarter below; knowing what was clicked above, an eighth."""

        def predict(self, impressions: pl.DataFrame) -> pl.Series:
            return pl.Series([0.5 if p == 1 else 0.25 for p in impressions["position"]])

        def predict_conditional(self, impressions: pl.DataFrame) -> pl.Series:
            return pl.Series([0.5 if p == 1 else 0.125 for p in impressions["position"]])

    impressions = log([[("a", 1, 1), ("b", 2, 0)], [("a", 1, 0), ("b", 2, 1)]])
    known = clicks.fit("pbm", ClickSettings(), impressions)
    assert isinstance(known, PositionBased)
    result = perplexity(Fixed(**vars(known)), impressions)
    below, knowing = (0.75 * 0.25) ** -0.5, (0.875 * 0.125) ** -0.5
    assert result.per_rank["perplexity"].to_list() == pytest.approx([2.0, below])
    assert result.per_rank["conditional"].to_list() == pytest.approx([2.0, knowing])
    assert result.overall == pytest.approx((2.0 * below) ** 0.5)
    assert result.conditional == pytest.approx((2.0 * knowing) ** 0.5)
    assert result.log_likelihood == pytest.approx(np.log(0.25 * 0.875 * 0.125))
    assert result.per_rank["impressions"].to_list() == [2, 2]
    assert (result.at(2), result.at(5)) == (pytest.approx(below), None)


def test_unreadable_impressions_are_named() -> None:
    good = log([[("a", 1, 1)]])
    for bad, message in (
        (good.drop("ts"), "column 'ts' is absent"),
        (good.with_columns(ts=pl.lit(None, good["ts"].dtype)), "'ts' holds nulls"),
        (good.with_columns(clicked=pl.lit(None, pl.Boolean)), "'clicked' holds nulls"),
        (good.with_columns(doc_id=pl.lit(None, pl.String)), "'doc_id' holds nulls"),
        (good.with_columns(position=pl.lit(0)), "position is below 1"),
        (good.clear(), "no rows"),
    ):
        with pytest.raises(ValueError, match=message):
            clicks.fit("dbn", ClickSettings(), bad)
        with pytest.raises(ValueError, match=message):
            perplexity(given("dbn"), bad)
    with pytest.raises(ValueError, match="no click model 'cbm'; known are pbm"):
        clicks.fit("cbm", ClickSettings(), good)
