"""The verb `shift`: look at the newest window, say whether a round is due early, and draw the page."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from serm import registry
from serm.config import ShiftSettings
from serm.relevance.model import RelevanceModel
from serm.shift.detect import STEPS
from serm.shift.page import page
from serm.shift.report import ShiftReport
from serm.workspace import Workspace
from sps.progress import track

PAGE = ("reports", "shift.html")
ORDER = ("none", "mild", "strong")


@dataclass(frozen=True)
class ShiftCheck:
    """A shift check, and whether a round is due before its time."""

    report: ShiftReport
    trigger: bool
    reason: str  # of the trigger, or of its absence
    first: datetime  # of the current window
    last: datetime
    page: str  # where the HTML page lies

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain data, ready for JSON."""
        return {
            "verdict": self.report.verdict, "trigger": self.trigger, "reason": self.reason,
            "first": self.first.isoformat(), "last": self.last.isoformat(), "page": self.page,
        } | self.report.to_dict()  # fmt: skip


def shift(workspace: Workspace) -> ShiftCheck:
    """Compare the newest window with the one before, as the next round of mining will, and decide on a trigger.

    The window, its reference, the seed and so the verdict are those of `serm.mine`; nothing is mined. A scheduler may
    call this daily, and `evolve` when `trigger` is true. The page is replaced each time; equal data, settings and seed
    give the same one.

    Raises:
        WorkspaceError: there are no impressions.
    """
    from serm.mining.mine import next_round, windows

    config = workspace.config
    with workspace.run("shift") as run:
        reference, current = windows(workspace)
        first, last = _span(current)
        from serm.mining.graph import watch  # heavy; an empty workspace is told so at once
        from serm.relevance.embedding import embed

        def embed_queries(texts: Sequence[str]) -> NDArray[np.float32]:
            return embed(texts, config.relevance)

        with track("shift", STEPS) as advance:
            report = watch(
                reference, current, workspace.scan("documents"), _champion(workspace),
                embed_queries, config, config.seed + next_round(workspace), advance,
            )  # fmt: skip
        trigger, reason = decide(report, config.shift, days_since_mining(workspace, last))
        workspace.write_text(*PAGE, page(report, config.shift, trigger, reason, first, last))
        run.result = {"verdict": report.verdict, "trigger": trigger, "reason": reason}
    return ShiftCheck(report, trigger, reason, first, last, workspace.url(*PAGE))


def decide(report: ShiftReport, settings: ShiftSettings, since: float | None) -> tuple[bool, str]:
    """Whether a round is due early, and why; `since`: days of log that came after the last mined round, if any."""
    if settings.trigger == "never":
        return False, "shift.trigger is never: rounds come by their schedule alone."
    if report.verdict == "unknown":
        return False, "Nothing could be compared, so nothing calls for an early round."
    if ORDER.index(report.verdict) < ORDER.index(settings.trigger):
        return False, f"The verdict is {report.verdict}; an early round takes {settings.trigger}."
    if since is not None and since < settings.trigger_days:
        return False, (
            f"The verdict is {report.verdict}, but only {since:.1f} days of log came after the last round; "
            f"{settings.trigger_days:g} are needed."
        )
    strongest = max((v for v in report.views if v.significant), key=lambda view: view.effect or 0.0)
    return True, f"The verdict is {report.verdict}: {strongest.text}."


def days_since_mining(workspace: Workspace, newest: datetime) -> float | None:
    """Days of log between the newest impression that the last finished mining saw and `newest`; None before any."""
    runs = workspace.scan("runs").filter(verb="mine")
    finished = runs.filter(status="finished").select("run_id")
    started = (
        runs.filter(status="started")
        .join(finished, on="run_id", how="semi")
        .sort("ts")
        .select("data_versions")
        .last()
        .collect()
    )
    if started.is_empty():
        return None
    seen = json.loads(started.item())["impressions"]
    last = workspace.scan("impressions", seen).select(pl.col("ts").max()).collect().item()
    return None if last is None else (newest - last).total_seconds() / 86_400


def _champion(workspace: Workspace) -> RelevanceModel | None:
    """The model that mining would ask; None where there is none yet, or the log's own scores are used."""
    if workspace.config.mining.scores == "logged" or registry.history(workspace).is_empty():
        return None
    from serm.relevance import load

    folder = registry.folder(workspace, registry.champion(workspace))
    return load(folder, workspace.config.relevance, workspace.config.labels.scale)


def _span(current: pl.LazyFrame) -> tuple[datetime, datetime]:
    first, last = current.select(first=pl.col("ts").min(), last=pl.col("ts").max()).collect(engine="streaming").row(0)
    return first, last
