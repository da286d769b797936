"""What a rerank request must be, and the answer's shape: those of Jina's and Cohere's rerankers.

Fields that other rerankers know and this one has no use for are let pass, so that their clients work unchanged.
"""

import uuid
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from serm.config import ServingSettings
from serm.serving.batching import Answer


class RefusedError(Exception):
    """A request that is not scored: the HTTP status, a kind for programs, and a sentence for people."""

    def __init__(self, status: int, kind: str, detail: str) -> None:
        super().__init__(detail)
        self.status, self.kind, self.detail = status, kind, detail


class Text(BaseModel):
    """A document given as an object; its other fields are of no interest here."""

    model_config = ConfigDict(strict=True)

    text: str


class Rerank(BaseModel):
    """The body of POST /rerank."""

    model_config = ConfigDict(strict=True)

    query: str = Field(min_length=1)
    documents: list[str | Text] = Field(min_length=1)
    top_n: int | None = Field(None, ge=1)
    return_documents: bool = False
    model: str | None = None  # any name is let pass: this endpoint has one model, the champion

    def texts(self) -> list[str]:
        """The documents' texts, in their order."""
        return [document if isinstance(document, str) else document.text for document in self.documents]


def parse(body: bytes, settings: ServingSettings) -> Rerank:
    """A request that may be scored.

    Raises:
        RefusedError: 422 for what is no rerank request, 413 for one that is too large.
    """
    try:
        asked = Rerank.model_validate_json(body)
    except ValidationError as error:
        raise RefusedError(422, "validation", _complaint(error)) from error
    if not asked.query.strip():
        raise RefusedError(422, "validation", "query: it is empty; give the words that were searched for")
    if len(asked.documents) > settings.max_documents:
        raise RefusedError(
            413, "too_large", f"documents: {len(asked.documents):,} are more than {settings.max_documents:,}; "
            "send several requests",
        )  # fmt: skip
    characters = len(asked.query) + sum(map(len, asked.texts()))
    if characters > settings.max_characters:
        raise RefusedError(
            413, "too_large", f"documents: {characters:,} characters with the query are more than "
            f"{settings.max_characters:,}; send several requests, or cut the texts",
        )  # fmt: skip
    return asked


def _complaint(error: ValidationError) -> str:
    """The first thing that is wrong, in words; a document's place is counted from 0, as in the answer."""
    first = error.errors(include_url=False, include_input=False)[0]
    if first["type"] == "json_invalid":
        return f"the request is not JSON: {first.get('ctx', {}).get('error', 'it cannot be read')}"
    place = [str(part) for part in first["loc"] if part not in ("str", "Text")]
    if place[:1] == ["documents"] and len(place) > 1:
        return f"documents.{place[1]}: give a string, or an object with a string 'text'"
    return f"{'.'.join(place) or 'request'}: {first['msg']}"


def answered(asked: Rerank, answer: Answer) -> dict[str, Any]:
    """The answer's body: the best documents first, equal ones in their own order.

    `relevance_score` is f(q, d) as a share of the label scale (0..1), what clients of this shape expect;
    `expected_label` is f(q, d) itself, what impressions log as `score`.
    """
    shares, scores = answer.scored.shares.tolist(), answer.scored.scores.tolist()
    best = sorted(range(len(scores)), key=lambda row: (-scores[row], row))[: asked.top_n]
    results = [{"index": row, "relevance_score": shares[row], "expected_label": scores[row]} for row in best]
    if asked.return_documents:
        texts = asked.texts()
        results = [result | {"document": {"text": texts[row]}} for row, result in zip(best, results, strict=True)]
    return {
        "id": f"rerank-{uuid.uuid4().hex}",
        "model": answer.scored.version,
        "usage": {"total_tokens": answer.tokens, "prompt_tokens": answer.tokens},
        "results": results,
    }
