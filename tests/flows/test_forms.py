"""What a flow accepts, what prefect.yaml says, and the verdict in words; no server is needed."""

from datetime import datetime, timedelta

import pytest
from prefect.exceptions import ParameterTypeError
from prefect.flows import load_flow_from_entrypoint
from prefect.utilities.callables import parameter_schema

from flows import deploy
from flows.artifacts import verdict_words
from flows.parameters import open_workspace
from flows.rounds import evolve
from flows.watch import DUE, resource
from serm.config import WindowSettings
from serm.evaluation import Verdict
from serm.evaluation.paired import Interval
from serm.evaluation.verdict import Comparison
from serm.evolution.round import RoundSummary, Trial
from serm.workspace import Workspace

ROOT = "/srv/a shop"


def test_the_form_of_a_round_says_what_it_takes_and_refuses_the_rest() -> None:
    form = parameter_schema(evolve)
    assert form.required == ["workspace"]
    assert set(form.properties) == {"workspace", "window", "settings", "approval", "approval_hours", "pauses"}
    given = {"workspace": "w", "window": {"days": 7, "reference_days": 21}, "settings": ["mining.budget=5"]}
    accepted = evolve.validate_parameters(given)
    assert accepted["window"] == WindowSettings(days=7, reference_days=21)
    for wrong in ({"settings": ["mining.budget"]}, {"window": {"days": 0}}, {"workspace": ""}, {"pauses": [-1]}):
        with pytest.raises(ParameterTypeError):
            evolve.validate_parameters(given | wrong)


def test_a_runs_own_window_and_settings_win(workspace: Workspace) -> None:
    opened = open_workspace(workspace.root, WindowSettings(days=7, reference_days=21), ["mining.budget=5"])
    assert (opened.config.window.days, opened.config.window.reference_days) == (7, 21)
    assert opened.config.mining.budget == 5


def test_the_deployments_are_those_of_the_file() -> None:
    items = deploy._filled(ROOT, "shop")["deployments"]
    flows = {load_flow_from_entrypoint(item["entrypoint"]).name: item for item in items}
    assert set(flows) == {"serm-evolve", "serm-watch", "serm-mine", "serm-annotate", "serm-update", "sps-train"}
    for name, item in flows.items():
        deployment = deploy._deployment(item, item["work_pool"])
        assert deployment.name == "shop"
        assert deployment.concurrency_limit == 1
        assert deployment.concurrency_options is not None
        assert deployment.concurrency_options.collision_strategy == "CANCEL_NEW"
        assert deployment.parameters.get("workspace") == (None if name == "sps-train" else ROOT)
        assert deployment.job_variables["env"]["PREFECT_FLOWS_HEARTBEAT_FREQUENCY"] == "30"
    (fortnight,) = deploy._deployment(flows["serm-evolve"]).schedules or []
    assert fortnight.schedule.interval == timedelta(days=14)
    assert fortnight.schedule.anchor_date == datetime.fromisoformat("2026-01-05T03:00:00+00:00")  # a Monday
    (due,) = deploy._deployment(flows["serm-evolve"]).triggers
    assert due.expect == {DUE}
    assert due.match.root == {"prefect.resource.id": resource(ROOT)}


def test_the_verdict_reads_like_a_report() -> None:
    fresh = Comparison(0.81, 0.84, Interval(0.03, 0.01, 0.05, 210), 0.001)
    trial = Trial("r003-b", "r002-a", Verdict(True, ["better on fresh queries"], "nDCG@10", fresh, None))
    summary = RoundSummary(
        3, "strong", 1_000, 640, 340, 20, 5_000, "r002-a", "r003-b", True, ["better on fresh queries"], 0.81, 0.84
    )
    words = verdict_words(summary, trial)
    assert words.startswith("# Round 3: r003-b is the champion now")
    assert "| new searches | 0.8100 | 0.8400 | +0.0300 | +0.0100 to +0.0500 | 210 |" in words
    assert "| old searches | – | – | – | – | – |" in words
    none = RoundSummary(3, "none", 4, 2, 2, 0, 8, "r002-a", None, False, ["2 labels kept"], None, None)
    assert verdict_words(none, None) == "# Round 3: no new model\n\n2 labels kept.\n"
