"""Chat completions as data: what a request must hold, and the stand-in's answer, faults in its text included."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, Field, ValidationError

from serm.config import SimulateLLMSettings
from serm.simulate.standin import StandIn, chance, digest

CHARACTERS_PER_TOKEN = 4  # a usual rule of thumb, for usage counts
METADATA_CHARACTERS = 512  # the API's limit for one value; clients cut longer queries there
MOST_PATHS = 1_000


class RequestError(ValueError):
    """A request that cannot be answered; the message tells the client what to mend."""


class _Message(BaseModel):
    role: str
    content: Any = None


class ChatRequest(BaseModel):
    """The part of a chat-completions request that the stand-in heeds; other fields are let pass."""

    model: str = Field(min_length=1)
    messages: list[_Message] = Field(min_length=1)
    n: int = Field(1, ge=1, le=128)
    metadata: dict[str, str] | None = None
    response_format: dict[str, Any] | None = None
    seed: int | None = None
    max_completion_tokens: int | None = Field(None, ge=1)
    max_tokens: int | None = Field(None, ge=1)
    stream: bool | None = None


@dataclass(frozen=True)
class Choice:
    """One answer: its text, why it ended there, and the fault put into it, if any."""

    text: str
    finish_reason: Literal["stop", "length"]
    fault: Literal["truncated", "malformed"] | None


def read(body: bytes) -> ChatRequest:
    """A request from its body.

    Raises:
        RequestError: it is not JSON, a field is wrong, or it lacks the metadata that names the pair.
    """
    try:
        request = ChatRequest.model_validate_json(body)
    except ValidationError as error:
        first = error.errors()[0]
        raise RequestError(f"{'.'.join(map(str, first['loc'])) or 'body'}: {first['msg']}") from error
    if request.stream:
        raise RequestError("stream: the stand-in does not stream; leave it out")
    if request.metadata is None or not {"query", "doc_id"} <= request.metadata.keys():
        raise RequestError(
            "metadata: the stand-in needs metadata.query and metadata.doc_id to look the pair up; it reads no prompts"
        )
    for name, value in request.metadata.items():
        if len(value) > METADATA_CHARACTERS:
            raise RequestError(f"metadata.{name}: longer than {METADATA_CHARACTERS} characters")
    path = request.metadata.get("path", "0")
    if not (path.isascii() and path.isdigit() and int(path[:9]) < MOST_PATHS):
        raise RequestError(f"metadata.path: {path[:40]!r} is not a path's number, 0 to {MOST_PATHS - 1}")
    answer_fields(request.response_format)
    return request


def answer_fields(response_format: Mapping[str, Any] | None) -> list[str]:
    """The fields of an answer in the order that the format asks for.

    Raises:
        RequestError: the format asks for fields that the stand-in does not have.
    """
    kind = "text" if response_format is None else response_format.get("type")
    if response_format is None or kind in ("text", "json_object"):
        return ["reasoning", "label"]
    if kind != "json_schema":
        raise RequestError(f"response_format.type: {kind!r} is none of text, json_object, json_schema")
    schema = (response_format.get("json_schema") or {}).get("schema") or {}
    fields = list(schema.get("properties") or {})
    if "label" not in fields or not set(fields) <= {"reasoning", "label"}:
        raise RequestError(
            f"response_format.json_schema: the stand-in answers 'label' and 'reasoning'; the schema has {fields}"
        )
    return fields


def fits(value: int | str, schema: Mapping[str, Any]) -> bool:
    """Whether a value passes a property's schema, as far as type, enum, const and anyOf go."""
    if "anyOf" in schema:
        return any(fits(value, option) for option in schema["anyOf"])
    if "enum" in schema and value not in schema["enum"]:
        return False
    if "const" in schema and value != schema["const"]:
        return False
    kinds = schema.get("type", [])
    names = {"string"} if isinstance(value, str) else {"integer", "number"}
    return not kinds or bool(names & set([kinds] if isinstance(kinds, str) else kinds))


def answers(
    standin: StandIn, request: ChatRequest, pair: tuple[str, str], text: str, labels: Sequence[int], identity: str
) -> list[Choice]:
    """One choice per label, with faults at the set rates; `identity` names the request and its attempt.

    Raises:
        RequestError: a label does not fit the schema that the request asks for.
    """
    fields = answer_fields(request.response_format)
    schema = ((request.response_format or {}).get("json_schema") or {}).get("schema") or {}
    limit = request.max_completion_tokens or request.max_tokens
    prompt = "\n".join(str(message.content) for message in request.messages if message.role == "user")
    choices = []
    for place, label in enumerate(standin.swayed(request.model, *pair, prompt, labels)):
        values: dict[str, int | str] = {"reasoning": standin.reasoning(pair[0], text, label), "label": label}
        for field in fields:
            if not fits(values[field], schema.get("properties", {}).get(field, {})):
                raise RequestError(f"response_format.json_schema: {field} {values[field]!r} does not fit the schema")
        content = json.dumps({field: values[field] for field in fields}, ensure_ascii=False)
        choices.append(_spoilt(content, limit, standin.settings, chance(standin.seed, "content", identity, place)))
    return choices


def completion(request: ChatRequest, choices: Sequence[Choice], identity: str) -> dict[str, Any]:
    """The response body, as the OpenAI API has it; tokens are counted as four characters each."""
    prompt = sum(tokens(message.content) for message in request.messages)
    completed = sum(tokens(choice.text) for choice in choices)
    return {
        "id": f"chatcmpl-{digest('completion', identity):016x}",
        "object": "chat.completion",
        "created": 0,
        "model": request.model,
        "choices": [
            {
                "index": index,
                "message": {"role": "assistant", "content": choice.text, "refusal": None},
                "finish_reason": choice.finish_reason,
                "logprobs": None,
            }
            for index, choice in enumerate(choices)
        ],
        "usage": {
            "prompt_tokens": prompt,
            "completion_tokens": completed,
            "total_tokens": prompt + completed,
        },
    }


def tokens(content: Any) -> int:
    """Tokens of a message's content, a text or a list of parts."""
    text = content if isinstance(content, str) else json.dumps(content, ensure_ascii=False) if content else ""
    return -(-len(text) // CHARACTERS_PER_TOKEN)


def _spoilt(content: str, limit: int | None, settings: SimulateLLMSettings, draw: float) -> Choice:
    if draw < settings.truncated:
        return Choice(content[: len(content) // 2], "length", "truncated")
    if limit is not None and tokens(content) > limit:
        return Choice(content[: limit * CHARACTERS_PER_TOKEN], "length", None)
    if draw < settings.truncated + settings.malformed:
        return Choice(f"Here is my answer: {content[:-1]},", "stop", "malformed")
    return Choice(content, "stop", None)
