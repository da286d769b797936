"""A user's own task: a file of prompts, and a Python function that rewards completions."""

import asyncio
import importlib
import inspect
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from sps.config import TaskSettings
from sps.records import Example, Prompt, Verdict
from sps.tasks.files import read_splits

Function = Callable[[str, Example], Any]


class UserTask:
    """Rows with a `prompt`; the functions find the whole row in `example.answer`."""

    name = "user"

    def __init__(self, settings: TaskSettings) -> None:
        """Read the files and import the functions.

        Raises:
            ValueError: no file or no reward is named, a row has no prompt, or a function cannot be imported.
        """
        if settings.reward is None:
            raise ValueError("task user needs task.reward=module:function, a function(completion, example) -> float")
        self._reward = load_function(settings.reward, "task.reward")
        self._key = load_function(settings.key, "task.key") if settings.key else None
        self._correct_at = settings.correct_at
        self._splits = {
            split: [
                Example(f"{split}-{number}", _prompt(row, path, number), row, str(row.get("level") or ""))
                for number, row in rows
            ]
            for split, path, rows in read_splits(settings)
        }

    def examples(self, split: str) -> Sequence[Example]:
        """Problems of "train" or "test", in the file's order; empty where no file was named."""
        return self._splits[split]

    def judge(self, completion: str, example: Example) -> Verdict:
        """The function's reward, and the key of what is correct: a reward of at least task.correct_at.

        Whatever the functions raise is passed on; `judge_all` counts it, and refuses rewards that are not finite.
        """
        value = _result(self._reward(completion, example))
        if value is None or isinstance(value, str):  # float("1") would hide a mistake
            return Verdict(None, False, problem="not a number")
        reward = float(value)
        correct = reward >= self._correct_at
        key = _result(self._key(completion, example)) if self._key is not None and correct else None
        return Verdict(reward, correct, None if key is None else str(key))


def load_function(name: str, setting: str) -> Function:
    """The function that module:function names; modules in the current folder count.

    Raises:
        ValueError: there is no such module or function, or the module fails as it is imported.
    """
    module, _, function = name.partition(":")
    if not module or not function:
        raise ValueError(f"{setting} is {name!r}; give module:function")
    here = str(Path.cwd())
    if here not in sys.path:  # an installed program does not look there by itself
        sys.path.insert(0, here)
    try:
        loaded = importlib.import_module(module)
    except Exception as error:  # a user's module may raise anything as it is imported
        raise ValueError(f"{setting}: module {module!r} cannot be imported: {type(error).__name__}: {error}") from error
    found = vars(loaded).get(function)
    if not callable(found):
        raise ValueError(f"{setting}: module {module!r} has no function {function!r}")
    return found  # type: ignore[no-any-return]


def _result(value: Any) -> Any:
    """What a function gave; of an async one what it comes to, in an event loop of this thread's own."""
    if not inspect.isawaitable(value):
        return value

    async def wait() -> Any:
        return await value

    return asyncio.run(wait())


def _prompt(row: dict[str, Any], path: Path, number: int) -> Prompt:
    """Text, or chat messages with a role and a content each."""
    prompt: Prompt | None = row.get("prompt")
    if isinstance(prompt, str) and prompt.strip():
        return prompt
    if isinstance(prompt, list) and prompt and all(_is_message(message) for message in prompt):
        return prompt
    raise ValueError(f"{path}, row {number}: 'prompt' is neither text nor a list of messages with role and content")


def _is_message(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(value.get(name), str) for name in ("role", "content"))
