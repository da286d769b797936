"""A deployed serm on a real Prefect server: whole rounds, and what is left after kills, faults and two at once.

Every disturbed workspace must end as the undisturbed one does: tables, models, champions, verdict, and bill.
"""

import asyncio
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import polars as pl
import psutil
import pytest
import torch
from polars.testing import assert_frame_equal
from safetensors.torch import load_file
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from typer.testing import CliRunner

from serm import registry
from serm.annotation.ledger import Ledger
from serm.cli import app
from serm.evaluation import Verdict
from serm.evolution import round as rounds
from serm.evolution.update import update
from serm.operations import champion
from serm.operations.champion import ask_champion
from serm.simulate import simulate
from serm.simulate.llm_server import Server, llm_server
from serm.simulate.llm_server import running as served
from serm.workspace import Workspace
from tests.conftest import COLOURS, THINGS, products_by_colour
from tests.flows import prefect_server
from tests.flows.prefect_server import until

# A tiny model whose updates take a few seconds with many checkpoints: time to be killed in.
SETTINGS = """
relevance: {{base: "{base}", precision: fp32, max_tokens: 24, max_epochs: 0.2, batch_pairs: 16, learning_rate: 0.002,
  checkpoint_every: 20}}
labels: {{scale: [0, 1], names: {{0: bad, 1: good}}}}
mining: {{budget: 40, quiet_share: 1.0, judged: 60, per_query: 8}}
update: {{minimum_labels: 5, calibration_pairs: 40, learning_rate: 0.003, epochs: 20, new_share: 0.1,
  original_share: 0.9, earlier_share: 0.0}}
evaluation: {{minimum_queries: 5, resamples: 200}}
simulate: {{sessions: 300, days: 10}}
simulate_llm: {{confusion: [[1.0, 0.0], [0.0, 1.0]]}}
annotation:
  knowledge: false
  paths: 1
  batch_pairs: 4
  annotators:
    - {{name: ada, model: stand-in-a, base_url: "{url}", concurrency: 2, {patience}}}
    - {{name: ben, model: stand-in-b, base_url: "{url}", concurrency: 2, {patience}}}
"""
PATIENCE = "retries: 0, breaker_trials: 0, give_up_after: 2"
TABLES = ("mined", "annotations", "judgments", "documents", "impressions")


class Slow(Server):
    """The stand-in with a delay, and times at which it answers nobody."""

    delay = 0.0
    failures = 0  # requests to be refused from now on

    async def chat(self, request: Request) -> Response:
        await asyncio.sleep(self.delay)
        if self.failures > 0:
            self.failures -= 1
            return JSONResponse({"error": {"message": "down"}}, 503)
        return await super().chat(request)


@dataclass
class Place:
    """A Prefect server with everything deployed, and where a worker's log goes."""

    environment: dict[str, str]
    folder: Path

    def worker(self) -> AbstractContextManager[Any]:
        """A worker while the block runs."""
        return prefect_server.worker(self.environment, self.folder / "worker.log")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A workspace with a first model and a log, of which every test takes a copy."""
    folder = tmp_path_factory.mktemp("base")
    space = products_by_colour(
        folder, SETTINGS.replace("{url}", "http://127.0.0.1:1/v1").replace("{patience}", PATIENCE)
    )
    update(space)
    simulate(space, queries=sorted(set(space.read("judgments").filter(split="hidden")["query"])))
    return space


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, base: Workspace) -> Iterator[Place]:
    """Prefect's server, and what `serm deploy` puts there from prefect.yaml."""
    folder, port = tmp_path_factory.mktemp("prefect"), prefect_server.free_port()
    environment = prefect_server.settings(folder, port)
    with pytest.MonkeyPatch.context() as patch, prefect_server.server(environment, port, folder / "server.log"):
        for name, value in environment.items():
            patch.setenv(name, value)
        from prefect.settings import PREFECT_API_URL, PREFECT_HOME, temporary_settings

        with temporary_settings({PREFECT_API_URL: environment["PREFECT_API_URL"], PREFECT_HOME: folder}):
            from flows.deploy import deploy

            found = deploy(base.root, "main")
            assert found.made == ["serm-llm", "serm-gpu", "serm: a run without heartbeats has crashed", "serm"]
            assert "serm-evolve/main" in found.deployments
            # Two, so that no test waits for the minute after which a dead process's slot is free again.
            limit = f"{environment['PREFECT_API_URL']}/v2/concurrency_limits/serm-gpu"
            httpx.patch(limit, json={"limit": 2}).raise_for_status()
            yield Place(environment, folder)


@pytest.fixture
def llm(base: Workspace) -> Iterator[tuple[Slow, str]]:
    """The annotators' server and its address."""
    known = llm_server(base)
    server = Slow(known.standin, known.texts)
    with served(server) as url:
        yield server, url


@pytest.fixture
def space(base: Workspace, llm: tuple[Slow, str], tmp_path: Path) -> Workspace:
    """A copy of the workspace whose annotators are at the server's address."""
    return copy_of(base, tmp_path / "space", llm[1])


@pytest.fixture(scope="module")
def calm(base: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """The undisturbed run, by the verb alone."""
    with served(llm_server(base)) as url:
        space = copy_of(base, tmp_path_factory.mktemp("calm") / "space", url)
        rounds.evolve(space)
    return space


def copy_of(base: Workspace, folder: Path, url: str) -> Workspace:
    shutil.copytree(base.root, folder)
    text = (folder / "config.yaml").read_text().replace("http://127.0.0.1:1/v1", url)
    (folder / "config.yaml").write_text(text)
    return Workspace.open(folder)


def same_state(space: Workspace, calm: Workspace, server: Slow) -> None:
    """Everything that a round leaves is as the undisturbed run left it, and nothing was paid for twice."""
    for table in TABLES:
        one, other = (w.read(table).sort(pl.all().exclude("agents", "posterior")) for w in (space, calm))
        # A posterior knows of the calibration pairs that had answered by then: after a fault, of one fewer.
        assert_frame_equal(one, other, abs_tol=1e-3 if table == "annotations" else 1e-8)
    columns = ["version", "previous", "action", "sequence"]
    assert registry.versions(space) == registry.versions(calm)
    assert registry.history(space).select(columns).equals(registry.history(calm).select(columns))
    weights = [load_file(registry.folder(w, registry.champion(w)) / "model.safetensors") for w in (space, calm)]
    assert all(torch.equal(tensor, weights[1][name]) for name, tensor in weights[0].items())
    assert rounds.rounds_done(space) == rounds.rounds_done(calm)
    paid_once(space, server)


def paid_once(space: Workspace, server: Slow) -> None:
    ledger = Ledger(space.local("ledger.sqlite"))
    try:
        answered = ledger.answered_keys()
    finally:
        ledger.close()
    stats = server.bill.stats()
    assert stats["paths_billed_twice"] == stats["keys_billed_twice"] == 0
    assert {key.removesuffix("-plain") for key in server.bill.by_key} == answered
    assert stats["completed"] == len(answered)


# --- runs through the API -----------------------------------------------------------------------------------------


def request(space: Workspace, flow: str = "serm-evolve", name: str = "main", **parameters: Any) -> str:
    """Ask the server for a run now; returns its id."""
    from prefect.deployments import run_deployment

    run = run_deployment(f"{flow}/{name}", parameters={"workspace": space.root} | parameters, timeout=0)
    return str(run.id)


def state(run: str) -> str:
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        found = client.read_flow_run(run).state  # type: ignore[arg-type]
    return "" if found is None else found.type.value


def ended(run: str) -> str:
    """Wait for a run's end and return how it ended."""
    final = ("COMPLETED", "FAILED", "CANCELLED", "CRASHED")
    return str(until(lambda: (now := state(run)) in final and now, pause=0.5))


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


@pytest.mark.faults
def test_a_killed_worker_and_an_endpoint_that_fails(
    place: Place, calm: Workspace, space: Workspace, llm: tuple[Slow, str]
) -> None:
    """The worker dies while the LLMs are asked, and its run with it; the next meets a dead endpoint, and asks again."""
    server = llm[0]
    server.delay = 0.05
    pauses = [0.02, 0.02, 0.02]
    with place.worker() as process:
        run = request(space, pauses=pauses)
        until(lambda: server.bill.completed >= 30, pause=0.01)
        process.kill()
        process.wait()
        server.failures = 12
    server.delay = 0.0
    with place.worker():
        if ended(run) != "COMPLETED":  # it crashes where it writes to its worker before it is done
            assert ended(request(space, pauses=pauses)) == "COMPLETED"
    assert server.failures == 0
    same_state(space, calm, server)


@pytest.mark.faults
def test_a_flow_killed_in_training_is_continued(
    place: Place, calm: Workspace, space: Workspace, llm: tuple[Slow, str]
) -> None:
    parent = registry.champion(space)
    with place.worker():
        run = request(space)
        until(lambda: list(Path(space.root, "checkpoints").glob("r001-*/next.pt")), pause=0.002)
        for process in prefect_server.processes_of(run):
            prefect_server.kill(process)
        assert ended(run) == "CRASHED"
        assert ask_champion(space) == parent
        assert registry.versions(space) == [parent]
        assert rounds.unfinished(space) == 1
        assert ended(request(space)) == "COMPLETED"
    same_state(space, calm, llm[0])
    steps = space.read("runs").filter(verb="update", round=1)["status"].sort().to_list()
    assert steps == ["finished", "started", "started"]


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


@pytest.mark.faults
def test_a_machine_that_is_gone_is_noticed(
    place: Place, calm: Workspace, space: Workspace, llm: tuple[Slow, str]
) -> None:
    """Worker and flow die at once and nobody is left to say so: the automation does, when heartbeats stay away."""
    server = llm[0]
    server.delay = 0.5
    with place.worker() as worker:
        run = request(space)
        until(lambda: server.bill.completed >= 10, pause=0.05)
        prefect_server.kill(psutil.Process(worker.pid))
        for process in prefect_server.processes_of(run):
            prefect_server.kill(process)
    assert state(run) == "RUNNING"
    server.delay = 0.0
    assert ended(run) == "CRASHED"
    with place.worker():
        assert ended(request(space)) == "COMPLETED"
    same_state(space, calm, server)


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
