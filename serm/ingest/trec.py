"""TREC collections: qrels and runs in their white-space formats, topics and corpus beside them if there are any.

A folder holds one or more *qrels* files (`query-id iteration doc-id grade`), at most one topics or queries file
(`query-id <tab> text`; without one the query id stands for the query), and at most one corpus or collection file
(`doc-id <tab> text`, or JSON lines, CSV or Parquet with their own columns).
"""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import polars as pl

from serm.ingest import read
from serm.ingest.read import BAD_SCHEMA, FAULTS, ROW, Chunk
from serm.ingest.sources import Part, file_part

_QRELS = r"^\s*(?<query_id>\S+)\s+(?<iteration>\S+)\s+(?<doc_id>\S+)\s+(?<grade>\S+)\s*$"
_RUN = r"^\s*(?<query_id>\S+)\s+(?<iteration>\S+)\s+(?<doc_id>\S+)\s+(?<rank>\S+)\s+(?<score>\S+)\s+(?<run>\S+)\s*$"
_TOPIC = r"^\s*(?<query_id>[^\t]+?)\s*\t\s*(?<query>.+?)\s*$"
_PASSAGE = r"^\s*(?<doc_id>[^\t]+?)\s*\t\s*(?<text>.*?)\s*$"
_BATCH = 200_000


def fits(folder: Path) -> bool:
    """Whether a folder has this shape."""
    return bool(_qrels_files(folder))


def parts(folder: Path) -> list[Part]:
    """The corpus if there is one, then a part of judgments for every qrels file."""
    topics = [path for path in _named(folder, "topic", "quer") if path.suffix in (".tsv", ".txt", ".gz")]
    queries = _queries(topics[0]) if topics else None
    return [_corpus(path) for path in _named(folder, "corpus", "collection", "documents")] + [
        _line_part(path, _QRELS, queries) for path in _qrels_files(folder)
    ]


def read_run(path: Path | str) -> pl.DataFrame:
    """A run file as columns query_id, doc_id, rank (Int32), score (Float64) and run.

    Raises:
        ValueError: a line is not `query-id Q0 doc-id rank score run`; names file and line.
    """
    path = Path(path)
    frames = [
        frame.select(ROW, pl.col("line").str.extract_groups(_RUN)).unnest("line").with_columns(
            pl.col("rank").cast(pl.Int32, strict=False), pl.col("score").cast(pl.Float64, strict=False)
        )
        for frame in read.line_chunks(path, str(path), _BATCH)
    ]  # fmt: skip
    schema = pl.Schema(
        {"query_id": pl.String, "doc_id": pl.String, "rank": pl.Int32, "score": pl.Float64, "run": pl.String}
    )
    if not frames:
        return pl.DataFrame(schema=schema)
    run = pl.concat(frames)
    wrong = run.filter(pl.any_horizontal(pl.col(list(schema)).is_null()))
    if not wrong.is_empty():
        raise ValueError(f"{path}: line {wrong[ROW][0]} is not 'query-id Q0 doc-id rank score run'")
    return run.select(list(schema))


def _named(folder: Path, *stems: str) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_file() and path.name.lower().startswith(stems))


def _qrels_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_file() and "qrel" in path.name.lower()) or sorted(
        path for path in folder.glob("qrels/*") if path.is_file() and path.suffix in (".txt", ".qrels", ".gz")
    )


def _queries(path: Path) -> pl.DataFrame:
    frames = [
        frame.select(pl.col("line").str.extract_groups(_TOPIC)).unnest("line")
        for frame in read.line_chunks(path, str(path), _BATCH)
    ]
    queries = pl.concat(frames).drop_nulls() if frames else pl.DataFrame(schema={"query_id": pl.String})
    if queries.is_empty():
        raise ValueError(f"{path}: no line is 'query-id <tab> text', which topics need")
    return queries.unique("query_id", keep="first", maintain_order=True)


def _corpus(path: Path) -> Part:
    plain = [suffix for suffix in path.suffixes if suffix != ".gz"]
    if plain and plain[-1] in (".tsv", ".txt"):
        return _line_part(path, _PASSAGE, None)
    return file_part("documents", path)


def _line_part(path: Path, pattern: str, queries: pl.DataFrame | None) -> Part:
    """Lines of a fixed pattern as a part: passages, or qrels joined with their topics."""
    fields = list(pl.select(pl.lit("").str.extract_groups(pattern)).to_series().struct.fields)
    names = fields if pattern == _PASSAGE else [*fields, "query"]
    return Part(
        "documents" if pattern == _PASSAGE else "judgments",
        path, str(path), "trec",
        names=lambda: names,
        chunks=partial(_line_parts, path, pattern, queries),
    )  # fmt: skip


def _line_parts(path: Path, pattern: str, queries: pl.DataFrame | None, rows: int) -> Iterator[Chunk]:
    for frame in read.line_chunks(path, str(path), rows):
        matched = frame.with_columns(pl.col("line").str.extract_groups(pattern).alias("fields")).unnest("fields")
        wrong = pl.col("doc_id").is_null()
        bad = matched.filter(wrong).select(
            pl.col(ROW).alias("row"), pl.lit("row").alias("field"), pl.lit("wrong number of fields").alias("reason"),
            pl.struct("line").struct.json_encode().str.head(read.RAW_CHARACTERS).alias("raw"),
        )  # fmt: skip
        good = matched.filter(~wrong).with_columns(_faults_of_line(pattern)).drop("line")
        if pattern != _PASSAGE:
            good = _with_query(good, queries)
        yield Chunk(good, bad.cast(BAD_SCHEMA))


def _faults_of_line(pattern: str) -> pl.Expr:
    """A line's broken bytes are held against its document."""
    field = "text" if pattern == _PASSAGE else "doc_id"
    return pl.when(pl.col(FAULTS).is_not_null()).then(pl.lit([f"{field}: {read.BROKEN}"])).alias(FAULTS)


def _with_query(frame: pl.DataFrame, queries: pl.DataFrame | None) -> pl.DataFrame:
    if queries is None:
        return frame.with_columns(pl.col("query_id").alias("query"))
    return frame.join(queries, on="query_id", how="left", maintain_order="left")
