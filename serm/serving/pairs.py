"""A file's rows as pairs to score: [row, query, doc_id?, text], and the rows that are none with a reason each."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import polars as pl

from serm.ingest import read
from serm.ingest.checks import Check, Plan, apply, has_fault, parsed
from serm.ingest.quarantine import described
from serm.ingest.read import BAD_SCHEMA, BROKEN, ROW
from serm.ingest.sources import Part, file_part

SYNONYMS = {
    "query": ("query", "query_text", "search_term", "search_query", "search", "keywords", "q"),
    "text": ("text", "document_text", "passage", "content", "body"),
    "doc_id": ("doc_id", "document_id", "product_id", "item_id", "docid", "docno", "asin"),
}
UNKNOWN = "no such document in the workspace"
Texts = Callable[[pl.Series], pl.DataFrame]  # document ids -> [doc_id, text] of those that are there


def source(file: Path, columns: Mapping[str, str]) -> tuple[Part, dict[str, str]]:
    """The file as a part, and our field -> its column: query, and text or doc_id or both.

    Raises:
        ValueError: the file is not there or cannot be read, or a column is missing; names the mend.
    """
    if not file.is_file():
        raise ValueError(f"{file}: no such file")
    part = file_part("judgments", file)
    names = part.names()
    have = ", ".join(names) or "no columns"
    if unknown := [field for field in columns if field not in SYNONYMS]:
        raise ValueError(f"--column {unknown[0]}: no such field; the fields are {', '.join(SYNONYMS)}")
    if absent := [theirs for theirs in columns.values() if theirs not in names]:
        raise ValueError(f"{file}: no column {absent[0]!r}; there are: {have}")
    lower = {name.strip().lower(): name for name in reversed(names)}
    found = dict(columns)
    for field, synonyms in SYNONYMS.items():
        known = [lower[name] for name in synonyms if name in lower]
        if field not in found and known:
            found[field] = known[0]
    if "query" not in found or not {"text", "doc_id"} & set(found):
        missing = "query" if "query" not in found else "text or doc_id"
        raise ValueError(f"{file}: no column for {missing}; there are: {have}. Say which one it is: --column text=NAME")
    return part, found


def estimated_rows(part: Part) -> int:
    """About how many rows there are, for the time left: exact for Parquet, lines for text."""
    if part.format == "parquet":
        return int(pl.scan_parquet(part.path).select(pl.len()).collect().item())
    return sum(chunk.height for chunk in read.line_chunks(part.path, part.label, 1 << 16)) - (part.format == "csv")


def chunks(
    part: Part, columns: Mapping[str, str], rows: int, texts: Texts
) -> Iterator[tuple[pl.DataFrame, pl.DataFrame]]:
    """The file in parts of at most `rows` rows: pairs [row, query, doc_id?, text], and bad rows with BAD_SCHEMA."""
    for chunk in part.chunks(rows):
        frame = chunk.frame
        for theirs in columns.values():  # a field that no line of this chunk has
            if theirs not in frame.columns:
                frame = frame.with_columns(pl.lit(None, pl.String).alias(theirs))
        good, bad = apply(frame, _plan(columns))
        bads = [chunk.bad, described(bad)]
        if "text" not in columns:
            known = good.join(texts(good["doc_id"].unique()), on="doc_id", how="left", maintain_order="left")
            lost = known.filter(pl.col("text").is_null())
            raw = pl.struct("query", "doc_id").struct.json_encode()
            bads.append(lost.select(row=ROW, field=pl.lit("doc_id"), reason=pl.lit(UNKNOWN), raw=raw.str.head(1_000)))
            good = known.filter(pl.col("text").is_not_null())
        yield good.rename({ROW: "row"}), pl.concat([part.select(BAD_SCHEMA.names()) for part in bads]).sort("row")


def _plan(columns: Mapping[str, str]) -> Plan:
    values = {field: pl.col(theirs).cast(pl.String, strict=False) for field, theirs in columns.items()}
    needed = ("query", "text") if "text" in columns else ("query", "doc_id")
    checks = [
        check
        for field in needed
        for check in (
            Check(field, BROKEN, has_fault(columns[field], BROKEN).fill_null(False)),
            Check(field, "missing", parsed(field).is_null()),
            Check(field, "empty", parsed(field).str.strip_chars() == ""),
        )
    ]
    return Plan(values, checks)
