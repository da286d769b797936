"""Logs of online tests: files with any column names, or the workspace's impressions, as one lazy frame.

Rows that lack what every analysis needs are not guessed at; `usable` leaves them out and `Log.unusable` counts them.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import polars as pl

from serm.config import IngestSettings
from serm.ingest import checks
from serm.ingest.columns import SYNONYMS, guess
from serm.ingest.read import beginning, names
from serm.ingest.sources import expand, file_part

FIELDS = ("ts", "session", "query", "doc_id", "position", "clicked", "dwell", "user", "variant", "negative")
TEAM = "team"  # of an interleaved result: who gave it


@dataclass(frozen=True)
class Log:
    """A log whose columns have our names: FIELDS, `unit` (who was randomised), and `team` if it was asked for."""

    rows: pl.LazyFrame
    columns: dict[str, str]  # our field -> the log's column
    by_user: bool  # the unit is a user who comes back, not a session

    def has(self, field: str) -> bool:
        """Whether the log knows the field at all."""
        return field in self.columns


def from_files(sources: Sequence[str], given: Mapping[str, str], settings: IngestSettings, needs: Sequence[str]) -> Log:
    """CSV, NDJSON or Parquet files as one log; `given` maps our fields to their columns, the rest is guessed.

    `needs` are fields that must be there, besides a user or a session.

    Raises:
        ValueError: a file is absent, its columns differ from the others', or a needed field has no column.
    """
    frames: list[pl.LazyFrame] = []
    mapping: dict[str, str] = {}
    for path in expand(sources):
        scanned, theirs = _scan(path)
        found = _understand(theirs, given, settings.columns, str(path), needs)
        if frames and set(found) != set(mapping):
            odd = sorted(set(found) ^ set(mapping))
            raise ValueError(f"{path}: {', '.join(odd)} is in some files and not in others; give files of one shape")
        mapping = found
        frames.append(_parsed(scanned, found, settings))
    return _log(pl.concat(frames), mapping)


def from_workspace(impressions: pl.LazyFrame) -> Log:
    """The workspace's impressions as a log; a column without any value counts as absent.

    Raises:
        ValueError: there are no impressions.
    """
    fields = [field for field in FIELDS if field in impressions.collect_schema()]
    counts = impressions.select(pl.len().alias("rows"), pl.col(fields).count()).collect(engine="streaming").row(0)
    if not counts[0]:
        raise ValueError("no impressions to read a test from; give a log, or add one with: serm ingest")
    return _log(impressions.select(fields), {f: f for f, count in zip(fields, counts[1:], strict=True) if count})


def demand(log: Log, fields: Sequence[str]) -> None:
    """Refuse a log without these fields.

    Raises:
        ValueError: names the field and the mend.
    """
    for field in fields:
        if not log.has(field):
            raise ValueError(
                f"the log does not say the {field}; give a log with such a column, or name it: --column {field}=NAME"
            )


def usable(log: Log, fields: Sequence[str]) -> pl.LazyFrame:
    """The rows that have a moment, a unit and `fields`."""
    return log.rows.drop_nulls(["ts", "unit", *fields])


def _scan(path: Path) -> tuple[pl.LazyFrame, list[str]]:
    part = file_part("impressions", path)
    if part.format == "parquet":
        return pl.scan_parquet(path), part.names()
    if part.format == "ndjson":
        return pl.scan_ndjson(path, infer_schema_length=10_000), part.names()
    first = beginning(path, str(path)).decode("utf-8", "replace").lstrip("\ufeff").lstrip().split("\n", 1)[0]
    separator = max(",\t;|", key=first.count)
    found = names(path, "csv", str(path))
    return pl.scan_csv(path, separator=separator, infer_schema=False, new_columns=found or None), found


def _understand(
    theirs: Sequence[str], given: Mapping[str, str], configured: Mapping[str, str], label: str, needs: Sequence[str]
) -> dict[str, str]:
    have = ", ".join(theirs) or "no columns"
    known = (*FIELDS, *((TEAM,) if TEAM in needs else ()))
    for field, column in given.items():
        if field not in known:
            raise ValueError(f"column mapping: no such field {field!r}; the fields are {', '.join(known)}")
        if column not in theirs:
            raise ValueError(f"{label}: no column {column!r} (given for {field}); there are: {have}")
    mapping = {field: column for field, column in configured.items() if column in theirs and field in known}
    mapping |= given
    if TEAM in needs and TEAM in theirs:
        mapping.setdefault(TEAM, TEAM)
    mapping |= {f: column for f, column in guess("impressions", theirs, mapping).items() if f in FIELDS}
    if "user" not in mapping and "session" not in given and _plain(mapping.get("session", "")) in _USERS:
        mapping["user"] = mapping.pop("session")  # a log without sessions: guessing took its users for them
    for field in needs:
        if field not in mapping:
            raise ValueError(f"{label}: no column for {field!r}; there are: {have}. Name it: --column {field}=NAME")
    if "user" not in mapping and "session" not in mapping:
        raise ValueError(
            f"{label}: no column for the user or the session, one of which was randomised; there are: {have}. "
            "Name it: --column user=NAME"
        )
    return mapping


_USERS = SYNONYMS["impressions"]["user"]


def _plain(name: str) -> str:
    return re.sub(r"[\s\-.]+", "_", name.strip().lower())


def _parsed(frame: pl.LazyFrame, mapping: Mapping[str, str], settings: IngestSettings) -> pl.LazyFrame:
    """Our fields as ingest reads them; a cell that is no valid value is null."""
    schema = frame.collect_schema()
    plan = checks.impressions(schema, mapping, settings, pl.Series([], dtype=pl.String), datetime.now(UTC))
    dwell = plan.values["dwell"]
    values = plan.values | {"dwell": pl.when(dwell.is_finite() & (dwell >= 0)).then(dwell)}
    columns = [values[field].alias(field) for field in FIELDS]
    if TEAM in mapping:
        columns.append(pl.col(mapping[TEAM]).cast(pl.String).str.strip_chars().alias(TEAM))
    return frame.select(columns)


def _log(rows: pl.LazyFrame, columns: dict[str, str]) -> Log:
    by_user = "user" in columns
    unit = (
        pl.coalesce("user", "session") if by_user and "session" in columns else pl.col("user" if by_user else "session")
    )
    session = pl.col("session")
    if "session" not in columns:  # a user's day counts as one session (ours)
        session = pl.format("{} {}", "user", pl.col("ts").dt.date())
        columns = columns | {"session": f"{columns['user']} and day"}
    return Log(rows.with_columns(unit.alias("unit"), session.alias("session")), columns, by_user)
