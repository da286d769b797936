"""The client for OpenAI-compatible endpoints: one layer of retries, one idempotency key a request, no secret told.

The `openai` package sends; its own retries are off. A repeated request carries the same `Idempotency-Key`, so an
endpoint that honours the header bills it once. The body of the response is checked here, not trusted.
"""

import asyncio
import email.utils
import logging
import os
import time
from collections.abc import Mapping, Sequence
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

from pydantic import BaseModel, Field, ValidationError
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, stop_after_attempt
from tenacity.wait import wait_exponential_jitter

from serm.annotation.llm import Answer, Messages, ProviderError, Reply, about_tokens
from serm.annotation.rate_limit import RateLimit
from serm.annotation.servers import Servers
from serm.config import AnnotatorSettings

METADATA_CHARACTERS = 512  # the API's limit for one value
LONGEST_BACKOFF = 30.0  # seconds
LONGEST_RETRY_AFTER = 120.0  # seconds; an endpoint that asks for more is left for a later run
RETRIED = frozenset({408, 409, 425, 429})
REQUEST_AT_FAULT = frozenset({400, 413, 422})
REASON_CHARACTERS = 200

logger = logging.getLogger(__name__)


class _Message(BaseModel):
    content: str | None = None
    refusal: str | None = None


class _Choice(BaseModel):
    message: _Message
    finish_reason: str | None = None


class _Usage(BaseModel):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


class _Body(BaseModel):
    choices: list[_Choice] = Field(min_length=1)
    usage: _Usage | None = None


class _TransientError(Exception):
    """Worth another attempt; `wait` is what the endpoint asked for, in seconds."""

    def __init__(self, reason: str, wait: float = 0.0) -> None:
        super().__init__(reason)
        self.wait = wait


class OpenAICompatible:
    """One annotator's LLM behind an OpenAI-compatible chat-completions endpoint."""

    def __init__(self, settings: AnnotatorSettings, max_completion_tokens: int, scale: Sequence[int]) -> None:
        """Bind settings and key; nothing is sent yet.

        Raises:
            ValueError: the key's environment variable is not set and the endpoint is not on this machine.
        """
        self.model = settings.model
        self.address = settings.base_url
        self.parameters: Mapping[str, Any] = {
            "temperature": settings.temperature,
            "max_completion_tokens": max_completion_tokens,
            "extra_body": settings.extra_body,
        } | ({"reasoning_characters": settings.reasoning_characters} if settings.reasoning_characters else {})
        self.concurrency = settings.concurrency
        self._settings = settings
        self._key = api_key(settings)
        self._response_format = response_format(scale, settings.reasoning_characters)
        self._schema_refused = False
        self._limit = RateLimit(settings.requests_per_minute, settings.tokens_per_minute)
        self._servers = Servers(settings.addresses())
        self._clients: dict[str, Any] = {}

    async def complete(self, messages: Messages, n: int, request_key: str, metadata: Mapping[str, str]) -> Reply:
        """Ask for n answers in one request, tried again on 429, 5xx, timeouts and lost connections.

        Raises:
            ProviderError: the attempts are used up, or the endpoint refused for good.
        """
        # The client walks through every field that it knows, and longer than the rest of a call takes; what stands in
        # extra_body goes out as it is.
        fields: dict[str, Any] = {"messages": messages} | self._settings.extra_body
        if self._settings.trace:
            fields["metadata"] = {name: value[:METADATA_CHARACTERS] for name, value in metadata.items()}
        request: dict[str, Any] = {
            "model": self.model,
            "messages": [],
            "n": n,
            "temperature": self._settings.temperature,
            "max_completion_tokens": self.parameters["max_completion_tokens"],
            "extra_headers": {"Idempotency-Key": request_key},
        }
        plain = request | {"extra_body": fields}
        if not self._settings.json_schema:
            return await self._retried(plain, n)
        # Another body is another request: a key that returns must bring the same one.
        plain["extra_headers"] = {"Idempotency-Key": f"{request_key}-plain"}
        if self._schema_refused:
            return await self._retried(plain, n)
        try:
            return await self._retried(request | {"extra_body": fields | {"response_format": self._response_format}}, n)
        except ProviderError as error:
            if not error.request_at_fault:
                raise
            reply = await self._retried(plain, n)  # only an answer proves that the schema was at fault
            if not self._schema_refused:
                self._schema_refused = True
                logger.warning("%s: %s refuses a JSON schema; asking without one", self._settings.name, self.address)
            return reply

    async def _retried(self, request: dict[str, Any], n: int) -> Reply:
        attempts = self._settings.retries + 1
        retrying = AsyncRetrying(
            stop=stop_after_attempt(attempts),
            wait=_Wait(self._settings.backoff),
            retry=retry_if_exception_type(_TransientError),
            reraise=True,
        )
        try:
            return await retrying(self._attempt, request, n)
        except _TransientError as error:
            raise ProviderError(f"{error} (tried {attempts} times)") from error

    async def close(self) -> None:
        """Close the connections; they belong to the event loop that opened them."""
        clients, self._clients = self._clients, {}
        for client in clients.values():
            await client.close()

    def _client(self, address: str) -> Any:
        if address not in self._clients:
            from openai import AsyncOpenAI

            self._clients[address] = AsyncOpenAI(
                api_key=self._key, base_url=address, max_retries=0, timeout=self._settings.timeout
            )
        return self._clients[address]

    async def _attempt(self, request: dict[str, Any], n: int) -> Reply:
        """One attempt: at the server whose turn it is and, where that fails, at each other one that is awake."""
        while True:
            address = self._servers.next()
            try:
                reply = await self._sent(address, request, n)
            except (_TransientError, ProviderError) as error:
                if isinstance(error, ProviderError) and error.request_at_fault:
                    raise
                self._servers.failed(address)
                if self._servers.any_awake():
                    continue
                if isinstance(error, ProviderError) and len(self._servers.addresses) > 1:
                    raise _TransientError(str(error)) from error  # for good there, perhaps, but not everywhere
                raise
            self._servers.answered(address)
            return reply

    async def _sent(self, address: str, request: dict[str, Any], n: int) -> Reply:
        import openai

        expected = about_tokens(request["extra_body"]["messages"]) + n * request["max_completion_tokens"]
        used = expected  # unless we learn better: an answer that came too late may have been made all the same
        await self._limit.enter(expected)
        try:
            async with asyncio.timeout(self._settings.timeout):
                raw = await self._client(address).chat.completions.with_raw_response.create(**request)
                body = _Body.model_validate_json(raw.content)
            usage = body.usage or _Usage()
            used = (usage.prompt_tokens or 0) + (usage.completion_tokens or 0) or expected
        except (TimeoutError, openai.APITimeoutError) as error:
            raise _TransientError(f"no answer within {self._settings.timeout:g} s") from error
        except openai.APIConnectionError as error:
            raise _TransientError(self._clean(f"no connection: {error.__cause__ or error}")) from error
        except openai.APIStatusError as error:
            used = 0
            raise self._refused(error.status_code, error.response.headers, error.message) from error
        except ValidationError as error:
            raise _TransientError("the response is not a chat completion") from error
        finally:
            self._limit.settle(expected, used)
        answers = [
            Answer(self._hide(choice.message.content), choice.finish_reason, self._hide(choice.message.refusal))
            for choice in body.choices[:n]
        ]
        return Reply(answers, usage.prompt_tokens or 0, usage.completion_tokens or 0)

    def _refused(self, status: int, headers: Mapping[str, str], message: str) -> Exception:
        reason = self._clean(f"HTTP {status}: {message}")
        if status not in RETRIED and status < 500:
            at_fault = status in REQUEST_AT_FAULT
            return ProviderError(reason, fatal=not at_fault, request_at_fault=at_fault)
        wait = retry_after(headers, time.time())
        if wait > LONGEST_RETRY_AFTER:
            return ProviderError(f"{reason}; it asks to come back in {wait:.0f} s")
        return _TransientError(reason, wait)

    def _clean(self, reason: str) -> str:
        return (self._hide(reason) or "")[:REASON_CHARACTERS]

    def _hide(self, text: str | None) -> str | None:
        """The text without the key, which an endpoint may echo."""
        return None if text is None else text.replace(self._key, "[key]")


class _Wait(wait_exponential_jitter):
    """Exponential backoff with jitter, never shorter than what the endpoint asked for."""

    def __init__(self, backoff: float) -> None:
        super().__init__(initial=backoff, max=LONGEST_BACKOFF, jitter=backoff)

    def __call__(self, retry_state: RetryCallState) -> float:
        error = retry_state.outcome.exception() if retry_state.outcome is not None else None
        asked = error.wait if isinstance(error, _TransientError) else 0.0
        return max(asked, super().__call__(retry_state))


def api_key(settings: AnnotatorSettings) -> str:
    """The endpoint's key from the environment; a dummy for an endpoint on this machine that needs none.

    Raises:
        ValueError: the variable is not set and the endpoint is elsewhere.
    """
    key = os.environ.get(settings.api_key_env, "").strip()
    if key:
        return key
    if is_loopback(settings.base_url):
        return "no-key-needed"
    raise ValueError(
        f"annotator {settings.name!r}: the environment variable {settings.api_key_env} is not set; put the API key of "
        f"{settings.base_url} there, or name another variable in annotation.annotators[].api_key_env"
    )


def is_loopback(url: str) -> bool:
    """Whether the URL's host is this machine, by its address or the name localhost."""
    host = urlsplit(url).hostname or ""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def answer_schema(scale: Sequence[int], characters: int | None = None) -> dict[str, Any]:
    """The JSON schema of one answer: reasoning first, of at most so many characters, then a label or null."""
    label = {"anyOf": [{"type": "integer", "enum": list(scale)}, {"type": "null"}]}
    reasoning: dict[str, Any] = (
        {"type": "string"} if characters is None else {"type": "string", "maxLength": characters}
    )
    return {
        "type": "object",
        "properties": {"reasoning": reasoning, "label": label},
        "required": ["reasoning", "label"],
        "additionalProperties": False,
    }


def response_format(scale: Sequence[int], characters: int | None = None) -> dict[str, Any]:
    """`answer_schema` as the request's field."""
    schema = answer_schema(scale, characters)
    return {"type": "json_schema", "json_schema": {"name": "relevance", "strict": True, "schema": schema}}


def retry_after(headers: Mapping[str, str], now: float) -> float:
    """Seconds that a Retry-After header (seconds or an HTTP date) asks to wait from `now`; 0 where it asks nothing."""
    value = headers.get("retry-after", "").strip()
    if not value:
        return 0.0
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(value).timestamp() - now
        except ValueError:
            return 0.0
    return max(seconds, 0.0) if seconds == seconds else 0.0
