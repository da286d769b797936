"""Equality of answers by math-verify, with a time limit that holds in any thread.

math-verify's own limit is a signal, which works in the main thread alone and does not reach into C code. Here the
comparison runs in another process, where it can be killed.
"""

import json
import queue
import re
import subprocess
import sys
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from sps.records import Verdict
from sps.tasks.answers import final_answer, plain_number

BATCH = 50  # gold answers read in one fork

_FRACTION = re.compile(r"-?\\[dt]?frac\{-?\d+\}\{\d*[1-9]\d*\}")


class VerifyTimeoutError(Exception):
    """A comparison took longer than its limit."""


class Verifier:
    """Compares answers; thread-safe, up to `workers` comparisons at once.

    Attributes:
        timeout: seconds for one comparison.
    """

    def __init__(self, workers: int, timeout: float) -> None:
        """Start the processes and wait until they are ready, a second or two.

        Raises:
            ValueError: math-verify is not installed.
        """
        if find_spec("math_verify") is None:
            raise ValueError("this task's answers are checked by math-verify: pip install 'serm[sps]'")
        self.timeout = timeout
        processes = [_Process() for _ in range(workers)]
        self._workers = workers
        self._idle: queue.SimpleQueue[_Process] = queue.SimpleQueue()
        self._end = weakref.finalize(self, _stop, processes)
        for process in processes:
            if not process.ready():
                raise ValueError("math-verify's process does not start; try: python -c 'import math_verify'")
            self._idle.put(process)

    def close(self) -> None:
        """End the processes; they end by themselves too when the program does."""
        self._end()

    def judge(self, completion: str, gold: str) -> Verdict:
        """1 for an equal final answer, 0 for another; no reward where that cannot be told within the time limit."""
        try:
            correct = self.right(completion, gold)
        except VerifyTimeoutError:
            return Verdict(None, False, problem="timeout")
        return Verdict(float(correct), correct)

    def right(self, completion: str, gold: str) -> bool:
        """Whether a completion's final answer equals the gold one.

        The final answer is what is marked last (see `final_answer`); without a mark, what math-verify finds in the last
        line. Plain numbers are compared here, exactly; the rest by math-verify (numbers to six decimals).

        Raises:
            VerifyTimeoutError: the comparison was stopped.
            RuntimeError: it died.
        """
        answer = final_answer(completion)
        if answer is None:
            text = next((line for line in reversed(completion.splitlines()) if line.strip()), "")
        else:
            text = answer if "$" in answer else f"\\boxed{{{answer}}}"
            number, wanted = plain_number(answer), plain_number(gold)
            if number is not None and wanted is not None:
                return number == wanted
        return bool(text) and bool(self._ask({"gold": gold, "answer": text}))

    def readable(self, golds: Sequence[str], advance: Callable[[int], None]) -> list[bool]:
        """For each gold answer, whether it can be read as mathematics within the time limit; `advance` is told how many
        more are known."""
        hard = list(
            dict.fromkeys(gold for gold in golds if plain_number(gold) is None and not _FRACTION.fullmatch(gold))
        )
        advance(len(golds) - len(hard))
        batches = [hard[i : i + BATCH] for i in range(0, len(hard), BATCH)]
        found: dict[str, bool] = {}
        with ThreadPoolExecutor(self._workers) as pool:
            for batch, results in zip(batches, pool.map(self._read, batches), strict=True):
                found |= dict(zip(batch, results, strict=True))
                advance(len(batch))
        return [found.get(gold, True) for gold in golds]

    def _read(self, golds: list[str]) -> list[bool]:
        try:
            return list(self._ask({"golds": golds}))
        except (VerifyTimeoutError, RuntimeError):
            if len(golds) == 1:
                return [False]
            return [each for gold in golds for each in self._read([gold])]  # one of them hangs, or all were slow

    def _ask(self, request: dict[str, Any]) -> Any:
        process = self._idle.get()
        try:
            reply = process.ask(request | {"timeout": self.timeout})
            if reply is None:  # killed from outside, perhaps for memory
                process.start()
                raise RuntimeError("the checking process ended")
        finally:
            self._idle.put(process)
        if reply.get("problem") == "timeout":
            raise VerifyTimeoutError
        if "problem" in reply:
            raise RuntimeError(reply["problem"])
        return reply["result"]


class _Process:
    """One checking process and its pipes."""

    def __init__(self) -> None:
        self.start()

    def start(self) -> None:
        """-P: the program's own folder must not come before the standard library; a session of its own, so that
        Ctrl-C reaches the trainer alone. It ends when its input does."""
        program = str(Path(__file__).with_name("checking.py"))
        self.popen = subprocess.Popen(
            [sys.executable, "-P", program],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip

    def ready(self) -> bool:
        """Wait for its first word; False where it ended instead."""
        return self._read() is not None

    def ask(self, request: dict[str, Any]) -> dict[str, Any] | None:
        """Its reply; None where it ended."""
        text = json.dumps(request).encode() + b"\n"
        try:
            if self.popen.stdin is not None:
                self.popen.stdin.write(text)
                self.popen.stdin.flush()
        except BrokenPipeError:
            return None
        reply = self._read()
        return self._read() if reply == {"ready": True} else reply

    def stop(self) -> None:
        with self.popen:  # closes the pipes and waits
            self.popen.kill()

    def _read(self) -> dict[str, Any] | None:
        line = self.popen.stdout.readline() if self.popen.stdout is not None else b""
        return json.loads(line) if line else None


def _stop(processes: Sequence[_Process]) -> None:
    for process in processes:
        process.stop()
