"""The verbs on a workspace: what is written, what a rerun does, who is lost, and what a person is shown."""

import json
import sqlite3
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray
from starlette.responses import JSONResponse
from typer.testing import CliRunner

from serm.annotation.core import annotate_pairs
from serm.annotation.ledger import Ledger
from serm.annotation.llm import Messages, ProviderError, Reply
from serm.annotation.stand_in import StandInLLM
from serm.annotation.verbs import AnnotatorsLostError, annotate
from serm.cli import app
from serm.config import SimulateLLMSettings
from serm.review.queue import review_queue
from serm.simulate.llm_server import Server, running
from serm.simulate.standin import StandIn
from serm.workspace import Workspace, WorkspaceError
from tests.serm.annotation_server import CountingServer, completion, known_label, serving

SCALE = [0, 1, 2, 3]
N = 30
DEAD = "http://127.0.0.1:9/v1"
NO_KNOWLEDGE = "annotation.knowledge=false"


class Known:
    """The test server's labels, without the server."""

    def labels(
        self, annotator: str, queries: Sequence[str], doc_ids: Sequence[str], paths: int, seed: int
    ) -> NDArray[np.int64]:
        pairs = zip(queries, doc_ids, strict=True)
        return np.array([[known_label(annotator, q, d, p, SCALE) for p in range(paths)] for q, d in pairs])


class Moody:
    """A stand-in that fails for some documents."""

    concurrency = 8

    def __init__(self, name: str, fails: set[str]) -> None:
        self.inner = StandInLLM(Known(), name)
        self.model, self.address, self.parameters = name, "there", self.inner.parameters
        self.fails = fails
        self.calls = 0

    async def complete(self, messages: Messages, n: int, request_key: str, metadata: Mapping[str, str]) -> Reply:
        if metadata["doc_id"] in self.fails:
            raise ProviderError("HTTP 400: too long", request_at_fault=True)
        self.calls += 1
        return await self.inner.complete(messages, n, request_key, metadata)

    async def close(self) -> None:
        pass


def two(fails: set[str] | None = None) -> dict[str, Moody]:
    return {"ada": Moody("ada", set()), "ben": Moody("ben", fails or set())}


def letters(texts: Sequence[str]) -> NDArray[np.float32]:
    counts = np.array([[text.count(c) + 0.01 for c in "0123456789"] for text in texts], dtype=np.float32).reshape(
        -1, 10
    )
    return counts / np.linalg.norm(counts, axis=1, keepdims=True)


def config(*urls: str) -> str:
    annotators = [
        {
            "name": name,
            "model": f"model-{name}",
            "base_url": url,
            "retries": 1,
            "backoff": 0.01,
            "give_up_after": 3,
            "breaker_pause": 0.01,
        }
        for name, url in zip(("ada", "ben"), urls, strict=True)
    ]
    return json.dumps({"annotation": {"annotators": annotators, "batch_pairs": 8}})


def filled(root: Path, text: str = "annotation: {batch_pairs: 8}") -> Workspace:
    workspace = Workspace.create(root, text)
    doc_ids = [f"d{i}" for i in range(N)]
    texts = [f"Title {i}\nText of number {i * 37}." for i in range(N)]
    titles = [f"Title {i}" for i in range(N)]
    workspace.append("documents", pl.DataFrame({"doc_id": doc_ids, "title": titles, "text": texts}))
    mined = pl.DataFrame(
        {
            "round": [1] * N,
            "query": [f"query {i % 7}" for i in range(N)],
            "doc_id": doc_ids,
            "agents": [["click", "feedback"] if i % 3 == 0 else ["uncertainty"] for i in range(N)],
            "priority": [i / N for i in range(N)],
            "reason": [f"because {i}" for i in range(N)],
        },
        schema_overrides={"round": pl.Int32},
    )
    workspace.append("mined", mined)
    return workspace


def table(workspace: Workspace) -> pl.DataFrame:
    return workspace.read("annotations").sort("round", "query", "doc_id")


def test_a_round_is_annotated_once(tmp_path: Path) -> None:
    workspace = filled(tmp_path / "w")
    summary = annotate(workspace, llms=two(), embed=letters)
    rows = table(workspace)
    assert (summary.round, summary.pairs, rows.height) == (1, N, N)
    assert summary.kept == rows.filter(pl.col("status") == "kept").height > 0
    assert summary.review == rows.filter(pl.col("status") == "review").height > 0
    assert summary.kept + summary.review == N
    assert summary.calls == rows["calls"].sum()
    assert summary.completion_tokens == rows["completion_tokens"].sum()
    totals = Ledger(workspace.local("ledger.sqlite")).totals()
    assert sum(total.calls for total in totals.values()) == summary.calls
    assert sum(total.open for total in totals.values()) == 0
    assert sum(total.prompt_tokens for total in totals.values()) == summary.prompt_tokens
    kept = rows.sort(pl.col("doc_id").str.slice(1).cast(int))["status"].to_list()
    clicked = [status == "kept" for i, status in enumerate(kept) if i % 3 == 0]
    assert summary.kept_rate["click"] == summary.kept_rate["feedback"] == pytest.approx(sum(clicked) / len(clicked))
    quiet = two()
    again = annotate(workspace, llms=quiet, embed=letters)
    assert (again.pairs, again.calls, again.kept_rate) == (0, 0, summary.kept_rate)
    assert table(workspace).equals(rows)
    assert quiet["ada"].calls == 0


def test_annotation_can_be_lost_and_is_not_paid_again(tmp_path: Path) -> None:
    """The table is gone, the ledger is not: every answer comes from it."""
    workspace = filled(tmp_path / "w")
    first = annotate(workspace, llms=two(), embed=letters)
    fresh = filled(tmp_path / "fresh")
    workspace.local("ledger.sqlite").replace(fresh.local("ledger.sqlite"))
    second = annotate(fresh, llms=two(), embed=letters)
    assert (second.calls, second.reused) == (0, first.calls)
    assert table(fresh).equals(table(workspace))


def test_failed_pairs_are_completed_by_a_rerun(tmp_path: Path) -> None:
    calm = filled(tmp_path / "calm")
    annotate(calm, llms=two(), embed=letters)
    workspace = filled(tmp_path / "w")
    bad = {"d3", "d4", "d20"}
    summary = annotate(workspace, llms=two(bad), embed=letters)
    assert (summary.failed, summary.kept + summary.review) == (3, N - 3)
    assert summary.notes[0] == "3 pairs failed: ben at there: HTTP 400: too long"
    assert "run serm annotate again" in summary.notes[-1]
    assert not bad & set(table(workspace)["doc_id"])
    healed = two()
    embedded: list[list[str]] = []

    def watched(texts: Sequence[str]) -> NDArray[np.float32]:
        embedded.append(sorted(texts))
        return letters(texts)

    rest = annotate(workspace, llms=healed, embed=watched)
    # All the round's queries together, though three pairs were left: other batches could give other neighbours.
    assert sorted(set(workspace.read("mined")["query"])) in embedded
    assert (rest.pairs, rest.failed) == (3, 0)
    assert healed["ada"].calls == 0  # its answers to the failed pairs were in the ledger
    assert rest.reused > 0
    assert table(workspace).equals(table(calm))


def test_one_lost_annotator_is_named_and_the_run_finishes(tmp_path: Path) -> None:
    with serving(CountingServer(SCALE)) as server:
        workspace = filled(tmp_path / "w", config(server.url, DEAD))
        summary = annotate(workspace, embed=letters)
        assert list(summary.lost) == ["ben"]
        assert DEAD in summary.lost["ben"]
        assert "no connection" in summary.lost["ben"]
        assert (summary.failed, table(workspace).height) == (N, 0)
        alive = Workspace.open(workspace.root)
        alive.config.annotation.annotators[1].base_url = server.url
        asked = dict(server.asked)
        rest = annotate(alive, embed=letters)
    assert (rest.failed, rest.kept + rest.review) == (0, N)
    assert rest.reused == sum(asked.values())
    assert all(count == 1 for count in server.asked.values())


def test_no_annotator_left_is_an_error_that_names_them_all(tmp_path: Path) -> None:
    workspace = filled(tmp_path / "w", config(DEAD, DEAD))
    with pytest.raises(AnnotatorsLostError, match=rf"ada: {DEAD}.*ben: {DEAD}.*0 of {N} pairs"):
        annotate(workspace, embed=letters)
    runs = workspace.read("runs").filter(pl.col("verb") == "annotate")
    assert sorted(runs["status"]) == ["failed", "started"]


def test_trouble_in_the_provider_changes_no_label(tmp_path: Path) -> None:
    """Every third request is refused with 429, every fifth with 500: same table, nothing billed twice."""

    def behave(number: int, body: Mapping[str, Any]) -> JSONResponse | None:
        status = 429 if number % 3 == 0 else 500 if number % 5 == 0 else None
        return None if status is None else JSONResponse({"error": {"message": "later"}}, status)

    tables = []
    for name, behaviour in (("calm", None), ("rough", behave)):
        with serving(CountingServer(SCALE, behave=behaviour)) as server:
            text = config(server.url, server.url).replace('"retries": 1', '"retries": 12')
            workspace = filled(tmp_path / name, text)
            assert annotate(workspace, embed=letters).failed == 0
            tables.append(table(workspace))
        assert set(server.billed.values()) == {1}
    assert tables[0].equals(tables[1])


def test_the_stand_in_server_and_the_stand_in_here_say_the_same(tmp_path: Path) -> None:
    """Over HTTP with 429, 500 and hanging answers, or in this process: one verdict, and no path paid twice."""
    workspace = filled(tmp_path / "w", config(DEAD, DEAD))
    mined = workspace.read("mined").sort("query", "doc_id")
    graded = mined.select("query", "doc_id", grade=pl.col("doc_id").str.slice(1).cast(pl.Int32) % 4)
    faults = SimulateLLMSettings(rate_limited=0.1, server_error=0.1, hang=0.08, retry_after=0.05, hang_seconds=30)
    source = StandIn(graded, SCALE, faults, seed=4)
    server = Server(source, {})
    with running(server) as url:
        for annotator in workspace.config.annotation.annotators:
            annotator.base_url, annotator.retries, annotator.timeout = url, 12, 0.5
        summary = annotate(workspace, embed=letters)
    assert summary.failed == 0
    assert server.bill.faults.keys() >= {"rate_limited", "server_error", "hang"}
    assert (server.bill.stats()["keys_billed_twice"], server.bill.stats()["paths_billed_twice"]) == (0, 0)
    llms = {name: StandInLLM(source, f"model-{name}") for name in ("ada", "ben")}
    docs = workspace.read("documents")
    expected = annotate_pairs(mined, docs, llms, workspace.config.annotation, SCALE)
    verdict = ["query", "doc_id", "status", "label", "calls"]
    assert table(workspace).select(verdict).equals(expected.select(verdict))
    assert set(expected["status"]) == {"kept", "review"}


def test_calls_in_flight_are_bounded(tmp_path: Path) -> None:
    with serving(CountingServer(SCALE, delay=0.03)) as server:
        text = config(server.url, server.url).replace('"retries": 1', '"retries": 1, "concurrency": 3')
        annotate(filled(tmp_path / "w", text), embed=letters)
    assert server.most_in_flight == 2 * 3  # two annotators of three each


def test_a_missing_key_stops_before_anything_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    workspace = filled(tmp_path / "w", config("https://api.example.com/v1", DEAD))
    with pytest.raises(ValueError, match="OPENAI_API_KEY is not set"):
        annotate(workspace, embed=letters)


def test_no_secret_is_stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret-123")
    with serving(CountingServer(SCALE)) as server:
        workspace = filled(tmp_path / "w", config(server.url, server.url))
        annotate(workspace, embed=letters)
    assert server.requests[0]["headers"]["authorization"] == "Bearer sk-very-secret-123"
    for path in Path(workspace.root).rglob("*"):
        assert not path.is_file() or b"sk-very-secret" not in path.read_bytes()
    assert "sk-very-secret" not in str(workspace.read("runs").to_dicts())


def test_no_secret_is_stored_after_failures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """An endpoint that repeats the key in refusals and answers, and an annotator that is given up for it."""
    secret = "sk-very-secret-123"
    monkeypatch.setenv("OPENAI_API_KEY", secret)
    caplog.set_level("INFO")

    def echo(number: int, body: Mapping[str, Any]) -> JSONResponse | None:
        said = f'{{"reasoning": "the key is {secret}", "label": 1}}'
        if body["metadata"]["annotator"] == "ada":
            return JSONResponse(completion([said] * body["n"])) if number % 2 else None
        status = (401, 429, 500, 400)[number % 4] if number > 20 else 500
        return JSONResponse({"error": {"message": f"Incorrect API key provided: {secret}"}}, status)

    with serving(CountingServer(SCALE, behave=echo)) as server:
        workspace = filled(tmp_path / "w", config(server.url, server.url))
        found = CliRunner().invoke(app, ["annotate", "--workspace", str(workspace.root), "--set", NO_KNOWLEDGE])
        assert found.exit_code == 1
        summary = json.loads(
            CliRunner().invoke(app, ["annotate", "-w", str(workspace.root), "--set", NO_KNOWLEDGE, "--json"]).stdout
        )
    assert "ben" in summary["lost"]
    assert "[key]" in summary["lost"]["ben"]
    assert summary["failures"]
    with sqlite3.connect(workspace.local("ledger.sqlite")) as connection:
        assert "the key is [key]" in str(connection.execute("SELECT answers FROM calls").fetchall())
    for path in Path(workspace.root).rglob("*"):
        assert not path.is_file() or secret.encode() not in path.read_bytes(), path
    for table in ("runs", "annotations"):
        assert secret not in str(workspace.read(table).to_dicts())
    out, err = capfd.readouterr()
    assert secret not in found.output + out + err + caplog.text


def test_the_bill_has_prices_and_every_outcome(tmp_path: Path) -> None:
    with serving(CountingServer(SCALE)) as server:
        workspace = filled(tmp_path / "w", config(server.url, server.url))
        ada, ben = workspace.config.annotation.annotators
        ada.prompt_price, ada.completion_price, ben.completion_price, ben.paths = 2.0, 10.0, 1.0, 1
        summary = annotate(workspace, embed=letters)
    # The test server counts 10 prompt tokens a request and 5 completion tokens an answer.
    ada_asked = [r["body"]["n"] for r in server.requests if r["body"]["metadata"]["annotator"] == "ada"]
    ben_asked = [r["body"]["n"] for r in server.requests if r["body"]["metadata"]["annotator"] == "ben"]
    assert ben_asked == [1] * N  # its own number of paths
    assert summary.cost == pytest.approx((len(ada_asked) * 20 + sum(ada_asked) * 50 + N * 5) / 1e6)
    assert summary.outcomes == {"ada": {"label": sum(ada_asked)}, "ben": {"label": N}}


def test_an_annotators_own_guidelines_are_added_to_its_prompt_alone(tmp_path: Path) -> None:
    with serving(CountingServer(SCALE)) as server:
        workspace = filled(tmp_path / "w", config(server.url, server.url))
        workspace.config.annotation.guidelines = "Movies, not books."
        workspace.config.annotation.annotators[1].guidelines = "Be strict."
        annotate(workspace, embed=letters)
    for request in server.requests:
        prompt = request["body"]["messages"][0]["content"]
        assert "Movies, not books." in prompt
        assert ("Be strict." in prompt) == (request["body"]["metadata"]["annotator"] == "ben")


def test_pairs_are_read_slice_by_slice_and_the_table_is_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, sliced = filled(tmp_path / "whole"), filled(tmp_path / "sliced")
    for workspace in (whole, sliced):
        workspace.config.annotation.knowledge = False
    annotate(whole, llms=two())
    monkeypatch.setattr("serm.annotation.verbs.SLICE_PAIRS", 7)
    monkeypatch.setattr("serm.annotation.core.ROWS_A_FRAME", 4)
    annotate(sliced, llms=two())
    assert table(sliced).equals(table(whole))
    found = annotate_pairs(
        whole.read("mined").sort("query", "doc_id"), whole.read("documents"), two(), whole.config.annotation, SCALE
    )
    assert found.select("query", "doc_id", "label").equals(table(whole).select("query", "doc_id", "label"))


def test_every_pair_ends_somewhere_on_a_server_that_fails(tmp_path: Path) -> None:
    """10% 429s, 5% 500s, 2% hangs, 3% truncated, 3% malformed, one retry: counts add up, nothing is paid twice."""
    workspace = filled(tmp_path / "w", config(DEAD, DEAD))
    graded = workspace.read("mined").select("query", "doc_id", grade=pl.col("doc_id").str.slice(1).cast(pl.Int32) % 4)
    faults = SimulateLLMSettings(
        rate_limited=0.1, server_error=0.05, hang=0.02, truncated=0.03, malformed=0.03, retry_after=0.02,
        hang_seconds=30,
    )  # fmt: skip
    server = Server(StandIn(graded, SCALE, faults, seed=2), {})
    summaries = []
    with running(server) as url:
        for annotator in workspace.config.annotation.annotators:
            annotator.base_url, annotator.timeout = url, 0.5
        workspace.config.annotation.paths = 7
        while not summaries or summaries[-1].failed:
            assert len(summaries) < 10
            summaries.append(annotate(workspace, embed=letters))
    assert summaries[0].failed == len(summaries[0].failures) > 0
    assert all("HTTP" in failure["reason"] or "no answer" in failure["reason"] for failure in summaries[0].failures)
    for summary in summaries:
        assert summary.pairs == summary.kept + summary.review + summary.failed
        assert len(summary.failures) == summary.failed
    said = Counter(
        path["outcome"]
        for votes in table(workspace)["votes"]
        for vote in json.loads(votes).values()
        for path in vote["paths"]
    )
    bill = server.bill.stats()
    assert said.total() == bill["choices"]
    assert said.keys() == {"label", "truncated", "unparseable"}
    assert (said["truncated"], said["unparseable"]) == (bill["faults"]["truncated"], bill["faults"]["malformed"])
    assert sum(summary.calls for summary in summaries) == bill["completed"]
    assert (bill["keys_billed_twice"], bill["paths_billed_twice"]) == (0, 0)


def test_nothing_mined_and_unknown_rounds(tmp_path: Path) -> None:
    with pytest.raises(WorkspaceError, match="nothing is mined yet"):
        annotate(Workspace.create(tmp_path / "empty", ""))
    with pytest.raises(WorkspaceError, match="round 7 has no mined pairs; the newest round is 1"):
        annotate(filled(tmp_path / "w"), round=7)


def test_review_queue_shows_open_pairs_most_useful_first(tmp_path: Path) -> None:
    workspace = filled(tmp_path / "w")
    annotate(workspace, llms=two(), embed=letters)
    open_pairs = table(workspace).filter(pl.col("status") == "review")
    queue = review_queue(workspace)
    assert set(queue["doc_id"]) == set(open_pairs["doc_id"])
    numbers = [int(doc_id[1:]) for doc_id in queue["doc_id"]]
    assert numbers == sorted(numbers, reverse=True)  # the priority grows with the number
    top = queue.row(0, named=True)
    assert (top["title"], top["mined_because"]) == (f"Title {numbers[0]}", f"because {numbers[0]}")
    assert top["reason"].startswith("ada: ")
    judged = {"query": top["query"], "doc_id": top["doc_id"], "grade": 2, "split": "train", "judge": "eva"}
    workspace.append("judgments", pl.DataFrame([judged]))
    assert review_queue(workspace).height == queue.height - 1
    assert review_queue(workspace, round=2).is_empty()
