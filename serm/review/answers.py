"""What the doors to other tools share: an answer, a row that does not fit, grades as choices, and whole files."""

import json
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from serm.config import LabelSettings


@dataclass(frozen=True)
class Answer:
    """One person's decision as a tool stores it; the grade is still text."""

    query: str
    doc_id: str
    judge: str
    grade: str


class RowError(ValueError):
    """A row, or one answer of it, does not fit."""

    def __init__(self, field: str, reason: str) -> None:
        """`field` is the part at fault."""
        super().__init__(f"{field}: {reason}")
        self.field = field
        self.reason = reason


def choice(grade: int, labels: LabelSettings) -> str:
    """A grade as a choice that a person reads: "2 good"; `grade_of` reads it back."""
    return f"{grade} {labels.names.get(grade, '')}".strip()


def grade_of(text: str, labels: LabelSettings) -> int:
    """The grade that a choice, a bare number, or a grade's name stands for.

    Raises:
        RowError: it is none of the scale.
    """
    known = {meaning: grade for grade in labels.scale for meaning in (choice(grade, labels), str(grade))}
    names = [labels.names.get(grade) for grade in labels.scale]
    known |= {name: grade for grade, name in zip(labels.scale, names, strict=True) if name and names.count(name) == 1}
    if text not in known:
        offered = ", ".join(choice(grade, labels) for grade in labels.scale)
        raise RowError("grade", f"{text[:40]!r} is no grade of the scale ({offered})")
    return known[text]


def summary(pair: dict[str, Any], labels: LabelSettings) -> str:
    """The votes and why the pair was mined, as plain text."""
    lines = []
    for vote in pair["votes"]:
        said = "no stable label" if vote["label"] is None else choice(vote["label"], labels)
        lines.append(f"{vote['annotator']}: {said}")
        for path in vote["paths"]:
            heard = path["outcome"] if path["label"] is None else path["label"]
            lines.append(f"  {heard}: {path['reasoning']}" if path["reasoning"] else f"  {heard}")
    if pair["mined_because"]:
        lines.append(f"mined because: {pair['mined_because']}")
    return "\n".join(lines) or "no votes are stored"


def text_of(row: Any, *where: str) -> str:
    """The text at a path of keys in a row.

    Raises:
        RowError: something on the way is absent or not of its kind.
    """
    place = row
    for key in where:
        if not isinstance(place, dict) or key not in place:
            raise RowError(".".join(where), "is absent")
        place = place[key]
    if not isinstance(place, str) or not place:
        raise RowError(".".join(where), "is not text")
    return place


@contextmanager
def whole(path: Path) -> Iterator[TextIO]:
    """A file that appears under its name only when the block has ended well."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        with scratch.open("w", encoding="utf-8") as file:
            yield file
        scratch.replace(path)
    finally:
        scratch.unlink(missing_ok=True)


def write_list(path: Path, items: Iterator[dict[str, Any]], record: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Write a JSON list item by item."""
    with whole(path) as file:
        file.write("[")
        for place, item in enumerate(items):
            file.write(",\n" if place else "\n")
            json.dump(record(item), file)
        file.write("\n]\n")
