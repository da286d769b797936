"""A user's own task: a file of prompts, and a Python function that rewards."""

import asyncio
import importlib
import inspect
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from sps.config import TaskSettings
from sps.records import Example, Verdict
from sps.tasks.files import read_rows


class UserTask:
    """Prompts with whatever other fields their file has; `example.answer` gives the row to the function."""

    name = "user"

    def __init__(self, settings: TaskSettings) -> None:
        """Read the files and import the functions.

        Raises:
            ValueError: a file, a row's prompt or a function is missing.
        """
        if settings.reward is None:
            raise ValueError("task user needs task.reward=module:function, a function(completion, example) -> float")
        self._reward = load_function(settings.reward, "task.reward")
        self._key = load_function(settings.key, "task.key") if settings.key else None
        self._correct_at = settings.correct_at
        self._splits = {"train": _read(settings.train, "train"), "test": _read(settings.test, "test")}

    def examples(self, split: str) -> Sequence[Example]:
        """Problems of "train" or "test", in the file's order."""
        return self._splits[split]

    def judge(self, completion: str, example: Example) -> Verdict:
        """The function's reward; correct from `correct_at` on. What is no finite number is refused by judge_all."""
        reward = _called(self._reward, completion, example)
        try:
            correct = float(reward) >= self._correct_at
        except (TypeError, ValueError):
            return Verdict(None, False, problem="not a number")
        key = _called(self._key, completion, example) if self._key and correct else None
        return Verdict(float(reward), correct, None if key is None else str(key))


def load_function(name: str, setting: str) -> Callable[[str, Example], Any]:
    """The function that module:function names; modules of the current folder count.

    Raises:
        ValueError: there is no such module or function.
    """
    module, colon, function = name.partition(":")
    if not colon:
        raise ValueError(f"{setting} is {name!r}; expected module:function")
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        loaded = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"{setting} {name!r}: {error}") from error
    if not callable(loaded):
        raise ValueError(f"{setting} {name!r} is no function but a {type(loaded).__name__}")
    return loaded  # type: ignore[no-any-return]


def _called(function: Callable[[str, Example], Any], completion: str, example: Example) -> Any:
    """The function's result; an async one runs in a loop of this thread's own."""
    result = function(completion, example)
    if not inspect.isawaitable(result):
        return result

    async def finish() -> Any:
        return await result

    return asyncio.run(finish())


def _read(path: str | None, split: str) -> list[Example]:
    if path is None:
        raise ValueError(f"task user needs task.{split}, a file of prompts (JSON lines, JSON or Parquet)")
    examples = []
    for number, row in enumerate(read_rows(Path(path)), 1):
        prompt = row.get("prompt")
        if not isinstance(prompt, (str, list)) or not prompt:
            raise ValueError(f"{path}, row {number}: `prompt` must be text or chat messages, found {prompt!r}")
        examples.append(Example(str(row.get("id", f"{split}-{number}")), prompt, row, str(row.get("level", ""))))
    return examples
