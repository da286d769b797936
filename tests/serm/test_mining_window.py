"""A whole window through the graph: precision, balance, determinism, budget, and the verb over a workspace."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zlib import crc32

import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray

from serm import registry
from serm.config import Config, MiningSettings, ShiftSettings
from serm.mining import Mined, mine, mine_window
from serm.mining.history import SCHEMA, VALUES
from serm.mining.mine import windows
from serm.records import AGENTS, IMPRESSIONS, MINED, STAGES
from serm.workspace import Workspace, WorkspaceError

QUERIES, DOCUMENTS, RESULTS = 120, 400, 10
NOTHING = pl.DataFrame(schema={"query": pl.String, "doc_id": pl.String})
CONFIG = Config(
    labels={"scale": [0, 1], "names": {0: "no", 1: "yes"}},
    shift=ShiftSettings(sample=300, minimum=20, clusters=6, scored=100),
    mining=MiningSettings(quiet_share=0.25, quantile=0.9, per_query=3),
)


def embed(texts: Sequence[str]) -> NDArray[np.float32]:
    """A fixed random direction a text."""
    rows = np.stack([np.random.default_rng(crc32(text.encode())).normal(size=16) for text in texts])
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def lot(*parts: str) -> float:
    """A number in 0..1 fixed by the text."""
    return crc32("|".join(parts).encode()) / 2**32


def relevant(query: str, doc: str) -> bool:
    return lot("truth", query, doc) < 0.2


class Fallible:
    """Right on most pairs and sure of it; where it is wrong it is often, but not always, in doubt."""

    def __init__(self) -> None:
        self.scale = [0, 1]
        self.asked = 0

    def chance(self, query: str, document: str) -> float:
        doc = document.split()[-1]
        truth, luck, doubt = relevant(query, doc), lot("luck", query, doc), lot("doubt", query, doc)
        wrong = luck < 0.15
        sure = 0.1 * doubt if (not wrong and doubt < 0.9) or (wrong and doubt < 0.4) else 0.35 + 0.15 * doubt
        return 1 - sure if truth != wrong else sure

    def probabilities(self, queries: Sequence[str], documents: Sequence[str]) -> NDArray[np.float32]:
        self.asked += len(queries)
        p = np.array([self.chance(q, d) for q, d in zip(queries, documents, strict=True)], dtype=np.float32)
        return np.stack([1 - p, p], axis=1)

    def judgments(
        self, queries: Sequence[str], documents: Sequence[str], passes: int, seed: int
    ) -> NDArray[np.float32]:
        p = self.probabilities(queries, documents)[:, 1:]
        noise = np.random.default_rng(seed).normal(size=(len(queries), passes))
        return (p + 0.5 * p * (1 - p) * noise).clip(0, 1).astype(np.float32)


def stream(sessions: int, seed: int, first_query: int = 0, start: datetime | None = None) -> pl.DataFrame:
    """Honest users: a session asks one query, sees ten results, clicks what is relevant and sometimes what is not."""
    rng = np.random.default_rng(seed)
    rows = []
    begin = start or datetime(2026, 1, 20, tzinfo=UTC)
    for session in range(sessions):
        query = f"query {first_query + min(rng.integers(QUERIES), rng.integers(QUERIES))}"
        pool = np.random.default_rng(crc32(query.encode())).choice(DOCUMENTS, 20, replace=False)
        for position, number in enumerate(rng.choice(pool, RESULTS, replace=False), 1):
            doc = f"d{number}"
            wanted = relevant(query, doc)
            clicked = rng.random() < (0.6 if wanted else 0.05) * 0.85 ** (position - 1)
            dwell = float(rng.lognormal(4.0 if wanted else 2.3, 0.5)) if clicked else None
            score = Fallible().chance(query, f"title {doc}")
            ts = begin + timedelta(minutes=session)
            rows.append((ts, f"{seed}-{session}", query, doc, position, bool(clicked), dwell, score))
    names = ["ts", "session", "query", "doc_id", "position", "clicked", "dwell", "score"]
    return IMPRESSIONS.conform(pl.DataFrame(rows, schema=names, orient="row", infer_schema_length=None))


def documents() -> pl.DataFrame:
    ids = [f"d{i}" for i in range(DOCUMENTS)]
    return pl.DataFrame({"doc_id": ids, "title": [f"title {i}" for i in ids], "text": [f"title {i}" for i in ids]})


@pytest.fixture(scope="module")
def log() -> tuple[pl.DataFrame, pl.DataFrame]:
    return stream(900, 1), stream(900, 2, first_query=60)


def run(
    log: tuple[pl.DataFrame, pl.DataFrame],
    budget: int = 150,
    agents: Sequence[str] = AGENTS,
    exclude: pl.DataFrame = NOTHING,
) -> Mined:
    return mine_window(*log, documents(), Fallible(), embed, exclude, CONFIG, budget, 0, agents)


def precision(pairs: pl.DataFrame) -> float:
    """Share of pairs whose true label the model has wrong."""
    model = Fallible()
    wrong = [(model.chance(q, f"title {d}") > 0.5) != relevant(q, d) for q, d in pairs.select("query", "doc_id").rows()]
    return float(np.mean(wrong))


def test_mined_pairs_are_wrong_far_more_often_than_random_ones(log: tuple[pl.DataFrame, pl.DataFrame]) -> None:
    mined, drawn = run(log).pairs, run(log, agents=("random",)).pairs
    assert mined.height == drawn.height == 150
    assert precision(mined) >= 2.5 * precision(drawn)


def test_agents_share_the_budget_and_labels_are_of_both_kinds(log: tuple[pl.DataFrame, pl.DataFrame]) -> None:
    mined = run(log)
    assert set(mined.by_agent) == {*AGENTS, "random"}
    assert all(mined.by_agent[agent] >= 150 / 8 for agent in AGENTS)
    assert mined.by_agent["random"] == 8  # a twentieth, rounded up
    positives = np.mean([relevant(q, d) for q, d in mined.pairs.select("query", "doc_id").rows()])
    assert 0.2 < positives < 0.8


def test_pairs_fit_the_table_and_keep_the_rules(log: tuple[pl.DataFrame, pl.DataFrame]) -> None:
    mined = run(log)
    assert MINED.conform(mined.pairs.with_columns(round=pl.lit(1))).height == 150
    assert mined.pairs.select("query", "doc_id").is_unique().all()
    assert mined.pairs["query"].value_counts()["count"].max() <= 3
    drawn = pl.col("agents").list.contains("random")
    assert mined.pairs.filter(~drawn)["priority"].is_between(0, 1, closed="both").all()
    assert mined.pairs.filter(drawn)["agents"].to_list() == [["random"]] * 8  # and nobody else's
    for agent in AGENTS:
        took = mined.pairs.filter(pl.col("agents").list.contains(agent))
        assert took.height == mined.by_agent[agent]
        assert took[agent].null_count() == 0
    assert mined.candidates == log[1].select("query", "doc_id").unique().height
    assert mined.shift.verdict == "strong"
    assert mined.pairs["cluster"].null_count() == 0


def test_equal_inputs_give_equal_pairs_in_any_row_order(log: tuple[pl.DataFrame, pl.DataFrame]) -> None:
    one = run(log)
    again = run((log[0].reverse(), log[1].sample(fraction=1, shuffle=True, seed=5)))
    assert one.pairs.equals(again.pairs)
    assert one.shift.to_dict() == again.shift.to_dict()
    assert one.considered.equals(again.considered)


def test_equal_labels_give_equal_pairs_in_any_row_order(log: tuple[pl.DataFrame, pl.DataFrame]) -> None:
    first = run(log)
    key = ["query", "doc_id"]
    labelled = first.pairs.select(*key, "agents").join(first.considered.select(*key, *VALUES), on=key)
    wrong = pl.Series("wrong", [lot("wrong", *pair) < 0.4 for pair in labelled.select(key).rows()])
    told = labelled.with_columns(wrong, round=pl.lit(1, pl.Int32)).select(SCHEMA.names())
    exclude = first.pairs.select(key)
    one, again, without = (
        mine_window(log[0], log[1], documents(), Fallible(), embed, exclude, CONFIG, 100, 1, history=rows)
        for rows in (told, told.sample(fraction=1, shuffle=True, seed=3), None)
    )
    assert one.pairs.equals(again.pairs)
    assert one.shares == again.shares
    assert not one.pairs.equals(without.pairs)  # the labels did change something
    assert one.pairs["cluster"].value_counts()["count"].max() <= 50  # mining.per_cluster


def test_excluded_pairs_stay_out_and_the_next_round_is_new(log: tuple[pl.DataFrame, pl.DataFrame]) -> None:
    first = run(log).pairs.select("query", "doc_id")
    second = run(log, exclude=first).pairs.select("query", "doc_id")
    assert second.height == 150
    assert first.join(second, on=["query", "doc_id"]).is_empty()


def test_quiet_stream_costs_a_quarter(log: tuple[pl.DataFrame, pl.DataFrame]) -> None:
    quiet = run((log[0], stream(900, 3)), budget=100)
    assert quiet.shift.verdict == "none"
    assert quiet.pairs.height == 25


@pytest.mark.parametrize("agent", AGENTS)
def test_each_agent_alone(log: tuple[pl.DataFrame, pl.DataFrame], agent: str) -> None:
    mined = run(log, budget=60, agents=(agent,))
    assert mined.by_agent == {agent: 57, "random": 3}
    assert precision(mined.pairs) > 1.5 * precision(run(log, 400, ("random",)).pairs)


def test_budget_beyond_the_quantile_lowers_the_cut(log: tuple[pl.DataFrame, pl.DataFrame]) -> None:
    mined = run(log, budget=330, agents=("uncertainty",))  # ten per cent of the candidates are fewer
    assert mined.pairs.height == 330 > 0.1 * mined.candidates


def test_logged_scores_need_no_model(log: tuple[pl.DataFrame, pl.DataFrame]) -> None:
    config = CONFIG.model_copy(update={"mining": CONFIG.mining.model_copy(update={"scores": "logged"})})
    mined = mine_window(*log, documents(), None, embed, NOTHING, config, 60, 0)
    assert set(mined.by_agent) == {"feedback", "click", "random"}
    assert mined.pairs.height == 60
    assert {"score", "clicks", "dwell"} <= {view.name for view in mined.shift.views}
    assert precision(mined.pairs) >= 2.5 * precision(run(log, 600, ("random",)).pairs)
    with pytest.raises(ValueError, match="need the model"):
        mine_window(*log, documents(), None, embed, NOTHING, config, 60, 0, ("uncertainty",))
    blind = (log[0], log[1].with_columns(score=pl.lit(None, pl.Float64)))
    with pytest.raises(ValueError, match="'score' is null"):
        mine_window(*blind, documents(), None, embed, NOTHING, config, 60, 0)


def test_one_bot_click_mines_nothing(log: tuple[pl.DataFrame, pl.DataFrame]) -> None:
    """A bot that pushes one document everywhere, with and without a believable number of clicks a session."""
    target, query = "d399", "query 61"
    attack = pl.concat(
        [
            log[1].head(clicks).with_columns(
                session=pl.lit(f"bot-{i}"), query=pl.lit(query), doc_id=pl.lit(target), clicked=True, dwell=pl.lit(0.4),
                position=pl.int_range(1, clicks + 1, dtype=pl.Int32),
            )
            for i, clicks in enumerate([1] * 40 + [10] * 10)
        ]
    )  # fmt: skip
    mined = run((log[0], pl.concat([log[1], attack])), agents=("feedback", "click"), budget=60).pairs
    assert mined.filter(query=query, doc_id=target).is_empty()


def test_cascade_bounds_what_the_model_scores(log: tuple[pl.DataFrame, pl.DataFrame]) -> None:
    mining = CONFIG.mining.model_copy(update={"candidates": 200, "judged": 50})
    model = Fallible()
    config = CONFIG.model_copy(update={"mining": mining})
    mined = mine_window(*log, documents(), model, embed, NOTHING, config, 20, 0)
    assert 200 + 50 <= model.asked - 2 * CONFIG.shift.scored <= 201 + 50  # one pair of twenty is drawn at random
    assert set(mined.considered["stage"]) <= set(STAGES)
    assert mined.considered.height in (200, 201)


def test_a_window_with_nothing_new_is_empty(log: tuple[pl.DataFrame, pl.DataFrame]) -> None:
    mined = run(log, exclude=log[1].select("query", "doc_id").unique())
    assert (mined.pairs.height, mined.candidates, mined.pairs.schema) == (0, 0, MINED.empty().drop("round").schema)


def test_wrong_calls_say_what_is_wrong(log: tuple[pl.DataFrame, pl.DataFrame]) -> None:
    with pytest.raises(ValueError, match="no mining agent 'oracle'"):
        run(log, agents=("oracle",))
    with pytest.raises(ValueError, match="at least 1"):
        run(log, budget=0)
    with pytest.raises(ValueError, match="needs a relevance model"):
        mine_window(*log, documents(), None, embed, NOTHING, CONFIG, 10, 0)


# --- the verb -----------------------------------------------------------------------------------------------------


@pytest.fixture
def filled(tmp_path: Path, log: tuple[pl.DataFrame, pl.DataFrame], monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """A workspace with a month of traffic and a champion; the champion's weights and embeddings are stand-ins."""
    shift = "shift: {sample: 300, minimum: 20, clusters: 6, scored: 100}"
    workspace = Workspace.create(tmp_path / "w", f"labels: {{scale: [0, 1], names: {{0: 'no', 1: 'yes'}}}}\n{shift}\n")
    month_ago = datetime(2026, 1, 1, tzinfo=UTC)
    workspace.append("impressions", stream(300, 1, start=month_ago))
    workspace.append("impressions", stream(900, 2, first_query=60))
    workspace.append("documents", documents())
    registry.publish(workspace, "v1", lambda folder: (folder / "weights").write_text(""), {})
    registry.promote(workspace, "v1", "test")
    monkeypatch.setattr("serm.relevance.load", lambda folder, settings, scale: Fallible())
    monkeypatch.setattr("serm.relevance.embedding.embed", lambda texts, settings: embed(texts))
    return workspace


def test_mine_writes_a_round_once(filled: Workspace) -> None:
    first = mine(filled, budget=50)
    assert (first.round, first.mined, first.already) == (1, 50, False)
    assert first.verdict == "strong"
    rows, version = filled.read("mined"), filled.version("mined")
    again = mine(filled, budget=70)
    assert (again.round, again.mined, again.already, again.by_agent) == (1, 50, True, first.by_agent)
    assert filled.version("mined") == version
    assert rows["round"].unique().to_list() == [1]
    assert filled.read("runs")["status"].sort().to_list() == ["finished", "started"]


def test_next_round_comes_when_all_pairs_are_annotated(filled: Workspace) -> None:
    mine(filled, budget=50)
    first = filled.read("mined")
    done = first.select("round", "query", "doc_id", status=pl.lit("kept"), votes=pl.lit("{}"), calls=pl.lit(6))
    filled.append("annotations", done.head(49))
    assert mine(filled).round == 1
    filled.append("annotations", done)
    second = mine(filled, budget=50)
    assert second.round == 2
    rows = filled.read("mined")
    assert rows.height == 100
    assert rows.select("query", "doc_id").is_unique().all()


def test_the_windows_are_by_time(filled: Workspace) -> None:
    reference, current = windows(filled)
    assert current.select(pl.col("session").str.starts_with("2-").all()).collect().item()
    assert reference.select(pl.len()).collect().item() == 300 * RESULTS


def test_judged_queries_stand_in_for_a_missing_reference(filled: Workspace) -> None:
    filled.config.window.reference_days = 0.001
    judged = pl.DataFrame({"query": [f"query {i}" for i in range(80)], "doc_id": "d1", "grade": 1, "judge": "person"})
    filled.append("judgments", judged.with_columns(split=pl.lit("train")))
    summary = mine(filled, budget=20)
    assert [view["name"] for view in summary.report["views"]] == ["text", "kernel", "words", "clusters"]
    mined = filled.read("mined").select("query", "doc_id")
    assert mined.join(judged, on=["query", "doc_id"]).is_empty()


def test_mine_says_what_is_missing(tmp_path: Path, log: tuple[pl.DataFrame, pl.DataFrame]) -> None:
    workspace = Workspace.create(tmp_path / "w")
    with pytest.raises(WorkspaceError, match="no impressions"):
        mine(workspace)
    workspace.append("impressions", log[1].head(10))
    with pytest.raises(WorkspaceError, match="no champion"):
        mine(workspace)
    with pytest.raises(ValueError, match="numbered from 1"):
        mine(workspace, round=0)
