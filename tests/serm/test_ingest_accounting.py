"""Nothing is lost: rows read = added + already there + quarantined, whatever the rows hold and however they are cut."""

import csv
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serm.ingest import ingest
from serm.workspace import Workspace

FIELDS = ("ts", "session", "query", "doc_id", "position", "clicked", "dwell")


def good_row(i: int) -> dict[str, object]:
    """A row that nothing is wrong with, different for every i."""
    return {
        "ts": f"2026-01-{1 + i % 28:02d}T10:00:{i % 60:02d}Z", "session": f"s{i}", "query": "red shoes",
        "doc_id": f"d{i % 3}", "position": i % 10 + 1, "clicked": i % 2 == 0, "dwell": 12.5,
    }  # fmt: skip


# A field's spoilt value -> the reason that must be counted.
SPOILT: list[tuple[str, object, str]] = [
    ("ts", "yesterday", "ts: not a timestamp"),
    ("ts", 20260131, "ts: not a timestamp"),
    ("ts", "", "ts: missing"),
    ("ts", "2999-01-01T00:00:00Z", "ts: in the far future"),
    ("ts", "1912-06-23", "ts: before 1970"),
    ("session", "  ", "session: missing"),
    ("query", "a\x00b", "query: control characters"),
    ("query", "x" * 1_001, "query: too long"),
    ("query", "x" * 1_000_000, "query: too long"),
    ("doc_id", "", "doc_id: missing"),
    ("doc_id", "nowhere", "doc_id: unknown document"),
    ("position", 0, "position: impossible position"),
    ("position", -3, "position: impossible position"),
    ("position", 1_001, "position: impossible position"),
    ("position", 1.5, "position: not a whole number"),
    ("position", "first", "position: not a whole number"),
    ("clicked", "maybe", "clicked: not true or false"),
    ("clicked", 2, "clicked: not true or false"),
    ("dwell", -1, "dwell: impossible dwell"),
    ("dwell", "nan", "dwell: impossible dwell"),
    ("dwell", "inf", "dwell: impossible dwell"),
    ("dwell", 86_401, "dwell: impossible dwell"),
    ("dwell", "long", "dwell: not a number"),
]


@pytest.fixture
def stocked(workspace: Workspace) -> Workspace:
    """A workspace that knows three documents."""
    workspace.append("documents", pl.DataFrame({"doc_id": ["d0", "d1", "d2"], "text": ["a", "b", "c"]}))
    return workspace


def write_csv(path: Path, rows: list[dict[str, object]]) -> str:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, FIELDS)
        writer.writeheader()
        writer.writerows(rows)
    return str(path)


def write_ndjson(path: Path, rows: list[dict[str, object]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


@pytest.mark.parametrize("write", [write_csv, write_ndjson])
def test_every_spoilt_field_is_set_aside_with_its_reason(stocked: Workspace, tmp_path: Path, write) -> None:
    rows = [good_row(0)] + [good_row(i) | {name: value} for i, (name, value, _) in enumerate(SPOILT, 1)]
    source = write(tmp_path / ("log.csv" if write is write_csv else "log.jsonl"), rows)
    summary = ingest(stocked, [source])
    expected: dict[str, int] = {}
    for _, _, reason in SPOILT:
        expected[reason] = expected.get(reason, 0) + 1
    assert summary.reasons == expected
    assert (summary.rows_read, summary.added, summary.quarantined) == (len(rows), 1, len(SPOILT))
    table = stocked.read("quarantine").sort("row")
    assert table["row"].to_list() == list(range(2, len(rows) + 1))
    assert (table["field"] + ": " + table["reason"]).to_list() == [reason for _, _, reason in SPOILT]
    assert table["raw"].str.len_chars().max() <= 1_000  # type: ignore[operator]
    assert json.loads(table["raw"][0])["ts"] == "yesterday"
    assert table["source"].str.contains(Path(source).name, literal=True).all()


def test_typed_parquet_columns_are_judged_alike(stocked: Workspace, tmp_path: Path) -> None:
    frame = pl.DataFrame(
        {
            "timestamp": [1_767_225_600.0, None, 1_767_225_601.5, 1_767_225_602.0, 4e9],
            "user": [1, 2, 3, None, 5], "query": ["a"] * 5, "product_id": ["d0", "d1", "d2", "d0", "d1"],
            "rank": [1.0, 2.0, 2.5, 4.0, 5.0], "click": [1, 0, 1, 0, 1],
            "dwell_seconds": [float("inf"), None, None, None, None],
        }
    )  # fmt: skip
    path = tmp_path / "log.parquet"
    frame.write_parquet(path)
    summary = ingest(stocked, [str(path)])
    assert summary.reasons == {
        "dwell: impossible dwell": 1, "ts: missing": 1, "position: not a whole number": 1, "session: missing": 1,
        "ts: in the far future": 1,
    }  # fmt: skip
    assert summary.sources[0].columns == {
        "ts": "timestamp", "session": "user", "query": "query", "doc_id": "product_id", "position": "rank",
        "clicked": "click", "dwell": "dwell_seconds",
    }  # fmt: skip


WORDS = st.sampled_from(["d0", "1", "true", "2026-01-01", "", '"', "\x00"])
LISTS = st.lists(st.integers(), max_size=2)
OBJECTS = st.dictionaries(st.text(max_size=2), st.integers(), max_size=1)
CELLS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), WORDS, st.text(max_size=8), LISTS, OBJECTS
)  # fmt: skip
ROWS = st.lists(
    st.tuples(st.integers(0, 8), st.dictionaries(st.sampled_from(FIELDS), CELLS, max_size=2)), min_size=1, max_size=14
)


@given(rows=ROWS, batch=st.integers(1, 5), lines=st.lists(st.binary(max_size=12), max_size=3))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_row_is_lost_and_twice_is_once(tmp_path_factory, rows, batch: int, lines: list[bytes]) -> None:
    folder = tmp_path_factory.mktemp("fuzz")
    workspace = Workspace.create(folder / "w", f"ingest: {{batch_rows: {batch}}}\n")
    workspace.append("documents", pl.DataFrame({"doc_id": ["d0", "d1", "d2"], "text": ["a", "b", "c"]}))
    garbage = [line.replace(b"\n", b"") for line in lines]
    garbage = [line for line in garbage if line.decode("utf-8", "replace").strip()]
    path = folder / "log.jsonl"
    whole = [json.dumps(good_row(99))] + [json.dumps(good_row(i) | spoilt) for i, spoilt in rows]
    path.write_bytes("\n".join(whole).encode() + b"\n" + b"".join(line + b"\n" for line in garbage))
    dry = ingest(workspace, [str(path)], dry_run=True)
    assert workspace.version("impressions") == workspace.version("quarantine") == workspace.version("runs") == -1
    first = ingest(workspace, [str(path)])
    assert first.rows_read == len(whole) + len(garbage)
    assert first.rows_read == first.added + first.already_there + first.quarantined
    assert (dry.added, dry.quarantined, dry.reasons) == (first.added, first.quarantined, first.reasons)
    assert sum(first.reasons.values()) == first.quarantined == workspace.read("quarantine").height
    assert first.added == workspace.read("impressions").height
    versions = workspace.version("impressions"), workspace.version("quarantine")
    again = ingest(workspace, [str(path)])
    assert (again.added, again.already_there, again.reasons) == (0, first.added, first.reasons)
    assert (workspace.version("impressions"), workspace.version("quarantine")) == versions


def test_duplicates_count_across_batches_and_files(tmp_path: Path) -> None:
    workspace = Workspace.create(tmp_path / "w", "ingest: {batch_rows: 2}\n")
    rows = [good_row(i) for i in (0, 1, 2, 0, 3, 1)]
    first, second = write_csv(tmp_path / "a.csv", rows), write_csv(tmp_path / "b.csv", [good_row(4), good_row(3)])
    summary = ingest(workspace, [first, str(tmp_path / "*.csv"), second])
    assert summary.reasons == {"row: duplicate": 3}
    assert [(s.rows_read, s.added, s.quarantined) for s in summary.sources] == [(6, 4, 2), (2, 1, 1)]
    assert workspace.read("quarantine").sort("source", "row")["row"].to_list() == [4, 6, 2]


def test_same_path_with_other_rows_keeps_both_quarantines(stocked: Workspace, tmp_path: Path) -> None:
    path = tmp_path / "latest.csv"
    for query in ("a\x00", "b\x00"):
        ingest(stocked, [write_csv(path, [good_row(0) | {"query": query}])])
    assert stocked.read("quarantine").height == 2


KILLED = """
import sys
from serm.ingest import ingest
from serm.workspace import Workspace
print("ready", flush=True)
ingest(Workspace.open(sys.argv[1]), [sys.argv[2]])
"""


def test_killed_anywhere_and_run_again_is_as_undisturbed(tmp_path: Path) -> None:
    rows = [good_row(i) | ({"position": 0} if i % 7 == 0 else {}) for i in range(400)] + [good_row(1)]
    source = write_csv(tmp_path / "log.csv", rows)
    config = "ingest: {batch_rows: 20}\n"
    calm = Workspace.create(tmp_path / "calm", config)
    ingest(calm, [source])
    killed = Workspace.create(tmp_path / "killed", config)
    draw = random.Random(0)
    interrupted = 0
    for _ in range(3):
        process = subprocess.Popen(
            [sys.executable, "-c", KILLED, killed.root, source], stdout=subprocess.PIPE, env=dict(os.environ)
        )
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(draw.uniform(0.05, 0.4))
        process.send_signal(signal.SIGKILL)
        interrupted += process.wait() == -signal.SIGKILL
        process.stdout.close()
    assert interrupted
    ingest(killed, [source])
    for table in ("impressions", "quarantine"):
        columns = calm.read(table).columns
        assert killed.read(table).sort(columns).equals(calm.read(table).sort(columns))
