"""Where rows come from: paths, globs and standard input become files with a format and a lasting name."""

import glob
import hashlib
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

from serm.ingest import read
from serm.ingest.columns import Kind
from serm.ingest.read import Chunk, Format

FORMATS: dict[str, Format] = {
    ".parquet": "parquet", ".pq": "parquet", ".csv": "csv", ".tsv": "csv", ".jsonl": "ndjson", ".ndjson": "ndjson",
}  # fmt: skip


@dataclass(frozen=True)
class Part:
    """Rows for one table from one file, with what its shape already knows about them."""

    kind: Kind
    path: Path
    label: str  # what people call it, in errors and summaries
    format: str
    names: Callable[[], list[str]]
    chunks: Callable[[int], Iterator[Chunk]]
    columns: dict[str, str] = field(default_factory=dict)  # our field -> its column, where the shape says so
    split: str | None = None  # of judgments, where the shape says so

    @property
    def untyped(self) -> bool:
        """Whether numbers come as text."""
        return self.format == "csv"

    def identity(self) -> str:
        """The name under which quarantine knows this content: where it lies and a digest of what it holds.

        The same file read again has the same name; a file overwritten with other rows has another (ours).
        """
        with self.path.open("rb") as stream:
            digest = hashlib.file_digest(stream, "blake2b").hexdigest()[:12]
        place = self.label if self.label == "stdin" else self.path.resolve().as_posix()
        return f"{place}@{digest}"


def file_part(
    kind: Kind,
    path: Path,
    label: str | None = None,
    transform: Callable[[pl.DataFrame], pl.DataFrame] | None = None,
    needs: Sequence[str] = (),
    adds: Sequence[str] = (),
    columns: dict[str, str] | None = None,
    split: str | None = None,
) -> Part:
    """A CSV, NDJSON or Parquet file as a part; `transform` reads the columns `needs` and adds those of `adds`."""
    name = label or str(path)
    file_format = _format(path, name)

    def names() -> list[str]:
        found = read.names(path, file_format, name)
        absent = [column for column in needs if column not in found]
        if found and absent:
            raise ValueError(f"{name}: no column {absent[0]!r}, which this shape needs; there are: {', '.join(found)}")
        return [*found, *adds] if found else []

    def chunks(rows: int) -> Iterator[Chunk]:
        for chunk in read.chunks(path, file_format, name, rows):
            yield chunk if transform is None else Chunk(transform(chunk.frame), chunk.bad)

    return Part(kind, path, name, file_format, names, chunks, columns or {}, split)


def expand(sources: Sequence[str]) -> list[Path]:
    """Paths of files and folders behind paths and globs, each once, in the order given (a glob's sorted).

    Raises:
        ValueError: something is not there, or is an address rather than a path.
    """
    found: dict[Path, Path] = {}
    for source in sources:
        if "://" in source:
            raise ValueError(f"{source}: only files of this machine can be ingested; copy it here first")
        path = Path(source)
        paths = (
            [path]
            if path.exists()
            else [Path(match) for match in sorted(glob.glob(source, recursive=True)) if Path(match).is_file()]
        )
        if not paths:
            raise ValueError(f"{source}: no such file or folder, and no file matches it as a pattern")
        for each in paths:
            found.setdefault(each.resolve(), each)
    return list(found.values())


def spool_stdin(folder: Path) -> Path:
    """Standard input as a file in `folder`, so that it can be looked at before it is read; memory stays bounded."""
    path = folder / "stdin"
    with path.open("wb") as file:
        while block := sys.stdin.buffer.read(1 << 20):
            file.write(block)
    return path


def _format(path: Path, label: str) -> Format:
    """The format by the file's name, else by its first bytes.

    Raises:
        ValueError: it is a JSON array, which cannot be streamed.
    """
    suffixes = [suffix.lower() for suffix in path.suffixes if suffix.lower() != ".gz"]
    if suffixes and suffixes[-1] in FORMATS:
        return FORMATS[suffixes[-1]]
    with path.open("rb") as file:
        if file.read(4) == b"PAR1":
            return "parquet"
    start = read.beginning(path, label).removeprefix(b"\xef\xbb\xbf").lstrip()
    if start.startswith(b"["):
        raise ValueError(f"{label}: a JSON array; give one JSON object per line instead (jq -c '.[]' makes it so)")
    return "ndjson" if start.startswith(b"{") else "csv"
