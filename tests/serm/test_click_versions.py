"""`serm clicks`: fitted models as immutable versions in the workspace, and the comparison."""

import json
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from serm import registry, verbs
from serm.clicks import BASELINES, MODELS, Patterns, fit
from serm.clicks.users import World
from serm.clicks.verbs import SHELF, load_clicks
from serm.workspace import Workspace, WorkspaceError

WORLD = World.of(queries=10, documents=12, zipf=0, seed=0)


@pytest.fixture
def logged(workspace: Workspace) -> Workspace:
    """A workspace with 1,500 sessions of cascade users."""
    workspace.append("impressions", WORLD.log("cascade", 1_500, seed=0))
    return workspace


def test_fit_keeps_an_immutable_version_that_says_what_it_was_made_from(logged: Workspace) -> None:
    (fitted,) = verbs.fit_clicks(logged, "dcm")
    assert (fitted.model, fitted.rows, fitted.sessions, fitted.already) == ("dcm", 15_000, 1_500, False)
    manifest = registry.read_manifest(logged, fitted.version, SHELF)
    assert manifest["data_version"] == logged.version("impressions")
    assert manifest["settings"]["prior_skips"] == 4.0
    assert manifest["seed"] == 0
    assert {"numpy", "polars", "serm"} <= manifest["packages"].keys()
    assert manifest["window"][1] == logged.read("impressions")["ts"].max().isoformat()  # type: ignore[union-attr]
    assert 1 < manifest["held_out"]["conditional"] < 2
    model = load_clicks(logged, fitted.version)
    log = logged.read("impressions")
    again = fit("dcm", logged.config.clicks, Patterns.of(log))
    assert model.predict(log).equals(again.predict(log))
    assert registry.versions(logged, SHELF) == [fitted.version]
    assert registry.versions(logged) == []  # relevance models stand elsewhere


def test_the_same_again_fits_nothing_and_new_data_is_a_new_version(logged: Workspace) -> None:
    first = verbs.fit_clicks(logged, "pbm")
    before = registry.read_manifest(logged, first[0].version, SHELF)
    again = verbs.fit_clicks(logged, "pbm")
    assert again[0].already
    assert registry.read_manifest(logged, first[0].version, SHELF) == before
    logged.append("impressions", WORLD.log("cascade", 100, seed=1, first=1_500))
    new = verbs.fit_clicks(logged, "pbm")
    assert new[0].version != first[0].version
    assert registry.versions(logged, SHELF) == [first[0].version, new[0].version]


def test_auto_fits_the_best_of_the_comparison_and_all_fits_all(logged: Workspace) -> None:
    compared = verbs.compare_clicks(logged)
    assert compared.models[0].model == compared.best == "cascade"
    assert {one.model for one in compared.models} == {*MODELS, *BASELINES}
    conditional = [one.conditional for one in compared.models]
    assert conditional == sorted(conditional)
    assert verbs.compare_clicks(logged) == compared
    assert [one.model for one in verbs.fit_clicks(logged)] == ["cascade"]
    fitted = {one.model: one for one in verbs.fit_clicks(logged, "all")}
    assert fitted.keys() == {*MODELS, *BASELINES}
    assert [name for name, one in fitted.items() if one.already] == ["cascade"]
    for one in compared.models:
        assert fitted[one.model].held_out["conditional"] == pytest.approx(one.conditional)


def test_what_is_missing_is_named(workspace: Workspace, logged: Workspace) -> None:
    with pytest.raises(ValueError, match="no click model 'cbm'; known are pbm"):
        verbs.fit_clicks(logged, "cbm")
    with pytest.raises(WorkspaceError, match="no model version 'dbn-0'"):
        load_clicks(logged, "dbn-0")


def test_an_empty_workspace_says_what_it_lacks(workspace: Workspace) -> None:
    for verb in (verbs.fit_clicks, verbs.compare_clicks):
        with pytest.raises(WorkspaceError, match="no impressions to learn clicks from"):
            verb(workspace)


def test_the_commands(logged: Workspace, tmp_path: Path) -> None:
    def run(*arguments: str) -> str:
        command = [sys.executable, "-m", "serm.cli", "clicks", *arguments, "-w", logged.root]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout

    compared = json.loads(run("compare", "--json"))
    assert compared["best"] == "cascade"
    assert {"perplexity", "at_1", "at_5", "at_10", "conditional", "log_likelihood"} <= compared["models"][0].keys()
    assert "pbm-" in run("fit", "pbm")
    window = pl.Series(compared["window"]).str.to_datetime(time_zone="UTC")
    assert (window[1] - window[0]).days == logged.config.window.days
