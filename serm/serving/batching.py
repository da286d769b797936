"""Requests that wait are scored together: one queue, one worker thread.

A batch is one or more whole requests, scored by one version. The first request of a batch waits `wait_ms` at most for
others; while a batch is scored, the next one gathers by itself.
"""

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field

from serm.config import ServingSettings
from serm.serving.champion import Scored, Served


class QueueFullError(Exception):
    """Too many pairs wait already; `seconds` is when to ask again."""

    def __init__(self, seconds: int) -> None:
        super().__init__(f"the queue is full; ask again in {seconds} s")
        self.seconds = seconds


@dataclass(frozen=True)
class Answer:
    """One request's scores, in the order of its documents, and how many tokens they took."""

    scored: Scored
    tokens: int


@dataclass
class _Job:
    query: str
    documents: list[str]
    future: "Future[Answer]" = field(default_factory=Future)
    arrived: float = field(default_factory=time.monotonic)


class Batcher:
    """The queue and its worker."""

    def __init__(
        self, current: Callable[[], Served], settings: ServingSettings,
        observe: Callable[[int, float], None] = lambda pairs, seconds: None,
    ) -> None:  # fmt: skip
        """`current` gives the version for the next batch; `observe` is told each batch's pairs and seconds."""
        self._current, self._settings, self._observe = current, settings, observe
        self._jobs: deque[_Job] = deque()
        self._waiting = 0  # pairs in the queue
        self._seconds_a_pair = 0.0  # of the last batches, smoothed
        self._condition = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="scoring", daemon=True)

    @property
    def waiting(self) -> int:
        """Pairs in the queue."""
        return self._waiting

    def start(self) -> None:
        """Start the worker."""
        self._thread.start()

    def close(self) -> None:
        """Score what waits, then end the worker."""
        with self._condition:
            self._closed = True
            self._condition.notify_all()
        self._thread.join()

    async def score(self, query: str, documents: list[str]) -> Answer:
        """Wait for the scores of one query's documents.

        Raises:
            QueueFullError: too many pairs wait already.
            TimeoutError: no answer within `request_seconds`; a request that still waits is taken from the queue.
        """
        job = self._put(query, documents)
        return await asyncio.wait_for(asyncio.wrap_future(job.future), self._settings.request_seconds)

    def _put(self, query: str, documents: list[str]) -> _Job:
        job = _Job(query, documents)
        with self._condition:
            if self._closed or self._waiting + len(documents) > self._settings.queue_pairs:
                raise QueueFullError(max(1, round(self._waiting * self._seconds_a_pair)))
            self._jobs.append(job)
            self._waiting += len(documents)
            self._condition.notify_all()
        return job

    def _work(self) -> None:
        while jobs := self._gather():
            self._score(jobs)

    def _gather(self) -> list[_Job]:
        """The next batch; empty when the queue is closed and empty. Requests that nobody waits for are left out."""
        with self._condition:
            while True:
                while not self._jobs and not self._closed:
                    self._condition.wait()
                if not self._jobs:
                    return []
                until = self._jobs[0].arrived + self._settings.wait_ms / 1_000
                while self._waiting < self._settings.batch_pairs and not self._closed:
                    left = until - time.monotonic()
                    if left <= 0:
                        break
                    self._condition.wait(left)
                batch: list[_Job] = []
                pairs = 0
                while self._jobs and (not batch or pairs + len(self._jobs[0].documents) <= self._settings.batch_pairs):
                    job = self._jobs.popleft()
                    self._waiting -= len(job.documents)
                    if job.future.set_running_or_notify_cancel():
                        batch.append(job)
                        pairs += len(job.documents)
                if batch:
                    return batch

    def _score(self, jobs: list[_Job]) -> None:
        """Answer every request of a batch; one that the model cannot score fails alone."""
        served, began = self._current(), time.monotonic()
        try:
            answers = _answers(served, jobs)
        except Exception as error:  # noqa: BLE001  it reaches the request that caused it
            if len(jobs) == 1:
                jobs[0].future.set_exception(error)
                return
            for job in jobs:
                self._score([job])
            return
        pairs, seconds = sum(len(job.documents) for job in jobs), time.monotonic() - began
        before = self._seconds_a_pair or seconds / pairs
        self._seconds_a_pair = 0.8 * before + 0.2 * seconds / pairs
        self._observe(pairs, seconds)
        for job, answer in zip(jobs, answers, strict=True):
            job.future.set_result(answer)


def _answers(served: Served, jobs: list[_Job]) -> list[Answer]:
    queries = [job.query for job in jobs for _ in job.documents]
    documents = [document for job in jobs for document in job.documents]
    scored = served.score(queries, documents)
    tokens = served.tokens([job.query for job in jobs] + documents)
    answers, start = [], 0
    for number, job in enumerate(jobs):
        stop = start + len(job.documents)
        part = Scored(scored.version, scored.scores[start:stop], scored.shares[start:stop])
        counted = tokens[number] + sum(tokens[len(jobs) + start : len(jobs) + stop])
        answers.append(Answer(part, counted))
        start = stop
    return answers
