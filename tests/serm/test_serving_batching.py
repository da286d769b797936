"""The queue without a network or a model: who is scored with whom, who fails alone, who is turned away."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import cast

import numpy as np
import pytest

from serm.config import ServingSettings
from serm.serving.batching import Answer, Batcher, QueueFullError
from serm.serving.champion import Scored, Served


@dataclass
class Lengths:
    """Stands for a loaded version: a document's score is its length; `gate` holds the first batch back."""

    version: str
    gate: threading.Event = field(default_factory=threading.Event)
    batches: list[list[str]] = field(default_factory=list)

    def score(self, queries: list[str], documents: list[str]) -> Scored:
        self.batches.append(documents)
        self.gate.wait(10)
        if "poison" in documents:
            raise ValueError("cannot read this")
        scores = np.array([len(document) for document in documents], dtype=np.float32)
        return Scored(self.version, scores, scores / 100)

    def tokens(self, texts: list[str]) -> list[int]:
        return [len(text.split()) for text in texts]


@contextmanager
def batching(current: list[Lengths], **settings: float) -> Iterator[Batcher]:
    batcher = Batcher(lambda: cast(Served, current[-1]), ServingSettings(wait_ms=0, **settings))  # type: ignore[arg-type]
    batcher.start()
    try:
        yield batcher
    finally:
        for one in current:
            one.gate.set()
        batcher.close()


async def behind(batcher: Batcher, one: Lengths, requests: list[list[str]]) -> list[Answer | BaseException]:
    """Send a first request, and when it is being scored the others; then let go."""
    first = asyncio.create_task(batcher.score("first", ["a b c"]))
    while not one.batches:
        await asyncio.sleep(0.001)
    rest = [asyncio.create_task(batcher.score("two words", documents)) for documents in requests]
    while batcher.waiting < sum(map(len, requests)):
        await asyncio.sleep(0.001)
    one.gate.set()
    return await asyncio.gather(first, *rest, return_exceptions=True)


def test_requests_that_wait_are_scored_together_whole_and_in_order() -> None:
    one = Lengths("one")
    with batching([one], batch_pairs=5) as batcher:
        requests = [["x"], ["xx", "yy"], ["abc"] * 3, ["long"] * 9, ["z"]]
        answers = asyncio.run(behind(batcher, one, requests))
    assert [len(batch) for batch in one.batches] == [1, 3, 3, 9, 1]  # what is larger than a batch goes alone
    for documents, answer in zip([["a b c"], *requests], answers, strict=True):
        assert isinstance(answer, Answer)
        assert answer.scored.scores.tolist() == [len(document) for document in documents]
    assert [answer.tokens for answer in answers[:3] if isinstance(answer, Answer)] == [4, 3, 4]


def test_a_request_that_the_model_cannot_score_fails_alone() -> None:
    one = Lengths("one")
    with batching([one]) as batcher:
        _, good, bad, also = asyncio.run(behind(batcher, one, [["x"], ["y", "poison"], ["zz"]]))
    assert isinstance(good, Answer)
    assert isinstance(also, Answer)
    assert (good.scored.scores.tolist(), also.scored.scores.tolist()) == ([1], [2])
    assert isinstance(bad, ValueError)


def test_a_new_version_answers_from_the_next_batch_on() -> None:
    one, two = Lengths("one"), Lengths("two")
    current = [one]
    with batching(current) as batcher:

        async def promote() -> list[Answer]:
            first = asyncio.create_task(batcher.score("q", ["a"]))
            while not one.batches:
                await asyncio.sleep(0.001)
            current.append(two)
            two.gate.set()
            one.gate.set()
            return [await first, await batcher.score("q", ["b"])]

        assert [answer.scored.version for answer in asyncio.run(promote())] == ["one", "two"]


def test_a_full_queue_turns_away_and_a_late_request_leaves_it() -> None:
    one = Lengths("one")
    with batching([one], queue_pairs=10, max_documents=10, request_seconds=0.2) as batcher:

        async def crowd() -> None:
            first = asyncio.create_task(batcher.score("q", ["a"]))
            while not one.batches:
                await asyncio.sleep(0.001)
            late = asyncio.create_task(batcher.score("q", ["b"] * 8))
            while batcher.waiting < 8:
                await asyncio.sleep(0.001)
            with pytest.raises(QueueFullError) as full:
                await batcher.score("q", ["c"] * 3)
            assert full.value.seconds >= 1
            for task in (first, late):
                with pytest.raises(TimeoutError):
                    await task
            one.gate.set()

        asyncio.run(crowd())
    assert one.batches == [["a"]]  # nobody waited for the other any more
