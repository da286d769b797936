"""Verdicts on many completions: order, every way to fail, and hangs that cost their time once."""

import threading
import time
from collections.abc import Callable, Sequence

import numpy as np
import pytest

from sps.records import Example, Verdict
from sps.tasks.judge import judge_all

EXAMPLE = Example("x", "")


class Saying:
    """A task whose verdicts a function gives."""

    name = "saying"

    def __init__(self, verdict: Callable[[str], Verdict]) -> None:
        self._verdict = verdict

    def examples(self, split: str) -> Sequence[Example]:
        return []

    def judge(self, completion: str, example: Example) -> Verdict:
        return self._verdict(completion)


def judged(verdict: Callable[[str], Verdict], texts: Sequence[str], workers: int, timeout: float) -> list[Verdict]:
    return judge_all(Saying(verdict), [(text, EXAMPLE) for text in texts], workers, timeout)


@pytest.mark.parametrize("workers", [1, 3, 50])
def test_verdicts_come_in_order(workers: int) -> None:
    """Slow ones first, so that order by time of arrival would be another."""

    def late(text: str) -> Verdict:
        time.sleep(0.002 * (20 - int(text)))
        return Verdict(float(text), True, key=text)

    assert judged(late, [str(i) for i in range(20)], workers, 5.0) == [
        Verdict(float(i), True, str(i)) for i in range(20)
    ]
    assert judged(late, [], workers, 5.0) == []


def test_every_way_to_fail_is_told_apart_and_never_a_zero() -> None:
    def odd(text: str) -> Verdict:
        if text == "raise":
            raise KeyError("gold")
        if text == "exit":
            raise SystemExit(2)
        if text == "hang":
            time.sleep(2)
        rewards = {"nan": float("nan"), "inf": float("inf"), "none": None, "text": "1", "bool": True}
        return Verdict(rewards.get(text, 0.5), True)  # type: ignore[arg-type]

    texts = ["fine", "raise", "hang", "nan", "inf", "none", "text", "exit", "fine", "hang", "fine"]
    verdicts = judged(odd, texts, 2, 0.3)
    problems = [verdict.problem for verdict in verdicts]
    assert problems == [
        "", "raised: KeyError: 'gold'", "timeout", "not a number", "not a number", "not a number", "not a number",
        "raised: SystemExit: 2", "", "timeout", "",
    ]  # fmt: skip
    assert [v.reward for v in verdicts] == [None if problem else 0.5 for problem in problems]
    assert all(v.correct == (not v.problem) for v in verdicts)


def test_a_hang_is_left_behind_and_its_late_verdict_ignored() -> None:
    """Both threads hang at once: new ones do the rest, and what the old ones say later changes nothing."""
    let_go, said = threading.Event(), threading.Semaphore(0)

    def stuck(text: str) -> Verdict:
        if text == "hang":
            let_go.wait(30)
            said.release()
        return Verdict(1.0, True)

    verdicts = judged(stuck, ["hang", "hang", *"abcdefgh"], 2, 0.3)
    before = list(verdicts)
    let_go.set()
    assert all(said.acquire(timeout=10) for _ in range(2))
    time.sleep(0.05)
    assert verdicts == before == [Verdict(None, False, problem="timeout")] * 2 + [Verdict(1.0, True)] * 8


def test_hangs_wait_side_by_side() -> None:
    """All six are being judged at one time, which the barrier demands of them."""
    barrier = threading.Barrier(6)

    def together(text: str) -> Verdict:
        barrier.wait(20)
        time.sleep(3)
        return Verdict(1.0, True)

    assert [v.problem for v in judged(together, list("abcdef"), 6, 1.0)] == ["timeout"] * 6
    assert not barrier.broken


def test_a_task_may_give_its_own_problem() -> None:
    given = Verdict(None, False, problem="timeout")
    assert judged(lambda text: given, ["a"], 1, 1.0) == [given]


def test_numpy_rewards_of_a_task_are_numbers() -> None:
    assert judged(lambda text: Verdict(np.float64(0.25), False), ["a"], 1, 1.0)[0].reward == 0.25
