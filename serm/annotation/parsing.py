"""From an answer's text to an outcome: a label only where the JSON field `label` holds one integer of the scale.

Nothing else ever becomes a label: not a number in the prose, a float, a numeric text, a repeated field, JSON inside
other text. What cannot be read is told apart by kind, because each kind asks for another mend.
"""

import json
import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Literal

from serm.annotation.llm import Answer

Kind = Literal["label", "abstain", "refused", "truncated", "unparseable", "off_scale", "provider_error"]
REASONING_CHARACTERS = 2_000
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]+")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one reasoning path came to; `label` is set for the kind "label" alone."""

    kind: Kind
    label: int | None = None
    reasoning: str = ""


def parse(answer: Answer, scale: Collection[int]) -> Outcome:
    """Read one answer: label, abstain (null), refused, truncated, unparseable or off_scale."""
    if answer.refusal or answer.finish_reason == "content_filter":
        return Outcome("refused")
    if answer.finish_reason == "length":
        return Outcome("truncated")
    fields = _object(answer.text)
    if fields is None or "label" not in fields or not fields.keys() <= {"label", "reasoning"}:
        return Outcome("unparseable")
    label, reasoning = fields["label"], fields.get("reasoning", "")
    if not isinstance(reasoning, str):
        return Outcome("unparseable")
    reasoning = _tidy(reasoning)
    if label is None:
        return Outcome("abstain", reasoning=reasoning)
    if type(label) is not int:  # bool is an int to isinstance
        return Outcome("unparseable")
    if label not in scale:
        return Outcome("off_scale", reasoning=reasoning)
    return Outcome("label", label, reasoning)


class _NotStrictError(ValueError):
    pass


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        raise _NotStrictError("a field is repeated")
    return fields


def _no_constant(name: str) -> Any:
    raise _NotStrictError(f"{name} is not JSON")


_DECODER = json.JSONDecoder(object_pairs_hook=_once, parse_constant=_no_constant)


def _object(text: str | None) -> dict[str, Any] | None:
    """The one JSON object that the text is; None for anything else."""
    try:
        value = _DECODER.decode(text or "")
    except (ValueError, RecursionError):  # ValueError: not JSON, not strict, or an integer of thousands of digits
        return None
    return value if isinstance(value, dict) else None


def _tidy(text: str) -> str:
    """One line without control characters and lone surrogates, cut to a sane length."""
    text = text[:REASONING_CHARACTERS].encode("utf-8", "replace").decode("utf-8")
    return _CONTROL.sub(" ", text).strip()
