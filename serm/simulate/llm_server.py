"""The stand-in LLM as an OpenAI-compatible server: routes, its bill, injected faults, and how to run it."""

import asyncio
import hashlib
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from serm.simulate.chat import METADATA_CHARACTERS, ChatRequest, RequestError, answers, completion, read
from serm.simulate.standin import StandIn, chance, digest
from serm.workspace import Workspace

MOST_BODY_BYTES = 4 * 1024 * 1024


@dataclass
class Bill:
    """What was asked, answered and paid for since the server started; never written down."""

    requests: int = 0
    rejected: int = 0
    completed: int = 0
    replays: int = 0
    choices: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    by_key: Counter[str] = field(default_factory=Counter)
    asked_by_key: Counter[str] = field(default_factory=Counter)  # well or ill answered, replays included
    by_path: Counter[tuple[str, str, str, int]] = field(default_factory=Counter)  # model, query, doc_id, path

    def stats(self) -> dict[str, Any]:
        """The counts as JSON; `paths_billed_twice` counts paths of a pair, named by metadata, under whatever keys."""
        return {
            "requests": self.requests,
            "rejected": self.rejected,
            "completed": self.completed,
            "replays": self.replays,
            "choices": self.choices,
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "faults": dict(sorted(self.faults.items())),
            "keys_billed_twice": sum(count > 1 for count in self.by_key.values()),
            "paths_billed_twice": sum(count > 1 for count in self.by_path.values()),
            "completions_by_key": dict(self.by_key),
        }


class Server:
    """Requests in, responses out; everything that is decided between two awaits happens at once."""

    def __init__(self, standin: StandIn, texts: Mapping[str, str]) -> None:
        """`texts` maps doc_id to the document's text, for the reasons that answers give."""
        self.standin = standin
        self.texts = texts
        self.bill = Bill()
        self._attempts: Counter[str] = Counter()
        self._stored: dict[str, tuple[str, dict[str, Any]]] = {}  # key -> (body's hash, response)
        self._models = list(standin.settings.models)
        # A client cuts metadata to the API's length; this is the way back to the whole query.
        self._cut = {_cut(pair): pair for pair in standin.pairs() if _cut(pair) != pair}

    def app(self) -> Starlette:
        """The routes as an ASGI application."""
        return Starlette(
            routes=[
                Route("/v1/chat/completions", self.chat, methods=["POST"]),
                Route("/v1/models", self.models),
                Route("/stats", self.stats),
            ]
        )

    async def models(self, request: Request) -> Response:
        """The configured names and those that were asked."""
        entries = [{"id": name, "object": "model", "created": 0, "owned_by": "stand-in"} for name in self._models]
        return JSONResponse({"object": "list", "data": entries})

    async def stats(self, request: Request) -> Response:
        """The bill so far."""
        return JSONResponse(self.bill.stats())

    async def chat(self, request: Request) -> Response:
        """One chat completion: the stored answer for a known key, else a fault or a new, billed answer."""
        body = await request.body()
        key = request.headers.get("idempotency-key")
        self.bill.requests += 1
        if len(body) > MOST_BODY_BYTES:
            return self._reject(413, "the request is longer than 4 MiB")
        try:
            asked = read(body)
        except RequestError as error:
            return self._reject(400, str(error))
        content = hashlib.sha256(body).hexdigest()
        if key is not None:
            self.bill.asked_by_key[key] += 1
        if key is not None and key in self._stored:
            known, answer = self._stored[key]
            if known != content:
                return self._reject(422, "this Idempotency-Key was used for another request; take a new one")
            self.bill.replays += 1
            return JSONResponse(answer, headers={"Idempotent-Replayed": "true"})
        identity = key or content
        attempt = self._attempts[identity]
        self._attempts[identity] += 1
        fault = self._fault(identity, attempt)
        if fault is not None:
            self.bill.faults[fault] += 1
        settings = self.standin.settings
        if fault == "rate_limited":
            wait = {"Retry-After": f"{settings.retry_after:g}"}
            return JSONResponse(_error("slow down", "rate_limit_exceeded"), 429, headers=wait)
        if fault == "server_error":
            return JSONResponse(_error("an injected error", "server_error"), 500)
        try:
            answer = self._answer(asked, key, content, attempt)
        except RequestError as error:
            return self._reject(400, str(error))
        if key is not None:
            self._stored[key] = (content, answer)
            self.bill.by_key[key] += 1
        if fault == "hang":
            await asyncio.sleep(settings.hang_seconds)
        return JSONResponse(answer)

    def _answer(self, asked: ChatRequest, key: str | None, content: str, attempt: int) -> dict[str, Any]:
        """Label, word and bill a request."""
        metadata = asked.metadata or {}
        given = (metadata["query"], metadata["doc_id"])
        query, doc_id = self._cut.get(given, given)
        first = 0
        if "path" in metadata:
            first, seed = int(metadata["path"]), 0
        elif asked.seed is not None:
            seed = digest(content)
        else:
            seed = digest(key) if key is not None else digest(content, attempt)
        labels = self.standin.labels(asked.model, [query], [doc_id], first + asked.n, seed)[0, first:]
        identity = f"{key or content} {attempt}"
        choices = answers(self.standin, asked, (query, doc_id), self.texts.get(doc_id, ""), labels.tolist(), identity)
        answer = completion(asked, choices, identity)
        if asked.model not in self._models:
            self._models.append(asked.model)
        self.bill.completed += 1
        self.bill.choices += len(choices)
        self.bill.prompt_tokens += answer["usage"]["prompt_tokens"]
        self.bill.completion_tokens += answer["usage"]["completion_tokens"]
        self.bill.faults.update(choice.fault for choice in choices if choice.fault is not None)
        if "path" in metadata:
            self.bill.by_path.update((asked.model, query, doc_id, first + i) for i in range(asked.n))
        return answer

    def _fault(self, identity: str, attempt: int) -> str | None:
        """What goes wrong with this attempt, if anything; the same in every run."""
        settings = self.standin.settings
        draw = chance(self.standin.seed, "fault", identity, attempt)
        rates = {"rate_limited": settings.rate_limited, "server_error": settings.server_error, "hang": settings.hang}
        for kind, rate in rates.items():
            if draw < rate:
                return kind
            draw -= rate
        return None

    def _reject(self, status: int, message: str) -> Response:
        self.bill.rejected += 1
        return JSONResponse(_error(message, "invalid_request_error"), status)


def llm_server(workspace: Workspace) -> Server:
    """The stand-in for a workspace's judgments, scale and settings.

    Raises:
        ValueError: the workspace holds no judgments.
    """
    judgments = workspace.read("judgments")
    if judgments.is_empty():
        raise ValueError(f"{workspace.root}: no judgments for the stand-in to know; add some with: serm ingest")
    config = workspace.config
    standin = StandIn(judgments, config.labels.scale, config.simulate_llm, config.seed)
    documents = workspace.scan("documents").select("doc_id", "text").collect()
    return Server(standin, dict(documents.iter_rows()))


def serve_llm(workspace: Workspace, host: str = "127.0.0.1", port: int = 8808) -> None:
    """Serve the stand-in for a workspace until it is stopped (the verb `serm simulate-llm`).

    Raises:
        ValueError: the workspace holds no judgments, or the address is taken.
    """
    server = llm_server(workspace)
    with _listen(host, port) as listener:
        uvicorn.Server(uvicorn.Config(server.app(), log_level="warning")).run(sockets=[listener])


@contextmanager
def running(server: Server, host: str = "127.0.0.1", port: int = 0) -> Iterator[str]:
    """Serve in a thread of this process while the block runs; yields the base URL (…/v1). Port 0 takes a free one.

    Requests that hang when the block ends are cut off.

    Raises:
        ValueError: the address is taken.
    """
    with _listen(host, port) as listener:
        runner = uvicorn.Server(uvicorn.Config(server.app(), log_level="critical", timeout_graceful_shutdown=1))
        thread = threading.Thread(target=runner.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        while not runner.started and thread.is_alive():
            time.sleep(0.01)
        try:
            yield f"http://{host}:{listener.getsockname()[1]}/v1"
        finally:
            runner.should_exit = True
            thread.join()


def _listen(host: str, port: int) -> socket.socket:
    try:
        return socket.create_server((host, port))
    except OSError as error:
        raise ValueError(f"cannot listen on {host}:{port}: {error.strerror}; choose another --port") from error


def _cut(pair: tuple[str, str]) -> tuple[str, str]:
    return pair[0][:METADATA_CHARACTERS], pair[1][:METADATA_CHARACTERS]


def _error(message: str, kind: str) -> dict[str, Any]:
    return {"error": {"message": message, "type": kind, "param": None, "code": kind}}
