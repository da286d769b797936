"""A small OpenAI-compatible server for the annotator's tests: counts what was asked and what was billed, by key."""

import asyncio
import hashlib
import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

Behaviour = Callable[[int, dict[str, Any]], Response | None]


def known_label(annotator: str, query: str, doc_id: str, path: int, scale: list[int]) -> int:
    """The label this server gives: mostly shared by annotators and paths, sometimes not; a hash decides."""
    shared = hashlib.sha256(f"{query}|{doc_id}".encode()).digest()[0]
    whim = hashlib.sha256(f"{annotator}|{query}|{doc_id}|{path}".encode()).digest()[0]
    return scale[(shared if whim < 170 else whim) % len(scale)]


class CountingServer:
    """Answers chat completions; a repeated Idempotency-Key gets the stored answer and is not billed."""

    def __init__(self, scale: list[int], delay: float = 0.0, behave: Behaviour | None = None) -> None:
        self.scale, self.delay, self.behave = scale, delay, behave
        self.requests: list[dict[str, Any]] = []
        self.asked: Counter[str] = Counter()
        self.billed: Counter[str] = Counter()
        self.in_flight = self.most_in_flight = 0
        self.url = ""
        self._stored: dict[str, dict[str, Any]] = {}

    async def complete(self, request: Request) -> Response:
        body = await request.json()
        key = request.headers["idempotency-key"]
        number = len(self.requests)
        self.requests.append({"key": key, "body": body, "headers": dict(request.headers)})
        self.asked[key] += 1
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            await asyncio.sleep(self.delay)
            response = self.behave(number, body) if self.behave else None
            if response is not None:
                return response
            if key not in self._stored:
                self.billed[key] += 1
                self._stored[key] = self._completion(body)
            return JSONResponse(self._stored[key])
        finally:
            self.in_flight -= 1

    def _completion(self, body: dict[str, Any]) -> dict[str, Any]:
        about = body["metadata"]
        first = int(about["path"])
        labels = [
            known_label(about["annotator"], about["query"], about["doc_id"], first + i, self.scale)
            for i in range(body["n"])
        ]
        contents = [json.dumps({"reasoning": f"Reads as {label}.", "label": label}) for label in labels]
        return completion(contents)


def completion(contents: list[str | None], finish_reason: str = "stop") -> dict[str, Any]:
    """A chat completion with these choices."""
    return {
        "id": "c", "object": "chat.completion", "created": 0, "model": "m",
        "choices": [
            {"index": i, "message": {"role": "assistant", "content": text}, "finish_reason": finish_reason}
            for i, text in enumerate(contents)
        ],
        "usage": {"prompt_tokens": 10, "completion_tokens": 5 * len(contents), "total_tokens": 0},
    }  # fmt: skip


@contextmanager
def serving(server: CountingServer) -> Iterator[CountingServer]:
    """Run the server in a thread on a free loopback port; `server.url` is its base URL."""
    app = Starlette(routes=[Route("/v1/chat/completions", server.complete, methods=["POST"])])
    inner = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error", lifespan="off"))
    thread = threading.Thread(target=inner.run, daemon=True)
    thread.start()
    while not inner.started:
        time.sleep(0.01)
    server.url = f"http://127.0.0.1:{inner.servers[0].sockets[0].getsockname()[1]}/v1"
    try:
        yield server
    finally:
        inner.should_exit = inner.force_exit = True
        thread.join(timeout=10)
