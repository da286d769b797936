"""What the click agent reads: estimates of pairs from a whole window, one lazy plan, whatever was sampled."""

import numpy as np
import polars as pl
import pytest
from scipy.optimize import minimize_scalar
from scipy.stats import spearmanr

from serm import clicks
from serm.clicks import MODELS, evidence
from serm.clicks.chain import Chain
from serm.clicks.users import World
from serm.config import ClickSettings
from serm.mining.attraction import attractiveness

WORLD = World.of(queries=60, documents=12, zipf=0, seed=0)
KEY = ["query", "doc_id"]


def unread(log: pl.DataFrame) -> pl.LazyFrame:
    """The log as impressions without dwell times."""
    return log.with_columns(dwell=pl.lit(None, pl.Float64)).lazy()


@pytest.mark.parametrize("name", MODELS)
def test_the_plan_finds_the_optimum_of_the_likelihood_that_it_states(name: str) -> None:
    """Each pair alone, h row by row from the model, by an optimiser: at most 0.02 apart in the mean, and 0.06."""
    log = WORLD.log(name, 4_000, seed=0)
    settings = ClickSettings()
    model = clicks.fit(name, settings, log)
    pairs = WORLD.pairs().sample(40, seed=0)
    found = evidence.estimate(model, log, log.lazy(), pairs, settings)
    rows = log.with_columns(model.examined(log))

    def best(query: str, doc_id: str) -> float:
        own = rows.filter(query=query, doc_id=doc_id)
        clicked, h = own["clicked"].to_numpy(), own["examined"].to_numpy()

        def cost(alpha: float) -> float:
            prior = settings.prior_clicks * np.log(alpha) + settings.prior_skips * np.log(1 - alpha)
            return -float(clicked.sum() * np.log(alpha) + np.log(1 - alpha * h[~clicked]).sum() + prior)

        return float(minimize_scalar(cost, bounds=(1e-6, 1 - 1e-6), method="bounded").x)

    apart = np.abs(found.to_numpy() - [best(*row) for row in pairs.select(KEY).iter_rows()])
    # The price of the table's means, of which there is none where h follows from position and last click.
    mean, most = (0.02, 0.06) if isinstance(model, Chain) else (0.005, 0.02)
    assert apart.mean() < mean
    assert apart.max() < most


def test_the_table_of_examination_by_hand() -> None:
    """Two lists of three: h of skips by place, last click above, and click below."""
    rows = [("s1", 1, False), ("s1", 2, True), ("s1", 3, False), ("s2", 1, False), ("s2", 2, False), ("s2", 3, False)]
    log = pl.DataFrame(rows, schema=["session", "position", "clicked"], orient="row").with_columns(
        query=pl.lit("q"), doc_id=pl.format("d{}", "position"), ts=pl.lit(0).cast(pl.Datetime("us", "UTC"))
    )
    model = clicks.fit("dbn", ClickSettings(), log)
    h = log.with_columns(model.examined(log)).sort("session", "position")["examined"].to_list()
    table = evidence.examination_table(model, log)
    assert table.height == 64 * 65 * 2

    def level(place: int, last: int, below: bool) -> float:
        return float(np.exp(table.filter(place=place, last=last, below=below)["level"].item() / evidence.STEPS))

    step = 1 / evidence.STEPS
    assert level(1, 0, True) == h[0] == 1.0
    assert level(3, 2, False) == pytest.approx(h[2], rel=step)
    assert level(2, 0, False) == pytest.approx(h[4], rel=step)
    assert level(2, 1, False) == level(2, 0, False)  # not in the sample: the mean at its place
    assert level(60, 0, False) == pytest.approx((h[2] + h[5]) / 2, rel=step)  # nor any so deep: the place above


def test_lists_are_read_by_their_masks_down_to_the_64th_place() -> None:
    """Against a plain loop over random lists with gaps, in which what is above and below decides the level."""
    rng = np.random.default_rng(0)
    rows = []
    for i in range(200):
        places = np.sort(rng.choice(np.arange(1, 65), 6, replace=False))
        rows += [(f"s{i}", "q", f"d{rng.integers(9)}", int(p), bool(rng.random() < 0.3)) for p in places]
    log = pl.DataFrame(rows, schema=["session", "query", "doc_id", "position", "clicked"], orient="row").with_columns(
        ts=pl.lit(0).cast(pl.Datetime("us", "UTC"))
    )
    places, lasts, below = np.meshgrid(np.arange(1, 65), np.arange(65), [False, True], indexing="ij")
    table = pl.DataFrame({"place": places.ravel(), "last": lasts.ravel(), "below": below.ravel()}).with_columns(
        pl.col("place", "last").cast(pl.UInt8),
        level=pl.Series((-(places * 1_000 + lasts * 10 + below) % 30_011).ravel(), dtype=pl.Int16),
    )
    expected: dict[tuple, list[int]] = {}
    for _, one in pl.DataFrame(rows, schema=log.columns[:5], orient="row").group_by("session"):
        for _, _, doc, position, clicked in one.rows():
            others = one.filter(pl.col("clicked"))["position"].to_list()
            last = max((p for p in others if p < position), default=0)
            level = -(position * 1_000 + last * 10 + any(p > position for p in others)) % 30_011
            cell = expected.setdefault((doc, level), [0, 0])
            cell[0 if clicked else 1] += 1
    asked = pl.DataFrame({"query": ["q"] * 8, "doc_id": [f"d{k}" for k in range(8)]})
    found = evidence.folded(log.lazy(), asked, table).collect(engine="streaming")
    got = {(doc, level): [c, s] for _, doc, level, c, s in found.iter_rows()}
    assert got == {cell: counts for cell, counts in expected.items() if cell[0] != "d8"}


@pytest.mark.parametrize("user", ["pbm", "dbn"])
def test_fitted_on_a_sample_it_ranks_pairs_as_well_as_the_model_that_saw_all(user: str) -> None:
    """Spearman's correlation with the truth within 0.02 of expectation-maximisation on every row; above click rates."""
    log, pairs = WORLD.log(user, 4_000, seed=0, noise=10.0), WORLD.pairs()
    full = spearmanr(clicks.fit(user, ClickSettings(), log).attractiveness(pairs), pairs["alpha"]).statistic
    rate = pairs.join(log.group_by(KEY).agg(pl.col("clicked").mean()), on=KEY, how="left")
    raw = spearmanr(rate["clicked"].fill_null(0), rate["alpha"]).statistic
    for sessions in (200_000, 2_000):
        found = attractiveness(unread(log), pairs, ClickSettings(model=user, sessions=sessions), 30.0)
        assert spearmanr(found, pairs["alpha"]).statistic > max(full - 0.02, raw)


def test_one_click_proves_nothing_and_unseen_pairs_have_the_prior() -> None:
    log = WORLD.log("dbn", 1_000, seed=0)
    lone = log.head(1).with_columns(
        doc_id=pl.lit("lone"), session=pl.lit("x"), clicked=True, position=pl.lit(10, pl.Int32)
    )
    pairs = pl.DataFrame({"query": [lone["query"].item(), "never"], "doc_id": ["lone", "shown"]})
    for name in ("auto", *MODELS):
        found = attractiveness(unread(pl.concat([log, lone])), pairs, ClickSettings(model=name), 30.0).to_list()  # type: ignore[arg-type]
        assert found == pytest.approx([2 / 6, 1 / 5])  # (1 click + 1) / (1 look + 5), wherever it stood


def test_order_of_rows_and_of_pairs_does_not_matter() -> None:
    log, pairs = WORLD.log("dbn", 1_000, seed=0), WORLD.pairs().select(KEY)
    one = attractiveness(unread(log), pairs, ClickSettings(), 30.0)
    back = attractiveness(unread(log.reverse()), pairs.reverse(), ClickSettings(), 30.0)
    assert one.to_list() == back.reverse().to_list()


def test_a_click_that_was_left_soon_is_a_skip() -> None:
    log, pairs = WORLD.log("dbn", 1_000, seed=0), WORLD.pairs().select(KEY)
    left = log.with_columns(dwell=pl.when("clicked").then(14.9)).lazy()
    read = log.with_columns(dwell=pl.when("clicked").then(15.0)).lazy()
    assert attractiveness(left, pairs, ClickSettings(), 30.0).max() <= 0.2  # type: ignore[operator]
    assert attractiveness(read, pairs, ClickSettings(), 30.0).equals(
        attractiveness(unread(log), pairs, ClickSettings(), 30.0)
    )
