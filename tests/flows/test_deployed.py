"""A deployed serm on a real Prefect server: whole rounds, two at once, approval, the watch, schedules, the commands."""

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from typer.testing import CliRunner

from serm import registry
from serm.cli import app
from serm.evaluation import Verdict
from serm.evolution import round as rounds
from serm.operations import champion
from serm.workspace import Workspace
from tests.conftest import COLOURS, THINGS
from tests.flows import prefect_server
from tests.flows.deployed import Place, Slow, ended, request, same_state, state
from tests.flows.prefect_server import until

# --- runs through the API --------------------------------------------------------------------------------------------


def artifacts(run: str) -> dict[str, Any]:
    """The newest data of every artifact of a run and its sub-flows, by key."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import ArtifactFilter, FlowRunFilter, FlowRunFilterId
    from prefect.client.schemas.sorting import ArtifactSort

    with get_client(sync_client=True) as client:
        chosen = FlowRunFilter(id=FlowRunFilterId(any_=[run]))  # type: ignore[list-item]
        found = client.read_artifacts(
            artifact_filter=ArtifactFilter(), flow_run_filter=chosen, sort=ArtifactSort.CREATED_DESC, limit=50, offset=0
        )
    return {str(artifact.key): artifact.data for artifact in reversed(found)}


def test_two_rounds_at_once_are_one(place: Place, calm: Workspace, space: Workspace, llm: tuple[Slow, str]) -> None:
    with place.worker():
        runs = [request(space), request(space)]
        assert sorted(ended(run) for run in runs) == ["CANCELLED", "COMPLETED"]
    same_state(space, calm, llm[0])
    done = next(run for run in runs if state(run) == "COMPLETED")
    shown = artifacts(done)
    (summary,) = rounds.rounds_done(space)
    end = f"{summary.candidate} is the champion now" if summary.promoted else f"{summary.parent} stays champion"
    assert end in shown["serm-gate"]
    assert f"{summary.after:.4f}" in shown["serm-gate"]
    assert "Is search better?" in shown["serm-report"]
    assert (Path(space.root) / "reports" / "report.html").is_file()


def test_what_the_documentation_shows_to_deploy(place: Place, space: Workspace) -> None:
    """Lines as shown, but for the workspace's place and the deployments' name."""
    shown = "".join((prefect_server.ROOT / page).read_text("utf-8") for page in ("README.md", "docs/operations.md"))
    lines = sorted(
        {line.split("#")[0].strip() for line in re.findall(r"^    (serm (?:deploy|doctor) .*)$", shown, re.M)}
    )
    assert len(lines) == 3
    for line in lines:
        words = [space.root if word == "/srv/shop" else word for word in line.split()[1:]]
        if words[0] == "doctor":  # it asks for a worker
            with place.worker():
                until(lambda words=words: CliRunner().invoke(app, words).exit_code == 0, pause=1)
            continue
        if "--serve" not in words:
            done = CliRunner().invoke(app, words)
            assert done.exit_code == 0, f"{line}: {done.output}"
            continue
        command = [sys.executable, "-m", "serm.cli", *words, "--name", "served"]
        with subprocess.Popen(command, env=os.environ | place.environment, cwd=place.folder) as process:
            try:
                until(lambda: {"serm-watch/served", "serm-evolve/served"} <= deployments())
                assert ended(request(space, "serm-watch", name="served")) == "COMPLETED"
                process.send_signal(signal.SIGINT)
                assert process.wait(prefect_server.PATIENCE) in (0, 130)
            finally:
                prefect_server.end(process.pid)
    assert {"serm-evolve/shop", "serm-watch/shop"} <= deployments()
    assert space.read("runs").filter(verb="shift", status="finished").height == 1


def deployments() -> set[str]:
    """Names of all deployments on the server, each after its flow's."""
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        flows = {flow.id: flow.name for flow in client.read_flows()}
        return {f"{flows[found.flow_id]}/{found.name}" for found in client.read_deployments()}


# --- runs in this process, on the same server -------------------------------------------------------------------------


def test_a_promotion_is_undone_when_a_later_step_fails_and_a_person_may_refuse_it(
    place: Place, base: Workspace, space: Workspace, llm: tuple[Slow, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from flows.rounds import evolve

    first = registry.champion(space)
    real = rounds.gate

    def accepts(workspace: Workspace, candidate: str, parent: str) -> Verdict:
        """The gate's figures, with the answer that this test is about."""
        return replace(real(workspace, candidate, parent), accepted=True)

    monkeypatch.setattr(rounds, "gate", accepts)

    def breaks(workspace: Workspace) -> str:
        assert registry.champion(workspace) != first  # it was promoted, and now:
        raise OSError("the disk is gone")

    with monkeypatch.context() as patch:
        patch.setattr(champion, "ask_champion", breaks)
        with pytest.raises(OSError, match="the disk is gone"):
            evolve(space.root)
    assert registry.history(space)["action"].to_list() == ["promote", "promote", "rollback"]
    assert registry.champion(space) == first
    assert rounds.unfinished(space) == 1
    paid = llm[0].bill.completed

    person = threading.Thread(target=refuse, args=(space.root,))
    person.start()
    result = evolve(space.root, approval=True)
    person.join()
    assert not result["promoted"]
    assert result["reasons"][-1] == "refused by Lea: not before the sale"
    assert registry.champion(space) == first
    assert [asdict(summary) for summary in rounds.rounds_done(space)] == [
        {name: value for name, value in result.items() if name != "workspace"}
    ]
    assert llm[0].bill.completed == paid


def refuse(root: str) -> None:
    """A person who waits for the question, reads it, and says no."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterState, FlowRunFilterStateType
    from prefect.client.schemas.objects import StateType
    from prefect.client.schemas.sorting import FlowRunSort

    paused = FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.PAUSED]))

    def waiting() -> Any:
        with get_client(sync_client=True) as client:
            runs = client.read_flow_runs(
                flow_run_filter=FlowRunFilter(state=paused), sort=FlowRunSort.ID_DESC, limit=1, offset=0
            )
        return [run for run in runs if run.parameters["workspace"] == root]

    (run,) = until(waiting, pause=0.5)
    with get_client(sync_client=True) as client:
        client.resume_flow_run(run.id, run_input={"promote": False, "who": "Lea", "why": "not before the sale"})


def test_new_searches_fire_an_early_round_and_quiet_ones_do_not(place: Place, space: Workspace) -> None:
    """No worker is there: what the event leads to is a run of serm-evolve that waits for one."""
    from flows.deploy import deploy
    from flows.watch import watch

    deploy(space.root, "drift")  # a second workspace on the same server; its events start its own rounds alone
    shutil.rmtree(Path(space.root, "tables", "impressions"))
    names = [f"{colour} {thing}" for colour in COLOURS for thing in THINGS]
    log = search(names, 28, 0)
    space.append("impressions", log)
    settings = ["mining.scores=logged", "shift.minimum=10", "window.days=14"]
    quiet = watch(space.root, settings=settings)
    assert (quiet["verdict"], quiet["due"]) == ("none", [])
    space.append("impressions", search([f"garden {name} hose pump" for name in names], 14, 28))
    before = waiting_rounds()
    drifted = watch(space.root, settings=settings)
    assert drifted["verdict"] == "strong"
    assert drifted["due"]
    assert before == []
    assert until(waiting_rounds) == [space.root]


def search(queries: list[str], days: int, start: int) -> pl.DataFrame:
    """Some searches an hour, drawn alike in every hour."""
    rng = np.random.default_rng(start)
    hours = np.repeat(np.arange(days * 24), 5)
    drawn = rng.integers(0, len(queries), len(hours))
    return pl.DataFrame(
        {
            "ts": [datetime(2026, 1, 5, tzinfo=UTC) + timedelta(days=start, hours=int(hour)) for hour in hours],
            "session": [f"s{start}-{i}" for i in range(len(hours))],
            "query": [queries[i] for i in drawn],
            "doc_id": "red-shoe",
            "position": pl.Series([1] * len(hours), dtype=pl.Int32),
            "clicked": rng.random(len(hours)) < 0.3,
            "score": rng.random(len(hours)),
        }
    )


def waiting_rounds() -> list[str]:
    """The workspaces of the runs of serm-evolve that an automation put there."""
    return [
        run.parameters["workspace"]
        for run in known_runs()
        if run.created_by is not None and run.created_by.type == "AUTOMATION"
    ]


def known_runs() -> list[Any]:
    """The newest runs that the server knows, scheduled ones included."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.sorting import FlowRunSort

    with get_client(sync_client=True) as client:
        return list(client.read_flow_runs(sort=FlowRunSort.ID_DESC, limit=200, offset=0))


def test_rounds_are_scheduled_every_two_weeks_from_the_anchor(place: Place) -> None:
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        evolve = client.read_deployment_by_name("serm-evolve/main").id

    def planned() -> list[float]:
        runs = [run for run in known_runs() if run.deployment_id == evolve and run.auto_scheduled]
        return [run.expected_start_time.timestamp() for run in runs]

    anchor = datetime(2026, 1, 5, 3, tzinfo=UTC).timestamp()
    assert {(time - anchor) % timedelta(days=14).total_seconds() for time in until(planned)} == {0.0}
