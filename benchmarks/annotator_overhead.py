"""What the annotator costs beside the LLM: pairs a second against a bare loop over the same client, and memory.

    python benchmarks/annotator_overhead.py speed               # annotate_pairs and a bare loop, in turns
    python benchmarks/annotator_overhead.py memory --pairs N    # peak memory of the verb `annotate` on N pairs

The server runs in a process of its own and answers at once, always the same: what is left is the client's own time.
"""

import argparse
import asyncio
import json
import os
import resource
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import polars as pl
import uvicorn
from openai import AsyncOpenAI

from serm.annotation.core import annotate_pairs
from serm.annotation.ledger import Ledger
from serm.annotation.openai_compatible import OpenAICompatible, response_format
from serm.annotation.verbs import annotate
from serm.config import AnnotationSettings, AnnotatorSettings
from serm.workspace import Workspace

SCALE = [0, 1, 2, 3]
PATHS = 3
CONCURRENCY = 16
WORDS = "a relevant passage of plain text about whales and the sea they live in "  # 72 characters


def main() -> None:
    """Run the part that is asked for and print its figures as JSON."""
    parser = argparse.ArgumentParser(description="Pairs a second and memory of the annotator.")
    parser.add_argument("part", choices=["speed", "memory", "server", "fill"])
    parser.add_argument("--pairs", type=int, default=2_000)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--characters", type=int, default=800, help="Of each document.")
    parser.add_argument("--port", type=int, default=0, help="server: where to listen")
    parser.add_argument("--workspace", type=Path, help="fill: what to make")
    parser.add_argument("--url", default="", help="fill: the server's address")
    arguments = parser.parse_args()
    if arguments.part == "server":
        serve(arguments.port)
        return
    if arguments.part == "fill":
        fill(arguments.workspace, arguments.url, arguments.pairs, arguments.characters)
        return
    os.environ.setdefault("OPENAI_API_KEY", "loopback")
    with server() as url, tempfile.TemporaryDirectory() as scratch:
        if arguments.part == "speed":
            result = speed(url, arguments.pairs, arguments.turns, arguments.characters, Path(scratch))
        else:
            result = memory(url, arguments.pairs, arguments.characters, Path(scratch))
    print(json.dumps(result, indent=2))


def speed(url: str, pairs: int, turns: int, characters: int, scratch: Path) -> dict[str, Any]:
    """Both ways in turns over the same pairs; each asks two annotators, once a pair, for the same number of paths."""
    queries, documents = inputs(pairs, characters)
    settings = AnnotationSettings(annotators=annotators(url), paths=PATHS, adaptive=False)
    seconds: dict[str, list[float]] = {"bare": [], "annotate_pairs": []}
    cpu: dict[str, list[float]] = {"bare": [], "annotate_pairs": []}

    def done(name: str, began: tuple[float, float]) -> None:
        seconds[name].append(time.perf_counter() - began[0])
        cpu[name].append(time.process_time() - began[1])

    for turn in range(turns):
        began = (time.perf_counter(), time.process_time())
        asyncio.run(bare(url, queries, documents))
        done("bare", began)
        llms = {a.name: OpenAICompatible(a, settings.max_completion_tokens, SCALE) for a in settings.annotators}
        ledger = Ledger(scratch / f"{turn}.sqlite")
        began = (time.perf_counter(), time.process_time())
        found = annotate_pairs(queries, documents, llms, settings, SCALE, ledger)
        done("annotate_pairs", began)
        ledger.close()
        assert found["status"].unique().to_list() == ["kept"], found["status"].value_counts()
    return {
        "pairs": pairs,
        "turns": turns,
        "pairs_per_second": {name: round(pairs / median(values), 1) for name, values in seconds.items()},
        "cpu_ms_per_pair": {name: round(1_000 * median(values) / pairs, 2) for name, values in cpu.items()},
        "ratio_of_rates": spread(seconds),
        "ratio_of_cpu_time": spread(cpu),  # of this process alone: steadier on a machine that others use too
    }


def spread(values: dict[str, list[float]]) -> dict[str, float]:
    """Lowest, median and highest of bare / annotate_pairs, turn by turn."""
    ratios = [one / other for one, other in zip(values["bare"], values["annotate_pairs"], strict=True)]
    return {"lowest": round(min(ratios), 3), "median": round(median(ratios), 3), "highest": round(max(ratios), 3)}


async def bare(url: str, pairs: pl.DataFrame, documents: pl.DataFrame) -> None:
    """The same requests with nothing around them but a bound on those in flight."""
    client = AsyncOpenAI(base_url=url, api_key="loopback", max_retries=0)
    slots = {name: asyncio.Semaphore(CONCURRENCY) for name in ("ada", "ben")}
    texts = dict(documents.iter_rows())
    form: Any = response_format(SCALE)

    async def ask(name: str, query: str, text: str) -> int:
        async with slots[name]:
            answer = await client.chat.completions.create(
                model=name,
                messages=[{"role": "system", "content": "Grade."}, {"role": "user", "content": f"{query}\n{text}"}],
                n=PATHS,
                temperature=0.7,
                max_completion_tokens=400,
                response_format=form,
            )
        return sum(int(json.loads(choice.message.content or "")["label"]) for choice in answer.choices)

    async def one(query: str, doc_id: str) -> bool:
        said = await asyncio.gather(*(ask(name, query, texts[doc_id]) for name in slots))
        return said[0] == said[1]

    waiting = pairs.iter_rows()

    async def worker() -> None:
        for query, doc_id in waiting:
            assert await one(query, doc_id)

    await asyncio.gather(*(worker() for _ in range(4 * CONCURRENCY)))
    await client.close()


def memory(url: str, pairs: int, characters: int, scratch: Path) -> dict[str, Any]:
    """Peak memory of the verb on a workspace of `pairs` pairs with one annotator, and what it leaves on disk.

    Another process fills the workspace, so that the peak is the verb's own. Afterwards the annotations are dropped
    and made again from the ledger: no request is sent, and the ledger does not grow.
    """
    root = scratch / "w"
    command = [sys.executable, __file__, "fill", "--pairs", str(pairs), "--characters", str(characters)]
    subprocess.run([*command, "--workspace", str(root), "--url", url], check=True)
    workspace = Workspace.open(root)
    before = peak()
    began = time.perf_counter()
    summary = annotate(workspace)
    took = time.perf_counter() - began
    after = peak()
    first = disk(workspace)
    shutil.rmtree(root / "tables" / "annotations")
    again = annotate(Workspace.open(root))
    assert again.calls == 0
    assert (again.kept, again.reused) == (summary.kept, summary.calls) == (pairs, pairs)
    return {
        "pairs": pairs,
        "document_characters": characters,
        "seconds": round(took, 1),
        "pairs_per_second": round(pairs / took, 1),
        "peak_before_mib": before,
        "peak_after_mib": after,
        "peak_after_the_second_mib": peak(),
        "ledger_bytes_per_call": round(first / summary.calls, 1),
        "ledger_growth_bytes_in_the_second": disk(workspace) - first,
    }


def disk(workspace: Workspace) -> int:
    """The ledger's bytes, once what waits in its write-ahead log is in the file."""
    path = workspace.local("ledger.sqlite")
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return path.stat().st_size


def fill(root: Path, url: str, pairs: int, characters: int) -> None:
    """A workspace with one mined round of so many pairs."""
    queries, documents = inputs(pairs, characters)
    settings = {"annotators": [annotators(url)[0].model_dump()], "knowledge": False, "adaptive": False}
    workspace = Workspace.create(root, json.dumps({"annotation": settings}))
    workspace.append("documents", documents)
    fixed = [pl.lit(1, pl.Int32).alias("round"), pl.lit("r").alias("reason"), pl.lit(["click"]).alias("agents")]
    workspace.append("mined", queries.with_columns(fixed))


def peak() -> float:
    """This process's peak resident memory, MiB."""
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1)


def inputs(pairs: int, characters: int) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Pairs (query, doc_id), each with a document of its own."""
    numbers = pl.DataFrame({"i": pl.arange(pairs, eager=True)})
    queries = numbers.select(query=pl.format("query {}", pl.col("i") // 10), doc_id=pl.format("d{}", "i"))
    body = (WORDS * (characters // len(WORDS) + 1))[:characters]
    return queries, numbers.select(doc_id=pl.format("d{}", "i"), text=pl.format("{} {}", "i", pl.lit(body)))


def annotators(url: str) -> list[AnnotatorSettings]:
    """Two annotators behind the same server."""
    return [AnnotatorSettings(name=name, model=name, base_url=url, concurrency=CONCURRENCY) for name in ("ada", "ben")]


@contextmanager
def server() -> Iterator[str]:
    """The server in a process of its own while the block runs; yields its base URL."""
    command = [sys.executable, __file__, "server"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield process.stdout.readline().strip()
    finally:
        process.terminate()
        process.wait()


def serve(port: int) -> None:
    """Answer every chat completion at once with label 1, as often as `n` asks."""
    bodies: dict[int, bytes] = {}

    def body(n: int) -> bytes:
        message = {"role": "assistant", "content": json.dumps({"reasoning": "It names the sea.", "label": 1})}
        choices = [{"index": i, "message": message, "finish_reason": "stop"} for i in range(n)]
        usage = {"prompt_tokens": 200, "completion_tokens": 12 * n, "total_tokens": 200 + 12 * n}
        whole = {"id": "c", "object": "chat.completion", "created": 0, "model": "m", "choices": choices, "usage": usage}
        return json.dumps(whole).encode()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        parts, more = [], True
        while more:
            event = await receive()
            parts.append(event.get("body", b""))
            more = event.get("more_body", False)
        n = int(json.loads(b"".join(parts)).get("n", 1))
        answer = bodies.setdefault(n, body(n))
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(answer)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": answer})

    config = uvicorn.Config(app, port=port, log_level="critical", lifespan="off", access_log=False)
    listener = config.bind_socket()
    print(f"http://127.0.0.1:{listener.getsockname()[1]}/v1", flush=True)
    uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    main()
