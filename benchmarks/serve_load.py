"""A thousand requests, sixteen at once, bad ones among them, and a promotion in the middle: what does serm serve do?

    python benchmarks/serve_load.py

On a workspace of the embedded collection with two models trained by `serm update`. Every answer is compared with direct
scoring by the version that it names. In the same run the same requests go to a server that scores one request at a time
(`--set serving.batch_pairs=1 serving.wait_ms=0`), and straight to the model without a server, one pair and one request
at a time.
"""

import argparse
import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import polars as pl
import torch

from serm import registry
from serm.evolution.update import update
from serm.ingest import ingest
from serm.relevance.model import expected_label
from serm.serving.champion import load_version
from serm.workspace import Workspace

ROOT = Path(__file__).resolve().parents[1]
CONFIG = """
relevance: {{precision: {precision}, max_tokens: 64, max_epochs: 0.5, evaluate_every: 1000}}
serving: {{watch_seconds: 0.5, request_seconds: 120}}
"""
BAD = {
    "not JSON": (b"{", 422), "no documents": (b'{"query": "a", "documents": []}', 422),
    "no query": (b'{"query": " ", "documents": ["a"]}', 422),
    "too many documents": (json.dumps({"query": "a", "documents": ["a"] * 1_001}).encode(), 413),
    "too long": (json.dumps({"query": "a", "documents": ["x" * 2_000_001]}).encode(), 413),
}  # fmt: skip
BAD_SHARE = 0.05
TOLERANCE = 1e-3  # of f(q, d) in fp32
COMPARED = 100  # requests for which the other version is asked too
MIDDLE = 0.5  # of the requests are answered when the other version is promoted


def main() -> None:
    """Prepare, run, print the result as JSON; exit code 1 if an answer was wrong, missing or mixed."""
    parser = argparse.ArgumentParser(description="serm serve under load, with a promotion in the middle.")
    parser.add_argument("--requests", type=int, default=1_000)
    parser.add_argument("--at-once", type=int, default=16)
    parser.add_argument("--documents", type=float, default=8.0, help="Median of a request's documents.")
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    with tempfile.TemporaryDirectory() as scratch:
        workspace = prepare(Path(scratch), arguments.precision)
        requests = make_requests(workspace, arguments.requests, arguments.documents, arguments.seed)
        result: dict[str, Any] = {
            "requests": arguments.requests, "at_once": arguments.at_once, "precision": arguments.precision,
            "pairs": sum(len(one["documents"]) for one in requests if isinstance(one, dict)),
            "bad": sum(isinstance(one, str) for one in requests),
        }  # fmt: skip
        first, second = registry.versions(workspace)
        direct = Direct(workspace, requests)
        for name, sets in (("batched", []), ("one request at a time", ["serving.batch_pairs=1", "serving.wait_ms=0"])):
            registry.promote(workspace, first, "start")
            with serving(workspace, sets) as url:
                answers, seconds = asyncio.run(
                    ask(url, requests, arguments.at_once, lambda: promote(workspace, second))
                )
                page = httpx.get(f"{url}/metrics").text
            result[name] = summary(requests, answers, seconds) | batches(page) | direct.check(answers)
        result["no server"] = alone(workspace, requests)
    print(json.dumps(result, indent=2))
    sound = all(
        result[name]["wrong"] == 0 and result[name]["unexpected"] == {} for name in ("batched", "one request at a time")
    )
    sys.exit(0 if sound else 1)


def prepare(scratch: Path, precision: str) -> Workspace:
    """A workspace with the embedded collection and two short-trained models that answer differently."""
    workspace = Workspace.create(scratch / "space", CONFIG.format(precision=precision))
    ingest(workspace, [str(ROOT / "data/demo/documents.parquet")], kind="documents")
    judgments = pl.read_parquet(ROOT / "data/demo/judgments.parquet")
    queries = sorted(set(judgments["query"]))[:40]
    judgments.filter(pl.col("query").is_in(queries)).write_parquet(scratch / "train.parquet")
    ingest(workspace, [str(scratch / "train.parquet")], kind="judgments", split="train")
    update(workspace)
    other = Workspace.create(scratch / "other", CONFIG.format(precision=precision).replace("0.5,", "0.6,"))
    for table in ("documents", "judgments"):
        other.append(table, workspace.read(table))
    made = registry.folder(other, update(other).version)
    manifest = json.loads((made / "manifest.json").read_text())

    def copy(folder: Path) -> None:
        for path in made.iterdir():
            if path.name != "manifest.json":
                (folder / path.name).write_bytes(path.read_bytes())

    registry.publish(workspace, manifest["version"], copy, manifest)
    return workspace


def make_requests(workspace: Workspace, count: int, median: float, seed: int) -> list[dict[str, Any] | str]:
    """Searches with 1 to 100 documents, half of them with `median` or more; or the name of a bad request."""
    rng = np.random.default_rng(seed)
    queries = pl.read_parquet(ROOT / "data/demo/judgments.parquet")["query"].unique().sort().to_list()
    texts = workspace.read("documents").sort("doc_id")["text"].to_list()
    requests: list[dict[str, Any] | str] = []
    for _ in range(count):
        if rng.random() < BAD_SHARE:
            requests.append(list(BAD)[rng.integers(len(BAD))])
            continue
        number = int(np.clip(rng.lognormal(np.log(median), 0.7), 1, 100))
        documents = [texts[row] * int(rng.integers(1, 4)) for row in rng.choice(len(texts), number, replace=False)]
        requests.append({"query": queries[rng.integers(len(queries))], "documents": documents})
    return requests


@contextmanager
def serving(workspace: Workspace, sets: list[str]) -> Iterator[str]:
    """`serm serve` as a process of its own; yields its address."""
    command = [sys.executable, "-m", "serm.cli", "serve", "--port", "0", "-w", workspace.root]
    command += [part for item in sets for part in ("--set", item)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    try:
        found = next(found for line in process.stderr if (found := re.search(r"at (http://\S+)/rerank", line)))
        yield found[1]
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
        if process.returncode:
            raise SystemExit(f"serm serve ended with {process.returncode}")
    finally:
        if process.poll() is None:
            process.kill()


def promote(workspace: Workspace, version: str) -> None:
    """As another process would do it."""
    subprocess.run([sys.executable, "-m", "serm.cli", "promote", version, "-w", workspace.root, "--json"], check=True,
                   stdout=subprocess.DEVNULL)  # fmt: skip


async def ask(
    url: str, requests: list[dict[str, Any] | str], at_once: int, middle: Any
) -> tuple[list[tuple[int, Any, float]], float]:
    """Send all requests, so many at once; answers as (status, body, seconds), and the seconds in all."""
    answers: list[Any] = [None] * len(requests)
    numbers = iter(range(len(requests)))
    promoted: list[Any] = []
    began = time.monotonic()
    async with httpx.AsyncClient(timeout=300, limits=httpx.Limits(max_connections=at_once)) as client:

        async def one_client() -> None:
            for number in numbers:
                if number == int(MIDDLE * len(requests)):
                    promoted.append(asyncio.get_running_loop().run_in_executor(None, middle))
                request = requests[number]
                content = BAD[request][0] if isinstance(request, str) else json.dumps(request).encode()
                start = time.monotonic()
                answer = await client.post(f"{url}/rerank", content=content)
                answers[number] = (answer.status_code, answer.json(), time.monotonic() - start)

        await asyncio.gather(*(one_client() for _ in range(at_once)))
    seconds = time.monotonic() - began
    await asyncio.gather(*promoted)
    return answers, seconds


def summary(requests: list[dict[str, Any] | str], answers: list[Any], seconds: float) -> dict[str, Any]:
    """Latencies of the good requests, throughput, and statuses that were not asked for."""
    good = [answer for request, answer in zip(requests, answers, strict=True) if isinstance(request, dict)]
    times = np.array([answer[2] for answer in good]) * 1_000
    pairs = sum(len(request["documents"]) for request in requests if isinstance(request, dict))
    wanted = [200 if isinstance(request, dict) else BAD[request][1] for request in requests]
    unexpected = Counter(
        f"{answer[0]} instead of {status}"
        for status, answer in zip(wanted, answers, strict=True)
        if answer[0] != status
    )
    return {
        "seconds": round(seconds, 2), "pairs_per_second": round(pairs / seconds, 1),
        "requests_per_second": round(len(requests) / seconds, 1),
        "p50_ms": round(float(np.quantile(times, 0.5)), 1), "p99_ms": round(float(np.quantile(times, 0.99)), 1),
        "refused_as_they_should": dict(Counter(request for request in requests if isinstance(request, str))),
        "unexpected": dict(unexpected),
    }  # fmt: skip


def batches(page: str) -> dict[str, Any]:
    """How many requests were scored together, from the server's own metrics."""
    values = {line.split(" ")[0]: float(line.split(" ")[1]) for line in page.splitlines() if not line.startswith("#")}
    count = values["serm_batch_pairs_count"]
    return {
        "batches": int(count), "pairs_per_batch": round(values["serm_batch_pairs_sum"] / count, 1),
        "requests_per_batch": round(values['serm_requests_total{status="200"}'] / count, 2),
        "loads": int(values["serm_champion_loads"]),
    }  # fmt: skip


class Direct:
    """What each version says of each request, scored directly and once."""

    def __init__(self, workspace: Workspace, requests: list[dict[str, Any] | str]) -> None:
        self._requests = requests
        self._models = {name: load_version(workspace, name).model for name in registry.versions(workspace)}
        self._known: dict[tuple[str, int], np.ndarray] = {}

    def scores(self, version: str, number: int) -> np.ndarray:
        """f(q, d) of one request's documents."""
        if (version, number) not in self._known:
            request: Any = self._requests[number]
            model, texts = self._models[version], request["documents"]
            probabilities = model.probabilities([request["query"]] * len(texts), texts)
            self._known[version, number] = expected_label(probabilities, model.scale)
        return self._known[version, number]

    def check(self, answers: list[Any]) -> dict[str, Any]:
        """Every answer against the version that it names; for the first hundred also how far the other version is."""
        largest, other, wrong, named = 0.0, np.inf, 0, Counter[str]()
        for number, (status, body, _) in enumerate(answers):
            if status != 200:
                continue
            named[body["model"]] += 1
            want = self.scores(body["model"], number)
            got = np.full(len(want), np.nan)
            for result in body["results"]:
                got[result["index"]] = result["expected_label"]
            apart = float(np.abs(want - got).max())
            wrong += not apart < TOLERANCE
            largest = max(largest, apart)
            if number < COMPARED:
                (rest,) = set(self._models) - {body["model"]}
                other = min(other, float(np.abs(self.scores(rest, number) - got).max()))
        return {
            "wrong": wrong, "largest_difference": largest, "nearest_of_other_version": other,
            "answered_by": dict(named),
        }  # fmt: skip


def alone(workspace: Workspace, requests: list[dict[str, Any] | str]) -> dict[str, Any]:
    """The champion without a server: request after request, and, for the first 1,000 pairs, pair after pair."""
    model = load_version(workspace, registry.champion(workspace)).model
    good = [request for request in requests if isinstance(request, dict)]
    began = time.monotonic()
    for request in good:
        model.probabilities([request["query"]] * len(request["documents"]), request["documents"])
    by_request = sum(len(request["documents"]) for request in good) / (time.monotonic() - began)
    pairs = [(request["query"], text) for request in good for text in request["documents"]][:1_000]
    began = time.monotonic()
    for query, text in pairs:
        model.probabilities([query], [text])
    return {
        "pairs_per_second_request_by_request": round(by_request, 1),
        "pairs_per_second_pair_by_pair": round(len(pairs) / (time.monotonic() - began), 1),
    }  # fmt: skip


if __name__ == "__main__":
    main()
