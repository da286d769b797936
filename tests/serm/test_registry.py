"""The model registry: whole versions or none, one champion, whatever is killed or raced."""

import itertools
import multiprocessing
import os
import time
from pathlib import Path

import numpy as np
import pytest

from serm import registry
from serm.workspace import Workspace, WorkspaceError

# Forked from a server that has imported, but never used, the libraries: quick to start, nothing inherited.
SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["serm.registry"])


def weights(content: str):
    def write(folder: Path) -> None:
        (folder / "nested").mkdir()
        (folder / "weights.bin").write_text(content)
        (folder / "nested" / "more.bin").write_text(content * 2)

    return write


@pytest.fixture
def published(workspace: Workspace) -> Workspace:
    for version in ("v1", "v2", "v3"):
        registry.publish(workspace, version, weights(version), {"parent": None})
    return workspace


def consistent(workspace: Workspace) -> list[str]:
    """The champions in order, after checking that the pointer's history is an unbroken chain of whole versions."""
    rows = registry.history(workspace)
    assert rows["sequence"].to_list() == list(range(rows.height))
    assert rows["previous"].to_list() == [None, *rows["version"].to_list()][: rows.height]
    assert set(rows["version"]) <= set(registry.versions(workspace))
    return rows["version"].to_list()


def test_publish_and_read_back(workspace: Workspace) -> None:
    assert registry.versions(workspace) == []
    manifest = registry.publish(workspace, "v1", weights("a"), {"parent": "v0", "round": 3, "version": "liar"})
    assert (manifest["version"], manifest["parent"], manifest["round"]) == ("v1", "v0", 3)
    folder = registry.folder(workspace, "v1")
    assert (folder / "weights.bin").read_text() == "a"
    assert (folder / "nested" / "more.bin").read_text() == "aa"
    registry.publish(workspace, "v0", weights("b"), {})
    assert registry.versions(workspace) == ["v1", "v0"]  # by age, not by name
    with pytest.raises(WorkspaceError, match="no model version 'v7'; there are: v1, v0"):
        registry.folder(workspace, "v7")


def test_a_version_is_immutable(workspace: Workspace) -> None:
    first = registry.publish(workspace, "v1", weights("first"), {"parent": None})
    assert registry.publish(workspace, "v1", weights("second"), {"parent": "x"}) == first
    assert (registry.folder(workspace, "v1") / "weights.bin").read_text() == "first"


@pytest.mark.parametrize("name", ["", ".hidden", "a/b", "../up", "-v", "with space"])
def test_names_that_are_no_folder_names_are_refused(workspace: Workspace, name: str) -> None:
    with pytest.raises(WorkspaceError, match="model version"):
        registry.publish(workspace, name, weights("x"), {})


def test_a_failing_writer_leaves_nothing(workspace: Workspace) -> None:
    def broken(folder: Path) -> None:
        (folder / "half").write_text("x")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        registry.publish(workspace, "v1", broken, {})
    assert registry.versions(workspace) == []
    assert list(Path(workspace.root, "models").iterdir()) == []


def test_a_foreign_folder_in_the_way_is_named(workspace: Workspace) -> None:
    Path(workspace.root, "models", "v1").mkdir(parents=True)
    Path(workspace.root, "models", "v1", "notes.txt").write_text("mine")
    with pytest.raises(WorkspaceError, match="in the way"):
        registry.publish(workspace, "v1", weights("x"), {})
    assert registry.versions(workspace) == []


def publish_slowly(root: str, ready) -> None:
    def write(folder: Path) -> None:
        (folder / "weights.bin").write_text("half")
        ready.set()
        time.sleep(60)

    registry.publish(Workspace.open(root), "v1", write, {})


def test_publish_killed_half_way_is_invisible_and_swept_a_day_later(workspace: Workspace) -> None:
    ready = SERVER.Event()
    process = SERVER.Process(target=publish_slowly, args=(workspace.root, ready))
    process.start()
    assert ready.wait(60)
    process.kill()
    process.join(60)
    assert registry.versions(workspace) == []
    with pytest.raises(WorkspaceError, match="no model version 'v1'"):
        registry.promote(workspace, "v1", "too early")

    registry.publish(workspace, "v1", weights("whole"), {})
    assert (registry.folder(workspace, "v1") / "weights.bin").read_text() == "whole"
    models = Path(workspace.root, "models")
    (leftover,) = models.glob(".staging-*")  # young: its process might still be at work
    old = time.time() - registry.STALE_SECONDS - 60
    os.utime(leftover, (old, old))
    registry.publish(workspace, "v2", weights("x"), {})
    assert sorted(path.name for path in models.iterdir()) == ["v1", "v2"]


def publish_at_once(root: str, worker: int, barrier, rounds: int) -> None:
    workspace = Workspace.open(root)
    for number in range(rounds):
        barrier.wait()
        registry.publish(workspace, f"v{number}", weights(f"worker {worker}"), {"worker": worker})


def test_two_publishers_of_one_version_leave_one_whole(workspace: Workspace) -> None:
    rounds, barrier = 10, SERVER.Barrier(2)
    processes = [SERVER.Process(target=publish_at_once, args=(workspace.root, w, barrier, rounds)) for w in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0]
    for number in range(rounds):
        folder, worker = (
            registry.folder(workspace, f"v{number}"),
            registry.read_manifest(workspace, f"v{number}")["worker"],
        )
        assert (folder / "weights.bin").read_text() == f"worker {worker}"
        assert (folder / "nested" / "more.bin").read_text() == f"worker {worker}" * 2


def test_promote_and_rollback(published: Workspace) -> None:
    with pytest.raises(WorkspaceError, match="no champion yet"):
        registry.champion(published)
    with pytest.raises(WorkspaceError, match="no earlier champion"):
        registry.rollback(published)
    for version in ("v1", "v2", "v2", "v3"):
        registry.promote(published, version, "test")
        assert registry.champion(published) == version
    assert registry.rollback(published) == "v2"
    assert registry.rollback(published) == "v1"
    with pytest.raises(WorkspaceError, match="no earlier champion"):
        registry.rollback(published)
    registry.promote(published, "v3", "again")
    assert registry.rollback(published) == "v1"
    registry.promote(published, "v2", "and on")
    assert consistent(published) == ["v1", "v2", "v3", "v2", "v1", "v3", "v1", "v2"]
    assert registry.history(published)["action"].to_list() == [
        "promote", "promote", "promote", "rollback", "rollback", "promote", "rollback", "promote",
    ]  # fmt: skip


def test_random_promotions_and_rollbacks_agree_with_a_stack(published: Workspace) -> None:
    stack: list[str] = []
    rng = np.random.default_rng(4)
    for _ in range(30):
        choice = str(rng.choice(["v1", "v2", "v3", "back"]))
        if choice != "back":
            registry.promote(published, choice, "test")
            if stack[-1:] != [choice]:
                stack.append(choice)
        elif len(stack) > 1:
            stack.pop()
            assert registry.rollback(published) == stack[-1]
        if stack:
            assert registry.champion(published) == stack[-1]
    consistent(published)


def test_rollback_to_a_model_that_is_gone_is_refused(published: Workspace) -> None:
    registry.promote(published, "v1", "test")
    registry.promote(published, "v2", "test")
    Path(published.root, "models", "v1").rename(Path(published.root, "elsewhere"))
    with pytest.raises(WorkspaceError, match="no model version 'v1'"):
        registry.rollback(published)
    assert registry.champion(published) == "v2"


def promote_in_turn(root: str, own: list[str], times: int, outcomes) -> None:
    workspace = Workspace.open(root)
    for step, version in enumerate(itertools.islice(itertools.cycle(own), times)):
        try:
            registry.promote(workspace, version, f"{version} at step {step}")
        except WorkspaceError as error:
            outcomes.put(str(error))
        else:
            outcomes.put(f"{version} at step {step}")


def test_racing_promotions_lose_no_update(published: Workspace) -> None:
    # Each worker alternates between versions of its own, so that every promotion that returns must have made a row.
    registry.publish(published, "v4", weights("v4"), {})
    registry.promote(published, "v1", "start")
    queue, times = SERVER.Queue(), 12
    args = [(published.root, own, times, queue) for own in (["v2", "v1"], ["v3", "v4"])]
    processes = [SERVER.Process(target=promote_in_turn, args=arg) for arg in args]
    for process in processes:
        process.start()
    outcomes = [queue.get(timeout=60) for _ in range(2 * times)]
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0]
    consistent(published)
    won = [outcome for outcome in outcomes if "at step" in outcome]
    assert all("another process" in outcome for outcome in outcomes if outcome not in won)
    assert sorted(won) == sorted(registry.history(published)["reason"].to_list()[1:])
    assert len(won) >= times


def promote_for_ever(root: str, ready) -> None:
    workspace = Workspace.open(root)
    for step, version in enumerate(itertools.cycle(["v1", "v2", "v3"])):
        registry.promote(workspace, version, "endless")
        if step == 1:  # whoever was champion, at least one promotion has been made
            ready.set()


def test_twenty_kills_of_a_promoter(published: Workspace) -> None:
    rng = np.random.default_rng(1)
    last = 0
    for kill in range(20):
        ready = SERVER.Event()
        process = SERVER.Process(target=promote_for_ever, args=(published.root, ready))
        process.start()
        assert ready.wait(60)
        process.join(float(rng.uniform(0, 0.12)))
        process.kill()
        process.join(60)
        assert len(consistent(published)) >= last
        wanted = f"v{kill % 3 + 1}"
        registry.promote(published, wanted, "rerun")
        assert consistent(published)[-1] == registry.champion(published) == wanted
        last = len(consistent(published))
    assert last >= 20
