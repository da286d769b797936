"""serm mine --explain: the right reason for a pair of every kind, and a record that kills and reruns do not spoil."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray
from typer.testing import CliRunner

from serm import registry
from serm.cli import app
from serm.mining import explain, mine
from serm.mining.history import history, last_considered
from serm.mining.selection import near_duplicates, pair_vectors
from serm.records import AGENTS, IMPRESSIONS
from serm.workspace import Workspace, WorkspaceError
from tests.serm.test_mining_window import Fallible, documents, embed, relevant, stream

CONFIG = """
labels: {scale: [0, 1], names: {0: 'no', 1: 'yes'}}
shift: {sample: 300, minimum: 20, clusters: 6, scored: 100}
mining: {per_query: 2, per_cluster: 0.2, candidates: 900, judged: 200, quiet_share: 1.0, quantile: 0.7, facility: 3.0}
"""
LATER = datetime(2026, 1, 20, 12, tzinfo=UTC)
SCORED = ("taken", "random", "no agent", "query cap", "cluster cap", "duplicate", "budget")


def near(texts: Sequence[str], settings: object = None) -> NDArray[np.float32]:
    """Titles of documents that differ only in their last digit are one text."""
    return embed([text[:-1] if text.startswith("title d") else text for text in texts])


def shown(session: str, query: str, doc: str, times: int = 1, dwell: float | None = None) -> pl.DataFrame:
    seen = pl.DataFrame({"position": range(1, times + 1)}).with_columns(
        ts=LATER + timedelta(seconds=1) * (pl.col("position") - 1), session=pl.lit(session), query=pl.lit(query),
        doc_id=pl.lit(doc), clicked=pl.lit(dwell is not None), dwell=pl.lit(dwell, pl.Float64), locale=pl.lit("en"),
    )  # fmt: skip
    return IMPRESSIONS.conform(seen)


@pytest.fixture
def filled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """A month of traffic, odd pairs among it, judgments, and a champion."""
    workspace = Workspace.create(tmp_path / "w", CONFIG)
    workspace.append("impressions", stream(300, 1, start=datetime(2026, 1, 1, tzinfo=UTC)))
    odd = [
        shown("odd-1", "query 61", "ghost"),
        shown("odd-2", "query held", "d1"),
        shown("odd-3", "query judged", "d2"),
        shown("bot", "query pushed", "d3", times=10, dwell=0.4),
    ]
    workspace.append("impressions", pl.concat([stream(500, 2, first_query=60), *odd]))
    workspace.append("documents", documents())
    judged = [("query held", "d1", 1, "fresh", "person"), ("query judged", "d2", 0, "train", "person")]
    names = ["query", "doc_id", "grade", "split", "judge"]
    workspace.append("judgments", pl.DataFrame(judged, schema=names, orient="row"))
    registry.publish(workspace, "v1", lambda folder: (folder / "weights").write_text(""), {})
    registry.promote(workspace, "v1", "test")
    monkeypatch.setattr("serm.relevance.load", lambda folder, settings, scale: Fallible())
    monkeypatch.setattr("serm.relevance.embedding.embed", near)
    return workspace


def annotate(workspace: Workspace, round: int) -> None:
    """The truth for every mined pair of a round."""
    pairs = workspace.read("mined").filter(round=round).select("round", "query", "doc_id")
    labels = [int(relevant(query, doc)) for _, query, doc in pairs.rows()]
    rows = pairs.with_columns(pl.Series("label", labels), status=pl.lit("kept"), votes=pl.lit("{}"), calls=pl.lit(2))
    workspace.append("annotations", rows)


def test_every_stage_is_explained_as_it_was(filled: Workspace) -> None:
    mine(filled, budget=60)
    considered, mined = filled.read("considered"), filled.read("mined")
    assert set(considered["stage"]) == set(SCORED)
    assert considered.height <= 900 + 3
    taken = considered.filter(pl.col("stage").is_in(["taken", "random"])).select("query", "doc_id")
    assert taken.sort("query", "doc_id").equals(mined.select("query", "doc_id").sort("query", "doc_id"))
    of_query = dict(mined["query"].value_counts().iter_rows())
    of_cluster = dict(mined["cluster"].value_counts().iter_rows())
    assert max(of_query.values()) <= 2
    for stage in SCORED:
        row = considered.filter(stage=stage).row(0, named=True)
        told = explain(filled, row["query"], row["doc_id"])
        assert (told.stage, told.round, told.taken) == (stage, 1, stage in ("taken", "random"))
        assert told.facts["score"] == row["score"]
        raw = filled.read("impressions").filter(query=row["query"], doc_id=row["doc_id"])
        assert told.facts["shown"] == raw.filter(pl.col("ts") > datetime(2026, 1, 6, 12, tzinfo=UTC)).height
        if stage == "query cap":
            assert of_query[row["query"]] == 2
            assert "per_query=2" in told.why
        if stage == "cluster cap":
            assert of_cluster[row["cluster"]] == 12  # 0.2 of 60
        if stage == "duplicate":
            twin = mined.filter(query=row["duplicate_query"], doc_id=row["duplicate_doc_id"])
            assert twin.height == 1
            titles = [f"title {row['doc_id']}", f"title {row['duplicate_doc_id']}"]
            vectors = pair_vectors(near([row["query"], row["duplicate_query"]]), near(titles))
            assert near_duplicates(vectors, 0.97)[0].tolist() == [1]
            assert repr(row["duplicate_doc_id"]) in told.why
        if stage == "no agent":
            assert all(not say["takes it"] for say in told.agents.values())
        if stage == "budget":
            assert any(say["takes it"] and say["value"] >= say["threshold"] for say in told.agents.values())
            assert told.facts["priority"] > 0
        if stage in ("taken", "random"):
            assert told.why == mined.filter(query=row["query"], doc_id=row["doc_id"])["reason"].item()


def test_pairs_that_never_were_candidates(filled: Workspace) -> None:
    mine(filled, budget=40)
    assert explain(filled, "query 61", "ghost").stage == "unknown document"
    held = explain(filled, "query held", "d1")
    assert (held.stage, "fresh" in held.why) == ("held out", True)
    assert explain(filled, "query judged", "d2").stage == "judged"
    pushed = explain(filled, "query pushed", "d3")
    assert (pushed.stage, pushed.facts["shown"], pushed.facts["believable_shown"]) == ("not believable", 10, 0)
    assert explain(filled, "no such query", "d5").stage == "not shown"
    before = filled.read("impressions").filter(pl.col("session").str.starts_with("1-"))
    now = filled.read("impressions").filter(pl.col("session").str.starts_with("2-"))
    query, doc = before.join(now, on=["query", "doc_id"], how="anti").select("query", "doc_id").row(0)
    old = explain(filled, query, doc)
    times = before.filter(query=query, doc_id=doc).height
    assert (old.stage, f"({times} times in the whole log)" in old.why) == ("not shown", True)
    pairs = now.select("query", "doc_id").unique().sort("query", "doc_id")
    rest = pairs.join(filled.read("considered"), on=["query", "doc_id"], how="anti")
    cut = explain(filled, *rest.row(0))
    assert (cut.stage, "mining.candidates=900" in cut.why) == ("cascade", True)


def test_an_explanation_stays_when_the_tables_move_on(filled: Workspace) -> None:
    mine(filled, budget=40)
    first = filled.read("mined").row(0, named=True)
    query, doc = filled.read("considered").filter(stage="budget").select("query", "doc_id").row(0)
    before = explain(filled, query, doc, 1)
    annotate(filled, 1)
    late = shown("late", query, doc, 3).with_columns(pl.col("ts") + timedelta(days=9))
    filled.append("impressions", late)
    assert mine(filled, budget=40).round == 2
    assert explain(filled, query, doc, 1) == before
    again = explain(filled, first["query"], first["doc_id"], 2)
    assert (again.stage, again.why) == ("mined before", "mined in round 1 already")
    assert explain(filled, first["query"], first["doc_id"], 1).taken
    with pytest.raises(WorkspaceError, match="round 7 is not mined"):
        explain(filled, query, doc, 7)


def test_labels_of_a_round_calibrate_split_and_measure_the_next(filled: Workspace) -> None:
    first = mine(filled, budget=120)
    assert first.shares == dict.fromkeys(AGENTS, 0.25)
    assert first.precision == []
    annotate(filled, 1)
    second = mine(filled, budget=60)
    told = {row["agent"]: row for row in second.precision}
    rows = filled.read("mined").filter(round=1)
    model = Fallible()
    wrong = [(model.chance(q, f"title {d}") >= 0.5) != relevant(q, d) for q, d in rows.select("query", "doc_id").rows()]
    for agent in (*AGENTS, "random"):
        own = rows["agents"].list.contains(agent).to_numpy()
        assert told[agent]["precision"] == pytest.approx(np.mean(np.array(wrong)[own]))
    assert sum(second.shares.values()) == pytest.approx(1)
    assert min(second.shares.values()) >= 0.5 / 4 - 1e-9
    labels = history(filled, 2)
    assert labels.height == 120
    assert labels["uncertainty_value"].null_count() == 0
    taken = filled.read("considered").filter(round=2, stage="taken")
    assert taken["priority"].is_between(0, 1).all()
    for agent in AGENTS:
        told_of = filled.read("considered").filter(pl.col("round") == 2, pl.col("agents").list.contains(agent))
        assert told_of.sort(f"{agent}_value")[f"{agent}_chance"].is_sorted()  # one curve, rising


def test_a_run_killed_between_its_commits_is_done_again(filled: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    append = Workspace.append

    def killed(self: Workspace, table: str, frame: pl.DataFrame) -> int:
        if table == "mined":
            raise KeyboardInterrupt
        return append(self, table, frame)

    with monkeypatch.context() as patch:
        patch.setattr(Workspace, "append", killed)
        with pytest.raises(KeyboardInterrupt):
            mine(filled, budget=40)
    left = filled.read("considered").drop("run")
    assert filled.read("mined").is_empty()
    mine(filled, budget=40)
    assert filled.read("considered")["run"].n_unique() == 2
    last = last_considered(filled).collect()
    assert last["run"].n_unique() == 1
    order = ["query", "doc_id"]
    assert last.drop("run").sort(order).equals(left.sort(order))
    versions = filled.versions()
    assert mine(filled, budget=99).already
    assert filled.versions() == versions
    row = last.filter(stage="duplicate").row(0, named=True)
    assert explain(filled, row["query"], row["doc_id"]).stage == "duplicate"


def test_a_round_drawn_at_random_says_so(filled: Workspace) -> None:
    mine(filled, budget=20, agents=("random",))
    query, doc = filled.read("mined").select("query", "doc_id").row(0)
    assert explain(filled, query, doc).why == "drawn at random"
    pairs = (
        filled.read("impressions").filter(pl.col("session").str.starts_with("2-")).select("query", "doc_id").unique()
    )
    other = pairs.join(filled.read("mined"), on=["query", "doc_id"], how="anti").sort("query", "doc_id").row(0)
    assert explain(filled, *other).stage == "not recorded"


def test_the_command_line_explains(filled: Workspace) -> None:
    runner = CliRunner()
    where = ["-w", filled.root]
    assert "not mined yet" in str(runner.invoke(app, ["mine", "--explain", "q", "d", *where]).exception)
    mine(filled, budget=40)
    row = filled.read("considered").filter(stage="budget").row(0, named=True)
    told = runner.invoke(app, ["mine", "--explain", row["query"], row["doc_id"], "--json", *where])
    assert json.loads(told.output)["stage"] == "budget"
    shown_ = runner.invoke(app, ["mine", "--explain", row["query"], row["doc_id"], "--round", "1", *where])
    assert shown_.exit_code == 0
    assert "budget" in shown_.output
    assert "uncertainty" in shown_.output
