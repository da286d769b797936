"""The queue as Label Studio tasks with pre-annotations and its labelling set-up; and its JSON export's answers back."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.sax.saxutils import quoteattr

from serm.config import LabelSettings
from serm.review.answers import Answer, RowError, choice, summary, text_of, whole, write_list

QUESTION = "grade"
SHOWN = "document"


def write(target: Path, pairs: Iterator[dict[str, Any]], labels: LabelSettings, guidelines: str) -> list[Path]:
    """Write the tasks to `target` and the labelling set-up beside it with the ending .xml; returns both paths.

    Raises:
        ValueError: `target` is a folder, or is itself called .xml.
    """
    if target.is_dir() or target.suffix == ".xml":
        raise ValueError(f"{target}: give a file for the tasks, such as tasks.json; the set-up goes beside it as .xml")
    write_list(target, pairs, lambda pair: task(pair, labels))
    beside = target.with_suffix(".xml")
    with whole(beside) as file:
        file.write(set_up(labels, guidelines))
    return [target, beside]


def set_up(labels: LabelSettings, guidelines: str) -> str:
    """The labelling configuration: the pair, what was said about it, and one choice a grade with its key."""
    single = all(0 <= grade <= 9 for grade in labels.scale)
    keys = [str(grade) if single else str(place) for place, grade in enumerate(labels.scale, 1)]
    choices = "\n".join(
        f"      <Choice value={quoteattr(choice(grade, labels))}" + (f' hotkey="{key}"/>' if len(key) == 1 else "/>")
        for grade, key in zip(labels.scale, keys, strict=True)
    )
    told = " ".join(["How well does the document answer the query?", guidelines]).strip()
    return f"""<View>
  <Header value="$query" size="2"/>
  <Header value="$title" size="4"/>
  <Text name="{SHOWN}" value="$text"/>
  <View style="padding: 1em 0">
    <Header value={quoteattr(told)} size="4"/>
    <Choices name="{QUESTION}" toName="{SHOWN}" choice="single" required="true" showInLine="true">
{choices}
    </Choices>
  </View>
  <Text name="votes" value="$votes"/>
</View>
"""


def task(pair: dict[str, Any], labels: LabelSettings) -> dict[str, Any]:
    """One pair; every annotator with a stable label is one prediction."""
    return {
        "data": {
            "query": pair["query"], "doc_id": pair["doc_id"], "title": pair["title"] or "",
            "text": pair["text"] or "The document is not in the documents table.", "locale": pair["locale"],
            "round": pair["round"], "votes": summary(pair, labels),
        },
        "predictions": [
            {
                "model_version": vote["annotator"],
                "result": [
                    {
                        "id": f"vote{place}", "from_name": QUESTION, "to_name": SHOWN, "type": "choices",
                        "value": {"choices": [choice(vote["label"], labels)]},
                    }
                ],
            }
            for place, vote in enumerate(pair["votes"])
            if vote["label"] is not None
        ],
    }  # fmt: skip


def answers(row: Any) -> list[Answer]:
    """The answers of one task of the JSON export, oldest first; none if nobody answered it or they skipped it.

    Raises:
        RowError: the task is malformed or of another project.
    """
    if not isinstance(row, dict):
        raise RowError("task", "is not an object")
    query, doc_id = text_of(row, "data", "query"), text_of(row, "data", "doc_id")
    given = row.get("annotations", [])
    if not isinstance(given, list) or not all(isinstance(one, dict) for one in given):
        raise RowError("annotations", "is not a list of annotations; export as JSON, not JSON-MIN")
    made = sorted(
        (one for one in given if not one.get("was_cancelled")), key=lambda one: str(one.get("updated_at", ""))
    )
    return [Answer(query, doc_id, _person(one), _chosen(one)) for one in made]


def _person(annotation: dict[str, Any]) -> str:
    """Label Studio names a person by number, or as an object with an e-mail address."""
    who = annotation.get("completed_by")
    if isinstance(who, dict):
        who = who.get("email") or who.get("id")
    return f"label-studio:{'unknown' if who is None else who}"


def _chosen(annotation: dict[str, Any]) -> str:
    result = annotation.get("result")
    found = [
        one["value"]["choices"]
        for one in (result if isinstance(result, list) else [])
        if isinstance(one, dict) and one.get("from_name") == QUESTION and isinstance(one.get("value"), dict)
        and isinstance(one["value"].get("choices"), list)
    ]  # fmt: skip
    if len(found) != 1 or len(found[0]) != 1 or not isinstance(found[0][0], str):
        raise RowError(f"annotations.{QUESTION}", "holds not exactly one choice")
    return str(found[0][0])
