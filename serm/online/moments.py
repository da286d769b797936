"""From users' days to the sums that estimates need, at the end of every day of the test, in one pass.

Sums of squares of what users have gathered by a day are sums of increments: (N + n)^2 - N^2. So a look at every day
costs no more than one.
"""

import polars as pl

SUMS = ("n", "d", "nn", "nd", "dd", "x", "xx", "nx", "dx")  # of users: N, D, N^2, N D, D^2, X, X^2, N X, D X


def looks(days: pl.DataFrame, variants: pl.DataFrame, name: str, pre: pl.DataFrame | None) -> pl.DataFrame:
    """The sums of one metric at the end of each day: variant, day, units and SUMS, all cumulative.

    `days` has unit, day (0 and up), NAME:n and NAME:d, a row per unit and day; `variants` has unit and variant; `pre`
    has unit and x, the covariate from before the test (absent units: 0). Every variant has a row for every day.
    """
    own = days.select("unit", "day", n=pl.col(f"{name}:n").fill_null(0.0), d=pl.col(f"{name}:d").fill_null(0.0))
    rows = own.join(variants, on="unit").sort("unit", "day")
    rows = rows.with_columns(x=pl.lit(0.0)) if pre is None else _with_covariate(rows, pre)
    till = {c: pl.col(c).cum_sum().over("unit") for c in "nd"}
    rows = rows.with_columns(
        **{f"{c}1": total for c, total in till.items()},
        **{f"{c}0": total - pl.col(c) for c, total in till.items()},
        first=pl.col("unit").is_first_distinct(),
    )
    n, d, x, first = pl.col("n"), pl.col("d"), pl.col("x"), pl.col("first")
    gained = rows.group_by("variant", "day").agg(
        units=first.sum().cast(pl.Float64),
        n=n.sum(), d=d.sum(),
        nn=_gain("n", "n"), nd=_gain("n", "d"), dd=_gain("d", "d"),
        x=(x * first).sum(), xx=(x * x * first).sum(), nx=(n * x).sum(), dx=(d * x).sum(),
    )  # fmt: skip
    every = (
        rows.select("variant")
        .unique()
        .join(
            pl.DataFrame({"day": pl.int_range(_last(rows) + 1, dtype=pl.Int32, eager=True)}),
            how="cross",
        )
    )
    return (
        every.join(gained, on=["variant", "day"], how="left")
        .sort("variant", "day")
        .with_columns(pl.col("units", *SUMS).fill_null(0.0).cum_sum().over("variant"))
    )


def covariate(pre: pl.DataFrame, name: str) -> pl.DataFrame | None:
    """What each unit's days before the test say of the metric, N_i - R D_i with the pooled R: unit and x (centred).

    None if it says nothing: no such days, or the same for all.
    """
    n, d = (pl.col(f"{name}:{part}").fill_null(0.0) for part in "nd")
    found = pre.select("unit", x=n - n.sum() / d.sum() * d).fill_nan(0.0)
    return found if (found["x"] != 0).any() else None


def _with_covariate(rows: pl.DataFrame, pre: pl.DataFrame) -> pl.DataFrame:
    return rows.join(pre, on="unit", how="left", maintain_order="left").with_columns(pl.col("x").fill_null(0.0))


def _gain(a: str, b: str) -> pl.Expr:
    return (pl.col(f"{a}1") * pl.col(f"{b}1") - pl.col(f"{a}0") * pl.col(f"{b}0")).sum()


def _last(rows: pl.DataFrame) -> int:
    return int(rows.select(pl.col("day").max().fill_null(0)).item())
