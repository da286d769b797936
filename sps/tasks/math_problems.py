"""Problems with a final mathematical answer: MATH, AIME, AMC, or any file with a problem and an answer."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from sps import progress
from sps.config import TaskSettings
from sps.records import Example, Verdict
from sps.tasks.files import read_rows
from sps.tasks.verify import Timeout, Verifier

PROBLEM = ("problem", "question")
ANSWER = ("answer", "final_answer", "solution")
LEVEL = ("level", "difficulty", "type", "source")
INSTRUCTION = "\n\nReason step by step, and put your final answer within \\boxed{}."


class MathProblems:
    """Right where math-verify finds the completion's final answer equal to the gold one."""

    name = "math"

    def __init__(self, settings: TaskSettings) -> None:
        """Read the files and check that every gold answer can be read.

        Raises:
            ValueError: a file is missing, or a row lacks problem or answer, or its answer cannot be read.
        """
        self._verifier = Verifier(settings.workers, settings.timeout)
        self._splits = {split: self._read(split, getattr(settings, split)) for split in ("train", "test")}

    def examples(self, split: str) -> Sequence[Example]:
        """Problems of "train" or "test", in the file's order; empty where no file was named."""
        return self._splits[split]

    def judge(self, completion: str, example: Example) -> Verdict:
        """1 for an equal final answer, else 0; no reward where it cannot be told in time."""
        try:
            correct = self._verifier.equal(example.answer, completion)
        except Timeout:
            return Verdict(None, False, problem="timeout")
        return Verdict(float(correct), correct)

    def _read(self, split: str, path: str | None) -> list[Example]:
        if path is None:
            return []
        rows = read_rows(Path(path))
        golds = [gold_of(row, f"{path}, row {i}") for i, row in enumerate(rows, 1)]
        with progress.track(f"reading the answers of {Path(path).name}", len(golds)) as advance:
            with ThreadPoolExecutor(self._verifier.workers) as threads:
                for i, readable in enumerate(threads.map(self._readable, golds), 1):
                    if not readable:
                        raise ValueError(
                            f"{path}, row {i}: the answer {golds[i - 1]!r} cannot be read; mend or drop it"
                        )
                    advance(1)
        return [
            Example(f"{split}-{i}", _first(row, PROBLEM, f"{path}, row {i}") + INSTRUCTION, gold, _level(row))
            for i, (row, gold) in enumerate(zip(rows, golds, strict=True), 1)
        ]

    def _readable(self, gold: str) -> bool:
        try:
            return self._verifier.parseable(gold)
        except Timeout:
            return False


def gold_of(row: dict[str, Any], where: str) -> str:
    """A row's gold answer; of a worked solution what its last \\boxed{} holds."""
    text = _first(row, ANSWER, where)
    return boxed(text) or text


def boxed(text: str) -> str:
    """What the last \\boxed{...} of a text holds, brackets balanced; "" where there is none."""
    start = text.rfind("\\boxed{")
    depth = 0
    for i in range(start, len(text)) if start >= 0 else ():
        depth += {"{": 1, "}": -1}.get(text[i], 0)
        if text[i] == "}" and depth == 0:
            return text[start + len("\\boxed{") : i]
    return ""


def _first(row: dict[str, Any], names: Sequence[str], where: str) -> str:
    for name in names:
        if row.get(name) not in (None, ""):
            return str(row[name])
    raise ValueError(f"{where}: has none of the fields {', '.join(names)}")


def _level(row: dict[str, Any]) -> str:
    return next((str(row[name]) for name in LEVEL if row.get(name) not in (None, "")), "")
