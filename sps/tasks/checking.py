"""The process that compares answers with math-verify, run as a program by `sps.tasks.verify`.

Requests and replies are lines of JSON on standard input and output. Each request is worked on in a fork, which is
killed when its time is over: algebra can hang inside C code, where neither a signal nor a thread would end it.
"""

import json
import logging
import os
import resource
import select
import signal
import sys
import time
from typing import Any

WARM_UP = (r"\frac{1}{2}", r"\sqrt{2}+3\pi", r"(1,2)", r"[2,\infty)", r"x^2+3x-1", r"\text{even}", r"\{1,2\}", r"10\%")
MEMORY = 4 << 30  # bytes of address space that one request may use


def serve() -> None:
    """Answer requests until standard input ends."""
    import math_verify  # noqa: F401, imported before the forks, which then need not

    logging.disable(logging.CRITICAL)
    for text in WARM_UP:  # parsers fill caches as they go, which every fork inherits
        answer({"gold": text, "answer": f"\\boxed{{{text}}}"})
    _reply({"ready": True})
    for line in sys.stdin.buffer:
        request = json.loads(line)
        _reply(_in_fork(request))


def answer(request: dict[str, Any]) -> Any:
    """The result of one request.

    {"gold": text, "answer": text}: whether the answer equals the gold one.
    {"golds": [text, ...]}: for each, whether math-verify can read it as mathematics.
    """
    from math_verify import parse, verify

    if "golds" in request:
        parsed = [parse(_latex(gold), parsing_timeout=None) for gold in request["golds"]]
        return [any(not isinstance(found, str) for found in each) for each in parsed]
    gold = parse(_latex(request["gold"]), parsing_timeout=None)
    found = parse(_joined(request["answer"]), parsing_timeout=None)
    return bool(verify(gold, found, timeout_seconds=None))


def _latex(gold: str) -> str:
    return f"\\boxed{{{_joined(gold)}}}"


def _joined(text: str) -> str:
    r"""20,\!000 as 20000, which math-verify does not read otherwise."""
    return text.replace(r",\!", "")


def _in_fork(request: dict[str, Any]) -> dict[str, Any]:
    """{"result": ...}, {"problem": "timeout"}, or {"problem": "raised: ..."} where the fork died."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read)
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        try:
            result = {"result": answer(request)}
        except Exception as error:  # noqa: BLE001, whatever the algebra raises is the caller's to count
            result = {"problem": f"raised: {type(error).__name__}"}
        os.write(write, json.dumps(result).encode())
        os._exit(0)
    os.close(write)
    text, deadline = b"", time.monotonic() + request["timeout"]
    try:
        while True:
            ready, _, _ = select.select([read], [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                return {"problem": "timeout"}
            piece = os.read(read, 1 << 16)
            if not piece:
                return json.loads(text) if text else {"problem": "raised: the comparison died"}
            text += piece
    finally:
        os.close(read)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def _reply(message: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    serve()
