"""What is left after kills: of the worker, of the flow, of both at once. Minutes of waiting: `make test-flows`."""

from pathlib import Path

import psutil
import pytest

from serm import registry
from serm.evolution import round as rounds
from serm.operations.champion import ask_champion
from serm.workspace import Workspace
from tests.flows import prefect_server
from tests.flows.deployed import Place, Slow, ended, request, same_state, state
from tests.flows.prefect_server import until

pytestmark = pytest.mark.faults


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
