"""The local web page for reviewing: routes, what guards them, and how it is run.

The page writes into the workspace, so no other web page may reach it: the server listens on this machine alone, answers
only to its own names (DNS rebinding), wants its own origin and a token that only its page holds (request forgery), and
lets the browser load nothing from elsewhere (Content-Security-Policy).
"""

import secrets
import socket
import sys
import webbrowser
from collections.abc import Awaitable, Callable
from contextlib import suppress
from importlib.resources import files
from typing import Any
from urllib.parse import urlsplit

import uvicorn
from pydantic import BaseModel, ConfigDict, ValidationError
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from serm.review.decisions import checked_reviewer, checked_split
from serm.review.desk import Desk, RefusedError
from serm.workspace import Workspace

HOSTS = ("127.0.0.1", "localhost", "::1")
TOKEN = "x-serm-token"
MOST_BODY_BYTES = 64 * 1024
PAGE_PAIRS = 20
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
FILES = {
    "/review.css": "text/css; charset=utf-8",
    "/review.js": "text/javascript; charset=utf-8",
    "/review.svg": "image/svg+xml",
}


class Pair(BaseModel):
    """Which pair; strict, so that a wrong request never passes for another."""

    model_config = ConfigDict(extra="forbid", strict=True)

    query: str
    doc_id: str


class Decision(Pair):
    """A pair and its grade."""

    grade: int


def application(desk: Desk) -> Starlette:
    """The page and its routes over one reviewer's desk."""
    token = secrets.token_urlsafe(32)
    labels = desk.workspace.config.labels
    html = files("serm.review").joinpath("page", "review.html").read_text(encoding="utf-8").replace("{token}", token)

    async def guard(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
        problem = _foreign(request) or (_forged(request, token) if request.method != "GET" else None)
        response = await call_next(request) if problem is None else JSONResponse({"error": problem}, 403)
        response.headers.update(HEADERS)
        return response

    async def page(request: Request) -> Response:
        return Response(html, media_type="text/html; charset=utf-8")

    async def file(request: Request) -> Response:
        name = request.url.path
        return Response(files("serm.review").joinpath("page", name.lstrip("/")).read_bytes(), media_type=FILES[name])

    async def state(request: Request) -> Response:
        await run_in_threadpool(desk.refresh)
        grades = [{"grade": grade, "name": labels.names.get(grade, "")} for grade in labels.scale]
        told = {"reviewer": desk.reviewer, "split": desk.split, "round": desk.round, "grades": grades}
        return JSONResponse(told | {"page": PAGE_PAIRS, "progress": desk.progress()})

    async def pairs(request: Request) -> Response:
        try:
            start = int(request.query_params.get("from", "0"))
            count = int(request.query_params.get("count", PAGE_PAIRS))
        except ValueError:
            return JSONResponse({"error": "from and count are whole numbers"}, 400)
        if start < 0 or count < 1:
            return JSONResponse({"error": "from is at least 0 and count at least 1"}, 400)
        found = await run_in_threadpool(desk.page, start, count)
        return JSONResponse({"pairs": found.pairs, "progress": found.progress})

    async def next_open(request: Request) -> Response:
        try:
            after = int(request.query_params.get("after", "-1"))
        except ValueError:
            return JSONResponse({"error": "after is a whole number"}, 400)
        return JSONResponse({"place": desk.next_open(max(after, -1))})

    async def decide(request: Request) -> Response:
        return await _changed(request, Decision, desk, lambda d: {"previous": desk.decide(d.query, d.doc_id, d.grade)})

    async def undo(request: Request) -> Response:
        return await _changed(request, Pair, desk, lambda p: {"removed": desk.undo(p.query, p.doc_id)})

    return Starlette(
        routes=[
            Route("/", page),
            *(Route(name, file) for name in FILES),
            Route("/api/state", state),
            Route("/api/pairs", pairs),
            Route("/api/next", next_open),
            Route("/api/decide", decide, methods=["POST"]),
            Route("/api/undo", undo, methods=["POST"]),
        ],
        middleware=[Middleware(BaseHTTPMiddleware, dispatch=guard)],
    )


async def _changed(request: Request, kind: type[Any], desk: Desk, change: Callable[[Any], dict[str, Any]]) -> Response:
    """Read a request of this kind, carry it out, and answer with the progress; what is wrong is said in words."""
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > MOST_BODY_BYTES:
            return JSONResponse({"error": f"the request is longer than {MOST_BODY_BYTES:,} bytes"}, 413)
    try:
        asked = kind.model_validate_json(body)
    except ValidationError as error:
        first = error.errors()[0]
        return JSONResponse({"error": f"{'.'.join(map(str, first['loc'])) or 'request'}: {first['msg']}"}, 400)
    try:
        answer = await run_in_threadpool(change, asked)
    except RefusedError as error:
        return JSONResponse({"error": str(error)}, 409)
    except ValueError as error:
        return JSONResponse({"error": str(error)}, 400)
    return JSONResponse(answer | {"progress": desk.progress()})


def _foreign(request: Request) -> str | None:
    """Why a request does not come from this page; None if it may."""
    host = request.headers.get("host", "")
    try:
        name = urlsplit(f"//{host}").hostname
    except ValueError:
        name = None
    if name not in HOSTS:
        return f"this page answers to {', '.join(HOSTS)} only"
    origin = request.headers.get("origin")
    if origin is not None and origin != f"http://{host}":
        return "this page takes no requests from other web pages"
    if request.url.path != "/" and request.headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
        return "this page takes no requests from other web pages"
    return None


def _forged(request: Request, token: str) -> str | None:
    """Why a writing request is not one of the page's own; None if it is."""
    if not secrets.compare_digest(request.headers.get(TOKEN, "").encode(), token.encode()):
        return "the page is from an earlier start of serm review; load it again"
    if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
        return "requests that write are application/json"
    return None


def listen(port: int) -> socket.socket:
    """A socket on this machine alone; port 0 takes a free one.

    Raises:
        ValueError: the port is taken.
    """
    try:
        return socket.create_server(("127.0.0.1", port))
    except OSError as error:
        raise ValueError(f"cannot listen on 127.0.0.1:{port}: {error.strerror}; choose another --port") from error


def review(
    workspace: Workspace,
    reviewer: str,
    split: str = "train",
    round: int | None = None,
    port: int = 8810,
    browser: bool = True,
) -> dict[str, int]:
    """Serve the page until it is stopped; returns the progress: total, done, others, left.

    Raises:
        ValueError: the name or the split is not one for reviews, or the port is taken.
    """
    desk = Desk(workspace, checked_reviewer(reviewer), checked_split(split), round)
    with listen(port) as listener:
        address = f"http://127.0.0.1:{listener.getsockname()[1]}/"
        told = f"{desk.queue.height:,} pairs wait for {desk.reviewer} at {address}  (Ctrl+C ends)"
        sys.stderr.write(told + "\n")
        sys.stderr.flush()
        if browser:
            webbrowser.open(address)
        settings = uvicorn.Config(application(desk), log_level="warning", timeout_graceful_shutdown=3)
        with suppress(KeyboardInterrupt):  # uvicorn has shut down in order and raises it again
            uvicorn.Server(settings).run(sockets=[listener])
    return desk.progress()
