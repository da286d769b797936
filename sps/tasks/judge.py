"""Verdicts on many completions at once, from threads, each with a time limit that a hanging reward cannot break.

A Python thread cannot be killed. One that overruns is left behind, its completion counts as "timeout", and a new
thread takes its place; it is a daemon, so that it does not keep the program alive.
"""

import math
import queue
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass

from sps.records import Example, Task, Verdict

TICK = 0.05  # seconds between looks at who overruns


@dataclass
class Assignment:
    """What a thread works on: which pair, since when; `left` once it overran and nobody waits for it any more."""

    index: int = -1
    since: float = 0.0
    left: bool = False


def judge_all(task: Task, pairs: Sequence[tuple[str, Example]], workers: int, timeout: float) -> list[Verdict]:
    """The task's verdict on every (completion, example), in order.

    A judge that raises, overruns `timeout` seconds, or gives a reward that is no finite number, yields a verdict
    without reward whose `problem` says which: "raised: <error>", "timeout", "not a number".
    """
    verdicts: dict[int, Verdict] = {}
    todo: queue.SimpleQueue[int] = queue.SimpleQueue()
    for index in range(len(pairs)):
        todo.put(index)
    done = threading.Event()
    lock = threading.Lock()

    def settle(index: int, verdict: Verdict, assignment: Assignment) -> None:
        with lock:
            if not assignment.left:
                verdicts[index] = verdict
                assignment.index = -1
            if len(verdicts) == len(pairs):
                done.set()

    def work(assignment: Assignment) -> None:
        while not assignment.left:
            try:
                index = todo.get_nowait()
            except queue.Empty:
                return
            with lock:
                assignment.index, assignment.since = index, time.monotonic()
            settle(index, _judged(task, *pairs[index]), assignment)

    def start() -> Assignment:
        assignment = Assignment()
        threading.Thread(target=work, args=(assignment,), daemon=True, name="judge").start()
        return assignment

    if not pairs:
        return []
    crew = [start() for _ in range(min(workers, len(pairs)))]
    while not done.wait(TICK):
        for i, assignment in enumerate(crew):
            with lock:
                overran = assignment.index >= 0 and time.monotonic() - assignment.since > timeout
                if overran:
                    assignment.left = True
                    verdicts[assignment.index] = Verdict(None, False, problem="timeout")
                    if len(verdicts) == len(pairs):
                        done.set()
            if overran:
                crew[i] = start()
    return [verdicts[index] for index in range(len(pairs))]


def _judged(task: Task, completion: str, example: Example) -> Verdict:
    try:
        verdict = task.judge(completion, example)
    except (Exception, SystemExit) as error:  # noqa: BLE001  a user's function may raise anything; it is counted
        return Verdict(None, False, problem=f"raised: {type(error).__name__}: {error}"[:200])
    if verdict.problem:
        return verdict
    reward = verdict.reward
    if isinstance(reward, bool) or not isinstance(reward, (int, float)) or not math.isfinite(reward):
        return Verdict(None, False, problem="not a number")
    return verdict
