"""Parts on a local Ray cluster of two workers: the same result, and a worker that is killed costs its part alone."""

import os
import signal
import sys
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from serm.config import MiningSettings
from serm.mining import distribution, partitions
from serm.mining.candidates import gather
from serm.mining.partitions import Cache, Part, compute, cut
from serm.records import IMPRESSIONS
from serm.workspace import Workspace

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
        for mine, theirs in zip(compute(log, part, ALONE), found[part], strict=True):
            assert mine.sort(mine.columns).equals(theirs.sort(theirs.columns))
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


def test_without_ray_the_error_says_how_to_install_it(
    log: pl.LazyFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ImportError, match=r"pip install 'serm\[ray\]'"):
        partitions.add_up(log, SPREAD, tmp_path)
