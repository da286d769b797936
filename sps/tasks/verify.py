"""Are two mathematical answers equal? math-verify says so, in helper processes that can be killed.

math-verify limits its own time by signals, which work in the main thread alone, and sympy can hang for hours. So the
comparison runs in small processes of their own; one that overruns is killed and replaced, and the answer is "timeout".
"""

import json
import queue
import select
import subprocess
import sys
from typing import Any

WARM_UP = 60.0  # seconds that a new helper may take to import sympy


class Timeout(Exception):
    """The comparison took longer than allowed."""


class Verifier:
    """Compares answers; may be called from any thread, `workers` at a time.

    Raises:
        ValueError: math-verify is not installed.
    """

    def __init__(self, workers: int, timeout: float) -> None:
        try:
            import math_verify  # noqa: F401
        except ImportError as error:
            raise ValueError("checking mathematical answers needs math-verify: pip install 'serm[sps]'") from error
        self.workers = workers
        self._timeout = timeout
        self._idle: queue.SimpleQueue[subprocess.Popen[str] | None] = queue.SimpleQueue()
        for _ in range(workers):
            self._idle.put(None)  # started when first needed

    def parseable(self, answer: str) -> bool:
        """Whether math-verify can read this gold answer."""
        return bool(self._ask({"gold": answer}))

    def equal(self, gold: str, completion: str) -> bool:
        """Whether the completion's final answer equals the gold one.

        Raises:
            Timeout: it could not be told in time.
        """
        return bool(self._ask({"gold": gold, "completion": completion}))

    def close(self) -> None:
        """End the idle helpers."""
        while True:
            try:
                helper = self._idle.get_nowait()
            except queue.Empty:
                return
            if helper is not None:
                helper.kill()
                helper.wait()

    def _ask(self, request: dict[str, str]) -> Any:
        helper = self._idle.get()
        try:
            if helper is None or helper.poll() is not None:
                helper = _started()
            helper.stdin.write(json.dumps(request) + "\n")  # type: ignore[union-attr]
            helper.stdin.flush()  # type: ignore[union-attr]
            return _answered(helper, self._timeout)
        except (Timeout, BrokenPipeError):
            if helper is not None:
                helper.kill()
                helper.wait()
            helper = None
            raise Timeout(f"no verdict within {self._timeout:g} seconds") from None
        finally:
            self._idle.put(helper)


def _started() -> "subprocess.Popen[str]":
    helper = subprocess.Popen(
        [sys.executable, "-m", "sps.tasks.verify"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    )
    _answered(helper, WARM_UP)
    return helper


def _answered(helper: "subprocess.Popen[str]", timeout: float) -> Any:
    assert helper.stdout is not None
    if not select.select([helper.stdout], [], [], timeout)[0]:
        raise Timeout
    line = helper.stdout.readline()
    if not line:
        raise Timeout  # it died
    return json.loads(line)


def serve() -> None:
    """What a helper does: a line in, {"gold", and perhaps "completion"}; a line out, true or false."""
    from math_verify import parse, verify

    sys.stdout.write("true\n")
    sys.stdout.flush()
    for line in sys.stdin:
        request = json.loads(line)
        gold = parse(f"${request['gold']}$", parsing_timeout=None) or parse(request["gold"], parsing_timeout=None)
        if "completion" in request:
            found = parse(request["completion"], parsing_timeout=None)
            answer = bool(gold) and bool(verify(gold, found, timeout_seconds=None))
        else:
            answer = bool(gold)
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    serve()
