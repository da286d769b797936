"""The queue to Argilla and Label Studio and back: layout, round trip, and rows that do not fit."""

import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest

from serm.review.answers import RowError, choice, grade_of
from serm.review.exchange import export_queue, import_decisions
from serm.review.queue import open_pairs
from serm.workspace import Workspace
from tests.serm.review_space import MARKUP, fill

EVA, IDA = "e652801a-76a5-4310-8481-73432cf70f5a", "0c0c0c0c-76a5-4310-8481-73432cf70f5a"


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def answered_in_argilla(
    record: dict[str, Any], value: Any, user: str = EVA, status: str = "completed"
) -> dict[str, Any]:
    """The record as Argilla's `records.to_json` writes it after a person's submission."""
    given = [*record["responses"].get("grade", []), {"value": value, "user_id": user}]
    return record | {"status": status, "responses": {"grade": given}, "_server_id": "6a1b"}


def answered_in_label_studio(task: dict[str, Any], value: Any, **more: Any) -> dict[str, Any]:
    """The task as Label Studio's JSON export writes it after a person's submission."""
    result = [{"from_name": "grade", "to_name": "document", "type": "choices", "value": {"choices": [value]}}]
    made = {"id": 7, "completed_by": 3, "was_cancelled": False, "updated_at": "2026-01-05T10:00:00Z", "result": result}
    return task | {"id": 5, "annotations": [*task.get("annotations", []), made | more], "project": 1}


def test_argillas_folder_has_its_layout(workspace: Workspace, tmp_path: Path) -> None:
    fill(workspace, 3)
    summary = export_queue(workspace, "argilla", tmp_path / "out")
    assert (summary.pairs, len(summary.files)) == (3, 3)
    settings = read(tmp_path / "out" / ".argilla" / "settings.json")
    (question,) = settings["questions"]
    assert question["settings"]["options"][2] == {"value": "2", "text": "2 good"}
    names = {part["name"] for part in settings["fields"]}
    metadata = {part["name"] for part in settings["metadata"]}
    records = read(tmp_path / "out" / "records.json")
    assert [record["metadata"]["doc_id"] for record in records] == ["d2", "d1", "d0"]
    for record in records:
        assert set(record["fields"]) <= names
        assert set(record["metadata"]) <= metadata
        assert record["suggestions"] == {"grade": {"value": "1", "score": None, "agent": "ada"}}
    assert len({record["id"] for record in records}) == 3
    assert "ada: 1 fair" in records[0]["fields"]["votes"]
    with pytest.raises(ValueError, match="holds a dataset already"):
        export_queue(workspace, "argilla", tmp_path / "out")


def test_argilla_itself_reads_the_folder(workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("argilla", reason="argilla is not installed; pip install argilla")
    from unittest.mock import MagicMock

    import argilla
    from argilla._models import DatasetModel
    from argilla.client import Argilla
    from argilla.records._io import JsonIO

    monkeypatch.setattr(Argilla, "_get_default", classmethod(lambda cls: MagicMock()))
    fill(workspace, 3)
    export_queue(workspace, "argilla", tmp_path / "out")
    settings = argilla.Settings.from_json(tmp_path / "out" / ".argilla" / "settings.json")
    settings.validate()
    assert [question.name for question in settings.questions] == ["grade"]
    assert [field.name for field in settings.fields] == ["query", "title", "document", "votes"]
    DatasetModel(**read(tmp_path / "out" / ".argilla" / "dataset.json"))
    records = JsonIO._records_from_json(tmp_path / "out" / "records.json")
    records[0].responses.add(argilla.Response("grade", "3", user_id=EVA))
    JsonIO.to_json(records, tmp_path / "back.json")
    back = read(tmp_path / "back.json")
    back[0]["status"] = "completed"  # as its server says once an answer is submitted
    (tmp_path / "back.json").write_text(json.dumps(back), encoding="utf-8")
    assert import_decisions(workspace, tmp_path / "back.json", "eva").added == 1
    assert workspace.read("judgments").select("query", "grade").rows() == [("query 2", 3)]


def test_label_studios_set_up_names_what_the_tasks_hold(workspace: Workspace, tmp_path: Path) -> None:
    fill(workspace, 3)
    export_queue(workspace, "label-studio", tmp_path / "tasks.json")
    root = ElementTree.fromstring((tmp_path / "tasks.xml").read_text(encoding="utf-8"))
    (choices,) = root.iter("Choices")
    offered = {part.get("value"): part.get("hotkey") for part in choices.iter("Choice")}
    assert offered == {"0 bad": "0", "1 fair": "1", "2 good": "2", "3 excellent": "3"}
    shown = {part.get("value", "")[1:] for part in root.iter() if part.get("value", "").startswith("$")}
    tasks = read(tmp_path / "tasks.json")
    for task in tasks:
        assert shown <= set(task["data"])
        (prediction,) = task["predictions"]  # ben has no stable label
        assert prediction["model_version"] == "ada"
        (result,) = prediction["result"]
        assert (result["from_name"], result["to_name"]) == (choices.get("name"), choices.get("toName"))
        assert set(result["value"]["choices"]) <= set(offered)
    assert MARKUP in tasks[0]["data"]["text"]


def test_label_studios_own_validation_accepts_the_tasks(workspace: Workspace, tmp_path: Path) -> None:
    pytest.importorskip("label_studio_sdk", reason="label-studio-sdk is not installed; pip install label-studio-sdk")
    from label_studio_sdk.label_interface import LabelInterface

    fill(workspace, 3)
    export_queue(workspace, "label-studio", tmp_path / "tasks.json")
    interface = LabelInterface((tmp_path / "tasks.xml").read_text(encoding="utf-8"))
    interface.validate()
    for task in read(tmp_path / "tasks.json"):
        assert interface.validate_task({"data": task["data"]})
        assert all(interface.validate_prediction(prediction) for prediction in task["predictions"])


@pytest.mark.parametrize("format", ["argilla", "label-studio"])
def test_a_round_trip_brings_every_answer_home_once(workspace: Workspace, tmp_path: Path, format: str) -> None:
    fill(workspace, 6)
    export_queue(workspace, format, tmp_path / "out")
    path = tmp_path / "out" / "records.json" if format == "argilla" else tmp_path / "out"
    rows = read(path)
    for number, row in enumerate(rows[:4]):
        if format == "argilla":
            rows[number] = answered_in_argilla(row, str(number))
        else:
            rows[number] = answered_in_label_studio(row, choice(number, workspace.config.labels))
    path.write_text(json.dumps(rows), encoding="utf-8")
    summary = import_decisions(workspace, tmp_path / "out")
    assert (summary.rows, summary.unanswered, summary.answers, summary.added, summary.refused) == (6, 2, 4, 4, 0)
    judge = f"argilla:{EVA}" if format == "argilla" else "label-studio:3"
    written = workspace.read("judgments").sort("query", descending=True)
    assert written.select("query", "doc_id", "grade", "split", "judge", "locale").rows() == [
        (f"query {5 - number}", f"d{5 - number}", number, "train", judge, "de") for number in range(4)
    ]
    assert import_decisions(workspace, tmp_path / "out").unchanged == 4
    assert open_pairs(workspace).height == 2
    assert import_decisions(workspace, tmp_path / "out", "eva").added == 4  # under a name of its own
    assert set(workspace.read("judgments")["judge"]) == {judge, "eva"}


def test_argillas_rows_that_do_not_fit_are_refused_one_by_one(workspace: Workspace, tmp_path: Path) -> None:
    fill(workspace, 5)
    export_queue(workspace, "argilla", tmp_path / "out")
    good, draft, unknown, two, silent = read(tmp_path / "out" / "records.json")
    foreign = json.loads(json.dumps(good))
    foreign["metadata"]["doc_id"] = "d999"
    nameless = {"fields": {}, "responses": {}}
    rows = [
        answered_in_argilla(good, "2"), answered_in_argilla(draft, "2", status="pending"),
        answered_in_argilla(unknown, "splendid"), answered_in_argilla(answered_in_argilla(two, "1"), "2", IDA), silent,
        answered_in_argilla(foreign, "2"), nameless, "text", answered_in_argilla(good, None),
    ]  # fmt: skip
    path = tmp_path / "records.json"
    path.write_text(json.dumps(rows), encoding="utf-8")
    summary = import_decisions(workspace, path, "eva")
    assert (summary.rows, summary.unanswered, summary.answers) == (9, 1, 9)
    assert (summary.added, summary.unchanged, summary.refused) == (2, 0, 7)
    assert summary.reasons["grade: 'splendid' is no grade of the scale (0 bad, 1 fair, 2 good, 3 excellent)"] == 1
    assert sum(summary.reasons.values()) == 7
    told = workspace.read("quarantine").sort("row")
    assert told["row"].to_list() == [2, 3, 4, 6, 7, 8, 9]
    assert told["field"].to_list() == ["status", "grade", "judge", "doc_id", "fields.query", "record", "value"]
    assert import_decisions(workspace, path).added == 3  # by their own names both people count
    assert workspace.read("quarantine").height == 7  # nothing is quarantined twice


def test_label_studios_rows_that_do_not_fit_are_refused_one_by_one(workspace: Workspace, tmp_path: Path) -> None:
    fill(workspace, 6)
    export_queue(workspace, "label-studio", tmp_path / "tasks.json")
    a, b, c, d, e, f = read(tmp_path / "tasks.json")
    later = {"updated_at": "2026-01-06T10:00:00Z"}
    rows = [
        answered_in_label_studio(answered_in_label_studio(a, "3 excellent", **later), "0 bad"),  # the later one counts
        answered_in_label_studio(b, "2 good", was_cancelled=True),
        answered_in_label_studio(c, "good", completed_by={"id": 4, "email": "ida@example.org"}),
        answered_in_label_studio(d, "7 heaven"),
        answered_in_label_studio(e, "2 good", result=[]),
        answered_in_label_studio(f, "1", completed_by=None),
        {"id": 9, "data": {"image": "x.png"}, "annotations": []},
        answered_in_label_studio(a, "1") | {"annotations": "none"},
    ]
    path = tmp_path / "export.json"
    path.write_text(json.dumps(rows), encoding="utf-8")
    summary = import_decisions(workspace, path)
    assert (summary.rows, summary.unanswered, summary.answers) == (8, 1, 8)
    assert (summary.added, summary.unchanged, summary.refused) == (3, 1, 4)
    written = dict(workspace.read("judgments").select("judge", "grade").iter_rows())
    assert written == {"label-studio:3": 3, "label-studio:ida@example.org": 2, "label-studio:unknown": 1}
    assert workspace.read("quarantine").sort("row")["row"].to_list() == [4, 5, 7, 8]


@pytest.mark.parametrize("text", ["{", "{}", '[{"a": 1}]', "\x00"])
def test_files_of_neither_tool_are_named(workspace: Workspace, tmp_path: Path, text: str) -> None:
    path = tmp_path / "x.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=r"x\.json"):
        import_decisions(workspace, path)
    with pytest.raises(ValueError, match="no such file"):
        import_decisions(workspace, tmp_path / "absent.json")


def test_every_grade_reads_back_and_nothing_else_does(workspace: Workspace) -> None:
    labels = workspace.config.labels
    for grade in labels.scale:
        for text in (choice(grade, labels), str(grade), labels.names[grade]):
            assert grade_of(text, labels) == grade
    for text in ("", "4", "2 bad", "10/27", "2.0", "good excellent", "02"):
        with pytest.raises(RowError, match="no grade of the scale"):
            grade_of(text, labels)
