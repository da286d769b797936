"""Reading logs for click models: slices of whole lists, patterns counted once, samples of sessions, plain files."""

from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from serm import clicks
from serm.clicks import BASELINES, MODELS, Patterns, patterns, slices
from serm.clicks.model import COLUMNS
from serm.clicks.users import World
from serm.config import ClickSettings

WORLD = World.of(queries=20, documents=12, zipf=1, seed=0)
KNOWN = [*MODELS, *BASELINES]


def numbers(model: Any) -> dict[str, Any]:
    return {field.name: getattr(model, field.name) for field in fields(model) if field.name != "pairs"}


def same(one: Any, two: Any) -> bool:
    """Bit for bit."""
    parts, others = numbers(one), numbers(two)
    equal = all(np.array_equal(parts[name], others[name], equal_nan=name == "gamma") for name in parts)
    return equal and type(one) is type(two) and one.pairs.table.equals(two.pairs.table)


@pytest.fixture(scope="module")
def log() -> pl.DataFrame:
    return WORLD.log("dbn", 2_000, seed=0, noise=0.1)


@pytest.mark.parametrize("instant", [False, True])
def test_slices_hold_every_row_once_and_lists_whole(log: pl.DataFrame, instant: bool) -> None:
    """Also where all rows have one timestamp, so that only the session tells them apart."""
    if instant:
        log = log.with_columns(ts=pl.lit(0).cast(log.schema["ts"]))
    found = list(slices.slices(log.sample(fraction=1, shuffle=True, seed=0).lazy(), rows=3_000))
    assert len(found) >= 7
    assert max(frame.height for frame in found) < 4_000
    assert all((frame.group_by("session", "query", "ts").len()["len"] == 10).all() for frame in found)
    order = ["session", "position"]
    assert pl.concat(found).sort(order).equals(log.select(COLUMNS).sort(order))


@pytest.mark.parametrize("name", KNOWN)
def test_streamed_in_batches_the_fit_is_the_same_bit_for_bit(
    log: pl.DataFrame, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = clicks.fit(name, ClickSettings(iterations=5), log)
    monkeypatch.setattr(slices, "SLICE_ROWS", 1_000)
    monkeypatch.setattr(slices.slices, "__defaults__", (1_000,))
    shuffled = log.sample(fraction=1, shuffle=True, seed=3).lazy()
    assert same(whole, clicks.fit(name, ClickSettings(iterations=5), shuffled))
    monkeypatch.setattr(patterns, "BATCH_ROWS", 700)
    batched = clicks.fit(name, ClickSettings(iterations=5), shuffled)  # sums are taken in another order
    one, two = numbers(whole), numbers(batched)
    for part in one.keys() - {"name"}:
        assert two[part] == pytest.approx(one[part], abs=1e-9), part


def test_equal_lists_are_counted_once(log: pl.DataFrame) -> None:
    read = Patterns.of(log)
    lists = log.sort("position").group_by("session", "query", "ts").agg("doc_id", "position", "clicked")
    different = lists.select("query", "doc_id", "position", "clicked").unique().height
    assert sum(batch.lists.times.size for batch in read.batches) == different < 1_500
    assert (read.lists, read.rows) == (2_000, 20_000)
    shown = np.zeros(read.pairs.size)
    for batch in read.batches:
        shown[batch.span] += batch.sums(batch.lists.weight)
    counted = log.group_by("query", "doc_id").len().sort("query", "doc_id")
    assert shown.tolist() == counted["len"].to_list()


def test_samples_are_of_sessions_and_held_out_ones_are_apart(log: pl.DataFrame) -> None:
    sample = slices.sampled(log.lazy(), 500, seed=1).collect()
    assert 400 < sample["session"].n_unique() < 600
    assert (sample.group_by("session").len()["len"] == 10).all()
    assert slices.sampled(log.lazy(), 500, seed=1).collect().equals(sample)
    assert not slices.sampled(log.lazy(), 500, seed=2).collect().equals(sample)
    assert slices.sampled(log.lazy(), 5_000, seed=1).collect().height == log.height
    rest, apart = slices.held_out(sample, 0.25, seed=1)
    assert rest.height + apart.height == sample.height
    assert 80 < apart["session"].n_unique() < 170
    assert not set(rest["session"]) & set(apart["session"])


@pytest.mark.parametrize("name", KNOWN)
def test_a_saved_model_comes_back_exactly(log: pl.DataFrame, name: str, tmp_path: Path) -> None:
    model = clicks.fit(name, ClickSettings(iterations=3), log)
    model.save(tmp_path / "deep" / "model")
    again = clicks.load(tmp_path / "deep" / "model")
    assert again.name == name
    assert same(model, again)
    assert again.predict(log).equals(model.predict(log))
    assert sorted(path.name for path in (tmp_path / "deep" / "model").iterdir()) == [
        "model.json", "pairs.parquet", "parameters.npz",
    ]  # fmt: skip


def test_a_save_is_whole_or_absent(log: pl.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = clicks.fit("dbn", ClickSettings(iterations=1), log)

    def fail(*_: Any, **__: Any) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(np, "savez", fail)
    with pytest.raises(OSError, match="disk full"):
        model.save(tmp_path / "model")
    assert list(tmp_path.iterdir()) == []
    monkeypatch.undo()
    with pytest.raises(ValueError, match="no click model here"):
        clicks.load(tmp_path / "model")
    model.save(tmp_path / "model")
    with pytest.raises(ValueError, match="already there"):
        model.save(tmp_path / "model")
    (tmp_path / "model" / "model.json").write_text('{"model": "x", "kind": "Unheard"}')
    with pytest.raises(ValueError, match="kind 'Unheard' is not one of Chain"):
        clicks.load(tmp_path / "model")
