"""Mathematical problems with a final answer: MATH, AIME, AMC, or any file with a problem and an answer."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sps import progress
from sps.config import TaskSettings
from sps.records import Example, Verdict
from sps.tasks.answers import final_answer
from sps.tasks.files import Row, read_splits
from sps.tasks.verify import Verifier

INSTRUCTION = "\n\nReason step by step, and put the final answer within \\boxed{}."
PROBLEM = ("problem", "question", "prompt")
ANSWER = ("answer", "final_answer", "solution")
LEVEL = ("level", "difficulty", "subject", "type", "source")
NAMED = 5  # unreadable rows that a message names


class MathProblems:
    """Right where math-verify finds the final answer equal to the gold one."""

    name = "math"

    def __init__(self, settings: TaskSettings) -> None:
        """Read the files and check that every gold answer is mathematics.

        Raises:
            ValueError: no file is named, one is unusable, a row has no problem, or its answer cannot be read and
                task.unreadable is "error".
        """
        self._verifier = Verifier(settings.workers, settings.timeout)
        self._splits = {split: self._read(split, path, rows, settings) for split, path, rows in read_splits(settings)}

    def examples(self, split: str) -> Sequence[Example]:
        """Problems of "train" or "test", in the file's order; empty where no file was named."""
        return self._splits[split]

    def judge(self, completion: str, example: Example) -> Verdict:
        """1 for an equal final answer, else 0; no reward where that cannot be told in time."""
        return self._verifier.judge(completion, example.answer)

    def _read(self, split: str, path: Path, rows: Sequence[Row], settings: TaskSettings) -> list[Example]:
        golds = [gold_answer(row) for _, row in rows]
        with progress.track(f"reading the answers of {path.name}", len(golds)) as advance:
            readable = self._verifier.readable(golds, advance)
        bad = [(number, gold) for (number, _), gold, good in zip(rows, golds, readable, strict=True) if not good]
        if bad:
            shown = "; ".join(f"row {number}: {gold!r}" for number, gold in bad[:NAMED])
            said = f"{path}: {len(bad)} of {len(rows)} answers cannot be read ({shown}{'; ...' if bad[NAMED:] else ''})"
            if settings.unreadable == "error" or len(bad) == len(rows):
                raise ValueError(f"{said}; mend them, or leave them out with task.unreadable=skip")
            progress.note(f"{said}; they are left out")
        return [
            Example(f"{split}-{number}", _problem(row, path, number) + INSTRUCTION, gold, _level(row))
            for (number, row), gold, good in zip(rows, golds, readable, strict=True)
            if good
        ]


def gold_answer(row: dict[str, Any]) -> str:
    r"""A row's final answer: the field itself, or what it marks with \boxed{} or #### in a worked solution; or ""."""
    text = next((str(row[name]) for name in ANSWER if row.get(name) not in (None, "")), "")
    marked = final_answer(text) if "\\boxed" in text or "####" in text else None
    return (text if marked is None else marked).strip().strip("$").rstrip(".,; ")


def _problem(row: dict[str, Any], path: Path, number: int) -> str:
    for name in PROBLEM:
        if isinstance(row.get(name), str) and row[name].strip():
            return str(row[name]).strip()
    raise ValueError(f"{path}, row {number}: has no problem; name it {', '.join(PROBLEM)}")


def _level(row: dict[str, Any]) -> str:
    value = next((row[name] for name in LEVEL if row.get(name) not in (None, "")), "")
    return f"{value:g}" if isinstance(value, float) else str(value)
