"""What a whole window says about chosen pairs, under a model that was fitted on a sample of it (ours).

A row that was clicked was examined; one that was not is a skip only as far as it was examined. With
h = P(examined | the other clicks of its list), a pair's alpha has likelihood alpha ** clicks * product over skips of
(1 - alpha * h): exact, if the parameters of all other pairs are given. h is read from a table by position, last click
above and whether there is a click below: means over the sample. So two lazy plans fold the window into clicks, and
skips by level of h, per pair; they hold a 64-bit mask of positions for every list with clicks, and no list as such.

Measured on simulated users (benchmarks/click_models.py): as good as the model's own estimate where that has seen every
row, and better than clicks over expected examination (COEC), which counts an examination that a click proves as a
fraction.
"""

import numpy as np
import polars as pl

from serm.clicks.lists import Lists
from serm.clicks.model import SMALLEST, ClickModel, Floats
from serm.config import ClickSettings

DEPTH = 64  # positions told apart: a bit each
STEPS = 8  # levels of h for every factor of e
LEAST = 1e-4  # an h below this counts as this
ROUNDS = 50
PAIR = ["query", "doc_id"]
PLACE = ["place", "last", "below"]


def estimate(
    model: ClickModel, sample: pl.DataFrame, log: pl.LazyFrame, pairs: pl.DataFrame, settings: ClickSettings
) -> pl.Series:
    """P(click | examined) of each row of `pairs` (query, doc_id) from all of `log`, shrunk by the Beta prior.

    A pair that the log does not show has the prior's mean.

    Args:
        model: fitted on `sample`.
        sample: [ts, session, query, doc_id, position, clicked], rows of whole lists.
        log: the same columns; read once for its clicks and once for the rows of `pairs`.
        pairs: whose attractiveness is asked for.
        settings: the prior.
    """
    counted = folded(log, pairs, examination_table(model, sample)).collect(engine="streaming")
    asked = pairs.select(PAIR).unique().sort(PAIR).with_row_index("pair")
    cells = counted.join(asked, on=PAIR).sort("pair", "level")
    prior = (settings.prior_clicks, settings.prior_skips)
    alpha = _climb(cells, asked.height, prior)
    return (
        pairs.select(PAIR)
        .join(asked.with_columns(attractiveness=alpha), on=PAIR, how="left", maintain_order="left")
        .get_column("attractiveness")
    )


def examination_table(model: ClickModel, sample: pl.DataFrame) -> pl.DataFrame:
    """[place, last, below, level]: the mean of h over skips of the sample, as a level, for every combination.

    One that the sample lacks takes the mean at its place with or without a click below, or that of the place above.
    """
    lists = Lists.of(sample, np.zeros(sample.height, dtype=np.int64))
    rows = pl.DataFrame(
        {
            "place": np.minimum(lists.position, DEPTH),
            "last": np.minimum(lists.last_click(), DEPTH),
            "below": lists.clicked_below(),
            "clicked": lists.clicked,
            "h": model.examined(sample).to_numpy()[lists.order],
        }
    ).filter(~pl.col("clicked"))
    mean = pl.col("h").mean().round(9)  # so that the order of rows cannot move a level
    grid = pl.DataFrame({"place": np.arange(1, DEPTH + 1)}).join(
        pl.DataFrame({"last": np.arange(DEPTH + 1)}).join(pl.DataFrame({"below": [False, True]}), how="cross"),
        how="cross",
    )
    at_place = (
        grid.select("place", "below")
        .unique()
        .sort("place")
        .join(rows.group_by("place", "below").agg(near=mean), on=["place", "below"], how="left", maintain_order="left")
        .with_columns(pl.col("near").forward_fill().over("below", order_by="place").fill_null(1.0))
    )
    h = pl.coalesce("h", "near").clip(LEAST, 1.0)
    return (
        grid.join(rows.group_by(PLACE).agg(mean), on=PLACE, how="left")
        .join(at_place, on=["place", "below"])
        .select(pl.col("place", "last").cast(pl.UInt8), "below", level=(h.log() * STEPS).round().cast(pl.Int16))
    )


def folded(log: pl.LazyFrame, pairs: pl.DataFrame, table: pl.DataFrame) -> pl.LazyFrame:
    """[query, doc_id, level, clicks, skips] of the log's rows with these pairs, lazily.

    The masks of lists with clicks are collected first, 16 bytes a list: as one plan, Polars would keep all rows of the
    log for the two that read them.
    """
    lists = pl.col("session").hash(0) ^ pl.col("query").hash(1) ^ pl.col("ts").hash(2)
    place = pl.col("position").clip(1, DEPTH).cast(pl.UInt8)
    rows = log.select(*PAIR, "clicked", lists.alias("list"), place.alias("place"))
    bit = pl.lit(2, pl.UInt64).pow(pl.col("place") - 1)
    clicked = rows.filter("clicked").select("list", mask=bit)
    masks = clicked.group_by("list").agg(pl.col("mask").bitwise_or()).collect(engine="streaming")
    above = pl.col("mask") & (pl.col("here") - 1)
    return (
        rows.join(pairs.lazy().select(PAIR).unique(), on=PAIR, how="semi")
        .join(masks.lazy(), on="list", how="left")
        .with_columns(pl.col("mask").fill_null(0), here=bit)
        .with_columns(
            last=(64 - above.bitwise_leading_zeros()).cast(pl.UInt8),
            below=pl.col("mask") > pl.col("here") + (pl.col("here") - 1),
        )
        .join(table.lazy(), on=PLACE, how="left")
        .group_by(*PAIR, "level")
        .agg(clicks=pl.col("clicked").sum(), skips=(~pl.col("clicked")).sum())
    )


def _climb(cells: pl.DataFrame, size: int, prior: tuple[float, float]) -> Floats:
    """Expectation-maximisation of every pair's alpha, with h given; shape (size,)."""
    pair, skips = cells["pair"].to_numpy(), cells["skips"].to_numpy().astype(float)
    h = np.exp(cells["level"].to_numpy() / STEPS)
    clicks = np.bincount(pair, cells["clicks"].to_numpy(), size)
    alpha = np.full(size, prior[0] / sum(prior))
    for _ in range(ROUNDS):
        a = alpha[pair]
        examined = clicks + np.bincount(pair, skips * h * (1 - a) / np.maximum(1 - h * a, SMALLEST), size)
        alpha = (clicks + prior[0]) / (examined + sum(prior))
    return alpha
