"""Score files: equal to direct scoring in every format, whole or not at all, and no batch scored twice."""

import gzip
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from serm.relevance.cross_encoder import CrossEncoder
from serm.relevance.model import expected_label
from serm.serving.score import ScoreSummary, score
from serm.workspace import Workspace, WorkspaceError
from tests.serm.serving_space import direct, make

SCALE = [0, 1, 3]
PAIRS = pl.DataFrame(
    {
        "query": ["red shoe", "blue, shoe", "été", "red shoe", "a\tb", "靴"],
        "text": ["Red shoe", 'a "quoted"\nline', "x" * 100_000, "Blue shoe", "tab\there", "赤い靴"],
        "kept": [1, 2, 3, 4, 5, 6],
    }
)


@pytest.fixture(scope="module")
def space(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return make(tmp_path_factory.mktemp("score"), SCALE)


@pytest.fixture(scope="module")
def want(space: Workspace) -> np.ndarray:
    """Pr(y | q, d) of PAIRS by the champion."""
    return direct(space, "one").probabilities(PAIRS["query"].to_list(), PAIRS["text"].to_list())


def write(frame: pl.DataFrame, path: Path) -> Path:
    if path.suffix == ".parquet":
        frame.write_parquet(path)
    elif path.suffix == ".jsonl":
        frame.write_ndjson(path)
    else:
        frame.write_csv(path, separator="\t" if path.suffix == ".tsv" else ",")
    return path


def read(path: str) -> pl.DataFrame:
    if path.endswith(".parquet"):
        return pl.read_parquet(path)
    if path.endswith(".jsonl"):
        return pl.read_ndjson(path)
    return pl.read_csv(path, separator="\t" if path.endswith(".tsv") else ",")


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".parquet"])
def test_scores_of_a_file_equal_direct_scoring(space: Workspace, want: np.ndarray, tmp_path: Path, suffix: str) -> None:
    space.config.scoring.batch_rows = 4
    summary = score(space, write(PAIRS, tmp_path / f"pairs{suffix}"))
    assert (summary.version, summary.scored, summary.set_aside, summary.bad) == ("one", 6, 0, None)
    assert Path(summary.out) == tmp_path / f"pairs.scores{suffix}"
    found = read(summary.out)
    assert found.columns == ["row", "query", "score", "p_0", "p_1", "p_3"]
    assert found["row"].to_list() == [1, 2, 3, 4, 5, 6]
    assert found["query"].to_list() == PAIRS["query"].to_list()
    np.testing.assert_allclose(found.select("p_0", "p_1", "p_3").to_numpy(), want, atol=1e-5)
    np.testing.assert_allclose(found["score"], expected_label(want, SCALE), atol=1e-5)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([f"pairs{suffix}", f"pairs.scores{suffix}"])


def test_documents_come_from_the_workspace_and_bad_rows_are_set_aside(space: Workspace, tmp_path: Path) -> None:
    lines = ["search_term,product_id", "red shoe,d0", ",d1", "blue,nowhere", "green shoe,d2", "too,many,fields", " ,d3"]
    (tmp_path / "pairs.csv.gz").write_bytes(gzip.compress("\n".join(lines).encode()))
    summary = score(space, tmp_path / "pairs.csv.gz", tmp_path / "out.parquet", version="two")
    found = pl.read_parquet(tmp_path / "out.parquet")
    assert found.select("row", "query", "doc_id").rows() == [(1, "red shoe", "d0"), (4, "green shoe", "d2")]
    texts = dict(space.read("documents").select("doc_id", "text").rows())
    want = direct(space, "two").probabilities(["red shoe", "green shoe"], [texts["d0"], texts["d2"]])
    np.testing.assert_allclose(found["score"], expected_label(want, SCALE), atol=1e-5)
    assert summary.set_aside == 4
    assert summary.reasons == {
        "query: empty": 2, "doc_id: no such document in the workspace": 1, "row: too many fields": 1,
    }  # fmt: skip
    bad = pl.read_ndjson(tmp_path / "out.parquet.bad.jsonl")
    assert bad["row"].to_list() == [2, 3, 5, 6]
    assert json.loads(bad["raw"][1])["doc_id"] == "nowhere"


def test_a_killed_run_goes_on_and_a_failed_one_leaves_no_file(
    space: Workspace, want: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    space.config.scoring.batch_rows = 2
    file = write(PAIRS, tmp_path / "pairs.parquet")
    out = tmp_path / "pairs.scores.parquet"
    out.write_bytes(b"of before")
    asked: list[int] = []
    scored = CrossEncoder.probabilities

    def failing(model: CrossEncoder, queries: list[str], documents: list[str]) -> np.ndarray:
        if "a\tb" in queries and len(asked) < 5:
            raise RuntimeError("the machine goes down")
        asked.append(len(queries))
        return scored(model, queries, documents)

    monkeypatch.setattr(CrossEncoder, "probabilities", failing)
    with pytest.raises(RuntimeError, match="goes down"):
        score(space, file)
    assert out.read_bytes() == b"of before"
    assert asked == [2, 2, 2]  # the probe of the loaded model, and two batches
    asked.extend([0, 0])
    summary = score(space, file)
    assert asked[5:] == [2, 2]  # the probe, and the one batch that was missing
    assert summary.scored == 6
    np.testing.assert_allclose(pl.read_parquet(out)["score"], expected_label(want, SCALE), atol=1e-5)
    assert not list(space.local("cache", "scoring").iterdir())


def test_what_cannot_be_scored_is_said(space: Workspace, tmp_path: Path) -> None:
    def refused(frame: pl.DataFrame, **rest: object) -> str:
        with pytest.raises(ValueError) as error:
            score(space, write(frame, tmp_path / "bad.csv"), **rest)  # type: ignore[arg-type]
        assert not (tmp_path / "bad.scores.csv").exists()
        return str(error.value)

    assert "no column for text or doc_id" in refused(PAIRS.select("query"))
    assert "no column 'nothing'" in refused(PAIRS, columns={"text": "nothing"})
    assert "--column grade: no such field" in refused(PAIRS, columns={"grade": "kept"})
    assert "query: empty (2)" in refused(pl.DataFrame({"query": [" ", "  "], "text": ["a", "b"]}))
    assert "would overwrite" in refused(PAIRS, out=tmp_path / "bad.csv")
    assert "ends in one of" in refused(PAIRS, out=tmp_path / "scores.xlsx")
    assert "there is no folder" in refused(PAIRS, out=tmp_path / "none" / "scores.csv")
    with pytest.raises(WorkspaceError, match="no model version 'nine'"):
        score(space, write(PAIRS, tmp_path / "bad.csv"), version="nine")


def test_the_command_prints_its_summary(space: Workspace, tmp_path: Path) -> None:
    file = write(PAIRS.rename({"text": "beschreibung"}), tmp_path / "pairs.csv")
    command = [sys.executable, "-m", "serm.cli", "score", str(file), "-w", space.root, "--json", "--column"]
    done = subprocess.run([*command, "text=beschreibung"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert ScoreSummary(**json.loads(done.stdout)).scored == 6
