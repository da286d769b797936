"""The flows run on a real Prefect server and hand back what the verbs return."""

import pytest
from prefect.testing.utilities import prefect_test_harness

from flows.rounds import mine, update
from serm.workspace import Workspace, WorkspaceError


def test_flows_call_their_verbs(space: Workspace) -> None:
    with prefect_test_harness(server_startup_timeout=120):
        first = update(space.root)
        assert first["round"] == 0
        assert first["parent"] is None
        assert space.read("champions")["version"].to_list() == [first["version"]]
        with pytest.raises(WorkspaceError, match="no impressions"):
            mine(space.root)
