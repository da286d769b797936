"""The queue as an Argilla 2 dataset folder, as `argilla.Dataset.from_disk` reads it; and its records' answers back.

The layout is that of `Dataset.to_disk` in argilla 2.8: .argilla/dataset.json, .argilla/settings.json, records.json.
Argilla writes a response as its value and the user's id, without its status; so an answer of a record that is not
completed is a draft and is refused.
"""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from serm.config import LabelSettings
from serm.review.answers import Answer, RowError, choice, summary, text_of, whole, write_list

RECORDS = "records.json"
QUESTION = "grade"
GUIDELINES = "How well does the document answer the query?"


def write(folder: Path, pairs: Iterator[dict[str, Any]], labels: LabelSettings, guidelines: str) -> list[Path]:
    """Write the dataset's three files; returns their paths.

    Raises:
        ValueError: `folder` is a file, or holds a dataset already (Argilla never overwrites one).
    """
    records, hidden = folder / RECORDS, folder / ".argilla"
    if folder.is_file():
        raise ValueError(f"{folder}: is a file; Argilla's format is a folder")
    if records.exists() or (hidden / "dataset.json").exists():
        raise ValueError(f"{folder}: holds a dataset already; choose another folder")
    write_list(records, pairs, lambda pair: record(pair, labels))
    with whole(hidden / "settings.json") as file:
        json.dump(settings(labels, guidelines), file, indent=1)
    with whole(hidden / "dataset.json") as file:
        json.dump({"name": "serm-review", "status": "draft", "allow_extra_metadata": False}, file)
    return [hidden / "dataset.json", hidden / "settings.json", records]


def settings(labels: LabelSettings, guidelines: str) -> dict[str, Any]:
    """The dataset's settings: fields to read, the question to answer, metadata that bring the answer home."""
    plain = {"type": "text", "use_markdown": False}
    shown = {"query": "Query", "title": "Title", "document": "Document", "votes": "What the annotators said"}
    options = [{"value": str(grade), "text": choice(grade, labels)} for grade in labels.scale]
    return {
        "guidelines": "\n\n".join(filter(None, (GUIDELINES, guidelines))),
        "allow_extra_metadata": False,
        "distribution": {"strategy": "overlap", "min_submitted": 1},
        "fields": [
            {"name": name, "title": title, "required": name == "query", "settings": plain}
            for name, title in shown.items()
        ],
        "questions": [
            {
                "name": QUESTION, "title": GUIDELINES, "required": True,
                "settings": {"type": "label_selection", "options": options},
            }
        ],
        "metadata": [
            {"name": name, "title": name, "visible_for_annotators": True, "settings": {"type": kind}}
            for name, kind in (("doc_id", "terms"), ("locale", "terms"), ("round", "integer"))
        ],
        "vectors": [],
        "mapping": None,
    }  # fmt: skip


def record(pair: dict[str, Any], labels: LabelSettings) -> dict[str, Any]:
    """One pair; the suggestion is the first annotator's stable label, since Argilla takes one a question."""
    stable = [vote for vote in pair["votes"] if vote["label"] is not None]
    fields = {"query": pair["query"], "title": pair["title"], "document": pair["text"], "votes": summary(pair, labels)}
    metadata = {"doc_id": pair["doc_id"], "locale": pair["locale"], "round": pair["round"]}
    suggested = {QUESTION: {"value": str(stable[0]["label"]), "score": None, "agent": stable[0]["annotator"]}}
    return {
        "id": hashlib.sha256(json.dumps([pair["query"], pair["doc_id"]]).encode()).hexdigest()[:32],
        "fields": {name: text for name, text in fields.items() if text is not None},
        "metadata": {name: value for name, value in metadata.items() if value is not None},
        "suggestions": suggested if stable else {},
        "responses": {},
        "vectors": {},
        "status": "pending",
    }


def answers(row: Any) -> list[Answer]:
    """The answers of one record; none if nobody answered it.

    Raises:
        RowError: the record is malformed or of another dataset, or its answer is a draft.
    """
    if not isinstance(row, dict):
        raise RowError("record", "is not an object")
    query, doc_id = text_of(row, "fields", "query"), text_of(row, "metadata", "doc_id")
    responses = row.get("responses")
    given = responses.get(QUESTION, []) if isinstance(responses, dict) else None
    if not isinstance(given, list):
        raise RowError("responses", f"holds no list of answers to {QUESTION!r}")
    if given and row.get("status") != "completed":
        raise RowError("status", f"is {row.get('status')!r}: a draft; submit the answer and export again")
    return [Answer(query, doc_id, f"argilla:{text_of(one, 'user_id')}", text_of(one, "value")) for one in given]
