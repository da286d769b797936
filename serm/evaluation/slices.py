"""Which slices a judged query is in: its locale, its language family, its traffic, its era. Pure functions of frames.

The definitions are ours. Traffic: head, torso and tail by impressions, as `serm.traffic` has them. Era: the dated
queries in order, cut into equal numbers; a query is dated by its first search in the log, or by a numeric attribute of
its best documents (see `arrival_values`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import polars as pl

from serm.config import EvaluationSettings
from serm.evaluation.paired import Interval, mean_interval
from serm.traffic import BANDS

ALL, UNKNOWN, OTHER = "all", "unknown", "other"
LEVEL = 0.95  # of the intervals


@dataclass(frozen=True)
class Slice:
    """A group of queries: a dimension (all, locale, family, traffic, era) and its value there."""

    dimension: str
    value: str


@dataclass(frozen=True)
class Slices:
    """Members [query, dimension, value] of the slices in `order`; `notes` say which dimensions are missing and why."""

    members: pl.DataFrame
    order: list[Slice]
    notes: list[str]


@dataclass(frozen=True)
class SliceFigure:
    """A measure's mean over a slice's queries; `interval` is None where `note` says why."""

    split: str
    dimension: str
    value: str
    measure: str
    queries: int
    interval: Interval | None
    note: str


def build(queries: pl.DataFrame, settings: EvaluationSettings) -> Slices:
    """Slices of judged queries [query, locale, band, dated, date_label]; all but query may be null.

    A null puts a query into the slice "unknown" of that dimension. A dimension that is null for every query is left
    out and named in the notes.
    """
    groups = [queries.select("query", dimension=pl.lit(ALL), value=pl.lit(ALL))]
    order, notes = [Slice(ALL, ALL)], []
    families = {code.lower(): name for name, codes in settings.families.items() for code in codes}
    columns: list[tuple[str, pl.DataFrame, Sequence[str], str]] = [
        ("locale", queries.select("query", value="locale"), (), "no locale in judgments or impressions"),
        (
            "family",
            queries.select("query", value=family(pl.col("locale"), families)),
            [*settings.families, OTHER],
            "no locale in judgments or impressions",
        ),
        ("traffic", queries.select("query", value="band"), BANDS, "no impressions of these queries"),
        (
            "era",
            eras(queries, settings.eras),
            (),
            "no impressions of these queries; set evaluation.era to a numeric document attribute, such as year"
            if settings.era == "log"
            else f"no best document has a number as attribute {settings.era!r} (evaluation.era)",
        ),
    ]
    for dimension, frame, known, missing in columns:
        present = sorted(set(frame["value"].drop_nulls()))
        if not present:
            notes.append(f"by {dimension}: {missing}")
            continue
        found = [*(known or present), *([UNKNOWN] if frame["value"].null_count() else [])]
        order += [Slice(dimension, value) for value in found]
        groups.append(frame.select("query", dimension=pl.lit(dimension), value=pl.col("value").fill_null(UNKNOWN)))
    return Slices(pl.concat(groups), order, notes)


def family(locale: pl.Expr, families: Mapping[str, str]) -> pl.Expr:
    """The language family of a locale such as pt-BR or pt_BR; "other" for a language in none; null stays null."""
    code = locale.str.to_lowercase().str.replace_all("_", "-", literal=True).str.split("-").list.first()
    return pl.when(locale.is_not_null()).then(
        code.replace_strict(families, default=OTHER, return_dtype=pl.String) if families else pl.lit(OTHER)
    )


def eras(queries: pl.DataFrame, number: int) -> pl.DataFrame:
    """[query, value] of [query, dated, date_label]: `number` eras of equally many dated queries, named by their ends.

    Queries of one date share an era, so that there may be fewer eras, and unequal ones.
    """
    dated = queries.filter(pl.col("dated").is_not_null())
    place = ((pl.col("dated").rank("min") - 1) * number // pl.len()).alias("era")
    ends = [
        pl.col("date_label").sort_by("dated").first().over("era"),
        pl.col("date_label").sort_by("dated").last().over("era"),
    ]
    named = dated.with_columns(place).select(
        "query", value=pl.when(ends[0] == ends[1]).then(ends[0]).otherwise(pl.concat_str(ends, separator=" to "))
    )
    return queries.select("query").join(named, on="query", how="left", maintain_order="left")


def measure(
    split: str, values: pl.DataFrame, slices: Slices, measures: Sequence[str], settings: EvaluationSettings, seed: int
) -> list[SliceFigure]:
    """Every measure of every slice; `values` is the frame of `metrics.per_query`."""
    figures = []
    for part in slices.order:
        own = members(values, slices, part)
        for name in measures:
            note = problem(own[name], settings)
            interval = None if note else mean_interval(own[name].to_numpy(), LEVEL, settings.resamples, seed)
            figures.append(SliceFigure(split, part.dimension, part.value, name, own.height, interval, note))
    return figures


def members(values: pl.DataFrame, slices: Slices, part: Slice) -> pl.DataFrame:
    """The rows of `values` [query, ...] whose query is in the slice, by query."""
    inside = slices.members.filter(dimension=part.dimension, value=part.value)
    return values.join(inside.select("query"), on="query", how="semi").sort("query")


def problem(values: pl.Series, settings: EvaluationSettings) -> str:
    """Why a slice's per-query values give no figure; empty when they do."""
    if values.is_empty():
        return "no judged query with a positive document"
    bad = int((~values.is_finite()).fill_null(True).sum())
    if bad:
        return f"scores that are not finite numbers on {bad} queries"
    if len(values) < settings.slice_minimum:
        return f"{len(values)} judged queries, {settings.slice_minimum} needed (evaluation.slice_minimum)"
    return ""
