"""What an annotator's LLM can do, in the words that the rest of the room uses: messages in, answers and usage out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

Messages = list[dict[str, str]]
CHARACTERS_PER_TOKEN = 4  # a usual rule of thumb, where nobody has counted yet


@dataclass(frozen=True, slots=True)
class Answer:
    """One reasoning path as the LLM gave it, unread: see `parsing.parse`."""

    text: str | None
    finish_reason: str | None = "stop"
    refusal: str | None = None


@dataclass(frozen=True, slots=True)
class Reply:
    """The answers of one call, at least one and at most as many as were asked for, and what they cost."""

    answers: Sequence[Answer]
    prompt_tokens: int = 0
    completion_tokens: int = 0


class ProviderError(Exception):
    """A call that brought no answer after all its attempts; `fatal` when no other call to this LLM can succeed."""

    def __init__(self, reason: str, *, fatal: bool = False, request_at_fault: bool = False) -> None:
        """`request_at_fault`: the provider refused this very request, which says nothing about others."""
        super().__init__(reason)
        self.fatal = fatal
        self.request_at_fault = request_at_fault


class LLM(Protocol):
    """A chat model that answers one prompt along n independent paths."""

    model: str
    address: str  # where it answers, for error messages
    parameters: Mapping[str, Any]  # everything else that shapes its answers: part of a call's identity
    concurrency: int  # calls that it takes at once

    async def complete(self, messages: Messages, n: int, request_key: str, metadata: Mapping[str, str]) -> Reply:
        """Ask for n answers; equal `request_key`s are one request, however often it is sent.

        `metadata` holds query, doc_id, annotator and path (0-based number of the first path asked for).

        Raises:
            ProviderError: no answer could be had.
        """
        ...

    async def close(self) -> None:
        """Let go of connections; a later call opens them anew."""
        ...


def about_tokens(messages: Messages) -> int:
    """A prompt's tokens, roughly."""
    return sum(len(message["content"]) for message in messages) // CHARACTERS_PER_TOKEN
