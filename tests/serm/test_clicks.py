"""Click models: against enumeration of what users might have done, numerical optimisation, and simulated users."""

import itertools
import time
from collections import defaultdict

import numpy as np
import polars as pl
import pytest
from scipy.optimize import minimize

from serm.clicks import ClickModel, dbn, fit, pbm, perplexity
from serm.clicks.dbn import DynamicBayesian
from serm.config import ClickSettings, SimulateSettings
from serm.simulate import stream

SCALE = [0, 1, 2, 3]
WEAK = {"prior_clicks": 0.01, "prior_skips": 0.01}


def log(lists: list[list[tuple[str, int, int]]]) -> pl.DataFrame:
    """A log from lists of (document, position, clicked), all for one query."""
    rows = [(f"s{i}", "q", doc, position, bool(c)) for i, one in enumerate(lists) for doc, position, c in one]
    frame = pl.DataFrame(rows, schema=["session", "query", "doc_id", "position", "clicked"], orient="row")
    return frame.with_columns(ts=pl.lit(0).cast(pl.Datetime("us", "UTC")))


def simulated(user: str, sessions: int, queries: int = 60) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Impressions of honest users and the judged pairs with their true attractiveness."""
    rng = np.random.default_rng(0)
    names = [(f"q{i:03}", f"d{k:02}") for i in range(queries) for k in range(12)]
    pairs = pl.DataFrame(names, schema=["query", "doc_id"], orient="row").with_columns(
        grade=pl.Series(rng.integers(0, 4, len(names)), dtype=pl.Int32)
    )
    settings = SimulateSettings(sessions=sessions, user=user, bots=0, zipf=0)
    impressions, _ = stream(pairs, None, None, settings, SCALE, 0)
    return impressions, pairs.with_columns(truth=0.05 + 0.8 * pl.col("grade") / 3)


def random_lists(rng: np.random.Generator, n: int) -> list[list[tuple[str, int, int]]]:
    """Lists with gaps, missing tops and different lengths."""
    lists = []
    for _ in range(n):
        places = sorted(rng.choice(np.arange(1, 7), size=rng.integers(1, 5), replace=False).tolist())
        docs = rng.choice(list("abcdef"), size=len(places), replace=False)
        lists.append([(str(d), p, int(rng.random() < 0.35)) for d, p in zip(docs, places, strict=True)])
    return lists


# --- position-based ---------------------------------------------------------------------------------------------


def test_with_one_position_attractiveness_is_the_shrunk_click_rate() -> None:
    impressions = log([[("a", 1, 1)], [("a", 1, 0)], [("a", 1, 1)], [("b", 1, 0)]])
    model = fit(ClickSettings(model="pbm", prior_clicks=2, prior_skips=6), impressions)
    asked = pl.DataFrame({"query": ["q", "q", "q", "other"], "doc_id": ["b", "a", "never", "a"]})
    assert model.attractiveness(asked).to_list() == pytest.approx([2 / 9, 4 / 11, 2 / 8, 2 / 8])


def test_pbm_reaches_the_optimum_that_a_numerical_optimiser_finds() -> None:
    rng = np.random.default_rng(1)
    chance = {"a": 0.8, "b": 0.4, "c": 0.2}
    seen = {1: 1.0, 2: 0.6, 3: 0.3}
    lists = [
        [(d, p, int(rng.random() < chance[d] * seen[p])) for p, d in enumerate(rng.permutation(list("abc")), 1)]
        for _ in range(400)
    ]
    impressions = log(lists)
    model = fit(ClickSettings(model="pbm", iterations=3_000, prior_clicks=1, prior_skips=2), impressions)
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
    alpha = model.attractiveness(pl.DataFrame({"query": ["q"] * 3, "doc_id": list("abc")}))
    assert alpha.to_list() == pytest.approx((1 / (1 + np.exp(-best[:3]))).tolist(), abs=1e-3)
    assert model.examination()["examination"].to_list() == pytest.approx(
        [1.0, *(1 / (1 + np.exp(-best[3:]))).tolist()], abs=1e-3
    )
    assert model.log_likelihood(impressions) == pytest.approx(
        -cost(best) - float((np.log(alpha) + 2 * np.log(1 - alpha)).sum()), abs=1e-2
    )


def test_pbm_recovers_simulated_users() -> None:
    impressions, pairs = simulated("pbm", 30_000)
    model = fit(ClickSettings(model="pbm", iterations=200, **WEAK), impressions)
    assert model.examination()["examination"].to_list() == pytest.approx([1 / r for r in range(1, 11)], abs=0.03)
    error = model.attractiveness(pairs).to_numpy() - pairs["truth"].to_numpy()
    assert np.sqrt(np.mean(error**2)) < 0.05  # about 400 showings per pair, examined 29% of the time


def test_pbm_carries_a_position_it_never_saw_to_the_one_above() -> None:
    impressions = log([[("a", 1, 1), ("b", 3, 0)], [("b", 1, 1), ("a", 3, 1)], [("a", 1, 0), ("b", 3, 0)]])
    model = fit(ClickSettings(model="pbm"), impressions)
    elsewhere = log([[("a", 1, 0)], [("a", 2, 0)], [("a", 3, 0)], [("a", 99, 0)]])
    top, second, third, far = model.predict(elsewhere)
    assert top == second
    assert third == far < top


# --- dynamic Bayesian network -----------------------------------------------------------------------------------


def worlds(one: list[tuple[str, int, int]], alpha: dict, sigma: dict, gamma: float) -> list[tuple]:
    """All that a user may have done on a list: (probability, clicks, examined, satisfied, opportunity, onward)."""
    found = []
    for examined, attracted, satisfied in itertools.product(itertools.product((0, 1), repeat=len(one)), repeat=3):
        probability, above, before = 1.0, True, 0
        for (doc, position, _), e, a, s in zip(one, examined, attracted, satisfied, strict=True):
            gap = position - before if before else position - 1
            go = gamma**gap if above else 0.0
            probability *= go if e else 1 - go
            probability *= alpha[doc] if a else 1 - alpha[doc]
            probability *= sigma[doc] if s else 1 - sigma[doc]
            above, before = bool(e and not (a and s)), position
        if probability:
            found.append((probability, examined, attracted, satisfied))
    return found


def clicks_of(examined: tuple, attracted: tuple) -> tuple:
    return tuple(e & a for e, a in zip(examined, attracted, strict=True))


def as_model(impressions: pl.DataFrame, alpha: dict, sigma: dict, gamma: float) -> DynamicBayesian:
    """A model with given parameters."""
    fitted = dbn.fit(ClickSettings(iterations=1), impressions)
    docs = fitted.pairs.table["doc_id"].to_list()
    return DynamicBayesian(
        fitted.pairs,
        np.array([alpha[d] for d in docs] + [0.2]),
        np.array([sigma[d] for d in docs] + [0.5]),
        gamma,
        fitted.seen,
    )


ALPHA = dict(zip("abcdef", (0.1, 0.3, 0.5, 0.7, 0.9, 0.4), strict=True))
SIGMA = dict(zip("abcdef", (0.6, 0.2, 0.8, 0.3, 0.5, 0.9), strict=True))


def test_dbn_likelihood_and_forecast_equal_enumeration_of_all_hidden_states() -> None:
    lists = random_lists(np.random.default_rng(2), 40)
    impressions = log(lists).sample(fraction=1, shuffle=True, seed=0)
    model = as_model(impressions, ALPHA, SIGMA, 0.7)
    total, forecast = 0.0, {}
    for i, one in enumerate(lists):
        possible = worlds(one, ALPHA, SIGMA, 0.7)
        assert sum(w[0] for w in possible) == pytest.approx(1)
        seen = tuple(c for _, _, c in one)
        total += np.log(sum(p for p, e, a, _ in possible if clicks_of(e, a) == seen))
        for k, (doc, _, _) in enumerate(one):
            forecast[f"s{i}", doc] = sum(p for p, e, a, _ in possible if clicks_of(e, a)[k])
    assert model.log_likelihood(impressions) == pytest.approx(total)
    expected = [forecast[s, d] for s, d in impressions.select("session", "doc_id").iter_rows()]
    assert model.predict(impressions).to_list() == pytest.approx(expected)


def test_one_em_step_of_the_dbn_equals_enumerated_expectations() -> None:
    lists = random_lists(np.random.default_rng(3), 60)
    impressions = log(lists)
    settings = ClickSettings(iterations=1, prior_clicks=1, prior_skips=4)
    model = dbn.fit(settings, impressions)
    # The start that the fit documents: shrunk click rates, one half, 0.9.
    shown, clicks = defaultdict(float), defaultdict(float)
    for one in lists:
        for doc, _, c in one:
            shown[doc] += 1
            clicks[doc] += c
    alpha = {d: (clicks[d] + 1) / (shown[d] + 5) for d in shown}
    sigma = dict.fromkeys(shown, 0.5)
    looked, pleased = defaultdict(float), defaultdict(float)
    onward = could = 0.0
    for one in lists:
        seen = tuple(c for _, _, c in one)
        fitting = [w for w in worlds(one, alpha, sigma, 0.9) if clicks_of(w[1], w[2]) == seen]
        norm = sum(w[0] for w in fitting)
        for p, e, _, s in fitting:
            for k, (doc, position, c) in enumerate(one):
                looked[doc] += p / norm * e[k]
                pleased[doc] += p / norm * (c and s[k])
                if k and position - one[k - 1][1] == 1:
                    ready = e[k - 1] and not (seen[k - 1] and s[k - 1])
                    could += p / norm * ready
                    onward += p / norm * e[k]
    asked = pl.DataFrame({"query": ["q"] * 6, "doc_id": list("abcdef")})
    expected = [(clicks[d] + 1) / (looked[d] + 5) for d in "abcdef"]
    assert model.attractiveness(asked).to_list() == pytest.approx(expected)
    expected = [(pleased[d] + 1) / (clicks[d] + 2) for d in "abcdef"]
    assert model.satisfaction(asked).to_list() == pytest.approx(expected)
    assert model.gamma == pytest.approx(onward / could)


def test_dbn_recovers_simulated_users() -> None:
    impressions, pairs = simulated("dbn", 30_000)
    model = dbn.fit(ClickSettings(iterations=50, **WEAK), impressions)
    assert model.gamma == pytest.approx(0.9, abs=0.01)
    shown = impressions.group_by("query", "doc_id").len()
    enough = pairs.join(shown, on=["query", "doc_id"]).filter(pl.col("len") > 200)
    error = model.attractiveness(enough).to_numpy() - enough["truth"].to_numpy()
    assert np.sqrt(np.mean(error**2)) < 0.05
    liked = enough.filter(pl.col("grade") > 0)
    error = model.satisfaction(liked).to_numpy() - (0.1 + 0.7 * liked["grade"].to_numpy() / 3)
    assert abs(error.mean()) < 0.02
    raw = enough.join(
        impressions.group_by("query", "doc_id").agg(rate=pl.col("clicked").mean()), on=["query", "doc_id"]
    )
    naive = raw["rate"].to_numpy() - raw["truth"].to_numpy()
    assert np.sqrt(np.mean(naive**2)) > 0.2  # what the click rate alone would say


def test_a_gap_is_crossed_and_a_missing_top_is_no_certainty() -> None:
    impressions = log([[("a", 1, 0), ("b", 4, 1)], [("b", 4, 0)], [("c", 1, 0)]])
    model = as_model(impressions, ALPHA, SIGMA, 0.5)
    # By hand: position 4 is three steps below position 1, in the first list past an `a` that may have been clicked.
    past_a = 1 - 0.1 * 0.6
    expected = [0.1, past_a * 0.5**3 * 0.3, 0.5**3 * 0.3, 0.5]
    assert model.predict(impressions).to_list() == pytest.approx(expected)


# --- both --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["pbm", "dbn"])
def test_no_iteration_lowers_what_em_maximises(name: str) -> None:
    rng = np.random.default_rng(4)
    lists = [
        [(str(d), p, int(rng.random() < 0.3)) for p, d in enumerate(rng.permutation(list("abcde")), 1)]
        for _ in range(200)
    ]
    impressions = log(lists)
    series = []
    for k in range(1, 15):
        model = fit(ClickSettings(model=name, iterations=k, prior_clicks=1, prior_skips=4), impressions)
        alpha = model.attractiveness(pl.DataFrame({"query": ["q"] * 5, "doc_id": list("abcde")})).to_numpy()
        objective = model.log_likelihood(impressions) + (np.log(alpha) + 4 * np.log(1 - alpha)).sum()
        if isinstance(model, DynamicBayesian):
            sigma = model.sigma[:-1]
            objective += (np.log(sigma) + np.log(1 - sigma)).sum()
        series.append(objective)
    assert all(later >= earlier - 1e-9 for earlier, later in itertools.pairwise(series))
    assert series[-1] > series[0] + 0.001


@pytest.mark.parametrize("user", ["pbm", "dbn"])
def test_the_true_family_foretells_fresh_clicks_better(user: str) -> None:
    impressions, _ = simulated(user, 12_000)
    middle = impressions["ts"].median()
    old, new = impressions.filter(pl.col("ts") < middle), impressions.filter(pl.col("ts") >= middle)
    other = "dbn" if user == "pbm" else "pbm"
    true, false = (fit(ClickSettings(model=name), old) for name in (user, other))
    assert perplexity(true, new).overall < perplexity(false, new).overall - 0.005
    assert true.log_likelihood(new) > false.log_likelihood(new)


def test_perplexity_by_hand() -> None:
    class Fixed(pbm.PositionBased):
        """Says one half at the top and a quarter below."""

        def predict(self, impressions: pl.DataFrame) -> pl.Series:
            return pl.Series([0.5 if p == 1 else 0.25 for p in impressions["position"]])

    impressions = log([[("a", 1, 1), ("b", 2, 0)], [("a", 1, 0), ("b", 2, 1)]])
    known = pbm.fit(ClickSettings(), impressions)
    model: ClickModel = Fixed(known.pairs, known.alpha, known.positions, known.gamma)
    result = perplexity(model, impressions)
    below = (0.75 * 0.25) ** -0.5
    assert result.per_rank["perplexity"].to_list() == pytest.approx([2.0, below])
    assert result.overall == pytest.approx((2.0 * below) ** 0.5)
    assert result.per_rank["impressions"].to_list() == [2, 2]


@pytest.mark.parametrize("name", ["pbm", "dbn"])
def test_row_order_and_extra_columns_do_not_matter(name: str) -> None:
    impressions = log(random_lists(np.random.default_rng(5), 100))
    shuffled = impressions.sample(fraction=1, shuffle=True, seed=1).with_columns(dwell=pl.lit(3.0))
    one, two = (fit(ClickSettings(model=name), frame) for frame in (impressions, shuffled))
    asked = pl.DataFrame({"query": ["q"] * 6, "doc_id": list("abcdef")})
    assert one.attractiveness(asked).to_list() == pytest.approx(two.attractiveness(asked).to_list())
    assert one.log_likelihood(impressions) == pytest.approx(two.log_likelihood(shuffled))
    assert one.examination()["position"].to_list() == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("name", ["pbm", "dbn"])
def test_logs_without_clicks_or_with_nothing_else_stay_finite(name: str) -> None:
    for clicked in (0, 1):
        impressions = log([[("a", 1, clicked), ("b", 2, clicked), ("c", 3, clicked)]] * 5)
        model = fit(ClickSettings(model=name), impressions)
        alpha = model.attractiveness(impressions)
        assert alpha.is_finite().all()
        assert alpha.is_between(0, 1).all()
        assert np.isfinite(model.log_likelihood(impressions))
        assert np.isfinite(perplexity(model, impressions).overall)


def test_unreadable_impressions_are_named() -> None:
    good = log([[("a", 1, 1)]])
    for bad, message in (
        (good.drop("ts"), "column 'ts' is absent"),
        (good.with_columns(clicked=pl.lit(None, pl.Boolean)), "'clicked' holds nulls"),
        (good.with_columns(position=pl.lit(0)), "position is below 1"),
        (good.clear(), "no rows"),
    ):
        with pytest.raises(ValueError, match=message):
            fit(ClickSettings(), bad)


@pytest.mark.parametrize("name", ["pbm", "dbn"])
def test_a_million_impressions_take_seconds(name: str) -> None:
    rng = np.random.default_rng(0)
    n = 100_000
    query = np.repeat(rng.zipf(1.3, n) % 20_000, 10)
    frame = pl.DataFrame(
        {
            "session": np.repeat(np.arange(n), 10),
            "query": query,
            "doc_id": query * 10 + np.tile(np.arange(10), n),
            "position": np.tile(np.arange(1, 11), n),
            "clicked": rng.random(n * 10) < 0.1,
        }
    ).with_columns(pl.col("session", "query", "doc_id").cast(pl.String), ts=pl.lit(0).cast(pl.Datetime("us", "UTC")))
    began = time.perf_counter()
    fit(ClickSettings(model=name), frame)
    assert time.perf_counter() - began < 20
