"""Equality of answers: what is marked is read, a hang costs its time once, and any thread may ask."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path

import pytest

from sps.config import TaskSettings
from sps.tasks.answers import final_answer, plain_number
from sps.tasks.verify import Verifier

TOWER = "\\boxed{9^{9^{9^{9^{9}}}}}"  # would fill the memory of any machine


@pytest.fixture(scope="module")
def verifier() -> Iterator[Verifier]:
    made = Verifier(workers=2, timeout=20.0)
    yield made
    made.close()


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("\\boxed{1} or rather \\boxed{\\frac{1}{2}}.", "\\frac{1}{2}"),
        ("\\boxed{3}. We may check that this answer is right.", "3"),
        ("the answer is 3. No, the answer is 4", "4"),
        ("the answer is \\boxed{\\{1, 2\\}}", "\\{1, 2\\}"),
        ("Answer: 5\nand more", "5"),
        ("**Answer:** 7", "7"),
        ("final answer = x", "x"),
        ("#### 1,234", "1,234"),
        ("Answer: ", ""),
        ("\\boxed{3", None),
        ("answer me: 4", None),
        ("just 4", None),
        ("", None),
    ],
)
def test_the_answer_marked_last(text: str, answer: str | None) -> None:
    assert final_answer(text) == answer


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("42", 42), ("-7.", -7), ("+3", 3), ("1,234", 1234), ("$1,234.50", Fraction(2469, 2)), ("**18**", 18),
        ("\\$5", 5), ("42 clips.", 42), ("0.1", Fraction(1, 10)), ("1,23", None), ("3 x", None), ("2x", None),
        ("\\$32,\\!348", 32348), ("1/2", None), ("", None), ("inf", None), ("1e5", None), ("9" * 200, None),
        ("4 5", None),
    ],
)  # fmt: skip
def test_plain_numbers(text: str, value: Fraction | None) -> None:
    assert plain_number(text) == value


@pytest.mark.parametrize(
    ("gold", "text", "right"),
    [
        ("72", "so 48 + 24 = 72\n#### 72", True),
        ("72", "Answer: 72 clips", True),
        ("72", "Answer: 73, not 72", False),
        ("72", "it makes 72 in all", True),  # unmarked: the last line
        ("72", "72 it is.\nOr so I think", False),
        ("\\frac{1}{2}", "\\boxed{0.5}", True),
        ("\\frac{1}{2}", "Answer: \\frac{2}{4}.", True),
        ("\\frac{1}{2}", "\\boxed{\\frac{2}{3}}", False),
        ("(x+1)^2", "\\boxed{x^2+2x+1}", True),
        ("3x+2", "the answer is $2 + 3x$", True),
        ("(0,3)", "\\boxed{(0, 3)}", True),
        ("10\\%", "\\boxed{0.1}", True),
        ("\\frac{2469}{20,\\!000}", "\\boxed{\\frac{2469}{20000}}", True),
        ("2", "\\boxed{1} \\boxed{2} \\boxed{3}", False),  # several answers are none
        ("5", "I cannot tell", False),
        ("5", "", False),
    ],
)
def test_equality(verifier: Verifier, gold: str, text: str, right: bool) -> None:
    assert verifier.right(text, gold) is right


def test_any_thread_may_ask(verifier: Verifier) -> None:
    pairs = [(f"\\boxed{{\\frac{{{i}}}{{7}}}}", f"{j}/7") for i in range(4) for j in range(4)]
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda pair: verifier.right(*pair), pairs))
    assert found == [i == j for i in range(4) for j in range(4)]


def test_a_hang_costs_its_time_once_and_nothing_else() -> None:
    verifier = Verifier(workers=1, timeout=0.6)
    verdicts, took = [], []

    def ask() -> None:
        began = time.monotonic()
        verdicts.append(verifier.judge(TOWER, "1"))
        took.append(time.monotonic() - began)

    thread = threading.Thread(target=ask)
    thread.start()
    thread.join(60)
    assert [(v.reward, v.correct, v.problem) for v in verdicts] == [(None, False, "timeout")]
    assert took[0] >= 0.6
    verifier.timeout = 20.0
    assert verifier.right("\\boxed{x+1}", "1+x")  # the same process, which has nothing to make good
    verifier.close()


def test_a_killed_process_is_replaced() -> None:
    verifier = Verifier(workers=1, timeout=20.0)
    process = verifier._idle.get()
    verifier._idle.put(process)
    os.kill(process.popen.pid, signal.SIGKILL)
    process.popen.wait()
    with pytest.raises(RuntimeError, match="ended"):
        verifier.right("\\boxed{x+1}", "1+x")
    assert verifier.right("\\boxed{x+1}", "1+x")
    verifier.close()
    assert process.popen.poll() is not None


def test_readable_answers(verifier: Verifier) -> None:
    told: list[int] = []
    golds = ["42", "\\frac{1}{2}", "x^2", "???", "", "\\text{Evelyn}", "???", "[2,\\infty)"]
    assert verifier.readable(golds, told.append) == [True, True, True, False, False, True, False, True]
    assert sum(told) == len(golds)


def test_an_answer_that_takes_too_long_is_not_readable() -> None:
    verifier = Verifier(workers=1, timeout=1e-5)
    assert verifier.readable(["x+1", "42", "y"], lambda count: None) == [False, True, False]
    verifier.close()


def test_timeouts_of_the_math_task_are_counted(tmp_path: Path) -> None:
    from sps.tasks import load_task
    from sps.tasks.judge import judge_all

    path = tmp_path / "p.jsonl"
    path.write_text('{"problem": "p", "answer": "x+1"}\n', encoding="utf-8")
    task = load_task(TaskSettings(name="math", test=str(path), workers=2, timeout=3.0))
    example = task.examples("test")[0]
    verdicts = judge_all(task, [(text, example) for text in ("\\boxed{1+x}", TOWER, "\\boxed{x}")], 2, 3.0)
    assert [v.reward for v in verdicts] == [1.0, None, 0.0]
    assert verdicts[1].problem == "timeout"
