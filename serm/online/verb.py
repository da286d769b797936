"""The verbs abtest, plan_abtest and interleave: a log in, a verdict and a page out."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import polars as pl

from serm.online.experiment import Experiment, analyse
from serm.online.interleaving import Preference, compare, credit
from serm.online.log import TEAM, Log, demand, from_files, from_workspace, usable
from serm.online.page import page
from serm.online.plan import Plan, plan
from serm.online.words import Verdict, judge
from serm.workspace import Workspace

PAGE = ("reports", "abtest.html")


@dataclass(frozen=True)
class Tested:
    """An A/B test as it stands: the verdict, the figures, and where the page lies."""

    verdict: Verdict
    experiment: Experiment
    page: str

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain data, ready for JSON."""
        found = asdict(self.experiment)
        found |= {"first": self.experiment.first.isoformat(), "last": self.experiment.last.isoformat()}
        return asdict(self.verdict) | found | {"page": self.page}


def abtest(workspace: Workspace, sources: Sequence[str] = (), columns: Mapping[str, str] | None = None) -> Tested:
    """Read an A/B test from log files, or from the workspace's impressions, and write a page.

    `columns` maps our fields (ts, user, session, variant, query, clicked, dwell, negative, ...) to the log's columns,
    over `ingest.columns` and what is guessed from common names. Settings are those of the room `online`. The same log
    and settings give the same page.

    Raises:
        ValueError: the log has no or one variant, no user or session, or a column that was named is not there.
    """
    with workspace.run("abtest", sources=list(sources)) as run, _reading(sources):
        found = analyse(_log(workspace, sources, columns, ["ts", "variant"]), workspace.config.online)
        verdict = judge(found, workspace.config.online)
        workspace.write_text(*PAGE, page(found, verdict, workspace.config.online))
        run.result = {"verdict": verdict.verdict, "headline": verdict.headline}
    return Tested(verdict, found, workspace.url(*PAGE))


def plan_abtest(workspace: Workspace, sources: Sequence[str] = (), columns: Mapping[str, str] | None = None) -> Plan:
    """How long a test would take on traffic like this log's, for `online.effect` at `online.power`.

    Raises:
        ValueError: the log has no user or session, or fewer users than two variants need.
    """
    with _reading(sources):
        return plan(_log(workspace, sources, columns, ["ts"]), workspace.config.online)


def interleave(workspace: Workspace, sources: Sequence[str], columns: Mapping[str, str] | None = None) -> Preference:
    """Which of two interleaved rankings users prefer, from a log whose column `team` says who gave each result.

    Raises:
        ValueError: the log does not have exactly two teams, or lacks a column.
    """
    with workspace.run("interleave", sources=list(sources)) as run, _reading(sources):
        log = _log(workspace, sources, columns, ["ts", "query", "clicked", TEAM])
        demand(log, ["query", "clicked", TEAM])
        rows = usable(log, ["session"])
        found = rows.select(pl.col(TEAM).drop_nulls().unique()).collect(engine="streaming")[TEAM]
        teams = sorted(team for team in found if team)
        if len(teams) != 2:
            raise ValueError(
                f"interleaving compares two teams; the log names {len(teams)}: {', '.join(teams[:9]) or 'none'}"
            )
        numbered = pl.col(TEAM).replace_strict(teams, [0, 1], default=None, return_dtype=pl.Int8)
        result = compare(
            credit(rows.with_columns(numbered.alias("team"))), (teams[0], teams[1]), workspace.config.online,
            workspace.config.seed,
        )  # fmt: skip
        run.result = asdict(result)
    return result


@contextmanager
def _reading(sources: Sequence[str]) -> Iterator[None]:
    """A file that Polars cannot read ends in words."""
    try:
        yield
    except pl.exceptions.PolarsError as error:
        raise ValueError(
            f"{', '.join(sources) or 'impressions'}: cannot be read to the end ({error}); serm ingest sets bad rows "
            "aside, and serm abtest without files reads what it kept"
        ) from error


def _log(workspace: Workspace, sources: Sequence[str], columns: Mapping[str, str] | None, needs: Sequence[str]) -> Log:
    if sources:
        return from_files(sources, dict(columns or {}), workspace.config.ingest, needs)
    return from_workspace(workspace.scan("impressions"))
