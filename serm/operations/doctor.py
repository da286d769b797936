"""The verb doctor: looks at everything that a round will need, and says what to do about what is amiss.

A check returns what it found; what it raises becomes a failure with its message. Checks change nothing.
"""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal

import polars as pl

from serm import registry
from serm.annotation.ledger import Ledger
from serm.evaluation.scoring import human
from serm.evolution.round import unfinished
from serm.operations.champion import ask_champion
from serm.operations.endpoints import ask_endpoint
from serm.operations.scheduler import ask_prefect
from serm.records import EVALUATED, TABLES
from serm.workspace import Workspace

Level = Literal["ok", "warn", "fail"]
GIB = 1024**3
LEAST_DISK = 1.0  # GiB, below which a step may die in its middle
ROOM_FOR_MODELS = 3  # candidates of the champion's size that should fit
CLOCK_SECONDS = 60.0  # clocks that differ by more than this confuse leases, late runs and logs


@dataclass(frozen=True)
class Check:
    """One thing looked at."""

    check: str
    level: Level
    found: str
    do: str = ""  # what mends it


def doctor(workspace: Workspace) -> list[Check]:
    """Look at tables, data, models, annotators, ledger, disk, clocks and Prefect; the worst level decides."""
    looks: list[tuple[str, Callable[[Workspace], Iterator[Check]]]] = [
        ("workspace", _tables), ("data", _data), ("champion", _champion), ("round", _round),
        ("annotators", _annotators), ("ledger", _ledger), ("disk", _disk), ("clock", _clock), ("prefect", _prefect),
    ]  # fmt: skip
    return [check for name, look in looks for check in _safely(name, look, workspace)]


def _safely(name: str, look: Callable[[Workspace], Iterator[Check]], workspace: Workspace) -> list[Check]:
    """A look's checks; an error of the kinds that a mend is known for is one, and does not end the others."""
    try:
        return list(look(workspace))
    except (ValueError, OSError, RuntimeError, ImportError) as error:
        return [Check(name, "fail", f"{type(error).__name__}: {error}", "mend what the message names")]


def _tables(workspace: Workspace) -> Iterator[Check]:
    """Every table opens, and a file can be written and taken away."""
    name = ".doctor"
    workspace.write_text(name, "written by serm doctor")
    workspace.filesystem().rm(workspace.url(name))
    rows = {table: workspace.scan(table).select(pl.len()).collect().item() for table in TABLES}
    yield Check("workspace", "ok", f"{workspace.root}: writable, {sum(rows.values()):,} rows in {len(rows)} tables")


def _data(workspace: Workspace) -> Iterator[Check]:
    newest = workspace.scan("impressions").select(pl.col("ts").max()).collect().item()
    days = workspace.config.window.days
    if newest is None:
        yield Check("log", "fail", "no impressions", "serm ingest logs/*.parquet")
    elif datetime.now(UTC) - newest > timedelta(days=days):
        found = f"the newest impression is of {newest:%Y-%m-%d}, more than a window of {days:g} days ago"
        yield Check("log", "warn", found, "ingest newer logs before the next round: serm ingest")
    else:
        yield Check("log", "ok", f"newest impression {newest:%Y-%m-%d %H:%M} UTC")
    least = workspace.config.evaluation.minimum_queries
    for split in EVALUATED:
        queries = human(workspace.read("judgments"), split).filter(pl.col("grade") > min(workspace.config.labels.scale))
        count = queries["query"].n_unique()
        if count < least:
            found = f"{count} judged queries with a relevant document; the gate needs {least}"
            yield Check(f"{split} judgments", "warn", found, f"serm ingest --kind judgments FILE --split {split}")
        else:
            yield Check(f"{split} judgments", "ok", f"{count} judged queries")


def _champion(workspace: Workspace) -> Iterator[Check]:
    if registry.history(workspace).is_empty():
        yield Check("champion", "warn", "none yet", "serm update trains the first model")
        return
    try:
        yield Check("champion", "ok", f"{ask_champion(workspace)} loads and scores")
    except (ValueError, OSError, RuntimeError) as error:
        yield Check("champion", "fail", str(error), "serm rollback, or bring its folder back from a backup")


def _round(workspace: Workspace) -> Iterator[Check]:
    left = unfinished(workspace)
    if left is None:
        yield Check("round", "ok", "none is unfinished")
    else:
        yield Check("round", "warn", f"round {left} has no verdict", "if nothing works on it now: serm resume")


def _annotators(workspace: Workspace) -> Iterator[Check]:
    for annotator in workspace.config.annotation.annotators:
        for level, address, found, do in ask_endpoint(annotator):
            yield Check(f"annotator {annotator.name}", level, f"{address}: {found}", do)


def _ledger(workspace: Workspace) -> Iterator[Check]:
    ledger = Ledger(workspace.config.annotation.ledger or workspace.local("ledger.sqlite"))
    try:
        totals = ledger.totals().values()
    finally:
        ledger.close()
    found = f"{sum(t.calls for t in totals):,} calls, {sum(t.open for t in totals):,} of them without an answer"
    yield Check("ledger", "ok", found)


def _disk(workspace: Workspace) -> Iterator[Check]:
    """Room on this machine: a candidate and its checkpoint are written beside what is there."""
    free = shutil.disk_usage(workspace.local("x").parent).free / GIB
    folder = (
        None if registry.history(workspace).is_empty() else registry.folder(workspace, registry.champion(workspace))
    )
    model = 0.0 if folder is None else sum(path.stat().st_size for path in folder.rglob("*")) / GIB
    found = f"{free:.1f} GiB free; the champion has {model:.2f} GiB"
    if free < LEAST_DISK:
        yield Check("disk", "fail", found, "make room: old versions under models/, cache/, scores/")
    elif free < LEAST_DISK + ROOM_FOR_MODELS * model:
        yield Check("disk", "warn", found, "make room soon: old versions under models/, cache/, scores/")
    else:
        yield Check("disk", "ok", found)


def _clock(workspace: Workspace) -> Iterator[Check]:
    """This machine's clock against the last that wrote here."""
    last = workspace.scan("runs").select(pl.col("ts").max()).collect().item()
    ahead = 0.0 if last is None else (last - datetime.now(UTC)).total_seconds()
    if ahead > CLOCK_SECONDS:
        found = f"a run was recorded {ahead:,.0f} s in this machine's future"
        yield Check("clock", "warn", found, "set the clocks of all machines by NTP")
    else:
        yield Check("clock", "ok", "not behind the workspace's last run")


def _prefect(workspace: Workspace) -> Iterator[Check]:
    for level, name, found, do in ask_prefect(workspace.root, CLOCK_SECONDS):
        yield Check(name, level, found, do)
