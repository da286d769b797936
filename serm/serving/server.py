"""The verb serve: a reranker over HTTP, in the shape that clients of Jina's and Cohere's already speak."""

import os
import secrets
import signal
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import uvicorn
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from serm.config import ServingSettings
from serm.serving.batching import Batcher, QueueFullError
from serm.serving.champion import Champion
from serm.serving.metrics import Metrics
from serm.serving.requests import RefusedError, answered, parse
from serm.workspace import Workspace
from sps import progress

PATHS = ("/rerank", "/v1/rerank", "/v2/rerank")
LOCAL = ("127.0.0.1", "localhost", "::1")
BYTES_A_CHARACTER = 6  # at most, in JSON: \uXXXX
ROOM = 1 << 20  # bytes of a body that are not texts


class Endpoint:
    """The routes over one champion."""

    def __init__(self, champion: Champion, settings: ServingSettings, key: str | None) -> None:
        self.champion, self.settings, self._key = champion, settings, key
        self.metrics = Metrics(lambda: self.batcher.waiting)
        self.batcher = Batcher(lambda: champion.current, settings, self.metrics.batch)
        champion.changed = self._tell
        self._tell()

    def _tell(self) -> None:
        champion = self.champion
        stale = champion.problem is not None or champion.named != champion.current.version
        self.metrics.champion(champion.current.version, stale, champion.loads, champion.failures)

    async def rerank(self, request: Request) -> Response:
        """POST /rerank: the documents ordered by f(q, d)."""
        began = time.monotonic()
        try:
            response: Response = await self._rerank(request)
        except RefusedError as error:
            response = _error(error.status, error.kind, error.detail)
        except QueueFullError as error:
            response = _error(503, "overloaded", str(error))
            response.headers["Retry-After"] = str(error.seconds)
        except TimeoutError:
            detail = f"no answer within {self.settings.request_seconds:g} s; send fewer documents, or ask again later"
            response = _error(504, "timeout", detail)
        except ClientDisconnect:
            response = _error(499, "disconnected", "the client went away")
        except Exception as error:  # noqa: BLE001  the server goes on; the client and the log are told
            progress.note(f"a request failed: {type(error).__name__}: {error}")
            response = _error(500, "backend", "the model could not score this request; the server's log says why")
        self.metrics.requests.labels(str(response.status_code)).inc()
        self.metrics.seconds.observe(time.monotonic() - began)
        return response

    async def _rerank(self, request: Request) -> Response:
        self._demand_key(request)
        asked = parse(await self._body(request), self.settings)
        return JSONResponse(answered(asked, await self.batcher.score(asked.query, asked.texts())))

    def _demand_key(self, request: Request) -> None:
        if self._key is None:
            return
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        same = secrets.compare_digest(given.strip().encode("latin-1"), self._key.encode())
        if scheme.lower() != "bearer" or not same:
            raise RefusedError(401, "unauthorized", "send the key as: Authorization: Bearer KEY")

    async def _body(self, request: Request) -> bytes:
        most = BYTES_A_CHARACTER * self.settings.max_characters + ROOM
        parts, size = [], 0
        async for part in request.stream():
            size += len(part)
            if size > most:
                raise RefusedError(413, "too_large", f"the request is longer than {most:,} bytes")
            parts.append(part)
        return b"".join(parts)

    async def health(self, request: Request) -> Response:
        """GET /health: 200 as long as answers are given; `degraded` when not by the registry's champion."""
        champion = self.champion
        told = {
            "status": "ok" if champion.problem is None else "degraded",
            "model": champion.current.version, "champion": champion.named, "problem": champion.problem,
            "queue_pairs": self.batcher.waiting,
        }  # fmt: skip
        return JSONResponse(told)

    async def page(self, request: Request) -> Response:
        """GET /metrics."""
        return Response(self.metrics.page(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    def application(self) -> Starlette:
        """The routes; the worker and the watcher live as long as the application does."""

        @asynccontextmanager
        async def life(_: Starlette) -> AsyncIterator[None]:
            self.batcher.start()
            self.champion.start()
            try:
                yield
            finally:
                self.champion.stop()
                self.batcher.close()

        routes = [
            *(Route(path, self.rerank, methods=["POST"]) for path in PATHS),
            Route("/health", self.health),
            Route("/metrics", self.page),
        ]
        return Starlette(routes=routes, lifespan=life)


def _error(status: int, kind: str, detail: str) -> JSONResponse:
    return JSONResponse({"detail": detail, "error_type": kind}, status)


def serve(workspace: Workspace, host: str = "127.0.0.1", port: int = 8800) -> None:
    """Serve the champion until SIGTERM or Ctrl-C; requests under way are answered first.

    Raises:
        ValueError: there is no champion that can be loaded, or the address is taken.
    """
    settings = workspace.config.serving
    key = os.environ.get(settings.api_key_env) or None
    try:
        listener = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        raise ValueError(f"cannot listen on {host}:{port}: {error.strerror}; choose another --port") from error
    with listener:
        endpoint = Endpoint(Champion(workspace), settings, key)
        if host not in LOCAL and key is None:
            progress.note(f"whoever reaches {host} may ask: set {settings.api_key_env} to demand a key")
        shown = f"[{host}]" if ":" in host else host
        version = endpoint.champion.current.version
        progress.note(f"{version} answers at http://{shown}:{listener.getsockname()[1]}/rerank  (Ctrl+C ends)")
        config = uvicorn.Config(
            endpoint.application(), log_level="warning", timeout_graceful_shutdown=round(settings.shutdown_seconds)
        )
        signal.signal(signal.SIGTERM, lambda *_: None)  # uvicorn shuts down in order and raises it again: no failure
        with suppress(KeyboardInterrupt):  # the same for Ctrl-C
            uvicorn.Server(config).run(sockets=[listener])
