"""Update and evolve on a small workspace with a tiny model: versions, resume, the gate, and what a round records."""

import polars as pl
import pytest

from serm import registry
from serm.annotation.stand_in import StandInLLM
from serm.evolution import round as rounds
from serm.evolution.pairs import labelled_pairs
from serm.evolution.update import update
from serm.simulate import StandIn, simulate
from serm.workspace import Workspace, WorkspaceError


def stand_ins(workspace: Workspace) -> dict[str, StandInLLM]:
    config = workspace.config
    source = StandIn(workspace.read("judgments"), config.labels.scale, config.simulate_llm)
    return {name: StandInLLM(source, name) for name in ("a", "b")}


def test_the_first_model_is_trained_once_and_promoted(space: Workspace) -> None:
    first = update(space)
    assert first.parent is None
    assert not first.reused
    assert registry.champion(space) == first.version
    manifest = registry.read_manifest(space, first.version)
    assert manifest["data_versions"]["judgments"] == space.version("judgments")
    assert manifest["seed"] == 0
    assert manifest["config"]["relevance"]["max_tokens"] == 24
    with pytest.raises(WorkspaceError, match="no annotations"):
        update(space)


def test_without_judgments_there_is_a_clear_error(workspace: Workspace) -> None:
    with pytest.raises(WorkspaceError, match="serm ingest --kind judgments"):
        update(workspace)


def test_a_round_learns_from_kept_labels_and_its_verdict_is_the_gates(
    space: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    from serm.annotation.verbs import annotate

    llms = stand_ins(space)
    monkeypatch.setattr(rounds, "annotate", lambda workspace, number: annotate(workspace, number, llms))
    update(space)
    hidden = sorted(set(space.read("judgments").filter(split="hidden")["query"]))
    simulate(space, queries=hidden)
    (summary,) = rounds.evolve(space)
    assert summary.round == 1
    assert summary.mined == 40
    assert summary.kept == 40  # both annotators are always right
    labels = labelled_pairs(space)
    truth = space.read("judgments").filter(split="hidden")
    checked = labels.join(truth, on=["query", "doc_id"])
    assert checked.height == 40
    assert (checked["label"] == checked["grade"]).all()
    assert not set(labels["query"]) & set(space.read("judgments").filter(split="fresh")["query"])
    assert summary.promoted == (registry.champion(space) == summary.candidate)
    assert rounds.rounds_done(space) == [summary]
    assert rounds.unfinished(space) is None
    again = update(space, 1)
    assert again.reused
    assert again.version == summary.candidate
    assert registry.versions(space) == [str(summary.parent), str(summary.candidate)]


def test_an_unfinished_round_goes_on_where_it_was(space: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    from serm.annotation.verbs import annotate
    from serm.mining import mine

    llms = stand_ins(space)
    monkeypatch.setattr(rounds, "annotate", lambda workspace, number: annotate(workspace, number, llms))
    update(space)
    simulate(space, queries=sorted(set(space.read("judgments").filter(split="hidden")["query"])))
    mine(space, 1)
    annotate(space, 1, llms)
    assert rounds.unfinished(space) == 1
    (summary,) = rounds.evolve(space)
    assert (summary.round, summary.kept) == (1, 40)
    assert space.read("mined")["round"].unique().sort().to_list() == [0, 1]  # 0: the calibration pairs


def test_too_few_labels_make_no_candidate(space: Workspace) -> None:
    update(space)
    row = {"round": 1, "query": "red shoe novel", "doc_id": "red-shoe", "status": "kept", "label": 1, "votes": "{}"}
    space.append("annotations", pl.DataFrame([row | {"calls": 1}], infer_schema_length=None))
    with pytest.raises(WorkspaceError, match=r"1 kept labels, fewer than update\.minimum_labels"):
        update(space, 1)
