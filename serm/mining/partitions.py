"""The log cut into parts of whole visits, whose sums are computed apart, kept on disk, and read as one.

A part is a UTC day, or a share of its visits where a day is long, so that memory is that of a part. Each part's sums
are written whole or not at all: a run that was killed, or that lost a worker, computes only the parts that are missing.
"""

import hashlib
import os
import shutil
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import polars as pl

from serm.config import MiningSettings
from serm.mining import distribution
from serm.mining.aggregates import FRAMES, LAYOUT, Sums, believed, sums
from serm.mining.traffic import VISIT
from sps import progress

PART_ROWS = 4_000_000  # about 0.8 GiB while it is added up
ROW_GROUP = 65_536  # small, so that a reader who wants a range of keys skips the rest
UNUSED_SECONDS = 7 * 24 * 3_600  # long enough that no miner at work still reads them
COUNTED = ("per_session", "bot_clicks", "bot_dwell", "bot_share")  # settings that a part's sums depend on


@dataclass(frozen=True)
class Part:
    """Visits of one day: all, or the `share`-th of `shares` by the hash of the visit."""

    day: date
    share: int = 0
    shares: int = 1

    def of(self, impressions: pl.LazyFrame) -> pl.LazyFrame:
        """The part's rows; a range of `ts`, so that files of other days are never opened."""
        start = datetime(self.day.year, self.day.month, self.day.day, tzinfo=UTC)
        rows = impressions.filter((pl.col("ts") >= start) & (pl.col("ts") < start + timedelta(days=1)))
        return rows if self.shares == 1 else rows.filter(VISIT % self.shares == self.share)


@dataclass(frozen=True)
class Cache:
    """A folder that keeps parts' sums between runs; `log` names the state of the log (table versions, filters)."""

    folder: Path
    log: str

    def parts(self, settings: MiningSettings) -> Path:
        """The folder for this log and these settings; others that nobody asked for in days are removed."""
        counted = [f"{name}={getattr(settings, name)}" for name in COUNTED]
        named = [self.log, pl.__version__, f"layout={LAYOUT}", *counted]
        mine = self.folder / hashlib.sha256("\n".join(named).encode()).hexdigest()[:16]
        mine.mkdir(parents=True, exist_ok=True)
        os.utime(mine)
        for other in self.folder.glob("*"):
            if other != mine and time.time() - other.stat().st_mtime > UNUSED_SECONDS:
                shutil.rmtree(other, ignore_errors=True)
        return mine


def cut(impressions: pl.LazyFrame) -> list[Part]:
    """The parts of a log, by day; reads the column `ts` alone."""
    days = (
        impressions.select(day=pl.col("ts").dt.date())
        .group_by("day")
        .agg(rows=pl.len())
        .collect(engine="streaming")
        .sort("day")
    )
    sizes = [(day, -(-rows // PART_ROWS)) for day, rows in days.iter_rows()]
    return [Part(day, share, shares) for day, shares in sizes for share in range(shares)]


def add_up(impressions: pl.LazyFrame, settings: MiningSettings, folder: Path) -> Sums:
    """The sums of every part, read from `folder`, where those that were missing are computed and kept first."""
    parts = cut(impressions) or [Part(date.min)]  # a log without rows has one part without rows
    missing = [part for part in parts if not _place(folder, part).exists()]
    with progress.track("adding up the log, a day each", len(missing)) as advance:
        for part, frames in _computed(impressions, missing, settings):
            _keep(_place(folder, part), frames)
            advance()
    places = [_place(folder, part) for part in parts]
    return Sums(*(pl.scan_parquet([place / f"{name}.parquet" for place in places]) for name in FRAMES))


def compute(impressions: pl.LazyFrame, part: Part, settings: MiningSettings) -> list[pl.DataFrame]:
    """A part's sums in memory, sorted by key: shown, clicks, ranks."""
    found = sums(believed(part.of(impressions), settings).collect(engine="streaming").lazy(), settings)
    shown, clicks, ranks = pl.collect_all([found.shown, found.clicks, found.ranks], engine="streaming")
    return [shown.sort("query_key"), clicks.sort("query_key"), ranks]


def _computed(
    impressions: pl.LazyFrame, parts: list[Part], settings: MiningSettings
) -> Iterator[tuple[Part, list[pl.DataFrame]]]:
    if settings.distribute == "ray" and parts:
        yield from distribution.by_ray(compute, impressions, parts, settings)
    else:
        for part in parts:
            yield part, compute(impressions, part, settings)


def _place(folder: Path, part: Part) -> Path:
    return folder / f"{part.day.isoformat()}-{part.share}-of-{part.shares}"


def _keep(place: Path, frames: list[pl.DataFrame]) -> None:
    scratch = place.with_name(f".{place.name}.{uuid.uuid4().hex}")
    scratch.mkdir(parents=True)
    for name, frame in zip(FRAMES, frames, strict=True):
        frame.write_parquet(scratch / f"{name}.parquet", compression="lz4", row_group_size=ROW_GROUP)
    try:
        scratch.rename(place)
    except OSError:
        if not place.exists():
            raise
        shutil.rmtree(scratch)  # another miner of the same log was faster; both added up the same
