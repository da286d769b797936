"""The verb ingest: foreign logs, documents and judgments into the workspace's tables, bad rows into quarantine.

Rows stream through in batches of `ingest.batch_rows`; every batch is one atomic commit, quarantine first. Nothing is
lost: rows_read = added + already_there + quarantined, for every source. A run that was killed is mended by running it
again, and the same input twice adds nothing. Memory: a batch, the known document ids, and 8 bytes for every row read
(a 64-bit hash of its key, to tell duplicates).
"""

import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from serm.ingest import checks, quarantine
from serm.ingest.columns import KINDS, SYNONYMS, Kind, check_fields, guess, understand
from serm.ingest.documents import Layout
from serm.ingest.read import FAULTS, ROW, Chunk
from serm.ingest.shapes import SHAPES, folder_parts
from serm.ingest.sources import Part, expand, file_part, spool_stdin
from serm.ingest.split import stable_split
from serm.records import SPLITS, TABLES
from serm.workspace import Workspace
from sps import progress

FIRST_ROWS = 5


@dataclass(frozen=True)
class SourceSummary:
    """What one source held, and what became of its rows."""

    source: str
    table: str
    format: str
    columns: dict[str, str]  # our field -> the source's column
    ignored: list[str]  # columns that became no field (of documents: neither text nor attribute)
    rows_read: int
    added: int  # new rows; of documents, also changed ones
    already_there: int
    quarantined: int
    reasons: dict[str, int]  # "field: reason" -> rows
    notes: list[str]  # what a person should know: empty files, doubtful settings
    first_rows: list[dict[str, Any]] = field(default_factory=list)  # of a dry run


@dataclass(frozen=True)
class IngestSummary:
    """All sources together; rows_read = added + already_there + quarantined."""

    dry_run: bool
    rows_read: int
    added: int
    already_there: int
    quarantined: int
    reasons: dict[str, int]
    sources: list[SourceSummary]


def ingest(
    workspace: Workspace,
    sources: Sequence[str],
    kind: Kind = "impressions",
    shape: str = "auto",
    columns: Mapping[str, str] | None = None,
    split: str | None = None,
    judge: str | None = None,
    dry_run: bool = False,
) -> IngestSummary:
    """Read files, patterns, collection folders or "-" (standard input) into the tables.

    `kind` says what plain files hold; folders say it by their `shape` (recognised when "auto"). `columns` maps our
    fields to the sources' columns, over `ingest.columns` and what is guessed from common names. Of judgments, `split`
    is one of SPLITS, "auto" (a stable hash of the query), or None (what the source says, else the hash); `judge`
    is who gave the grades (None: what the source says, else "human"). `dry_run` writes nothing and returns what was
    understood, the first rows, and the counts that a real run would have. An empty file counts zero rows.

    Raises:
        ValueError: a source is absent, unreadable or lacks a column, or an argument is unknown.
    """
    columns = dict(columns or {})
    config = workspace.config.ingest
    if kind not in KINDS:
        raise ValueError(f"kind {kind!r} is unknown; it is one of {', '.join(KINDS)}")
    if shape not in SHAPES:
        raise ValueError(f"shape {shape!r} is unknown; it is one of {', '.join(SHAPES)}")
    if split is not None and split not in (*SPLITS, "auto"):
        raise ValueError(f"split {split!r} is unknown; it is one of {', '.join(SPLITS)}, or auto")
    check_fields(config.columns, KINDS, "ingest.columns")
    with ExitStack() as stack:
        parts = _parts(sources, kind, shape, config.dev_share, stack)
        check_fields(columns, list(dict.fromkeys(part.kind for part in parts)), "column mapping")
        run = None
        if not dry_run:
            run = stack.enter_context(workspace.run("ingest", sources=list(sources), kind=kind, shape=shape))
        importer = _Importer(workspace, columns, split, judge, dry_run)
        summary = _total([importer.take(part) for part in parts], dry_run)
        if run is not None:
            run.result.update(asdict(summary))
    return summary


def _parts(sources: Sequence[str], kind: Kind, shape: str, dev_share: float, stack: ExitStack) -> list[Part]:
    found: list[Part] = []
    if "-" in sources:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="serm-")))
        found.append(file_part(kind, spool_stdin(folder), label="stdin"))
    for path in expand([source for source in sources if source != "-"]):
        if path.is_dir():
            found += folder_parts(path, shape, dev_share)
        elif shape in ("auto", "files"):
            found.append(file_part(kind, path))
        else:
            raise ValueError(f"{path}: a file; the shape {shape!r} is that of a folder")
    if not found:
        raise ValueError("no sources given; give files, patterns, folders, or - for standard input")
    return sorted(found, key=lambda part: part.kind != "documents")


def _total(sources: list[SourceSummary], dry_run: bool) -> IngestSummary:
    reasons: dict[str, int] = {}
    for source in sources:
        for why, count in source.reasons.items():
            reasons[why] = reasons.get(why, 0) + count
    return IngestSummary(
        dry_run,
        sum(source.rows_read for source in sources),
        sum(source.added for source in sources),
        sum(source.already_there for source in sources),
        sum(source.quarantined for source in sources),
        dict(sorted(reasons.items(), key=lambda item: (-item[1], item[0]))),
        sources,
    )


@dataclass
class _Tally:
    """What became of a source's rows so far."""

    mapping: dict[str, str] = field(default_factory=dict)
    names: dict[str, None] = field(default_factory=dict)  # every column seen
    read: int = 0
    added: int = 0
    quarantined: int = 0
    reasons: dict[str, int] = field(default_factory=dict)
    grades: set[int] = field(default_factory=set)
    first: list[dict[str, Any]] = field(default_factory=list)


class _Importer:
    """What one call of ingest remembers from batch to batch."""

    def __init__(
        self, workspace: Workspace, columns: dict[str, str], split: str | None, judge: str | None, dry_run: bool
    ) -> None:
        self.workspace, self.settings = workspace, workspace.config.ingest
        self.columns, self.split, self.judge, self.dry_run = columns, split, judge, dry_run
        self.now = datetime.now(UTC)
        self.seen: dict[Kind, NDArray[np.uint64]] = {kind: np.empty(0, np.uint64) for kind in KINDS}
        self.documents = workspace.scan("documents").select("doc_id").collect()["doc_id"]

    def take(self, part: Part) -> SourceSummary:
        """Read one part to its end."""
        tally = _Tally()
        names = part.names()
        if names:
            given = {**part.columns, **{f: c for f, c in self.columns.items() if f in SYNONYMS[part.kind]}}
            tally.mapping = understand(part.kind, names, given, self.settings.columns, part.label)
            tally.names = dict.fromkeys(names)
            layout = Layout(tally.mapping, self.settings.text_fields, part.untyped)
            source = part.identity()
            with progress.track(f"ingesting {part.label}") as advance:
                for chunk in part.chunks(self.settings.batch_rows):
                    self._take_chunk(part, chunk, layout, source, tally)
                    advance(chunk.frame.height + chunk.bad.height)
            if part.kind == "documents":
                tally.names = {name: None for name in tally.names if name not in layout.kinds}
        return SourceSummary(
            source=part.label,
            table=part.kind,
            format=part.format,
            columns=tally.mapping,
            ignored=[name for name in tally.names if name not in tally.mapping.values()],
            rows_read=tally.read,
            added=tally.added,
            already_there=tally.read - tally.added - tally.quarantined,
            quarantined=tally.quarantined,
            reasons=dict(sorted(tally.reasons.items(), key=lambda item: (-item[1], item[0]))),
            notes=self._notes(tally),
            first_rows=tally.first,
        )

    def _take_chunk(self, part: Part, chunk: Chunk, layout: Layout, source: str, tally: "_Tally") -> None:
        new = [name for name in chunk.frame.columns if name not in tally.names and name not in (ROW, FAULTS)]
        tally.names.update(dict.fromkeys(new))
        tally.mapping |= guess(part.kind, new, tally.mapping)
        good, bad = self._judge(part, chunk, tally.mapping, layout)
        added = self._store(part.kind, good, quarantine.rows(bad, part.kind, source))
        tally.read += good.height + bad.height
        tally.added += added
        tally.quarantined += bad.height
        for why, count in quarantine.reasons(bad).items():
            tally.reasons[why] = tally.reasons.get(why, 0) + count
        if part.kind == "judgments":
            tally.grades.update(good["grade"].unique())
        if self.dry_run:
            tally.first += good.head(FIRST_ROWS - len(tally.first)).to_dicts()

    def _notes(self, tally: "_Tally") -> list[str]:
        notes = []
        if not tally.read:
            notes.append("no rows: the file is empty")
        unread = tally.reasons.get("ts: not a timestamp", 0)
        if unread and unread == tally.read:
            notes.append("no timestamp could be read: set ingest.timestamp_format")
        scale, grades = self.workspace.config.labels.scale, tally.grades
        if tally.reasons.get("grade: off the scale") or (grades and len(scale) > 2 and max(grades) <= scale[1]):
            taken = ", ".join(map(str, sorted(grades))) or "others"
            notes.append(f"labels.scale is {scale}, the grades taken are {taken}: is the scale right?")
        return notes

    def _judge(
        self, part: Part, chunk: Chunk, mapping: dict[str, str], layout: Layout
    ) -> tuple[pl.DataFrame, pl.DataFrame]:
        """A chunk's good rows in the table's columns, and all its bad ones with BAD_SCHEMA."""
        frame = chunk.frame
        if frame.is_empty():
            return TABLES[part.kind].empty(), chunk.bad
        plan = self._plan(part.kind, frame, mapping, layout)
        good, bad = checks.apply(frame, plan)
        if part.kind == "judgments":
            good = self._complete(good, part)
        # Duplicates first: whether a row is one depends on the input alone, so a rerun finds the same.
        good, repeated = self._duplicates(part.kind, good, frame)
        bad = pl.concat([bad, repeated])
        if part.kind == "judgments":
            good, contradicting = self._contradictions(good, frame)
            bad = pl.concat([bad, contradicting])
        told = pl.concat([chunk.bad, quarantine.described(bad)]).sort("row")
        return TABLES[part.kind].conform(good.drop(ROW)), told

    def _plan(self, kind: Kind, frame: pl.DataFrame, mapping: dict[str, str], layout: Layout) -> checks.Plan:
        if kind == "impressions":
            return checks.impressions(frame.schema, mapping, self.settings, self.documents, self.now)
        if kind == "judgments":
            scale = self.workspace.config.labels.scale
            return checks.judgments(frame.schema, mapping, self.settings, self.documents, scale)
        layout.learn(frame)
        return layout.plan(frame.schema, mapping)

    def _complete(self, good: pl.DataFrame, part: Part) -> pl.DataFrame:
        """Judgments with their split and judge."""
        hashed = stable_split(good["query"], self.settings.dev_share, self.settings.anchor_share)
        if self.split == "auto":
            split: pl.Expr = pl.lit(hashed)
        elif self.split is not None:
            split = pl.lit(self.split)
        else:
            split = pl.coalesce(pl.col("split"), pl.lit(part.split, pl.String), hashed)
        judge = pl.coalesce(pl.col("judge"), pl.lit("human")) if self.judge is None else pl.lit(self.judge)
        return good.with_columns(split.alias("split"), judge.alias("judge"))

    def _contradictions(self, good: pl.DataFrame, frame: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
        """Set aside judgments of a pair that the same judge has already graded otherwise."""
        key = list(TABLES["judgments"].key)
        there = (
            self.workspace.scan("judgments")
            .select(*key, pl.col("grade").alias("old"))
            .join(good.select(key).unique().lazy(), on=key, how="semi")
            .collect()
        )
        joined = good.join(there, on=key, how="left", maintain_order="left")
        other = joined.filter(pl.col("old").is_not_null() & (pl.col("old") != pl.col("grade")))
        return good.join(other, on=ROW, how="anti", maintain_order="left"), _bad_rows(
            frame, other, "grade", "another grade is already there"
        )

    def _duplicates(self, kind: Kind, good: pl.DataFrame, frame: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
        """Keep the first row of every key in this call's input."""
        hashes = good.select(TABLES[kind].key).hash_rows(seed=1).to_numpy()
        first = np.zeros(hashes.size, bool)
        first[np.unique(hashes, return_index=True)[1]] = True
        before = self.seen[kind]
        if before.size:
            first &= before[np.minimum(np.searchsorted(before, hashes), before.size - 1)] != hashes
        self.seen[kind] = np.sort(np.concatenate([before, hashes[first]]), kind="stable")
        keep = pl.Series(first)
        return good.filter(keep), _bad_rows(frame, good.filter(~keep), "row", "duplicate")

    def _store(self, kind: Kind, good: pl.DataFrame, bad: pl.DataFrame) -> int:
        """Commit a batch (or only look, in a dry run); returns how many rows are new."""
        if kind == "documents" and not good.is_empty():
            self.documents = pl.concat([self.documents, good["doc_id"]]).unique()
        if self.dry_run:
            on = good.columns if kind == "documents" else list(TABLES[kind].key)
            there = self.workspace.scan(kind).select(on)
            return good.height - there.join(good.lazy(), on=on, how="semi", nulls_equal=True).collect().height
        self.workspace.append("quarantine", bad)
        return (self.workspace.upsert if kind == "documents" else self.workspace.append)(kind, good)


def _bad_rows(frame: pl.DataFrame, rows: pl.DataFrame, name: str, reason: str) -> pl.DataFrame:
    """The source's own columns of `rows`, as `checks.apply` returns bad rows."""
    found = frame.join(rows.select(ROW), on=ROW, how="semi", maintain_order="left")
    return found.with_columns(pl.lit(name).alias("=field"), pl.lit(reason).alias("=reason"))
