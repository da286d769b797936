"""The OpenAI-compatible client against a real server: retries, waits, keys, limits, and no secret in a message."""

import asyncio
import re
import time
from email.utils import formatdate
from typing import Any

import pytest
from starlette.responses import JSONResponse, PlainTextResponse, Response

from serm.annotation.core import run
from serm.annotation.llm import ProviderError, Reply
from serm.annotation.openai_compatible import OpenAICompatible, api_key, is_loopback, retry_after
from serm.annotation.rate_limit import RateLimit
from serm.config import AnnotatorSettings
from tests.serm.annotation_server import CountingServer, completion, serving

SECRET = "sk-very-secret-123"
ABOUT = {"query": "whale " * 200, "doc_id": "d1", "annotator": "ada", "path": "0"}
MESSAGES = [{"role": "user", "content": "grade"}]
DEAF = "http://127.0.0.1:9/v1"


def settings(url: str, **changes: Any) -> AnnotatorSettings:
    values = {"name": "ada", "model": "m", "retries": 3, "backoff": 0.01, "timeout": 5.0}
    return AnnotatorSettings(base_url=url, **(values | changes))


def ask(annotator: AnnotatorSettings, n: int = 2) -> list[Reply | BaseException]:
    llm = OpenAICompatible(annotator, 100, [0, 1])

    async def outcome() -> list[Reply | BaseException]:
        try:
            return list(await asyncio.gather(llm.complete(MESSAGES, n, "key-0", ABOUT), return_exceptions=True))
        finally:
            await llm.close()

    return run(outcome())


def failing(times: int, response: Any) -> Any:
    return lambda number, body: response() if number < times else None


def error(status: int, message: str = "no", **headers: str) -> Any:
    return lambda: JSONResponse({"error": {"message": message}}, status, headers)


def test_the_request_carries_all_it_should() -> None:
    with serving(CountingServer([0, 1])) as server:
        (reply,) = ask(settings(server.url, temperature=0.3, extra_body={"store": True}))
    assert isinstance(reply, Reply)
    assert len(reply.answers) == 2
    assert (reply.prompt_tokens, reply.completion_tokens) == (10, 10)
    (request,) = server.requests
    body = request["body"]
    assert request["headers"]["idempotency-key"] == "key-0"
    assert (body["n"], body["model"], body["temperature"], body["store"]) == (2, "m", 0.3, True)
    assert body["max_completion_tokens"] == 100
    assert body["metadata"] == ABOUT | {"query": ABOUT["query"][:512]}
    schema = body["response_format"]["json_schema"]
    assert schema["strict"] is True
    assert schema["schema"]["properties"]["label"]["anyOf"][0] == {"type": "integer", "enum": [0, 1]}


@pytest.mark.parametrize(
    "response",
    [
        error(429), error(500), error(503), lambda: PlainTextResponse("<html>", 200), lambda: JSONResponse({}),
        lambda: JSONResponse({"choices": []}), lambda: JSONResponse(["x"]), lambda: Response(b"{", 200),
    ],
)  # fmt: skip
def test_passing_trouble_is_tried_again_under_the_same_key(response: Any) -> None:
    with serving(CountingServer([0, 1], behave=failing(2, response))) as server:
        (reply,) = ask(settings(server.url))
    assert isinstance(reply, Reply)
    assert [request["key"] for request in server.requests] == ["key-0"] * 3
    assert server.billed == {"key-0": 1}


def test_attempts_are_retries_plus_one_and_one_layer() -> None:
    with serving(CountingServer([0, 1], behave=failing(99, error(500, "boom")))) as server:
        (failed,) = ask(settings(server.url, retries=2))
    assert isinstance(failed, ProviderError)
    assert len(server.requests) == 3
    assert "HTTP 500" in str(failed)
    assert "3 times" in str(failed)
    assert not failed.fatal


@pytest.mark.parametrize(("status", "fatal", "at_fault"), [(400, False, True), (401, True, False), (404, True, False)])
def test_refusals_are_not_tried_again(status: int, fatal: bool, at_fault: bool) -> None:
    with serving(CountingServer([0, 1], behave=failing(99, error(status)))) as server:
        (failed,) = ask(settings(server.url))
    assert isinstance(failed, ProviderError)
    assert len(server.requests) == 1 + at_fault  # once more without the schema, which might be what was refused
    assert (failed.fatal, failed.request_at_fault) == (fatal, at_fault)


def test_a_hang_ends_with_the_timeout_and_is_tried_again() -> None:
    slow = CountingServer([0, 1], delay=1.0)
    with serving(slow) as server:
        (failed,) = ask(settings(server.url, timeout=0.2, retries=1))
    assert isinstance(failed, ProviderError)
    assert "no answer within 0.2 s" in str(failed)
    assert len(server.requests) == 2


def test_nobody_listening() -> None:
    (failed,) = ask(settings("http://127.0.0.1:9/v1", retries=1))
    assert isinstance(failed, ProviderError)
    assert "no connection" in str(failed)


def test_retry_after_is_honoured() -> None:
    with serving(CountingServer([0, 1], behave=failing(1, error(429, **{"Retry-After": "0.7"})))) as server:
        began = time.monotonic()
        (reply,) = ask(settings(server.url))
        assert time.monotonic() - began >= 0.7
    assert isinstance(reply, Reply)
    with serving(CountingServer([0, 1], behave=failing(1, error(429, **{"Retry-After": "3600"})))) as server:
        (failed,) = ask(settings(server.url))
    assert isinstance(failed, ProviderError)
    assert "3600 s" in str(failed)
    assert len(server.requests) == 1


def test_retry_after_reads_seconds_and_dates() -> None:
    assert retry_after({"retry-after": "12"}, 0.0) == 12.0
    assert retry_after({"retry-after": formatdate(1_000_030, usegmt=True)}, 1_000_000.0) == 30.0
    assert retry_after({"retry-after": formatdate(1_000_000, usegmt=True)}, 1_000_030.0) == 0.0
    for nothing in ("", "soon", "nan", "-5"):
        assert retry_after({"retry-after": nothing}, 0.0) == 0.0


def test_a_missing_key_names_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SOME_KEY", raising=False)
    with pytest.raises(ValueError, match=r"'ada'.*SOME_KEY is not set.*https://api.example.com"):
        api_key(settings("https://api.example.com/v1", api_key_env="SOME_KEY"))
    assert api_key(settings("http://localhost:1/v1", api_key_env="SOME_KEY"))
    monkeypatch.setenv("SOME_KEY", f" {SECRET}\n")
    assert api_key(settings("https://api.example.com/v1", api_key_env="SOME_KEY")) == SECRET


def test_the_key_is_sent_and_never_told(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setenv("SOME_KEY", SECRET)
    caplog.set_level("DEBUG")
    echo = error(401, f"Incorrect API key provided: {SECRET}")
    with serving(CountingServer([0, 1], behave=failing(99, echo))) as server:
        (failed,) = ask(settings(server.url, api_key_env="SOME_KEY"))
    assert server.requests[0]["headers"]["authorization"] == f"Bearer {SECRET}"
    assert "[key]" in str(failed)
    assert SECRET not in str(failed)
    assert not [record for record in caplog.records if record.name.startswith("serm") and SECRET in record.getMessage()]


def test_a_key_that_an_answer_repeats_is_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_KEY", SECRET)
    echo = JSONResponse(completion([f'{{"reasoning": "your key is {SECRET}", "label": 1}}']))
    with serving(CountingServer([0, 1], behave=lambda *_: echo)) as server:
        (reply,) = ask(settings(server.url, api_key_env="SOME_KEY"), n=1)
    assert isinstance(reply, Reply)
    assert reply.answers[0].text == '{"reasoning": "your key is [key]", "label": 1}'


def test_more_answers_than_asked_for_are_cut_and_fewer_are_taken() -> None:
    extra = JSONResponse(completion(['{"label": 1}'] * 5))
    fewer = JSONResponse(completion(['{"label": 1}', None]))
    for response, count in ((extra, 3), (fewer, 2)):
        with serving(CountingServer([0, 1], behave=lambda *_, response=response: response)) as server:
            (reply,) = ask(settings(server.url), n=3)
        assert isinstance(reply, Reply)
        assert len(reply.answers) == count


def no_schema(number: int, body: dict[str, Any]) -> Response | None:
    """A server that knows no response_format."""
    return error(400, "response_format: unknown field")() if "response_format" in body else None


def ask_often(annotator: AnnotatorSettings, times: int) -> tuple[OpenAICompatible, list[Reply]]:
    llm = OpenAICompatible(annotator, 100, [0, 1])

    async def everything() -> list[Reply]:
        try:
            return [await llm.complete(MESSAGES, 2, f"key-{i}", ABOUT) for i in range(times)]
        finally:
            await llm.close()

    return llm, run(everything())


def test_a_server_without_schemas_is_asked_without_and_remembered(caplog: pytest.LogCaptureFixture) -> None:
    with serving(CountingServer([0, 1], behave=no_schema)) as server:
        _, replies = ask_often(settings(server.url), 3)
    assert [len(reply.answers) for reply in replies] == [2, 2, 2]
    # A body without the schema is another request, and has another key.
    assert [request["key"] for request in server.requests] == ["key-0", "key-0-plain", "key-1-plain", "key-2-plain"]
    assert "refuses a JSON schema" in caplog.text


def test_a_request_that_is_itself_at_fault_says_nothing_of_schemas() -> None:
    with serving(CountingServer([0, 1], behave=failing(2, error(400, "too long")))) as server:
        llm = OpenAICompatible(settings(server.url), 100, [0, 1])

        async def twice() -> list[Any]:
            found = [
                await asyncio.gather(llm.complete(MESSAGES, 1, f"key-{i}", ABOUT), return_exceptions=True)
                for i in range(2)
            ]
            await llm.close()
            return [outcome for (outcome,) in found]

        first, second = run(twice())
    assert isinstance(first, ProviderError)
    assert isinstance(second, Reply)
    assert [request["key"] for request in server.requests] == ["key-0", "key-0-plain", "key-1"]
    assert "response_format" in server.requests[-1]["body"]


def test_the_schema_can_be_left_out_and_its_reasoning_bounded() -> None:
    with serving(CountingServer([0, 1])) as server:
        ask(settings(server.url, json_schema=False))
        ask(settings(server.url, reasoning_characters=30))
    without, bounded = server.requests
    assert "response_format" not in without["body"]
    assert without["key"] == "key-0"
    properties = bounded["body"]["response_format"]["json_schema"]["schema"]["properties"]
    assert properties["reasoning"] == {"type": "string", "maxLength": 30}
    plain, other = (
        OpenAICompatible(settings(DEAF), 100, [0]),
        OpenAICompatible(settings(DEAF, reasoning_characters=30), 100, [0]),
    )
    assert plain.parameters != other.parameters  # another question to the ledger


def test_the_rate_limit_holds_for_attempts_and_learns_what_was_used() -> None:
    """12 requests a minute: one passes, the next waits 5 s; nobody waits for tokens that were not used."""
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)
        await asyncio.sleep(0)
        clock[0] += seconds

    clock = [0.0]
    with serving(CountingServer([0, 1], behave=failing(1, error(500)))) as server:
        llm = OpenAICompatible(settings(server.url, requests_per_minute=12, tokens_per_minute=1e6), 100, [0, 1])
        llm._limit = RateLimit(12, 2_000, lambda: clock[0], sleep)

        async def two() -> None:
            await llm.complete(MESSAGES, 2, "key-0", ABOUT)  # the server says 20 tokens, not 201
            await llm.complete(MESSAGES, 2, "key-1", ABOUT)
            await llm.close()

        run(two())
    assert len(server.requests) == 3
    assert waits == pytest.approx([4.0, 5.0], abs=0.1)  # 1.2 are there at first


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://127.0.0.1:8808/v1", True), ("http://[::1]:80/v1", True), ("http://localhost/v1", True),
        ("https://api.example.com/v1", False), ("http://10.0.0.1/v1", False), ("http://localhost.example.com", False),
        ("http://127.0.0.1.example.com/v1", False),
    ],
)  # fmt: skip
def test_loopback(url: str, expected: bool) -> None:
    assert is_loopback(url) == expected


@pytest.mark.parametrize("url", ["api.example.com/v1", "ftp://example.com", "https://me:pass@example.com/v1"])
def test_odd_addresses_are_refused(url: str) -> None:
    with pytest.raises(ValueError, match=re.compile("give an address|credentials")):
        settings(url)
