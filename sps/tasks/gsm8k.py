"""GSM8K: word problems of grade school; the gold answer follows #### in a worked solution (arXiv 2110.14168)."""

from collections.abc import Sequence
from pathlib import Path

from sps.config import TaskSettings
from sps.records import Example, Verdict
from sps.tasks.answers import final_answer, plain_number
from sps.tasks.files import read_splits
from sps.tasks.verify import Verifier

INSTRUCTION = "\n\nReason step by step, then finish with a line of the form: Answer: 42"


class Gsm8k:
    """Right where the final answer equals the gold number."""

    name = "gsm8k"

    def __init__(self, settings: TaskSettings) -> None:
        """Read the files that task.train and task.test name.

        Raises:
            ValueError: no file is named, one is unusable, or a row lacks its question or a number after ####.
        """
        self._splits = {
            split: [_example(row, f"{split}-{number}", path, number) for number, row in rows]
            for split, path, rows in read_splits(settings)
        }
        self._verifier = Verifier(settings.workers, settings.timeout)

    def examples(self, split: str) -> Sequence[Example]:
        """Problems of "train" or "test", in the file's order; empty where no file was named."""
        return self._splits[split]

    def judge(self, completion: str, example: Example) -> Verdict:
        """1 for an equal final answer, else 0; no reward where that cannot be told in time."""
        return self._verifier.judge(completion, example.answer)


def _example(row: dict[str, object], name: str, path: Path, number: int) -> Example:
    question, solution = row.get("question"), row.get("answer")
    if not isinstance(question, str) or not question.strip():
        raise ValueError(f"{path}, row {number}: GSM8K needs a 'question'")
    gold = final_answer(solution) if isinstance(solution, str) and "####" in solution else None
    if gold is None or plain_number(gold) is None:
        raise ValueError(f"{path}, row {number}: GSM8K needs an 'answer' that ends with #### and a number")
    return Example(name, question.strip() + INSTRUCTION, gold)
