"""The verb report: the workspace's page as one HTML file, and its gist in Markdown."""

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from serm.report.backtest import gather_backtest
from serm.report.draw_backtest import answers, backtest_page
from serm.report.draw_backtest import headline as backtest_headline
from serm.report.facts import Facts
from serm.report.gather import gather
from serm.report.page import page
from serm.report.words import better, changed, decide, gain
from serm.report.words import headline as title
from serm.workspace import Workspace

PAGE = ("reports", "report.html")


@dataclass(frozen=True)
class ReportSummary:
    """Where the page lies, and its first screen in words."""

    path: str
    bytes: int
    headline: str
    better: str
    changed: str
    decide: str


@dataclass(frozen=True)
class BacktestSummary:
    """Where a backtest's page lies, and its first screen in words."""

    path: str
    headline: str
    answers: dict[str, str]


def report(workspace: Workspace, out: str | Path | None = None, facts: Facts | None = None) -> ReportSummary:
    """Write the workspace's report: to the file `out`, or into the workspace as reports/report.html.

    Only reads the tables; equal tables give the same page but for its date. `facts`: those that were gathered already.
    """
    facts = facts or gather(workspace)
    content = page(facts, datetime.now(UTC).date())
    if out is None:
        workspace.write_text(*PAGE, content)
        path = workspace.url(*PAGE)
    else:
        Path(out).parent.mkdir(parents=True, exist_ok=True)
        Path(out).write_text(content, encoding="utf-8")
        path = str(out)
    told = [
        f"{answer.short.rstrip('.')}. {answer.sentence}" for answer in (better(facts), changed(facts), decide(facts))
    ]
    return ReportSummary(path, len(content.encode()), title(facts), *told)


def report_backtest(folder: str | Path, out: str | Path | None = None) -> BacktestSummary:
    """Write the page of a backtest whose finished cells are in `folder`: to `out`, or to report.html there.

    Raises:
        WorkspaceError: there are no cells, or several backtests.
    """
    found = gather_backtest(folder)
    path = Path(folder) / "report.html" if out is None else Path(out)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(backtest_page(found, datetime.now(UTC).date()), encoding="utf-8")
    told = {question: f"{said.short}. {said.sentence}" for question, said in answers(found)}
    return BacktestSummary(str(path), backtest_headline(found), told)


def markdown(facts: Facts) -> str:
    """The report's first screen and its rounds as Markdown, for a place where only a few lines fit."""
    lines = [f"## {title(facts)}", ""]
    questions = (("Is search better?", better), ("What changed?", changed), ("What needs a decision?", decide))
    for question, answer in questions:
        found = answer(facts)
        lines.append(f"- **{question}** {_plain(found.short)}. {_plain(found.sentence)}")
    if facts.rounds:
        lines += ["", "| round | outcome | mined | kept | on new searches |", "|---|---|---|---|---|"]
        for round in facts.rounds[-10:]:
            found_gain = gain(round.gate.fresh.difference) if round.gate and round.gate.fresh else "–"
            lines.append(f"| {round.number} | {round.state} | {round.mined:,} | {round.labels.kept:,} | {found_gain} |")
    return "\n".join(lines) + "\n"


def _plain(value: str) -> str:
    """Text that Markdown does not take for markup."""
    return "".join(f"\\{letter}" if letter in "\\`*_{}[]<>#|~" else letter for letter in value.rstrip(".")).replace(
        "\n", " "
    )
