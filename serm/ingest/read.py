"""Foreign files as chunks of raw columns: CSV, NDJSON and Parquet, streamed, with malformed rows set aside.

CSV and NDJSON rows are parsed one by one with the standard library, because column parsers give up a whole batch for
one malformed row; everything after parsing works on columns. Rows are counted from 1 at the first data row (a CSV
header is not a row, blank lines are not rows, a quoted field with line breaks is one row).
"""

import csv
import gzip
import json
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, Any, Literal, cast

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

ROW = "__row"  # Int64, 1-based
FAULTS = "__faults"  # List(String), "column: reason" for every cell that could not be taken as it was; null when none
RAW_CHARACTERS = 1_000

BROKEN = "broken UTF-8"
NESTED = "not a plain value"

Format = Literal["csv", "ndjson", "parquet"]

_READ_BYTES = 16 << 20  # bytes of lines in memory at once
_SAMPLE_LINES = 10_000  # NDJSON lines looked at to learn the field names
_SPAN = 1_000  # most lines that one quoted CSV field may cover

BAD_SCHEMA = pl.Schema({"row": pl.Int64, "field": pl.String, "reason": pl.String, "raw": pl.String})


@dataclass(frozen=True)
class Chunk:
    """Some consecutive rows: those that parsed, and those that did not (with BAD_SCHEMA)."""

    frame: pl.DataFrame
    bad: pl.DataFrame


def names(path: Path, file_format: Format, label: str) -> list[str]:
    """The source's column names; of an NDJSON file, those in its first 10,000 lines. Empty for an empty file.

    Raises:
        ValueError: the file cannot be read as `file_format`.
    """
    if file_format == "parquet":
        return list(_parquet(path, label).schema_arrow.names)
    with _unpacking(label), _open(path) as stream:
        if file_format == "csv":
            return _header(stream, label)[0]
        found: dict[str, None] = {}
        for line in islice(stream, _SAMPLE_LINES):
            value = _loads(line.decode("utf-8-sig", "surrogateescape"))
            if isinstance(value, dict):
                found.update(dict.fromkeys(value))
        return list(found)


def chunks(path: Path, file_format: Format, label: str, rows: int) -> Iterator[Chunk]:
    """The source in chunks of at most `rows` rows.

    Raises:
        ValueError: the file cannot be read as `file_format`; names the file.
    """
    reader = {"csv": _csv_chunks, "ndjson": _ndjson_chunks, "parquet": _parquet_chunks}[file_format]
    with _unpacking(label):
        yield from reader(path, label, rows)


def line_chunks(path: Path, label: str, rows: int) -> Iterator[pl.DataFrame]:
    """A text file's non-blank lines as frames of `line`, ROW and FAULTS, at most `rows` lines each."""
    with _unpacking(label), _open(path) as stream:
        done = 0
        for lines in _line_batches(stream, rows):
            yield _frame({"line": lines}, list(range(done + 1, done + len(lines) + 1)))
            done += len(lines)


@contextmanager
def _unpacking(label: str) -> Iterator[None]:
    try:
        yield
    except (EOFError, OSError, zlib.error, pa.ArrowException) as error:
        raise ValueError(f"{label}: cannot be read to its end ({error}); mend the file and ingest it again") from error


def beginning(path: Path, label: str) -> bytes:
    """The first bytes of a text file, unpacked."""
    with _unpacking(label), _open(path) as stream:
        return stream.read(4_096)


def _open(path: Path) -> IO[bytes]:
    with path.open("rb") as file:
        compressed = file.read(2) == b"\x1f\x8b"
    return cast(IO[bytes], gzip.open(path, "rb") if compressed else path.open("rb"))


def _line_batches(stream: IO[bytes], rows: int) -> Iterator[list[str]]:
    """Non-blank lines without their ends; bytes that are not UTF-8 come as surrogates."""
    while lines := stream.readlines(_READ_BYTES):
        text = [line.rstrip(b"\r\n").decode("utf-8", "surrogateescape") for line in lines]
        text = [line for line in text if line and not line.isspace()]
        for start in range(0, len(text), rows):
            yield text[start : start + rows]


# --- CSV ------------------------------------------------------------------------------------------------------------


def _header(stream: IO[bytes], label: str) -> tuple[list[str], str]:
    for line in stream:
        try:
            text = line.decode("utf-8-sig").strip("\r\n")
        except UnicodeDecodeError as error:
            raise ValueError(f"{label}: the header is not UTF-8; save the file as UTF-8") from error
        if text.strip():
            break
    else:
        return [], ","
    delimiter = max(",\t;|", key=text.count)
    try:
        found = next(csv.reader([text], delimiter=delimiter, strict=True))
    except csv.Error as error:
        raise ValueError(f"{label}: the header is not a CSV row ({error}); mend its quotes") from error
    columns = [name.strip() or f"column_{index + 1}" for index, name in enumerate(found)]
    twice = sorted({name for name in columns if columns.count(name) > 1})
    if twice:
        raise ValueError(f"{label}: the header names column {twice[0]!r} twice; rename one of them")
    return columns, delimiter


def _csv_chunks(path: Path, label: str, rows: int) -> Iterator[Chunk]:
    csv.field_size_limit(2**31 - 1)  # the default refuses long fields; here they are read, then judged
    with _open(path) as stream:
        columns, delimiter = _header(stream, label)
        done, carried = 0, list[str]()
        for lines in _line_batches(stream, rows):
            records, carried = _records(carried + lines, len(columns), delimiter, last=False)
            yield _csv_chunk(records, columns, done)
            done += len(records)
        records, _ = _records(carried, len(columns), delimiter, last=True)
        if records:
            yield _csv_chunk(records, columns, done)


def _csv_chunk(records: list[list[str] | str], columns: list[str], done: int) -> Chunk:
    good, numbers, bad = list[list[str]](), list[int](), list[tuple[int, str, str, str]]()
    for number, record in enumerate(records, done + 1):
        if isinstance(record, str):
            bad.append((number, "row", "unbalanced quotes", _line_json(record)))
        elif len(record) != len(columns):
            reason = f"too {'few' if len(record) < len(columns) else 'many'} fields"
            bad.append((number, "row", reason, _line_json(record)))
        else:
            good.append(record)
            numbers.append(number)
    by_column: Sequence[Sequence[str]] = list(zip(*good, strict=True)) if good else [()] * len(columns)
    return Chunk(_frame(dict(zip(columns, by_column, strict=True)), numbers), _bad(bad))


def _records(lines: list[str], width: int, delimiter: str, last: bool) -> tuple[list[list[str] | str], list[str]]:
    """Each record's fields, or the line itself where it is none; and the lines that the next batch must continue.

    A line with an open quote is a row by itself if the quote is a plain character (5" pipe), else it continues up to
    the next line with an odd number of quotes, if together they make one whole row. Otherwise it alone is bad: one
    stray quote never costs more than its own line.
    """
    records: list[list[str] | str] = []
    at = 0
    while at < len(lines):
        line = lines[at]
        fields = line.split(delimiter) if '"' not in line else _fields(line, delimiter)
        if fields is None and line.count('"') % 2:
            stop = min(at + _SPAN, len(lines))
            end = next((i for i in range(at + 1, stop) if lines[i].count('"') % 2), None)
            if end is None and not last and stop == len(lines):
                return records, lines[at:]
            if end is not None:
                joined = _fields("\n".join(lines[at : end + 1]), delimiter)
                if joined is not None and len(joined) == width:
                    fields, at = joined, end
        records.append(line if fields is None else fields)
        at += 1
    return records, []


def _fields(text: str, delimiter: str) -> list[str] | None:
    try:
        return next(csv.reader([text], delimiter=delimiter, strict=True))
    except csv.Error:
        return None


# --- NDJSON ---------------------------------------------------------------------------------------------------------


def _ndjson_chunks(path: Path, label: str, rows: int) -> Iterator[Chunk]:
    with _open(path) as stream:
        done = 0
        for lines in _line_batches(stream, rows):
            good, numbers, bad = list[dict[str, Any]](), list[int](), list[tuple[int, str, str, str]]()
            for number, line in enumerate(lines, done + 1):
                value = _loads(line.removeprefix("\ufeff") if number == 1 else line)
                if isinstance(value, dict):
                    good.append(value)
                    numbers.append(number)
                else:
                    bad.append((number, "row", "not a JSON object", _line_json(line)))
            found = dict.fromkeys(key for row in good for key in row)
            yield Chunk(_frame({key: [row.get(key) for row in good] for key in found}, numbers), _bad(bad))
            done += len(lines)


def _loads(line: str) -> Any:
    try:
        return json.loads(line)  # takes NaN and Infinity too: the field's own check names them better
    except (ValueError, RecursionError):
        return None


# --- Parquet --------------------------------------------------------------------------------------------------------


def _parquet(path: Path, label: str) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(path, pre_buffer=False)
    except pa.ArrowException as error:
        raise ValueError(f"{label}: not a readable Parquet file: {error}") from error


def _parquet_chunks(path: Path, label: str, rows: int) -> Iterator[Chunk]:
    done = 0
    for batch in _parquet(path, label).iter_batches(batch_size=rows):
        faults: dict[int, list[str]] = {}
        columns = [_arrow_column(name, batch.column(name), faults) for name in batch.schema.names]
        numbers = pl.Series(ROW, range(done + 1, done + batch.num_rows + 1), pl.Int64)
        yield Chunk(pl.DataFrame([*columns, numbers, _fault_column(faults, batch.num_rows)]), _bad([]))
        done += batch.num_rows


def _arrow_column(name: str, column: pa.Array, faults: dict[int, list[str]]) -> pl.Series:
    """One column, with the types that validation does not know turned into text or plain numbers."""
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if any(test(column.type) for test in (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_fixed_size_binary)):
        return _bytes(name, column, faults)  # text without its mark, as some engines write it
    try:
        column.validate(full=True)
    except pa.ArrowInvalid:
        if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
            raise
        return _bytes(name, column.cast(pa.large_binary()), faults)
    series = cast(pl.Series, pl.from_arrow(column)).rename(name)
    if series.dtype.is_decimal():
        return series.cast(pl.Float64)
    if series.dtype in (pl.Time, pl.Duration, pl.UInt64):
        return series.dt.to_string("iso") if series.dtype == pl.Duration else series.cast(pl.String)
    if isinstance(series.dtype, pl.List) and series.dtype.inner in (pl.String, pl.Categorical):
        return series.cast(pl.List(pl.String))
    if series.dtype.is_nested() or series.dtype == pl.Object:
        return _column(name, column.to_pylist(), faults)
    return series


def _bytes(name: str, column: pa.Array, faults: dict[int, list[str]]) -> pl.Series:
    cells = column.to_pylist()
    return _texts(name, [None if cell is None else cell.decode("utf-8", "surrogateescape") for cell in cells], faults)


# --- columns --------------------------------------------------------------------------------------------------------


def _frame(columns: dict[str, Sequence[Any]], numbers: list[int]) -> pl.DataFrame:
    faults: dict[int, list[str]] = {}
    series = [_column(name, values, faults) for name, values in columns.items()]
    return pl.DataFrame([*series, pl.Series(ROW, numbers, pl.Int64), _fault_column(faults, len(numbers))])


def _column(name: str, values: Sequence[Any], faults: dict[int, list[str]]) -> pl.Series:
    """One column of Python values: typed where all agree, as text where they do not."""
    kinds = set(map(type, values)) - {type(None)}
    if kinds == {bool}:
        return pl.Series(name, values, pl.Boolean)
    if kinds and kinds <= {int, float}:
        try:
            return pl.Series(name, values, pl.Int64 if kinds == {int} else pl.Float64, strict=kinds == {int})
        except (OverflowError, TypeError, pl.exceptions.PolarsError):
            return pl.Series(name, [None if value is None else str(value) for value in values], pl.String)
    if kinds == {list} and all(isinstance(item, str) for value in values if value for item in value):
        flat = [_clean_list(value) for value in values]
        for index, (before, after) in enumerate(zip(values, flat, strict=True)):
            if before != after:
                faults.setdefault(index, []).append(f"{name}: {BROKEN}")
        return pl.Series(name, flat, pl.List(pl.String))
    if kinds <= {str}:
        return _texts(name, values, faults)
    for index, value in enumerate(values):
        if isinstance(value, (list, dict)):
            faults.setdefault(index, []).append(f"{name}: {NESTED}")
    plain = [value if value is None or isinstance(value, str) else json.dumps(value, default=str) for value in values]
    return _texts(name, plain, faults)


def _texts(name: str, values: Sequence[str | None], faults: dict[int, list[str]]) -> pl.Series:
    try:
        "".join(value for value in values if value).encode()
    except UnicodeEncodeError:
        cleaned = [None if value is None else _clean(value) for value in values]
        for index, (before, after) in enumerate(zip(values, cleaned, strict=True)):
            if before != after:
                faults.setdefault(index, []).append(f"{name}: {BROKEN}")
        values = cleaned
    return pl.Series(name, values, pl.String)


def _clean(text: str) -> str:
    """Text with every byte or surrogate that is no character replaced."""
    return text.encode("utf-8", "surrogatepass").decode("utf-8", "replace")


def _clean_list(value: list[str] | None) -> list[str] | None:
    return None if value is None else [_clean(item) for item in value]


def _fault_column(faults: dict[int, list[str]], height: int) -> pl.Series:
    if not faults:
        return pl.Series(FAULTS, [None], pl.List(pl.String)).new_from_index(0, height)
    return pl.Series(FAULTS, [faults.get(index) for index in range(height)], pl.List(pl.String))


def _line_json(line: str | list[str]) -> str:
    text = line if isinstance(line, str) else [cell[:RAW_CHARACTERS] for cell in line]
    return _clean(json.dumps(text[:RAW_CHARACTERS], ensure_ascii=False))[:RAW_CHARACTERS]


def _bad(rows: list[tuple[int, str, str, str]]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=BAD_SCHEMA, orient="row")
