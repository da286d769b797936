"""Files as they come: broken CSV, broken bytes, gz, patterns, standard input, and errors that say what to do."""

import gzip
import io
import json
import sys
from pathlib import Path

import polars as pl
import pytest

from serm.ingest import ingest
from serm.workspace import Workspace

HEADER = "ts,session,query,doc_id,position,clicked\n"
ROW = "2026-01-05T00:00:00Z,s{0},q,d1,1,true\n"


def write(path: Path, content: str | bytes) -> str:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(path)


def quarantined(workspace: Workspace) -> list[tuple[int, str, str]]:
    return workspace.read("quarantine").sort("row").select("row", "field", "reason").rows()


def test_one_broken_csv_line_costs_one_row(workspace: Workspace, tmp_path: Path) -> None:
    body = [
        ROW.format(1),
        "2026-01-05T00:00:00Z,s2,q,d1,1\n",
        "2026-01-05T00:00:00Z,s3,q,d1,1,true,more\n",
        '2026-01-05T00:00:00Z,s4,"never closed,d1,1,true\n',
        ROW.format(5),
        '2026-01-05T00:00:00Z,s6,5" pipe,d1,1,true\n',
        '2026-01-05T00:00:00Z,s7,"said ""hi"", twice",d1,1,true\n',
        '2026-01-05T00:00:00Z,s8,ab"c,"d\n',
        "\n",
        ROW.format(9),
    ]
    summary = ingest(workspace, [write(tmp_path / "log.csv", HEADER + "".join(body))])
    assert quarantined(workspace) == [
        (2, "row", "too few fields"), (3, "row", "too many fields"),
        (4, "row", "unbalanced quotes"), (8, "row", "unbalanced quotes"),
    ]  # fmt: skip
    assert (summary.rows_read, summary.added) == (9, 5)
    stored = dict(workspace.read("impressions").select("session", "query").rows())
    assert stored == {"s1": "q", "s5": "q", "s6": '5" pipe', "s7": 'said "hi", twice', "s9": "q"}
    assert workspace.read("quarantine").filter(row=4)["raw"].str.contains("never closed").all()


def test_a_quoted_field_may_span_lines_and_batches(tmp_path: Path) -> None:
    workspace = Workspace.create(tmp_path / "w", "ingest: {batch_rows: 2}\n")
    text = 'id,title,body\n1,one,plain\n2,two,"first\nsecond, with comma\n\nlast"\n3,three,plain\n'
    summary = ingest(workspace, [write(tmp_path / "documents.csv", text)], kind="documents")
    assert (summary.rows_read, summary.added) == (3, 3)
    assert workspace.read("documents").sort("doc_id")["text"][1] == "two\nbody: first second, with comma last"


def test_broken_bytes_are_found_in_every_format(tmp_path: Path) -> None:
    good, bad = ROW.format(1).encode(), ROW.format(2).encode().replace(b",q,", b",\xff\xfe,")
    escaped = json.dumps(
        {"ts": 1767571200, "session": "s", "query": "\ud800", "doc_id": "d", "position": 1, "clicked": 0}
    )
    values = pl.Series("query", [b"q", b"\xff\xfe"], pl.Binary)
    typed = pl.read_csv((HEADER + ROW.format(1) + ROW.format(2)).encode()).with_columns(values)
    table = typed.to_arrow()
    import pyarrow as pa
    import pyarrow.parquet as pq

    column = table["query"].combine_chunks().cast(pa.large_binary())
    text = pa.LargeStringArray.from_buffers(2, column.buffers()[1], column.buffers()[2])
    pq.write_table(table.set_column(table.schema.get_field_index("query"), "query", text), tmp_path / "log.parquet")
    sources = {
        "csv": (write(tmp_path / "log.csv", HEADER.encode() + good + bad), 2),
        "jsonl": (write(tmp_path / "log.jsonl", escaped), 1),
        "parquet": (str(tmp_path / "log.parquet"), 2),
    }
    for name, (source, row) in sources.items():
        workspace = Workspace.create(tmp_path / name)
        ingest(workspace, [source])
        assert quarantined(workspace) == [(row, "query", "broken UTF-8")], name


def test_the_same_rows_from_every_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = HEADER + "".join(ROW.format(i) for i in range(5))
    lines = "".join(json.dumps(row) + "\n" for row in pl.read_csv(text.encode()).to_dicts())
    pl.read_csv(text.encode(), try_parse_dates=True).write_parquet(tmp_path / "a.parquet")
    sources = {
        "csv": write(tmp_path / "a.csv", "\ufeff" + text.replace("\n", "\r\n")),
        "semicolons": write(tmp_path / "b.csv", text.replace(",", ";")),
        "unnamed": write(tmp_path / "log", text), "gz": write(tmp_path / "c.csv.gz", gzip.compress(text.encode())),
        "ndjson": write(tmp_path / "d.ndjson", lines),
        "json gz": write(tmp_path / "packed", gzip.compress(lines.encode())),
        "parquet": str(tmp_path / "a.parquet"), "pattern": str(tmp_path / "*.ndjson"), "stdin": "-",
    }  # fmt: skip
    expected = [f"s{i}" for i in range(5)]
    for name, source in sources.items():
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(lines.encode())))
        workspace = Workspace.create(tmp_path / "spaces" / name)
        assert ingest(workspace, [source]).added == 5, name
        rows = workspace.read("impressions").sort("session")
        assert rows["session"].to_list() == expected, name
        assert rows["ts"].dt.epoch("s").unique().to_list() == [1_767_571_200], name
        assert rows["clicked"].all(), name


@pytest.mark.parametrize(
    "text",
    ["2026-01-05T00:00:00Z", "2026-01-05 00:00:00", "2026-01-05", "2026-01-05T01:00:00+01:00", "2026-01-05T00:00",
     "2026-01-05T00:00:00.000", "1767571200", "1767571200.0", "1767571200000", "1767571200000000",
     "1767571200000000000"],
)  # fmt: skip
def test_moments_in_many_spellings(workspace: Workspace, tmp_path: Path, text: str) -> None:
    ingest(workspace, [write(tmp_path / "log.csv", HEADER + f"{text},s,q,d,1,1\n")])
    assert workspace.read("impressions")["ts"].dt.epoch("us").to_list() == [1_767_571_200_000_000]


def test_a_timestamp_format_from_the_configuration(tmp_path: Path) -> None:
    source = write(tmp_path / "log.csv", HEADER + "05/01/2026 12:30,s,q,d,1,1\n")
    plain = Workspace.create(tmp_path / "plain")
    assert "timestamp_format" in ingest(plain, [source]).sources[0].notes[0]
    told = Workspace.create(tmp_path / "told", 'ingest: {timestamp_format: "%d/%m/%Y %H:%M"}\n')
    assert ingest(told, [source]).added == 1
    assert str(told.read("impressions")["ts"][0]) == "2026-01-05 12:30:00+00:00"


def test_columns_are_guessed_configured_and_given(tmp_path: Path) -> None:
    text = "Time,USER,Search Term,product_id,rank,click,other\n2026-01-05,u,q,d,1,1,x\n"
    source = write(tmp_path / "log.csv", text)
    workspace = Workspace.create(tmp_path / "w", "ingest: {columns: {session: other, grade: absent}}\n")
    summary = ingest(workspace, [source], columns={"query": "USER"}, dry_run=True).sources[0]
    assert summary.columns == {
        "ts": "Time", "session": "other", "query": "USER", "doc_id": "product_id", "position": "rank",
        "clicked": "click",
    }  # fmt: skip
    assert summary.ignored == ["Search Term"]
    assert summary.first_rows[0]["query"] == "u"
    assert not workspace.exists("tables")


def test_errors_name_the_file_the_column_and_the_mend(workspace: Workspace, tmp_path: Path) -> None:
    short = write(tmp_path / "short.csv", "ts,session,query,doc_id,clicked\n1,2,3,4,5\n")
    with pytest.raises(ValueError, match=r"short\.csv: no column for 'position'.*--column position=NAME"):
        ingest(workspace, [short])
    with pytest.raises(
        ValueError, match=r"short\.csv: no column 'slot' \(given for position\); there are: ts, session"
    ):
        ingest(workspace, [short], columns={"position": "slot"})
    with pytest.raises(ValueError, match="no such field 'positoin'"):
        ingest(workspace, [short], columns={"positoin": "clicked"})
    with pytest.raises(ValueError, match=r"nothing\.csv: no such file"):
        ingest(workspace, ["nothing.csv"])
    with pytest.raises(ValueError, match="jq -c"):
        ingest(workspace, [write(tmp_path / "array.json", "[{}]")])
    with pytest.raises(ValueError, match="not a readable Parquet file"):
        ingest(workspace, [write(tmp_path / "bad.parquet", "PAR1")])
    with pytest.raises(ValueError, match="twice"):
        ingest(workspace, [write(tmp_path / "twice.csv", "ts,ts\n1,2\n")])
    with pytest.raises(ValueError, match="cannot be read to its end"):
        ingest(workspace, [write(tmp_path / "cut.csv.gz", gzip.compress((HEADER + ROW).encode() * 50)[:-9])])
    with pytest.raises(ValueError, match="not a known shape"):
        ingest(workspace, [str(tmp_path)])


def test_empty_files_count_nothing(workspace: Workspace, tmp_path: Path) -> None:
    sources = [write(tmp_path / "a.csv", ""), write(tmp_path / "b.csv", HEADER), write(tmp_path / "c.jsonl", "\n")]
    summary = ingest(workspace, sources)
    assert (summary.rows_read, summary.added, summary.quarantined) == (0, 0, 0)
    assert all("empty" in source.notes[0] for source in summary.sources)


ODD = {
    "list": pl.Series([["a"], None], dtype=pl.List(pl.String)), "struct": pl.Series([{"a": 1}, None]),
    "decimal": pl.Series(["1.5", None]).cast(pl.Decimal(10, 2)),
    "category": pl.Series(["x", None], dtype=pl.Categorical),
    "time": pl.Series([1, None]).cast(pl.Time), "duration": pl.Series([1, None]).cast(pl.Duration("us")),
    "binary": pl.Series([b"\xff", None], dtype=pl.Binary), "unsigned": pl.Series([2**63 + 5, None], dtype=pl.UInt64),
    "null": pl.Series([None, None]), "array": pl.Series([[1, 2], None], dtype=pl.Array(pl.Int64, 2)),
}  # fmt: skip


@pytest.mark.parametrize("kind", ["impressions", "documents", "judgments"])
def test_no_column_type_of_parquet_loses_or_stops_a_row(workspace: Workspace, tmp_path: Path, kind) -> None:
    plain = {
        "ts": ["2026-01-05"] * 2, "session": ["a", "b"], "query": ["q"] * 2, "doc_id": ["d", "e"], "position": [1] * 2,
        "clicked": [True] * 2, "dwell": [None, 1.0], "grade": [1] * 2, "title": ["t"] * 2,
    }  # fmt: skip
    for odd in ODD.values():
        for name in plain:
            pl.DataFrame({**plain, name: odd}).write_parquet(tmp_path / "odd.parquet")
            summary = ingest(workspace, [str(tmp_path / "odd.parquet")], kind=kind, dry_run=True)
            assert summary.rows_read == 2 == summary.added + summary.already_there + summary.quarantined
            if name in ("ts", "session", "query", "position", "clicked") and kind == "impressions":
                assert summary.quarantined  # at least the null
