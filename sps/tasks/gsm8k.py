"""GSM8K: grade-school word problems; the gold answer follows #### in the worked solution."""

import re
from collections.abc import Sequence
from decimal import Decimal, InvalidOperation
from pathlib import Path

from sps.config import TaskSettings
from sps.records import Example, Verdict
from sps.tasks.files import read_rows

INSTRUCTION = "\n\nSolve it step by step, then finish with a line of the form: #### 42"
_NUMBER = r"-?[\d,]*\.?\d+"
_MARKED = re.compile(rf"(?:####|\\boxed{{|answer\s*(?:is|:))[\s$*:]*({_NUMBER})", re.IGNORECASE)
_ANY = re.compile(_NUMBER)


class Gsm8k:
    """Right where the completion's final number equals the gold one."""

    name = "gsm8k"

    def __init__(self, settings: TaskSettings) -> None:
        """Read the files that task.train and task.test name.

        Raises:
            ValueError: a file is missing, or a row lacks its question or a number after ####.
        """
        self._splits = {"train": _read(settings.train, "train"), "test": _read(settings.test, "test")}

    def examples(self, split: str) -> Sequence[Example]:
        """Problems of "train" or "test", in the file's order; empty where no file was named."""
        return self._splits[split]

    def judge(self, completion: str, example: Example) -> Verdict:
        """1 where the number that is marked as the answer, else the last number, equals the gold one; else 0."""
        found = final_number(completion)
        correct = found is not None and found == Decimal(example.answer)
        return Verdict(float(correct), correct)


def final_number(text: str) -> Decimal | None:
    """The last number marked by ####, \\boxed or "answer is"; where none is, the last number; None without any."""
    found = _MARKED.findall(text) or _ANY.findall(text)
    try:
        return Decimal(found[-1].replace(",", "")) if found else None
    except InvalidOperation:
        return None


def _read(path: str | None, split: str) -> list[Example]:
    examples = []
    for number, row in enumerate(read_rows(Path(path)) if path else [], 1):
        question, _, gold = row.get("question"), *str(row.get("answer", "")).rpartition("####")[1:]
        answer = final_number(gold)
        if not question or "####" not in str(row.get("answer", "")) or answer is None:
            raise ValueError(f"{path}, row {number}: needs a `question` and an `answer` with a number after ####")
        examples.append(Example(f"{split}-{number}", str(question) + INSTRUCTION, str(answer)))
    return examples
