"""The backtest's cut and its arithmetic."""

import json
from typing import ClassVar

import numpy as np
import polars as pl
import pytest

from serm.config import Config
from serm.configure import load
from serm.evolution.compare import summarise
from serm.evolution.plot import page
from serm.evolution.scenario import cut, windows
from serm.evolution.strategies import Lab, gather_labels

CONFIG = """
labels: {scale: [0, 1]}
backtest: {start_queries: 20, dev_queries: 5, old_queries: 10, fresh_queries: 12, stream_queries: 9, rounds: 3,
           sessions: 50, arrival_from: 2012}
"""


def collection() -> tuple[pl.DataFrame, pl.DataFrame]:
    years = list(range(2005, 2021))
    documents = pl.DataFrame(
        [(f"d{y}-{i}", f"film {y} {i}", f"film {y} no {i}", json.dumps({"year": y})) for y in years for i in range(4)],
        schema=["doc_id", "title", "text", "attributes"], orient="row",
    )  # fmt: skip
    rows = [(f"search {y} {n}", f"d{y}-{i}", int(i == n % 4)) for y in years for n in range(6) for i in range(4)]
    return pl.DataFrame(rows, schema=["query", "doc_id", "grade"], orient="row"), documents


@pytest.fixture
def config() -> Config:
    return load(CONFIG)


def queries(frame: pl.DataFrame) -> set[str]:
    return set(frame["query"])


def test_the_cut_is_by_arrival_and_nothing_overlaps(config: Config) -> None:
    scenario = cut(*collection(), config, seed=1)
    parts = [scenario.start, scenario.dev, scenario.old, scenario.fresh, *scenario.eras]
    assert [len(queries(part)) for part in parts] == [20, 5, 10, 12, 9, 9, 9]
    assert len(set.union(*map(queries, parts))) == 74
    year = {q: int(q.split()[1]) for part in parts for q in queries(part)}
    assert all(year[q] <= 2012 for part in parts[:3] for q in queries(part))
    assert all(year[q] > 2012 for part in parts[3:] for q in queries(part))
    ends = [(min(year[q] for q in queries(era)), max(year[q] for q in queries(era))) for era in scenario.eras]
    assert ends[0][1] <= ends[1][0] <= ends[1][1] <= ends[2][0]


def test_seeds_share_the_held_out_queries_only(config: Config) -> None:
    one, other = cut(*collection(), config, seed=1), cut(*collection(), config, seed=2)
    assert queries(one.fresh) == queries(other.fresh)
    assert queries(one.old) == queries(other.old)
    assert queries(one.start) != queries(other.start)


def test_the_logs_hold_only_their_own_queries(config: Config) -> None:
    scenario = cut(*collection(), config, seed=1)
    logs = windows(scenario, config.backtest, config, 1)
    assert len(logs) == 4
    for log, era in zip(logs, [scenario.start, *scenario.eras], strict=True):
        assert queries(log) <= queries(era)
        assert log["score"].null_count() == log.height


def test_too_small_a_collection_is_refused(config: Config) -> None:
    config.backtest.fresh_queries = 90
    with pytest.raises(ValueError, match=r"48 judged queries arrive after year 2012, 117 are needed"):
        cut(*collection(), config, seed=1)


class Indifferent:
    """A model that finds every pair irrelevant."""

    scale: ClassVar = [0, 1]

    def probabilities(self, queries: list[str], documents: list[str]) -> np.ndarray:
        return np.tile(np.array([1.0, 0.0], dtype=np.float32), (len(queries), 1))


def test_calls_are_counted_for_disputed_pairs_too_and_only_agreed_ones_teach(config: Config) -> None:
    config.mining.budget = 30
    config.simulate_llm.correlation = 0.0
    config.simulate_llm.confusion = [[0.6, 0.4], [0.4, 0.6]]
    judgments, documents = collection()
    scenario = cut(judgments, documents, config, seed=1)
    logs = windows(scenario, config.backtest, config, 1)
    lab = Lab(scenario, judgments, documents, config, lambda texts: np.zeros((len(texts), 2), dtype=np.float32))
    labelled = gather_labels("random", lab, Indifferent(), logs[0], logs[1], [], 1)  # type: ignore[arg-type]
    facts = labelled.facts
    assert facts["kept"] == labelled.pairs.height < facts["mined"] == 30
    assert facts["calls"] >= 2 * facts["mined"]  # two annotators, each asked at least once about every pair
    truth = labelled.mined.join(judgments, on=["query", "doc_id"])
    assert facts["precision"] == pytest.approx((truth["grade"] == 1).mean())


def cell(seed: int, strategy: str, values: list[float]) -> dict[str, object]:
    measured = {"query": ["a", "b"], "nDCG@1": values, "nDCG@10": values}
    return {"seed": seed, "strategy": strategy, "rounds": [], "fresh": [measured], "old": measured}


def test_differences_are_paired_by_query_over_the_mean_of_seeds() -> None:
    cells = [
        cell(0, "static", [0.0, 1.0]), cell(1, "static", [0.2, 0.8]),
        cell(0, "serm", [0.5, 1.0]), cell(1, "serm", [0.7, 0.9]),
    ]  # fmt: skip
    result = summarise(cells, resamples=500, seed=0)
    (row,) = [r for r in result["differences"] if r["split"] == "fresh" and r["measure"] == "nDCG@1"]
    # a: 0.6 - 0.1 = 0.5; b: 0.95 - 0.9 = 0.05
    assert row["mean"] == pytest.approx(27.5)
    assert (row["low"], row["high"]) == (pytest.approx(5.0), pytest.approx(50.0))
    assert result["table"][0]["fresh nDCG@1"].startswith("50.0 ")


def test_the_page_needs_no_network_and_shows_every_strategy() -> None:
    result = summarise([cell(0, "static", [0.0, 1.0]), cell(0, "serm", [0.5, 1.0])], resamples=500, seed=0)
    html = page(result)
    assert 'src="http' not in html
    assert html.count("<td>serm</td>") == 5  # once in the table, four times among the differences
    assert "75.0 [50.0, 100.0]" in html
