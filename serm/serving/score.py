"""The verb score: a file of pairs in, a file of scores out, in batches that a killed run does not repeat."""

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from serm import registry
from serm.ingest.quarantine import reasons
from serm.ingest.sources import FORMATS, Part
from serm.relevance.model import expected_label
from serm.serving.champion import Served, load_version
from serm.serving.pairs import chunks, estimated_rows, source
from serm.workspace import Workspace
from sps import progress

WRITERS: dict[str, Any] = {
    "parquet": pl.LazyFrame.sink_parquet, "csv": pl.LazyFrame.sink_csv, "ndjson": pl.LazyFrame.sink_ndjson,
}  # fmt: skip


@dataclass(frozen=True)
class ScoreSummary:
    """What was scored, by whom, and where it lies."""

    version: str
    scored: int
    set_aside: int  # rows that could not be scored
    reasons: dict[str, int]  # "field: reason" -> rows, most first
    out: str
    bad: str | None  # file of the rows set aside


def score(
    workspace: Workspace,
    file: Path,
    out: Path | None = None,
    version: str | None = None,
    columns: Mapping[str, str] | None = None,
) -> ScoreSummary:
    """Score every pair of a file with a version of the registry (the champion if none is named).

    `file` has query and text, or query and doc_id of documents in the workspace. The result has row (from 1), query,
    doc_id if there is one, score (f(q, d)) and p_LABEL for each label of the scale, in the order of the rows. Rows
    that cannot be scored are in a file of their own beside it. `out` appears whole or not at all.

    Raises:
        ValueError: the file cannot be read, columns are missing, or no row can be scored; the version is not whole.
    """
    version = version or registry.champion(workspace)
    part, fields = source(file, columns or {})
    out = _beside(file) if out is None else out
    kind = _kind(out)
    if out.resolve() == file.resolve():
        raise ValueError(f"{out}: the result would overwrite what is scored; give another --out")
    parts = workspace.local("cache", "scoring", _identity(workspace, part, fields, version))
    parts.mkdir(parents=True, exist_ok=True)
    counts = _score_parts(workspace, part, fields, version, parts)
    bad = pl.concat([pl.read_parquet(parts / f"{n:06d}.bad") for n in range(len(counts))])
    if not sum(counts):
        shutil.rmtree(parts, ignore_errors=True)
        told = "; ".join(f"{why} ({rows:,})" for why, rows in reasons(bad).items()) or "the file is empty"
        raise ValueError(f"{file}: no row can be scored: {told}")
    beside = out.with_name(f"{out.name}.bad.jsonl")
    beside.unlink(missing_ok=True)
    if not bad.is_empty():
        _write(bad.lazy(), beside, "ndjson")
    _write(pl.scan_parquet([parts / f"{n:06d}" for n in range(len(counts))]), out, kind)
    shutil.rmtree(parts, ignore_errors=True)
    return ScoreSummary(
        version, sum(counts), bad.height, reasons(bad), str(out), None if bad.is_empty() else str(beside)
    )  # fmt: skip


def _score_parts(
    workspace: Workspace, part: Part, fields: Mapping[str, str], version: str, parts: Path
) -> list[int]:  # fmt: skip
    """Score what is not scored yet, a chunk at a time; returns how many pairs each chunk holds."""
    documents = workspace.scan("documents", workspace.version("documents")).select("doc_id", "text")

    def texts(ids: pl.Series) -> pl.DataFrame:
        return documents.join(ids.to_frame().lazy(), on="doc_id", how="semi").collect(engine="streaming")

    counts: list[int] = []
    served: Served | None = None
    with progress.track("scoring rows", estimated_rows(part)) as advance:
        for number, (good, bad) in enumerate(chunks(part, fields, workspace.config.scoring.batch_rows, texts)):
            path = parts / f"{number:06d}"
            if not path.exists():
                if served is None and good.height:
                    served = load_version(workspace, version)
                _write(bad.lazy(), path.with_suffix(".bad"), "parquet")
                _write(_scored(served, good, workspace.config.labels.scale).lazy(), path, "parquet")
            counts.append(good.height)
            advance(good.height + bad.height)
    return counts


def _scored(served: Served | None, pairs: pl.DataFrame, scale: list[int]) -> pl.DataFrame:
    kept = pairs.drop("text")
    if served is None or pairs.is_empty():
        return kept.with_columns(pl.lit(0.0, pl.Float32).alias(name) for name in _names(scale)).clear()
    probabilities = served.model.probabilities(pairs["query"].to_list(), pairs["text"].to_list())
    values = [expected_label(probabilities, scale), *probabilities.T]
    return kept.with_columns(
        pl.Series(name, value, pl.Float32) for name, value in zip(_names(scale), values, strict=True)
    )


def _names(scale: list[int]) -> list[str]:
    return ["score", *(f"p_{label}" for label in scale)]


def _identity(workspace: Workspace, part: Part, fields: Mapping[str, str], version: str) -> str:
    """A name for everything that the result depends on."""
    config = workspace.config
    rest = [dict(fields), version, config.relevance.max_tokens, config.relevance.precision, config.labels.scale]
    known = [part.identity(), workspace.version("documents"), config.scoring.batch_rows, *rest]
    return hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()[:24]


def _beside(file: Path) -> Path:
    name = file.name.removesuffix(".gz")
    suffix = Path(name).suffix
    known = suffix.lower() in FORMATS
    return file.with_name(f"{name.removesuffix(suffix)}.scores{suffix}" if known else f"{name}.scores.parquet")


def _kind(out: Path) -> str:
    """Raises ValueError for a name that says no format."""
    if out.suffix.lower() not in FORMATS:
        raise ValueError(f"{out}: give a name that ends in one of {', '.join(FORMATS)}")
    if not out.absolute().parent.is_dir():
        raise ValueError(f"{out}: there is no folder {out.absolute().parent}")
    return FORMATS[out.suffix.lower()]


def _write(frame: pl.LazyFrame, path: Path, kind: str) -> None:
    """Write a file whole or not at all."""
    scratch = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    options = {"separator": "\t"} if path.suffix.lower() == ".tsv" else {}
    try:
        WRITERS[kind](frame, scratch, **options)
        os.replace(scratch, path)
    finally:
        scratch.unlink(missing_ok=True)
