"""Bad rows as rows of the quarantine table: where, which field, why, and what they looked like."""

import polars as pl

from serm.ingest.columns import Kind
from serm.ingest.read import BAD_SCHEMA, FAULTS, RAW_CHARACTERS, ROW
from serm.records import QUARANTINE


def described(bad: pl.DataFrame) -> pl.DataFrame:
    """Bad rows as `checks.apply` gives them, with their columns as one JSON object cut at 1,000 characters."""
    if bad.is_empty():
        return pl.DataFrame(schema=BAD_SCHEMA)
    kept = [name for name in bad.columns if name not in (ROW, FAULTS, "=field", "=reason")]
    cut = [pl.col(n).str.head(RAW_CHARACTERS) if bad.schema[n] == pl.String else pl.col(n) for n in kept]
    raw = pl.struct(cut).struct.json_encode().str.head(RAW_CHARACTERS) if cut else pl.lit("{}")
    return bad.select(
        pl.col(ROW).alias("row"), pl.col("=field").alias("field"), pl.col("=reason").alias("reason"), raw.alias("raw")
    )


def rows(bad: pl.DataFrame, kind: Kind, source: str) -> pl.DataFrame:
    """Rows with BAD_SCHEMA as rows of the quarantine table."""
    placed = bad.with_columns(pl.lit(kind).alias("table"), pl.lit(source).alias("source"))
    return QUARANTINE.conform(placed)


def reasons(bad: pl.DataFrame) -> dict[str, int]:
    """How many rows for every "field: reason", most first."""
    counted = (
        bad.group_by(pl.format("{}: {}", "field", "reason").alias("why"))
        .len()
        .sort(["len", "why"], descending=[True, False])
    )
    return dict(counted.iter_rows())
