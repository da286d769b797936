"""What a row must be: every field parsed and judged by Polars expressions, the first fault of a row its reason.

`values` maps our fields to parsed expressions (null where a cell has no valid value); a `Check` is a reason and the
expression that is true for rows that have it, over the source's columns and the parsed ones (`parsed(field)`).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

import polars as pl

from serm.config import IngestSettings
from serm.ingest.read import BROKEN, FAULTS, NESTED, ROW
from serm.records import SPLITS, Timestamp

SPLIT_NAMES = {
    **{split: split for split in SPLITS},
    "test": "anchor",
    "valid": "dev",
    "validation": "dev",
    "val": "dev",
}

_NULL_WORDS = ("null", "none", "na", "n/a", "\\n")
_TRUE = ("true", "1", "1.0", "yes", "y", "t")
_FALSE = ("false", "0", "0.0", "no", "n", "f")


@dataclass(frozen=True)
class Check:
    """One way for a row to be bad."""

    field: str
    reason: str
    bad: pl.Expr


@dataclass(frozen=True)
class Plan:
    """How a source's columns become one table's fields."""

    values: dict[str, pl.Expr]
    checks: list[Check]


def parsed(field: str) -> pl.Expr:
    """The parsed value of one of our fields, inside a check."""
    return pl.col(f"={field}")


def apply(frame: pl.DataFrame, plan: Plan) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Split rows into good ones (our fields and ROW) and bad ones (the source's columns, ROW, field, reason)."""
    frame = frame.with_columns(value.alias(f"={field}") for field, value in plan.values.items())
    verdict = pl.coalesce(
        pl.lit(None, pl.Int32),
        *(pl.when(check.bad).then(pl.lit(i, pl.Int32)) for i, check in enumerate(plan.checks)),
    )
    frame = frame.with_columns(verdict.alias("=verdict"))
    good = frame.filter(pl.col("=verdict").is_null()).select(ROW, *(parsed(f).alias(f) for f in plan.values))
    faults = pl.DataFrame(
        [(i, check.field, check.reason) for i, check in enumerate(plan.checks)],
        schema={"=verdict": pl.Int32, "=field": pl.String, "=reason": pl.String},
        orient="row",
    )
    bad = frame.filter(pl.col("=verdict").is_not_null()).join(faults, on="=verdict", how="left", maintain_order="left")
    return good, bad.drop("=verdict", *(f"={field}" for field in plan.values))


def impressions(
    schema: pl.Schema, columns: Mapping[str, str], settings: IngestSettings, documents: pl.Series, now: datetime
) -> Plan:
    """Values and checks of impressions; `documents` are the known ids, or empty to accept every id."""
    source = _Source(schema, columns)
    latest = now + timedelta(days=settings.max_future_days)
    values = {
        "ts": source.timestamp("ts", settings.timestamp_format),
        "session": source.text("session"), "query": source.text("query"), "doc_id": source.text("doc_id"),
        "position": source.whole("position"), "clicked": source.boolean("clicked"),
        "dwell": source.number("dwell"), "locale": source.text("locale"), "score": source.number("score"),
        "user": source.text("user"), "variant": source.text("variant"), "negative": source.boolean("negative"),
    }  # fmt: skip
    position, dwell = parsed("position"), parsed("dwell")
    checks = [
        *source.needs("ts", "not a timestamp"),
        Check("ts", "before 1970", parsed("ts") < datetime(1970, 1, 1, tzinfo=now.tzinfo)),
        Check("ts", "in the far future", parsed("ts") > latest),
        *source.needs("session"), *source.characters("session"),
        *source.needs("query"), *source.characters("query"), *_length("query", settings),
        *source.needs("doc_id"), *source.characters("doc_id"),
        *source.needs("position", "not a whole number"),
        Check("position", "impossible position", (position < 1) | (position > settings.max_position)),
        *source.needs("clicked", "not true or false"),
        *source.allows("dwell", "not a number"),
        Check("dwell", "impossible dwell", dwell.is_nan() | (dwell < 0) | (dwell > settings.max_dwell)),
        *source.allows("locale"), *source.characters("locale"),
        *source.allows("score", "not a number"),
        Check("score", "not finite", ~parsed("score").is_finite()),
        *source.allows("user"), *source.characters("user"),
        *source.allows("variant"), *source.characters("variant"),
        *source.allows("negative", "not true or false"),
        *_known(documents),
    ]  # fmt: skip
    return Plan(values, checks)


def judgments(
    schema: pl.Schema, columns: Mapping[str, str], settings: IngestSettings, documents: pl.Series, scale: list[int]
) -> Plan:
    """Values and checks of judgments; `documents` are the known ids, or empty to accept every id."""
    source = _Source(schema, columns)
    named = source.text("split").str.to_lowercase()
    split = named.replace_strict(SPLIT_NAMES, default=None, return_dtype=pl.String)
    values = {
        "query": source.text("query"), "doc_id": source.text("doc_id"), "grade": source.whole("grade"),
        "split": split,
        "judge": source.text("judge"), "locale": source.text("locale"),
    }  # fmt: skip
    checks = [
        *source.needs("query"), *source.characters("query"), *_length("query", settings),
        *source.needs("doc_id"), *source.characters("doc_id"),
        *source.needs("grade", "not a whole number"),
        Check("grade", "off the scale", ~parsed("grade").is_in(scale)),
        *source.allows("split", "unknown split"),
        *source.allows("judge"), *source.characters("judge"),
        *source.allows("locale"), *source.characters("locale"),
        *_known(documents),
    ]  # fmt: skip
    return Plan(values, checks)


def identity(schema: pl.Schema, columns: Mapping[str, str]) -> Plan:
    """Values and checks of a document's plain fields: id, title, locale."""
    source = _Source(schema, columns)
    values = {field: source.text(field) for field in ("doc_id", "title", "locale")}
    checks = [
        *source.needs("doc_id"), *source.characters("doc_id"),
        *source.allows("title"), *source.allows("locale"), *source.characters("locale"),
    ]  # fmt: skip
    return Plan(values, checks)


def has_fault(column: str, reason: str) -> pl.Expr:
    """Whether the reader found this fault in a column's cell."""
    return pl.col(FAULTS).list.contains(f"{column}: {reason}")


def _length(field: str, settings: IngestSettings) -> list[Check]:
    return [Check(field, "too long", parsed(field).str.len_chars() > settings.max_query_characters)]


def _known(documents: pl.Series) -> list[Check]:
    if documents.is_empty():
        return []
    return [Check("doc_id", "unknown document", ~parsed("doc_id").is_in(documents.implode()))]


class _Source:
    """Expressions over one source's columns, by our names; a field without a column is null everywhere."""

    def __init__(self, schema: pl.Schema, columns: Mapping[str, str]) -> None:
        self.schema = schema
        self.columns = {field: theirs for field, theirs in columns.items() if theirs in schema}

    def _dtype(self, field: str) -> pl.DataType:
        return self.schema[self.columns[field]] if field in self.columns else pl.Null()

    def _column(self, field: str) -> pl.Expr:
        return pl.col(self.columns[field]) if field in self.columns else pl.lit(None)

    def _given(self, field: str) -> pl.Expr:
        """Whether the cell holds anything at all."""
        column = self._column(field)
        if self._dtype(field) == pl.String:
            return column.is_not_null() & (column.str.strip_chars() != "")
        return column.is_not_null()

    def needs(self, field: str, wrong: str = NESTED) -> list[Check]:
        """Checks of a required field: it is there, and it parses."""
        return [*self._cell(field), Check(field, "missing", ~self._given(field)), self._parses(field, wrong)]

    def allows(self, field: str, wrong: str = NESTED) -> list[Check]:
        """Checks of an optional field: if it is there, it parses."""
        return [*self._cell(field), self._parses(field, wrong)] if field in self.columns else []

    def _cell(self, field: str) -> list[Check]:
        if field not in self.columns:
            return []
        return [Check(field, reason, has_fault(self.columns[field], reason)) for reason in (BROKEN, NESTED)]

    def _parses(self, field: str, wrong: str) -> Check:
        given = self._given(field)
        if self._dtype(field) == pl.String and wrong not in (NESTED, "unknown split"):
            given = given & ~self._lower(field).is_in(_NULL_WORDS)
        return Check(field, wrong, given & parsed(field).is_null())

    def characters(self, field: str) -> list[Check]:
        """No control characters, NUL included."""
        if field not in self.columns:
            return []
        return [Check(field, "control characters", parsed(field).str.contains(r"\p{Cc}"))]

    def _lower(self, field: str) -> pl.Expr:
        return self._column(field).str.strip_chars().str.to_lowercase()

    def text(self, field: str) -> pl.Expr:
        """Text without outer white space; numbers (ids) as digits; null when empty or nested."""
        dtype, column = self._dtype(field), self._column(field)
        if dtype == pl.String:
            stripped = column.str.strip_chars()
            return pl.when(stripped != "").then(stripped)
        if dtype.is_integer() or dtype in (pl.Boolean, pl.Categorical, pl.Enum):
            return column.cast(pl.String)
        if dtype.is_float():
            return _whole_float(column).cast(pl.String)
        return pl.lit(None, pl.String)

    def whole(self, field: str) -> pl.Expr:
        """A whole number as Int64; null when it is none."""
        dtype, column = self._dtype(field), self._column(field)
        if dtype == pl.String:
            text = column.str.strip_chars()
            return text.cast(pl.Int64, strict=False).fill_null(_whole_float(text.cast(pl.Float64, strict=False)))
        if dtype.is_float():
            return _whole_float(column)
        if dtype.is_integer() or dtype.is_decimal():
            return column.cast(pl.Int64, strict=False)
        return pl.lit(None, pl.Int64)

    def number(self, field: str) -> pl.Expr:
        """A number as Float64 (NaN and infinities kept for the checks); null when it is none."""
        dtype, column = self._dtype(field), self._column(field)
        if dtype == pl.String:
            return column.str.strip_chars().cast(pl.Float64, strict=False)
        return column.cast(pl.Float64, strict=False) if dtype.is_numeric() else pl.lit(None, pl.Float64)

    def boolean(self, field: str) -> pl.Expr:
        """True or false, also as 1/0, yes/no, t/f; null when it is neither."""
        dtype, column = self._dtype(field), self._column(field)
        if dtype == pl.Boolean:
            return column
        if dtype == pl.String:
            lower = self._lower(field)
            return pl.when(lower.is_in(_TRUE)).then(True).when(lower.is_in(_FALSE)).then(False)
        if dtype.is_numeric():
            return pl.when(column == 1).then(True).when(column == 0).then(False)
        return pl.lit(None, pl.Boolean)

    def timestamp(self, field: str, text_format: str | None) -> pl.Expr:
        """A moment in UTC, microseconds; text as ISO 8601 or `text_format`, numbers as Unix time by magnitude."""
        dtype, column = self._dtype(field), self._column(field)
        if isinstance(dtype, pl.Datetime):
            aware = column if dtype.time_zone else column.dt.replace_time_zone("UTC")
            return aware.dt.convert_time_zone("UTC").cast(Timestamp)
        if dtype == pl.Date:
            return column.cast(pl.Datetime("us")).dt.replace_time_zone("UTC")
        if dtype.is_numeric():
            return _unix(column)
        if dtype != pl.String:
            return pl.lit(None, Timestamp)
        text = column.str.strip_chars()
        if text_format:
            return _moment(text, text_format)
        iso = text.str.replace(r"^(\d{4}-\d{2}-\d{2})[ t]", "${1}T").str.replace(r"[zZ]$", "+00:00")
        forms = ("%Y-%m-%dT%H:%M:%S%.f%#z", "%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%dT%H:%M%#z", "%Y-%m-%dT%H:%M", "%Y-%m-%d")
        return pl.coalesce(*(_moment(iso, form) for form in forms), _unix(text))


def _moment(text: pl.Expr, form: str) -> pl.Expr:
    return text.str.to_datetime(form, strict=False, time_unit="us", time_zone="UTC", ambiguous="earliest")


def _unix(column: pl.Expr) -> pl.Expr:
    """Seconds, milliseconds, microseconds or nanoseconds since 1970, told apart by their size.

    Numbers below 1e8 are no timestamps: they are years, dates such as 20260131, or counters.
    """
    number = column.cast(pl.Float64, strict=False)
    whole = column.cast(pl.Int64, strict=False)
    size = number.abs()
    microseconds = (
        pl.when(size < 1e8).then(None)
        .when(size < 1e11).then((number * 1e6).round())
        .when(size < 1e14).then((number * 1e3).round())
        .when(size < 1e17).then(number)
        .when(size < 9e18).then((whole // 1_000).cast(pl.Float64))
    )  # fmt: skip
    return microseconds.cast(pl.Int64, strict=False).cast(Timestamp, strict=False)


def _whole_float(column: pl.Expr) -> pl.Expr:
    return (
        pl.when(column.is_finite() & (column == column.round()) & (column.abs() < 2**53))
        .then(column)
        .cast(pl.Int64, strict=False)
    )
