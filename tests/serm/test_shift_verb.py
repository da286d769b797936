"""The verb and the command: the verdict that mining will find, triggers, the page, exit codes."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from zlib import crc32

import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray
from typer.testing import CliRunner

from serm.cli import app
from serm.config import ShiftSettings
from serm.mining.graph import spendable
from serm.records import IMPRESSIONS
from serm.shift import ShiftReport, View
from serm.shift.verb import decide
from serm.verbs import mine, shift
from serm.workspace import Workspace

MONDAY = datetime(2026, 1, 5, tzinfo=UTC)
SETTINGS = """
shift: {sample: 300, kernel_sample: 200, words_sample: 500, minimum: 20, clusters: 6}
mining: {scores: logged, budget: 40, thresholds: absolute, mild_share: 0.5}
"""


def embed(texts: Sequence[str]) -> NDArray[np.float32]:
    """A unit vector near the axis of the query's first word."""
    rows = []
    for text in texts:
        noise = np.random.default_rng(crc32(text.encode())).normal(scale=0.2, size=10)
        noise[crc32(text.split()[0].encode()) % 10] += 1
        rows.append(noise / np.linalg.norm(noise))
    return np.array(rows, dtype=np.float32).reshape(-1, 10)


def stream(seed: int, start: datetime, new: float = 0.0, sessions: int = 700) -> pl.DataFrame:
    """Two weeks of searches for shoes and hats, a share of them for a <script>-ish thing never heard of before."""
    rng = np.random.default_rng(seed)
    thing = np.where(rng.random(sessions) < new, "robot<b>", rng.choice(["shoe", "hat", "coat"], sessions))
    query = [f"{t} {w}" for t, w in zip(thing, rng.integers(0, 40, sessions), strict=True)]
    rows = {
        "ts": [start + timedelta(days=float(day)) for day in rng.random(sessions) * 13.99],
        "session": [f"{seed}-{i}" for i in range(sessions)],
        "query": query,
        "doc_id": [f"d{crc32(q.encode()) % 50}" for q in query],
        "position": 1,
        "clicked": rng.random(sessions) < 0.4,
        "score": rng.random(sessions),
    }
    rows["dwell"] = [60.0 if clicked else None for clicked in rows["clicked"]]
    return IMPRESSIONS.conform(pl.DataFrame(rows))


@pytest.fixture
def watched(tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """A month of traffic whose second half has a fifth of new intent; embeddings are stand-ins."""
    workspace = Workspace.create(f"{tmp_path}/w", SETTINGS)
    workspace.append("impressions", stream(1, MONDAY))
    workspace.append("impressions", stream(2, MONDAY + timedelta(days=14), 0.2))
    ids = [f"d{i}" for i in range(50)]
    workspace.append("documents", pl.DataFrame({"doc_id": ids, "text": ids, "title": ids}))
    monkeypatch.setattr("serm.relevance.embedding.embed", lambda texts, settings: embed(texts))
    return workspace


def test_the_check_finds_what_mining_will_and_holds_its_peace_after_a_round(watched: Workspace) -> None:
    first = shift(watched)
    assert (first.report.verdict, first.trigger) == ("strong", True)
    assert any("robot" in cluster.terms for cluster in first.report.grown)
    mined = mine(watched)
    assert mined.report == first.report.to_dict()
    again = shift(watched)  # the same shift, but a round has seen it
    assert (again.report.verdict, again.trigger) == ("strong", False)
    assert "0.0 days of log" in again.reason
    watched.append("impressions", stream(3, MONDAY + timedelta(days=20), 0.2))
    assert shift(watched).trigger  # six days later it goes on
    verbs = watched.read("runs").filter(status="finished").sort("ts")["verb"].to_list()
    assert verbs == ["shift", "mine", "shift", "shift"]


def test_the_page_is_whole_safe_and_the_same_again(watched: Workspace) -> None:
    one = shift(watched)
    page = watched.read_text("reports", "shift.html")
    assert one.page.endswith("reports/shift.html")
    shift(watched)
    assert watched.read_text("reports", "shift.html") == page
    assert "shifted strongly" in page
    assert "prefers-color-scheme: dark" in page
    assert "Content-Security-Policy" in page
    own = page.replace(page[page.index("<script>") : page.rindex("</script>")], "")  # without Plotly itself
    assert "http://" not in own
    assert "https://" not in own
    assert "robot<b>" not in own  # a query is data


def test_too_few_searches_are_said_to_be_too_few(watched: Workspace) -> None:
    watched.config.shift.minimum = 100_000
    found = shift(watched)
    assert (found.report.verdict, found.trigger) == ("unknown", False)
    assert "100000 are needed" in watched.read_text("reports", "shift.html").replace(",", "")


@pytest.mark.parametrize(
    ("verdict", "since", "trigger", "due"),
    [("strong", None, "strong", True), ("strong", 4.0, "strong", True), ("strong", 2.9, "strong", False),
     ("mild", None, "strong", False), ("mild", None, "mild", True), ("none", None, "mild", False),
     ("strong", None, "never", False), ("unknown", None, "mild", False)],
)  # fmt: skip
def test_when_a_round_is_due(verdict: str, since: float | None, trigger: str, due: bool) -> None:
    views = (View("words", 0.2, 0.0, 9, 9, "many new words", verdict in ("mild", "strong")),)
    report = ShiftReport(verdict, views)  # type: ignore[arg-type]
    found, reason = decide(report, ShiftSettings(trigger=trigger, trigger_days=3), since)  # type: ignore[arg-type]
    assert found is due
    assert reason.endswith(".")


def test_budgets_follow_the_verdict() -> None:
    verdicts = ("none", "mild", "strong", "unknown")
    assert [spendable(100, verdict, 0.25, 0.6) for verdict in verdicts] == [25, 60, 100, 100]
    assert [spendable(100, verdict, 1.0, 0.6) for verdict in verdicts] == [100] * 4  # a mild one is never below quiet
    assert spendable(1, "none", 0.1) == 1


def test_command(watched: Workspace) -> None:
    runner = CliRunner()
    told = runner.invoke(app, ["shift", "-w", watched.root])
    assert told.exit_code == 0
    assert "robot<b>" in told.stdout
    assert "early round" in told.stdout
    due = runner.invoke(app, ["shift", "-w", watched.root, "--check", "--json"])
    assert due.exit_code == 3
    found = json.loads(due.stdout)
    assert (found["verdict"], found["trigger"]) == ("strong", True)
    assert {view["name"] for view in found["views"]} >= {"text", "kernel", "words", "clusters"}
    quiet = runner.invoke(app, ["shift", "-w", watched.root, "--check", "--set", "shift.trigger=never"])
    assert quiet.exit_code == 0
    assert runner.invoke(app, ["shift", "-w", watched.root, "--set", "shift.season=moon"]).exit_code == 1
