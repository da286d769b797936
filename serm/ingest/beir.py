"""BEIR collections: corpus.jsonl, queries.jsonl and qrels/train.tsv, dev.tsv, test.tsv (packed or not)."""

from functools import partial
from pathlib import Path

import polars as pl

from serm.ingest import read
from serm.ingest.checks import SPLIT_NAMES
from serm.ingest.sources import Part, file_part


def fits(folder: Path) -> bool:
    """Whether a folder has this shape."""
    return bool(_files(folder, "corpus.jsonl*") and _files(folder, "queries.jsonl*") and _files(folder, "qrels/*.tsv*"))


def parts(folder: Path) -> list[Part]:
    """Documents, then one part of judgments for every qrels file; its name says the split (test is the anchor)."""
    queries = _queries(_files(folder, "queries.jsonl*")[0])
    documents = [file_part("documents", path, columns={"doc_id": "_id"}) for path in _files(folder, "corpus.jsonl*")]
    return documents + [
        file_part(
            "judgments", path, transform=partial(_with_query, queries=queries), needs=["query-id"], adds=["query"],
            columns={"query": "query", "doc_id": "corpus-id", "grade": "score"},
            split=SPLIT_NAMES.get(path.name.split(".")[0].lower()),
        )
        for path in _files(folder, "qrels/*.tsv*")
    ]  # fmt: skip


def _files(folder: Path, pattern: str) -> list[Path]:
    return sorted(path for path in folder.glob(pattern) if path.is_file())


def _queries(path: Path) -> pl.DataFrame:
    """Columns `query-id` and `query`."""
    frames = [
        chunk.frame.select(
            pl.col("_id").cast(pl.String).alias("query-id"), pl.col("text").cast(pl.String).alias("query")
        )
        for chunk in read.chunks(path, "ndjson", str(path), 200_000)
        if {"_id", "text"} <= set(chunk.frame.columns)
    ]
    if not frames:
        raise ValueError(f"{path}: no line has both '_id' and 'text', which BEIR queries need")
    return pl.concat(frames).unique("query-id", keep="first", maintain_order=True)


def _with_query(frame: pl.DataFrame, queries: pl.DataFrame) -> pl.DataFrame:
    return frame.join(queries, on="query-id", how="left", maintain_order="left")
