"""Annotating pairs in this process: the graph's verdicts against votes counted with numpy, and who is asked what."""

import asyncio
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray

from serm.annotation.core import annotate_pairs
from serm.annotation.knowledge import knowledge_of
from serm.annotation.ledger import Ledger
from serm.annotation.llm import Answer, Messages, ProviderError, Reply
from serm.annotation.stand_in import StandInLLM
from serm.config import AnnotationSettings, AnnotatorSettings
from serm.records import ANNOTATIONS

SCALE = [0, 1, 2]
N = 200


class TableOfLabels:
    """Labels fixed by a random table per annotator, shape (pairs, 7)."""

    def __init__(self) -> None:
        rng = np.random.default_rng(5)
        truth = rng.integers(0, 3, N)
        self.tables = {
            name: np.where(rng.random((N, 7)) < 0.75, truth[:, None], rng.integers(0, 3, (N, 7)))
            for name in ("ada", "ben")
        }
        self.paths_asked = 0

    def labels(
        self, annotator: str, queries: Sequence[str], doc_ids: Sequence[str], paths: int, seed: int
    ) -> NDArray[np.int64]:
        return self.tables[annotator][[int(doc_id[1:]) for doc_id in doc_ids], :paths]


class Recorder:
    """An LLM that keeps what it was asked, and passes on or fails."""

    concurrency = 6

    def __init__(self, inner: StandInLLM, fails: Any = None) -> None:
        self.inner, self.fails = inner, fails
        self.model, self.address, self.parameters = inner.model, "there", inner.parameters
        self.asked: list[tuple[str, int, str, str]] = []  # doc_id, n, request key, prompt

    async def complete(self, messages: Messages, n: int, request_key: str, metadata: Mapping[str, str]) -> Reply:
        self.asked.append((metadata["doc_id"], n, request_key, messages[1]["content"]))
        if self.fails is not None:
            try:
                self.fails(len(self.asked), metadata)
            except ProviderError:
                await asyncio.sleep(0.02)  # retries take their time
                raise
        return await self.inner.complete(messages, n, request_key, metadata)

    async def close(self) -> None:
        pass


def documents() -> pl.DataFrame:
    return pl.DataFrame({"doc_id": [f"d{i}" for i in range(N)], "text": [f"Text number {i}." for i in range(N)]})


def pairs(n: int = N) -> pl.DataFrame:
    return pl.DataFrame({"query": [f"query {i % 17}" for i in range(n)], "doc_id": [f"d{i}" for i in range(n)]})


def recorders(table: TableOfLabels, **fails: Any) -> dict[str, Recorder]:
    return {name: Recorder(StandInLLM(table, name), fails.get(name)) for name in ("ada", "ben")}


def majority(row: NDArray[np.int64], support: float) -> int | None:
    counts = np.bincount(row, minlength=3)
    winners = np.flatnonzero((counts == counts.max()) & (counts > support * len(row) + 1e-9))
    return int(winners[0]) if len(winners) == 1 else None


@pytest.mark.parametrize("adaptive", [False, True])
@pytest.mark.parametrize(("paths", "support"), [(1, 0.5), (3, 0.5), (4, 0.5), (5, 0.7), (7, 0.3)])
def test_verdicts_are_the_votes(paths: int, support: float, adaptive: bool) -> None:
    table = TableOfLabels()
    settings = AnnotationSettings(paths=paths, minimum_support=support, adaptive=adaptive)
    llms = recorders(table)
    found = annotate_pairs(pairs(), documents(), llms, settings, SCALE)
    for row, query, (i, doc_id) in zip(
        found.iter_rows(named=True), pairs()["query"], enumerate(pairs()["doc_id"]), strict=True
    ):
        stable = {name: majority(table.tables[name][i, :paths], support) for name in ("ada", "ben")}
        label = stable["ada"] if stable["ada"] == stable["ben"] else None
        assert (row["query"], row["doc_id"], row["label"]) == (query, doc_id, label)
        assert row["status"] == ("review" if label is None else "kept")
        votes = json.loads(row["votes"])
        assert {name: vote["stable"] for name, vote in votes.items()} == stable
        for name, vote in votes.items():
            assert [path["label"] for path in vote["paths"]] == table.tables[name][i, : len(vote["paths"])].tolist()
        assert (row["rationale"] is None) == (label is None)
        assert (row["reason"] is None) == (label is not None)
    assert {row["status"] for row in found.iter_rows(named=True)} == {"kept", "review"}
    taken = sum(n for llm in llms.values() for _, n, _, _ in llm.asked)
    if adaptive and paths > 2:
        assert taken < 2 * N * paths
    else:
        assert taken == 2 * N * paths


def test_rows_fit_the_table_and_keep_the_order() -> None:
    shuffled = pairs().sample(fraction=1.0, shuffle=True, seed=3)
    found = annotate_pairs(shuffled, documents(), recorders(TableOfLabels()), AnnotationSettings(), SCALE)
    assert found.select("query", "doc_id").equals(shuffled)
    assert ANNOTATIONS.conform(found.with_columns(round=pl.lit(1))).height == N
    assert (found["calls"] >= 2).all()
    assert found["prompt_tokens"].min() > 0  # type: ignore[operator]


def test_equal_inputs_give_equal_outputs() -> None:
    first, second = (
        annotate_pairs(pairs(50), documents(), recorders(TableOfLabels()), AnnotationSettings(), SCALE)
        for _ in range(2)
    )
    assert first.equals(second)


def test_review_says_what_each_annotator_said() -> None:
    table = TableOfLabels()
    table.tables["ada"][0], table.tables["ben"][0] = 2, [0, 1, 2, 0, 0, 0, 0]
    row = annotate_pairs(pairs(1), documents(), recorders(table), AnnotationSettings(), SCALE).row(0, named=True)
    assert row["status"] == "review"
    assert row["reason"] == "ada: 2 (2× 2); ben: no stable label (1× 0, 1× 1, 1× 2)"
    assert json.loads(row["votes"])["ada"]["paths"][0]["reasoning"]


def test_the_ledger_answers_a_second_run_and_more_paths(tmp_path: Path) -> None:
    table = TableOfLabels()
    ledger = Ledger(tmp_path / "ledger.sqlite")
    first_llms, again, more = recorders(table), recorders(table), recorders(table)
    settings = AnnotationSettings(paths=3)
    first = annotate_pairs(pairs(40), documents(), first_llms, settings, SCALE, ledger)
    second = annotate_pairs(pairs(40), documents(), again, settings, SCALE, ledger)
    assert first.equals(second)
    assert all(not llm.asked for llm in again.values())
    wide = AnnotationSettings(paths=7, adaptive=False)
    third = annotate_pairs(pairs(40), documents(), more, wide, SCALE, ledger)
    assert third.drop("calls", "prompt_tokens", "completion_tokens", "votes").equals(
        annotate_pairs(pairs(40), documents(), recorders(table), wide, SCALE).drop(
            "calls", "prompt_tokens", "completion_tokens", "votes"
        )
    )
    paid = sum(n for llms in (first_llms, more) for llm in llms.values() for _, n, _, _ in llm.asked)
    assert paid == 2 * 40 * 7  # every path once, whoever asked for it


def test_an_open_intent_is_sent_again_under_its_key(tmp_path: Path) -> None:
    table = TableOfLabels()
    ledger = Ledger(tmp_path / "ledger.sqlite")

    def always(count: int, about: Mapping[str, str]) -> None:
        raise ProviderError("busy", request_at_fault=True)

    lost = recorders(table, ben=always)
    failed = annotate_pairs(pairs(5), documents(), lost, AnnotationSettings(), SCALE, ledger)
    assert set(failed["status"]) == {"failed"}
    assert set(failed["reason"]) == {"ben at there: busy"}
    healed = recorders(table)
    done = annotate_pairs(pairs(5), documents(), healed, AnnotationSettings(paths=5), SCALE, ledger)
    assert "failed" not in set(done["status"])
    first_asked = {doc_id: (n, key) for doc_id, n, key, _ in reversed(healed["ben"].asked)}
    assert first_asked == {doc_id: (n, key) for doc_id, n, key, _ in lost["ben"].asked}
    assert not {key for _, _, key, _ in healed["ada"].asked} & {key for _, _, key, _ in lost["ada"].asked}


def test_a_dead_endpoint_is_given_up_and_the_other_finishes() -> None:
    def dead(count: int, about: Mapping[str, str]) -> None:
        raise ProviderError("no connection")

    llms = recorders(TableOfLabels(), ben=dead)
    annotators = [
        AnnotatorSettings(name=name, model="m", give_up_after=4, breaker_pause=0.01, breaker_trials=2)
        for name in ("ada", "ben")
    ]
    found = annotate_pairs(pairs(), documents(), llms, AnnotationSettings(annotators=annotators), SCALE)
    assert set(found["status"]) == {"failed"}
    assert found["reason"].str.starts_with("ben at there: ").all()
    assert found["reason"].str.contains("not asked any more in this run: no connection").any()
    # 4 to open the breaker, those on their way then, and 2 to see whether the endpoint is back.
    assert 6 <= len(llms["ben"].asked) < 6 + Recorder.concurrency
    assert {doc_id for doc_id, *_ in llms["ada"].asked} == set(pairs()["doc_id"])


def test_bad_pairs_among_good_ones_do_not_end_an_annotator() -> None:
    def every_third(count: int, about: Mapping[str, str]) -> None:
        if int(about["doc_id"][1:]) % 3 == 0:
            raise ProviderError("HTTP 500")

    llms = recorders(TableOfLabels(), ben=every_third)
    annotators = [AnnotatorSettings(name=name, model="m", give_up_after=1) for name in ("ada", "ben")]
    found = annotate_pairs(pairs(), documents(), llms, AnnotationSettings(annotators=annotators), SCALE)
    failed = [int(doc_id[1:]) for doc_id in found.filter(pl.col("status") == "failed")["doc_id"]]
    assert failed == list(range(0, N, 3))


def test_a_missing_document_fails_without_a_call() -> None:
    llms = recorders(TableOfLabels())
    found = annotate_pairs(pairs(3), documents().tail(N - 1), llms, AnnotationSettings(), SCALE)
    assert found["status"].to_list()[0] == "failed"
    assert "'d0' is not in the documents table" in found["reason"][0]
    assert "d0" not in {doc_id for doc_id, *_ in llms["ada"].asked}
    assert "failed" not in found["status"].to_list()[1:]


def test_background_is_shown_and_never_the_document_itself() -> None:
    docs = documents().head(4)
    vectors = np.eye(4, dtype=np.float32)
    knowledge = knowledge_of(docs, vectors, lambda texts: np.tile(vectors[2], (len(texts), 1)), 1, 100)
    llms = recorders(TableOfLabels())
    annotate_pairs(pairs(4), docs, llms, AnnotationSettings(), SCALE, knowledge=knowledge)
    for doc_id, _, _, prompt in llms["ada"].asked:
        background = prompt.split("[begin document")[0]
        assert ("Text number 2." in background) == (doc_id != "d2")


class Scripted:
    """An LLM that says the same for every pair."""

    concurrency = 1

    def __init__(self, answers: list[Answer]) -> None:
        self.model, self.address, self.parameters = "scripted", "there", {}
        self.answers = answers

    async def complete(self, messages: Messages, n: int, request_key: str, metadata: Mapping[str, str]) -> Reply:
        return Reply(self.answers[int(metadata["path"]) :][:n], 1, 1)

    async def close(self) -> None:
        pass


def test_unreadable_paths_go_to_review_not_to_failed() -> None:
    good = Answer('{"reasoning": "yes", "label": 1}')
    bad = [Answer('{"reasoning": "", "label": 1}', "length"), Answer("1"), Answer(None, "stop", "no")]
    llms = {"ada": Scripted([good] * 3), "ben": Scripted(bad)}
    row = annotate_pairs(pairs(1), documents(), llms, AnnotationSettings(), SCALE).row(0, named=True)
    assert row["status"] == "review"
    outcomes = [path["outcome"] for path in json.loads(row["votes"])["ben"]["paths"]]
    assert outcomes == ["truncated", "unparseable"]  # two lost paths of three: nobody can win any more


def test_pairs_given_twice_and_no_annotators_are_refused() -> None:
    twice = pl.concat([pairs(2), pairs(1)])
    with pytest.raises(ValueError, match=r"'query 0', 'd0'.*twice"):
        annotate_pairs(twice, documents(), recorders(TableOfLabels()), AnnotationSettings(), SCALE)
    with pytest.raises(ValueError, match="no annotator"):
        annotate_pairs(pairs(1), documents(), {}, AnnotationSettings(), SCALE)


def test_works_inside_a_running_event_loop() -> None:
    async def notebook() -> pl.DataFrame:
        return annotate_pairs(pairs(3), documents(), recorders(TableOfLabels()), AnnotationSettings(), SCALE)

    assert asyncio.run(notebook()).height == 3


def test_no_pairs_no_rows() -> None:
    found = annotate_pairs(pairs(1).clear(), documents(), recorders(TableOfLabels()), AnnotationSettings(), SCALE)
    assert found.height == 0
    assert found.columns == [name for name in ANNOTATIONS.schema if name != "round"]
