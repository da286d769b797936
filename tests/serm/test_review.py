"""The review queue and a person's decisions: order, leakage, undo, two reviewers, and what an update makes of them."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import polars as pl
import pytest

from serm.evolution.mixture import mix
from serm.evolution.pairs import labelled_pairs
from serm.review.decisions import checked_reviewer, decide, own_grades, withdraw
from serm.review.desk import Desk, RefusedError
from serm.review.queue import details, open_pairs, review_queue, votes_of
from serm.workspace import Workspace
from tests.serm.review_space import fill

PAIR = ["query", "doc_id"]


def decision(number: int, grade: int, judge: str = "eva") -> pl.DataFrame:
    row = {"query": f"query {number}", "doc_id": f"d{number}", "grade": grade, "judge": judge, "locale": "de"}
    return pl.DataFrame([row], schema_overrides={"grade": pl.Int32})


def test_the_queue_is_ordered_by_round_then_priority_and_names_every_pair_once(workspace: Workspace) -> None:
    fill(workspace, 6)
    again = workspace.read("annotations").filter(doc_id="d0").with_columns(round=pl.lit(2, pl.Int32))
    workspace.append("annotations", again)
    assert open_pairs(workspace)["doc_id"].to_list() == ["d0", "d5", "d4", "d3", "d2", "d1"]
    assert review_queue(workspace).height == 7
    assert open_pairs(workspace, round=2)["doc_id"].to_list() == ["d0"]


def test_a_page_holds_what_a_person_needs_in_the_queues_order(workspace: Workspace) -> None:
    fill(workspace, 5)
    rows = details(workspace, open_pairs(workspace))
    assert rows["doc_id"].to_list() == ["d4", "d3", "d2", "d1", "d0"]
    top = rows.row(0, named=True)
    assert (top["title"], top["locale"], top["mined_because"]) == ("Title 4", "de", "because 4")
    votes = votes_of(top["votes"], {1: "fair"})
    assert [(vote["annotator"], vote["label"], vote["name"]) for vote in votes] == [
        ("ada", 1, "fair"),
        ("ben", None, ""),
    ]
    assert votes[0]["paths"][0] == {"label": 1, "outcome": "label", "reasoning": "some <b>words</b> 4"}
    assert votes[1]["paths"][0] == {"label": None, "outcome": "refused", "reasoning": ""}


def test_a_decision_is_written_once_and_replaced_by_another(workspace: Workspace) -> None:
    fill(workspace, 3)
    assert decide(workspace, decision(1, 2)).written == 1
    version = workspace.version("judgments")
    assert decide(workspace, decision(1, 2)).written == 0
    assert workspace.version("judgments") == version
    assert decide(workspace, decision(1, 3)).written == 1
    (row,) = workspace.read("judgments").to_dicts()
    assert row == {
        "query": "query 1", "doc_id": "d1", "grade": 3, "split": "train", "judge": "eva", "locale": "de",
    }  # fmt: skip
    assert "d1" not in open_pairs(workspace)["doc_id"]


def test_undo_takes_the_row_out_and_the_history_keeps_it(workspace: Workspace) -> None:
    fill(workspace, 3)
    decide(workspace, decision(1, 2))
    decide(workspace, decision(1, 0, "ida"))
    before = workspace.version("judgments")
    assert withdraw(workspace, "query 1", "d1", "eva") == 1
    assert withdraw(workspace, "query 1", "d1", "eva") == 0
    assert workspace.read("judgments")["judge"].to_list() == ["ida"]
    assert set(workspace.read("judgments", before)["judge"]) == {"eva", "ida"}
    withdraw(workspace, "query 1", "d1", "ida")
    assert "d1" in open_pairs(workspace)["doc_id"]


def test_decisions_never_reach_what_evaluates(workspace: Workspace) -> None:
    fill(workspace, 4)
    rows = [
        ("query 1", "other", 1, "anchor", "human"), ("query 2", "other", 1, "dev", "human"),
        ("query 3", "d3", 1, "hidden", "human"),
    ]  # fmt: skip
    workspace.append("judgments", pl.DataFrame(rows, schema=[*PAIR, "grade", "split", "judge"], orient="row"))
    assert open_pairs(workspace)["doc_id"].to_list() == ["d3", "d2", "d0"]
    asked = pl.concat([decision(1, 2), decision(2, 2), decision(3, 2), decision(3, 2, "human")])
    outcome = decide(workspace, asked)
    assert outcome.written == 2
    assert set(outcome.refused) == {("query 1", "d1", "eva"), ("query 3", "d3", "human")}
    written = workspace.read("judgments").filter(judge="eva").sort("query")
    assert written.select("query", "split").rows() == [("query 2", "dev"), ("query 3", "train")]
    assert workspace.read("judgments").filter(judge="human", split="hidden")["grade"].to_list() == [1]
    for split in ("fresh", "anchor", "hidden", "nonsense"):
        with pytest.raises(ValueError, match="train or dev only"):
            decide(workspace, decision(2, 2), split)


def test_grades_and_names_are_checked(workspace: Workspace) -> None:
    fill(workspace, 2)
    with pytest.raises(ValueError, match="grade 9 is not on the scale"):
        decide(workspace, decision(1, 9))
    for name in ("", "  ", "llm:gpt", "a\nb", "x" * 101):
        with pytest.raises(ValueError, match="reviewer"):
            checked_reviewer(name)
    assert checked_reviewer(" Eva Lindström ") == "Eva Lindström"


def test_an_llms_judgment_does_not_close_a_pair(workspace: Workspace) -> None:
    fill(workspace, 2)
    decide(workspace, decision(1, 2, "llm:judge"))
    assert open_pairs(workspace).height == 2


def test_two_reviewers_at_once_lose_nothing(workspace: Workspace) -> None:
    fill(workspace, 12)
    desks = {name: Desk(workspace, name) for name in ("eva", "ida")}

    def judge(name: str) -> None:
        for query, doc_id, _ in desks[name].queue.iter_rows():
            desks[name].decide(query, doc_id, 1 if name == "eva" else 2)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(judge, desks))
    grades = workspace.read("judgments").group_by("judge").agg(pl.len(), pl.col("grade").unique())
    assert sorted(grades.rows()) == [("eva", 12, [1]), ("ida", 12, [2])]
    assert desks["eva"].progress() == {"total": 12, "done": 12, "others": 0, "left": 0}
    assert desks["eva"].page(0, 3).pairs[0]["judged_by"] == ["ida"]


def test_a_desk_counts_pages_and_finds_what_is_open(workspace: Workspace) -> None:
    fill(workspace, 7)
    desk = Desk(workspace, "eva")
    seen = [pair["place"] for start in (0, 3, 6) for pair in desk.page(start, 3).pairs]
    assert seen == list(range(7))
    assert desk.page(7, 3).pairs == []
    first = desk.page(0, 1).pairs[0]
    assert desk.decide(first["query"], first["doc_id"], 2) is None
    assert desk.decide(first["query"], first["doc_id"], 3) == 2
    decide(workspace, decision(5, 1, "ida"))
    desk.refresh()
    assert desk.progress() == {"total": 7, "done": 1, "others": 1, "left": 5}
    assert desk.next_open(-1) == 2
    assert desk.next_open(6) == 2
    assert desk.undo(first["query"], first["doc_id"]) == 1
    assert desk.next_open(6) == 0
    fill(workspace, 9)
    desk.refresh()
    assert [pair["doc_id"] for pair in desk.page(0, 9).pairs] == ["d6", "d5", "d4", "d3", "d2", "d1", "d0", "d8", "d7"]
    with pytest.raises(RefusedError, match="not in the queue"):
        desk.decide("query 99", "d99", 1)


def test_an_update_learns_decisions_of_the_round_as_truth(workspace: Workspace) -> None:
    fill(workspace, 4)
    kept = {"round": 1, "query": "query k", "doc_id": "d0", "status": "kept", "label": 1, "votes": "{}", "calls": 1}
    workspace.append("annotations", pl.DataFrame([kept], schema_overrides={"round": pl.Int32}))
    assert labelled_pairs(workspace).select("query", "label", "agreed").rows() == [("query k", 1, True)]
    decide(workspace, decision(2, 3))
    decide(workspace, decision(3, 3), split="dev")
    labels = labelled_pairs(workspace)
    assert labels.select("round", "query", "label", "agreed").rows() == [
        (1, "query 2", 3, False), (1, "query k", 1, True),
    ]  # fmt: skip
    settings = workspace.config.update.model_copy(update={"epochs": 1.0})
    original = labels.select("query", "text", "label")
    mixed = mix(labels, labels.clear(), original, settings, 0)
    assert mixed.head(2).sort("query").select("query", "agreed", "weight").rows() == [
        ("query 2", False, 1.0), ("query k", True, 1.0),
    ]  # fmt: skip
    assert not mixed.tail(-2)["agreed"].any()


def test_the_command_lists_the_queue(workspace: Workspace) -> None:
    from typer.testing import CliRunner

    from serm.cli import app

    fill(workspace, 3)
    done = CliRunner().invoke(app, ["review", "-w", str(workspace.root), "--list", "--json"])
    assert [row["doc_id"] for row in json.loads(done.stdout)] == ["d2", "d1", "d0"]
    misplaced = CliRunner().invoke(app, ["review", "-w", "elsewhere", "export", "x", "--format", "argilla"])
    assert misplaced.exit_code == 2


def test_removing_from_a_table_that_is_not_there_removes_nothing(tmp_path: Path) -> None:
    empty = Workspace.create(tmp_path / "w")
    assert withdraw(empty, "q", "d", "eva") == 0
    assert own_grades(empty, pl.DataFrame({"query": ["q"], "doc_id": ["d"]}), "eva").is_empty()
    assert empty.remove("judgments", pl.DataFrame({"query": ["q"], "doc_id": ["d"], "judge": ["eva"]})) == 0
