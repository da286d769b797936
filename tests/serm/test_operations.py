"""serm doctor names what is broken and how to mend it; serm resume continues a round and says from where."""

import json
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
from typer.testing import CliRunner

from serm import registry
from serm.annotation.verbs import annotate
from serm.cli import app
from serm.evolution import round as rounds
from serm.evolution.update import update
from serm.mining import mine
from serm.operations.doctor import Check, doctor
from serm.operations.resume import resume, steps_of
from serm.simulate import simulate
from serm.simulate.llm_server import Server, llm_server, running
from serm.workspace import Workspace


@pytest.fixture
def ready(space: Workspace, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Workspace, Server]]:
    """A workspace with a first model, a log of yesterday, and annotators that answer."""
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    update(space)
    start = (datetime.now(UTC) - timedelta(days=11)).isoformat()
    simulate(space, start=start, queries=sorted(set(space.read("judgments").filter(split="hidden")["query"])))
    server = llm_server(space)
    with running(server) as url:
        for annotator in space.config.annotation.annotators:
            annotator.base_url = url
        yield space, server


def levels(checks: list[Check]) -> dict[str, str]:
    return {check.check: check.level for check in checks}


def test_a_healthy_workspace_passes_every_check(ready: tuple[Workspace, Server]) -> None:
    found = levels(doctor(ready[0]))
    assert found.pop("prefect") == "warn"  # none is configured
    assert set(found.values()) == {"ok"}
    assert {"champion", "annotator ada", "annotator ben", "ledger", "disk", "clock", "round"} <= set(found)
    assert ready[1].bill.requests == 0  # asking costs nothing


def test_what_is_broken_is_named_with_its_mend(ready: tuple[Workspace, Server]) -> None:
    space, _ = ready
    ada, ben = space.config.annotation.annotators
    ada.base_url = "http://127.0.0.1:1/v1"
    ben.base_url, ben.api_key_env = "https://llm.example/v1", "NO_SUCH_KEY"
    champion = registry.champion(space)
    (registry.folder(space, champion) / "model.safetensors").unlink()
    future = {"run_id": "x", "verb": "mine", "status": "started", "ts": datetime.now(UTC) + timedelta(hours=2)}
    space.append("runs", pl.DataFrame([future]))
    shutil.rmtree(Path(space.root, "tables", "impressions"))
    checks = {check.check: check for check in doctor(space)}
    assert {name for name, check in checks.items() if check.level == "fail"} == {
        "annotator ada", "annotator ben", "champion", "log",
    }  # fmt: skip
    assert checks["clock"].level == "warn"
    assert "127.0.0.1:1" in checks["annotator ada"].found
    assert checks["annotator ben"].do == "export NO_SUCH_KEY=..."
    assert checks["champion"].do.startswith("serm rollback")
    assert all(check.do for check in checks.values() if check.level != "ok")


def test_a_server_without_the_model_and_a_dead_second_server(ready: tuple[Workspace, Server]) -> None:
    space, _ = ready
    ada, _ = space.config.annotation.annotators
    ada.model, ada.more_urls = "another", ["http://127.0.0.1:1/v1"]
    found = [(check.level, check.found) for check in doctor(space) if check.check == "annotator ada"]
    assert [level for level, _ in found] == ["warn", "fail"]
    assert "does not list 'another'" in found[0][1]


def test_the_command_exits_with_1_when_something_fails(space: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:1/api")
    result = CliRunner().invoke(app, ["doctor", "-w", space.root, "--json"])
    assert result.exit_code == 1
    found = {check["check"]: check for check in json.loads(result.stdout)}
    assert found["prefect"]["level"] == "fail"
    assert found["prefect"]["do"] == "prefect server start"
    assert found["champion"]["level"] == "warn"
    assert found["log"]["level"] == "fail"


def test_resume_says_what_is_done_and_does_the_rest(ready: tuple[Workspace, Server]) -> None:
    space, server = ready
    assert resume(space).round is None
    mine(space, 1)
    some = space.read("mined").sort("query", "doc_id")["query"].unique(maintain_order=True)[:2]
    later = space.read("mined").filter(~pl.col("query").is_in(some.implode()))
    space.remove("mined", later)
    annotate(space, 1)  # the pairs of two queries alone
    space.append("mined", later)
    done = space.read("annotations").height
    paid = server.bill.completed
    assert 0 < done < 40
    assert paid == 2 * done
    told = resume(space, dry_run=True)
    assert told.summary is None
    assert told.round == 1
    assert [step.done for step in told.steps] == [True, True, False, False, False, False]
    assert told.steps[2].found == f"{done} of 40 pairs labelled"
    assert server.bill.completed == paid
    finished = resume(space)
    assert finished.summary == rounds.rounds_done(space)[0]
    assert server.bill.stats()["paths_billed_twice"] == 0
    steps = {step.step: step for step in steps_of(space, 1)}
    assert steps["annotate"].done
    assert steps["update"].found == finished.summary.candidate
    assert steps["gate"].found == ("accepted" if finished.summary.promoted else "refused")
    assert rounds.unfinished(space) is None
    again = CliRunner().invoke(app, ["resume", "-w", space.root, "--json"])
    assert json.loads(again.stdout) == {"round": None, "steps": [], "summary": None}
