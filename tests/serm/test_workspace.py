"""The door to disk: idempotent commits, many writers at once, time travel, opening and creating."""

import itertools
import json
import multiprocessing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from deltalake import DeltaTable

from serm.records import TABLES, Table
from serm.workspace import Workspace, WorkspaceError

# Writers are forked from a server that has imported, but never used, the libraries: quick to start, nothing inherited.
SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["serm.registry"])


def documents(ids: range, text: str = "text") -> pl.DataFrame:
    return pl.DataFrame({"doc_id": [f"d{i:04}" for i in ids], "text": [f"{text} {i}" for i in ids]})


def impressions(rows: int, day: int = 1) -> pl.DataFrame:
    start = datetime(2026, 1, day, tzinfo=UTC)
    return pl.DataFrame(
        {
            "ts": [start + timedelta(seconds=i) for i in range(rows)],
            "session": [f"s{i // 10}" for i in range(rows)],
            "query": "shoes",
            "doc_id": [f"d{i % 7}" for i in range(rows)],
            "position": [i % 10 + 1 for i in range(rows)],
            "clicked": [i % 3 == 0 for i in range(rows)],
        }
    )


def test_appending_twice_adds_nothing(workspace: Workspace) -> None:
    assert workspace.version("documents") == -1
    assert workspace.read("documents").is_empty()
    assert workspace.append("documents", documents(range(10))) == 10
    before = workspace.version("documents")
    assert workspace.append("documents", documents(range(10), "other")) == 0
    assert workspace.version("documents") == before
    assert workspace.append("documents", documents(range(5, 15), "other")) == 5
    expected = pl.concat([documents(range(10)), documents(range(10, 15), "other")])
    assert workspace.read("documents").sort("doc_id").select("doc_id", "text").equals(expected)


def test_a_key_twice_in_one_frame_counts_once(workspace: Workspace) -> None:
    twice = pl.concat([documents(range(3)), documents(range(3), "later")])
    assert workspace.append("documents", twice) == 3
    assert workspace.read("documents").sort("doc_id")["text"].to_list() == ["text 0", "text 1", "text 2"]
    assert workspace.upsert("documents", twice) == 3
    assert workspace.read("documents").sort("doc_id")["text"].to_list() == ["later 0", "later 1", "later 2"]


def test_compound_keys_are_compared_whole(workspace: Workspace) -> None:
    frame = impressions(100)
    assert workspace.append("impressions", frame) == 100
    assert workspace.append("impressions", frame.with_columns(pl.col("position") + 1)) == 100
    assert workspace.append("impressions", frame.with_columns(clicked=~pl.col("clicked"))) == 0
    assert workspace.append("impressions", frame.with_columns(pl.col("ts").dt.offset_by("1us"))) == 100
    assert workspace.read("impressions").height == 300


def test_upsert_replaces_changed_rows_only(workspace: Workspace) -> None:
    workspace.append("documents", documents(range(6)))
    assert workspace.upsert("documents", documents(range(3, 6))) == 0
    version = workspace.version("documents")
    assert workspace.upsert("documents", pl.concat([documents(range(2)), documents(range(4, 8), "new")])) == 4
    assert workspace.version("documents") == version + 1
    found = dict(workspace.read("documents").select("doc_id", "text").rows())
    assert found == {f"d{i:04}": f"{'new' if i > 3 else 'text'} {i}" for i in range(8)}


def test_upsert_with_lists_nans_and_null_keys(workspace: Workspace) -> None:
    mined = {
        "round": 1,
        "query": "q",
        "doc_id": ["a", "b"],
        "agents": [["click"], ["click", "feedback"]],
        "reason": "r",
    }
    frame = pl.DataFrame(mined)
    assert workspace.upsert("mined", frame) == 2
    assert workspace.upsert("mined", frame) == 0
    assert workspace.upsert("mined", frame.with_columns(agents=pl.Series([["click"], ["click"]]))) == 1
    assert dict(workspace.read("mined").select("doc_id", "agents").rows()) == {"a": ["click"], "b": ["click"]}

    metric = pl.DataFrame({"model": "m", "split": "dev", "measure": "RR", "value": [float("nan")], "queries": 3})
    assert workspace.upsert("metrics", metric) == 1  # judgments_version, part of the key, is null
    assert workspace.upsert("metrics", metric) == 0
    assert workspace.upsert("metrics", metric.with_columns(value=0.5)) == 1
    assert workspace.read("metrics")["value"].to_list() == [0.5]


def test_every_table_takes_back_what_it_gave(workspace: Workspace) -> None:
    sample = {
        pl.String: "ü \"quoted\"\n'", pl.Int32: 3, pl.Int64: 2**40, pl.Float64: 0.1, pl.Boolean: True,
        pl.Datetime: datetime(2026, 1, 2, 3, 4, 5, 678, UTC), pl.List(pl.String): ["a", "b"],
        pl.List(pl.Float64): [0.25, 0.75],
    }  # fmt: skip
    for name, table in TABLES.items():
        kinds = {c: dtype if dtype.is_nested() else dtype.base_type() for c, dtype in table.schema.items()}
        full = pl.DataFrame({c: [sample[kind]] for c, kind in kinds.items()}, table.schema)
        bare = full.with_columns(pl.lit(None, d).alias(c) for c, d in table.schema.items() if c not in table.required)
        bare = bare.with_columns(pl.lit("other").alias(c) for c in table.key[:1] if table.schema[c] == pl.String)
        bare = bare.with_columns((pl.col(c) + 1) for c in table.key[:1] if table.schema[c] in (pl.Int32, pl.Int64))
        bare = bare.with_columns(pl.col(c).dt.offset_by("1d") for c in table.key[:1] if c == "ts")
        both = pl.concat([full, bare])
        assert workspace.append(name, both) == 2, name
        assert workspace.append(name, both) == 0, name
        assert workspace.upsert(name, both) == 0, name
        found = workspace.read(name)
        assert found.schema == table.schema, name
        assert found.sort(table.key).equals(both.sort(table.key)), name


def test_a_table_made_before_a_column_was_added(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    """Old rows read null in the new column, new rows keep theirs, and equal keys still count once."""
    new = TABLES["annotations"]
    rows = pl.DataFrame(
        {"round": [1, 1], "query": ["a", "b"], "doc_id": ["d", "d"], "status": "kept", "votes": "{}", "calls": [1, 2]}
    )
    old = pl.Schema({name: dtype for name, dtype in new.schema.items() if name not in ("prompt", "knowledge")})
    with monkeypatch.context() as before:
        before.setitem(TABLES, "annotations", Table(new.name, old, new.key, new.required))
        assert workspace.append("annotations", rows) == 2
    assert workspace.read("annotations")["prompt"].to_list() == [None, None]
    more = pl.concat([rows, rows.with_columns(round=pl.lit(2, pl.Int64))]).with_columns(prompt=pl.lit("relevance/en@1"))
    assert workspace.append("annotations", more) == 2
    found = workspace.read("annotations").sort("round", "query")
    assert found["prompt"].to_list() == [None, None, "relevance/en@1", "relevance/en@1"]
    assert found.schema == new.schema


def test_time_travel(workspace: Workspace) -> None:
    seen: dict[int, int] = {-1: 0}
    for step in range(4):
        workspace.append("documents", documents(range(step * 3, step * 3 + 3)))
        seen[workspace.version("documents")] = step * 3 + 3
    for version, rows in seen.items():
        assert workspace.read("documents", version).height == rows
    newest = workspace.version("documents")
    with pytest.raises(WorkspaceError, match=f"documents: there is no version {newest + 1}; the newest is {newest}"):
        workspace.scan("documents", newest + 1)
    with pytest.raises(WorkspaceError, match="no version 0"):
        workspace.scan("mined", 0)


def test_empty_frames_and_unknown_tables(workspace: Workspace) -> None:
    assert workspace.append("documents", documents(range(0))) == 0
    assert workspace.version("documents") == -1
    with pytest.raises(WorkspaceError, match="no table 'document'"):
        workspace.read("document")
    with pytest.raises(ValueError, match="documents: column 'text' is required"):
        workspace.append("documents", documents(range(1)).drop("text"))
    with pytest.raises(ValueError, match="impressions: no such column 'clicks'"):
        workspace.append("impressions", impressions(1).rename({"clicked": "clicks"}))
    with pytest.raises(ValueError, match="position"):
        workspace.append("impressions", impressions(1).with_columns(position=pl.lit("first")))
    assert workspace.version("impressions") == -1


def test_an_append_opens_only_files_whose_times_overlap(workspace: Workspace) -> None:
    for day in range(1, 6):
        workspace.append("impressions", impressions(50, day))
    for path in Path(workspace.root, "tables", "impressions").glob("*.parquet"):
        if pl.read_parquet(path)["ts"].min() != datetime(2026, 1, 3, tzinfo=UTC):
            path.unlink()  # an append that opened it would now fail
    assert workspace.append("impressions", impressions(60, 3)) == 10


def append_overlapping(root: str, worker: int, batches: int) -> None:
    workspace = Workspace.open(root)
    order = np.random.default_rng(worker).permutation(batches)
    for batch in order.tolist():
        workspace.append("documents", documents(range(batch * 5, batch * 5 + 10), f"worker {worker}"))


def upsert_counters(root: str, worker: int, batches: int) -> None:
    workspace = Workspace.open(root)
    for batch in range(batches):
        workspace.upsert("documents", documents(range(batch, batch + 3), f"worker {worker}"))


@pytest.mark.parametrize("work", [append_overlapping, upsert_counters])
def test_four_writers_at_once_give_the_exact_union(workspace: Workspace, work) -> None:
    batches = 8
    processes = [SERVER.Process(target=work, args=(workspace.root, worker, batches)) for worker in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0] * 4
    found = workspace.read("documents").sort("doc_id")
    last = batches * 5 + 5 if work is append_overlapping else batches + 2
    assert found["doc_id"].to_list() == [f"d{i:04}" for i in range(last)]
    assert found["text"].str.contains(r"^worker [0-3] \d+$").all()


def append_for_ever(root: str, ready) -> None:
    workspace = Workspace.open(root)
    for start in itertools.cycle(range(0, 60, 3)):
        workspace.append("documents", documents(range(start, start + 6)))
        ready.set()
        workspace.upsert("documents", documents(range(start, start + 6), "final"))


def test_twenty_kills_of_a_writer_leave_only_whole_commits(workspace: Workspace) -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        ready = SERVER.Event()
        process = SERVER.Process(target=append_for_ever, args=(workspace.root, ready))
        process.start()
        assert ready.wait(60)
        process.join(float(rng.uniform(0, 0.15)))
        process.kill()
        process.join(60)
        found = workspace.read("documents")
        assert not found["doc_id"].is_duplicated().any()
        assert found.height % 3 == 0
        assert found["text"].str.contains("^(text|final) ").all()
    for start in range(0, 60, 3):
        workspace.append("documents", documents(range(start, start + 6)))
        workspace.upsert("documents", documents(range(start, start + 6), "final"))
    expected = documents(range(63), "final")
    assert workspace.read("documents").sort("doc_id").select("doc_id", "text").equals(expected)


def create_and_append(root: str, worker: int, barrier, rounds: int) -> None:
    for number in range(rounds):
        barrier.wait()
        workspace = Workspace.create(f"{root}-{number}", "seed: 5\n")
        workspace.append("documents", documents(range(worker, worker + 4), f"worker {worker}"))


def test_processes_creating_the_same_table_at_once(tmp_path: Path) -> None:
    rounds, barrier = 12, SERVER.Barrier(3)
    args = [(str(tmp_path / "w"), worker, barrier, rounds) for worker in range(3)]
    processes = [SERVER.Process(target=create_and_append, args=arg) for arg in args]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0] * 3
    for number in range(rounds):
        found = Workspace.open(tmp_path / f"w-{number}").read("documents")
        assert sorted(found["doc_id"]) == [f"d{i:04}" for i in range(6)]


def test_a_stale_writer_looks_again_before_it_commits(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    # Between this writer's look and its commit another one adds the same rows: the commit must not add them again.
    workspace.append("documents", documents(range(3)))
    original, interrupted = Workspace._append, []

    def slow(delta: DeltaTable, *rest: object) -> int:
        if not interrupted:
            interrupted.append(True)
            Workspace.open(workspace.root).append("documents", documents(range(3, 6), "faster"))
        return original(delta, *rest)

    monkeypatch.setattr(Workspace, "_append", staticmethod(slow))
    assert workspace.append("documents", documents(range(2, 8), "slower")) == 2
    words = dict(workspace.read("documents").select("doc_id", pl.col("text").str.split(" ").list.first()).rows())
    assert [words[f"d{i:04}"] for i in range(8)] == ["text"] * 3 + ["faster"] * 3 + ["slower"] * 2


def test_create_and_open(tmp_path: Path) -> None:
    root = tmp_path / "with space, ü and #?"
    with pytest.raises(WorkspaceError, match="serm init"):
        Workspace.open(root)
    created = Workspace.create(root, "seed: 7\n")
    assert created.config.seed == 7
    assert Workspace.create(root, "seed: 7\n").root == created.root
    with pytest.raises(WorkspaceError, match="already a workspace"):
        Workspace.create(root, "seed: 8\n")
    with pytest.raises(ValueError, match="seed"):
        Workspace.create(tmp_path / "bad", "seed: seven\n")
    assert not (tmp_path / "bad" / "config.yaml").exists()
    opened = Workspace.open(root, ["mining.budget=3"])
    assert (opened.config.seed, opened.config.mining.budget) == (7, 3)
    assert opened.append("documents", documents(range(3))) == 3
    assert opened.append("documents", documents(range(4))) == 1
    assert opened.upsert("documents", documents(range(4), "new")) == 4
    assert opened.read("documents")["text"].str.starts_with("new").all()
    assert Workspace.open(root.as_uri()).read("documents").height == 4
    with pytest.raises(WorkspaceError, match="may not contain '%'"):
        Workspace.create(tmp_path / "100%", "")


def test_a_relative_workspace_survives_a_change_of_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    workspace = Workspace.create("here", "")
    workspace.append("documents", documents(range(2)))
    monkeypatch.chdir("/")
    assert workspace.read("documents").height == 2
    assert workspace.local("x").parent == tmp_path / "here"


def test_a_wrong_environment_does_not_hide_the_workspace(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SERM_MINING__BUDGET", "many")
    with pytest.raises(ValueError, match=r"SERM_.*mining\.budget"):
        Workspace.open(workspace.root)


def test_runs_record_what_they_rested_on_and_how_they_ended(workspace: Workspace) -> None:
    workspace.append("documents", documents(range(2)))
    with workspace.run("mine", 3, flavour="x") as run:
        run.result["pairs"] = 7
    with pytest.raises(ZeroDivisionError), workspace.run("mine", 4):
        _ = 1 / 0
    rows = workspace.read("runs").sort("ts")
    assert rows.select("round", "status").rows() == [(3, "started"), (3, "finished"), (4, "started"), (4, "failed")]
    started, finished, _, failed = rows.rows(named=True)
    assert json.loads(started["data_versions"])["documents"] == workspace.version("documents")
    assert json.loads(started["data_versions"])["mined"] == -1
    assert json.loads(started["config"])["parameters"] == {"flavour": "x"}
    assert json.loads(finished["result"]) == {"pairs": 7}
    assert "ZeroDivisionError" in json.loads(failed["result"])["error"]


def test_small_files_are_whole_or_absent(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    workspace.write_text("notes", "a.txt", "first")
    monkeypatch.setattr(Path, "replace", lambda *_: None)  # the writer dies before its last step
    workspace.write_text("notes", "a.txt", "second, half writ")
    assert workspace.read_text("notes", "a.txt") == "first"
