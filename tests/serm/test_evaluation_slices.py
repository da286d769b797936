"""Slices of judged queries against counting by hand, and measures by slice against means of the queries in it."""

import numpy as np
import polars as pl
import pytest

from serm.config import EvaluationSettings
from serm.evaluation.slices import ALL, UNKNOWN, Slice, build, eras, measure

SETTINGS = EvaluationSettings(resamples=300, slice_minimum=3)


def queries(rows: list[tuple[str, str | None, str | None, float | None]]) -> pl.DataFrame:
    schema = {"query": pl.String, "locale": pl.String, "band": pl.String, "dated": pl.Float64}
    frame = pl.DataFrame(rows, schema=schema, orient="row")
    return frame.with_columns(date_label=pl.col("dated").cast(pl.Int64).cast(pl.String))


def test_locales_go_to_their_families_and_a_user_may_change_them() -> None:
    frame = queries(
        [("a", "pt-BR", None, None), ("b", "DE", None, None), ("c", "ja", None, None), ("d", None, None, None),
         ("e", "en_US", None, None)]
    )  # fmt: skip
    members = build(frame, SETTINGS).members.filter(dimension="family")
    assert dict(members.select("query", "value").rows()) == {
        "a": "Romance", "b": "Germanic", "c": "other", "d": UNKNOWN, "e": "Germanic",
    }  # fmt: skip
    own = SETTINGS.model_copy(update={"families": {"Japonic": ["ja"]}})
    changed = dict(build(frame, own).members.filter(dimension="family").select("query", "value").rows())
    assert changed == {"a": "other", "b": "other", "c": "Japonic", "d": UNKNOWN, "e": "other"}
    with pytest.raises(ValueError, match="'ja' is in two families"):
        EvaluationSettings(families={"one": ["ja"], "two": ["JA"]})


def test_eras_hold_equally_many_queries_in_order_and_one_date_stays_together() -> None:
    rows = [(f"q{i:02}", None, None, float(2000 + i)) for i in range(12)]
    found = eras(queries([*rows, ("undated", None, None, None)]), 3)
    values = dict(found.rows())
    assert [values[f"q{i:02}"] for i in (0, 3, 4, 7, 8, 11)] == [
        "2000 to 2003", "2000 to 2003", "2004 to 2007", "2004 to 2007", "2008 to 2011", "2008 to 2011",
    ]  # fmt: skip
    assert values["undated"] is None
    same = dict(eras(queries([(f"q{i}", None, None, float(min(i, 4))) for i in range(9)]), 3).rows())
    assert {same[f"q{i}"] for i in range(4, 9)} == {"3 to 4"}  # 3 begins the second third, and 4 may not be split


def test_a_dimension_that_nothing_is_known_of_is_named_and_left_out() -> None:
    found = build(queries([("a", None, None, None), ("b", None, None, None)]), SETTINGS)
    assert found.order == [Slice(ALL, ALL)]
    assert [note.split(":")[0] for note in found.notes] == ["by locale", "by family", "by traffic", "by era"]
    assert "evaluation.era" in found.notes[3]


def test_figures_of_a_slice_are_the_mean_of_its_queries() -> None:
    rng = np.random.default_rng(1)
    names = [f"q{i:02}" for i in range(40)]
    locales = rng.choice(["de", "fr"], 40).tolist()
    where = rng.choice(["head", "torso"], 40).tolist()
    values = rng.uniform(size=40)
    slices = build(queries([(n, lo, b, None) for n, lo, b in zip(names, locales, where, strict=True)]), SETTINGS)
    figures = measure("fresh", pl.DataFrame({"query": names, "RR": values}), slices, ["RR"], SETTINGS, 0)
    found = {(figure.dimension, figure.value): figure for figure in figures}
    for (dimension, value), column in {("locale", "de"): locales, ("family", "Romance"): locales,
                                       ("traffic", "torso"): where}.items():  # fmt: skip
        word = {"Romance": "fr"}.get(value, value)
        own = values[[each == word for each in column]]
        figure = found[dimension, value]
        assert figure.queries == len(own)
        assert figure.interval is not None
        assert figure.interval.mean == pytest.approx(own.mean())
        assert figure.interval.low < own.mean() < figure.interval.high
    assert found[ALL, ALL].queries == 40
    assert sum(found["locale", value].queries for value in ("de", "fr")) == 40


def test_a_slice_with_nothing_too_little_or_no_numbers_says_so() -> None:
    names = [f"q{i}" for i in range(6)]
    frame = queries([(n, "de" if i < 2 else "fr", "head", None) for i, n in enumerate(names)])
    values = pl.DataFrame({"query": names, "RR": [0.5, 0.5, 1.0, float("nan"), 1.0, 1.0]})
    figures = measure("fresh", values, build(frame, SETTINGS), ["RR"], SETTINGS, 0)
    found = {(figure.dimension, figure.value): figure for figure in figures}
    tail, few, broken = found["traffic", "tail"], found["locale", "de"], found["locale", "fr"]
    assert (tail.queries, tail.interval, tail.note) == (0, None, "no judged query with a positive document")
    assert (few.queries, few.interval) == (2, None)
    assert "2 judged queries, 3 needed" in few.note
    assert broken.interval is None
    assert "not finite numbers on 1 queries" in broken.note
