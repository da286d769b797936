"""A real Prefect server with everything deployed, and workspaces to deploy it for."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from serm.evolution import round as rounds
from serm.evolution.update import update
from serm.simulate import simulate
from serm.simulate.llm_server import llm_server
from serm.simulate.llm_server import running as served
from serm.workspace import Workspace
from tests.conftest import products_by_colour
from tests.flows import prefect_server
from tests.flows.deployed import PATIENCE, SETTINGS, Place, Slow, copy_of


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
