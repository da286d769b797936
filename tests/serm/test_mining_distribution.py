"""Adding up and scoring on a Ray cluster of two workers: the same result, and a killed worker costs its part alone."""

import os
import shutil
import signal
import sys
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from serm import registry
from serm.config import MiningSettings
from serm.evolution.update import update
from serm.mining import asking, cache, distribution, mine, partitions
from serm.mining.asking import Answers, Question, Slice, Stored, here, on_ray
from serm.mining.cache import Remembering
from serm.mining.candidates import gather
from serm.mining.partitions import Cache, Part, compute, cut
from serm.records import IMPRESSIONS
from serm.relevance import load
from serm.simulate import simulate
from serm.workspace import Workspace, WorkspaceError

NOTHING = pl.LazyFrame(schema={"query": pl.String, "doc_id": pl.String})
DOCUMENTS = pl.LazyFrame({"doc_id": [f"d{i}" for i in range(20)]})
ALONE, SPREAD = MiningSettings(), MiningSettings(distribute="ray")


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> pl.LazyFrame:
    """Six days in a Delta table, as workers read it."""
    rng, size = np.random.default_rng(0), 6_000
    start = datetime(2026, 1, 5, tzinfo=UTC)
    clicked = rng.random(size) < 0.2
    frame = pl.DataFrame(
        {
            "ts": [start + timedelta(seconds=int(second)) for second in rng.integers(0, 6 * 86_400, size)],
            "session": [f"s{i}" for i in rng.integers(0, 300, size)],
            "query": [f"q{i}" for i in rng.integers(0, 40, size)],
            "doc_id": [f"d{i}" for i in rng.integers(0, 20, size)],
            "position": rng.integers(1, 11, size),
            "clicked": clicked,
            "dwell": pl.Series(np.where(clicked, rng.lognormal(3, 1, size), np.nan)).fill_nan(None),
            "locale": rng.choice(["de", "en"], size),
            "score": rng.random(size),
        }
    )
    workspace = Workspace.create(tmp_path_factory.mktemp("w") / "w")
    workspace.append("impressions", IMPRESSIONS.conform(frame))
    return workspace.scan("impressions")


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    ray = pytest.importorskip("ray", reason="Ray is not installed; pip install 'serm[ray]' runs this test")
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


def test_the_result_is_that_of_one_machine(cluster: None, log: pl.LazyFrame, tmp_path: Path) -> None:
    alone = gather(log, DOCUMENTS, NOTHING, ALONE)
    assert alone["click_sessions"].sum() > 300
    cache = Cache(tmp_path, "v")
    assert gather(log, DOCUMENTS, NOTHING, SPREAD, cache).equals(alone)
    assert len(list(cache.parts(SPREAD).iterdir())) == 6
    assert gather(log, DOCUMENTS, NOTHING, ALONE, cache).equals(alone)  # what workers kept serves one machine


def test_a_killed_worker_costs_only_its_part(cluster: None, log: pl.LazyFrame, tmp_path: Path) -> None:
    parts = cut(log)
    victim, calls, died = parts[2], tmp_path / "calls", tmp_path / "died"

    def watched(rows: pl.LazyFrame, part: Part, settings: MiningSettings) -> list[pl.DataFrame]:
        with calls.open("a") as file:
            file.write(f"{part.day}\n")
        if part == victim and not died.exists():
            died.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return compute(rows, part, settings)

    found = dict(distribution.by_ray(watched, log, parts, ALONE))
    assert died.exists()
    for part in parts:
        for ours, theirs in zip(compute(log, part, ALONE), found[part], strict=True):
            assert ours.sort(ours.columns).equals(theirs.sort(theirs.columns))
    counts = Counter(calls.read_text().split())
    assert counts == {str(part.day): 2 if part == victim else 1 for part in parts}


def test_finished_parts_stay_when_the_run_dies(cluster: None, log: pl.LazyFrame, tmp_path: Path) -> None:
    """Whoever collects the parts is killed after two: what had arrived is kept, and the next run computes four."""
    real, asked = distribution.by_ray, []

    def cut_short(*arguments: object) -> Iterator[tuple[Part, list[pl.DataFrame]]]:
        asked.append(len(arguments[2]))  # type: ignore[arg-type]
        for number, pair in enumerate(real(*arguments)):  # type: ignore[arg-type]
            if len(asked) == 1 and number == 2:
                raise KeyboardInterrupt
            yield pair

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(partitions.distribution, "by_ray", cut_short)
        with pytest.raises(KeyboardInterrupt):
            partitions.add_up(log, SPREAD, tmp_path)
        partitions.add_up(log, SPREAD, tmp_path)
    assert asked == [6, 4]


@pytest.fixture
def stored(space: Workspace) -> Stored:
    """A first model in a workspace's registry."""
    update(space)
    settings = space.config.relevance.model_dump_json()
    return Stored(space.root, registry.champion(space), settings, tuple(space.config.labels.scale))


QUERIES, TEXTS = [f"red shoe {i}" for i in range(30)], [f"{'blue' * (i % 5)} hat {i}" for i in range(30)]


def test_workers_say_what_the_model_says_and_what_they_said_is_kept(
    cluster: None, stored: Stored, space: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "SLICE", 8)
    model = load(registry.folder(space, stored.version), space.config.relevance, [0, 1])
    alone = Remembering([0, 1], here(model), tmp_path / "alone", "v")
    spread = Remembering([0, 1], on_ray(stored, 0), tmp_path / "spread", "v")
    assert np.allclose(spread.probabilities(QUERIES, TEXTS), alone.probabilities(QUERIES, TEXTS), atol=1e-6)
    judged = spread.judgments(QUERIES, TEXTS, 3, 7)
    assert np.allclose(judged, alone.judgments(QUERIES, TEXTS, 3, 7), atol=1e-5)

    def nobody(question: Question, slices: list[Slice]) -> Iterator[tuple[Slice, Answers]]:
        assert not slices
        return iter(())

    again = Remembering([0, 1], nobody, tmp_path / "spread", "v")
    assert np.array_equal(again.judgments(QUERIES, TEXTS, 3, 7), judged)


def test_a_killed_worker_costs_only_its_slice(cluster: None, stored: Stored, tmp_path: Path) -> None:
    slices = [Slice(i, QUERIES[i * 6 : i * 6 + 6], TEXTS[i * 6 : i * 6 + 6]) for i in range(5)]
    calls, died = tmp_path / "calls", tmp_path / "died"

    def watched(model: Stored, part: Slice, question: Question) -> Answers:
        with calls.open("a") as file:
            file.write(f"{part.number}\n")
        if part.number == 2 and not died.exists():
            died.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return asking.answer(model, part, question)

    question = Question("probabilities")
    found = {part.number: said for part, said in distribution.by_ray(watched, stored, slices, question)}
    assert died.exists()
    assert all(np.allclose(found[part.number], asking.answer(stored, part, question), atol=1e-6) for part in slices)
    assert Counter(calls.read_text().split()) == {"0": 1, "1": 1, "2": 2, "3": 1, "4": 1}


def test_a_workers_error_is_the_callers(cluster: None, stored: Stored) -> None:
    missing = Stored(stored.root, "no-such-version", stored.settings, stored.scale)
    with pytest.raises(WorkspaceError, match="no-such-version"):
        list(on_ray(missing, 0)(Question("probabilities"), [Slice(0, ["q"], ["d"])]))


def test_a_part_that_kills_every_worker_is_named(cluster: None) -> None:
    def deadly(shared: None, part: int, settings: None) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    with pytest.raises(RuntimeError, match="lost 4 times with its worker"):
        list(distribution.by_ray(deadly, None, [1], None))


def test_a_round_mined_by_workers_is_that_of_one_machine(cluster: None, space: Workspace, tmp_path: Path) -> None:
    update(space)
    simulate(space, queries=sorted(set(space.read("judgments").filter(split="hidden")["query"])))
    shutil.copytree(space.root, tmp_path / "spread")
    spread = Workspace.open(tmp_path / "spread", ["mining.distribute=ray"])
    assert mine(space).mined == mine(spread).mined
    rows = [each.read("mined").sort("query", "doc_id") for each in (space, spread)]
    assert rows[0].height > 10
    assert rows[0].select("query", "doc_id", "agents").equals(rows[1].select("query", "doc_id", "agents"))
    assert np.allclose(*(each["score"].to_numpy() for each in rows), atol=1e-5)


def test_without_ray_the_error_says_how_to_install_it(
    log: pl.LazyFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ValueError, match=r"pip install 'serm\[ray\]'"):
        partitions.add_up(log, SPREAD, tmp_path)
