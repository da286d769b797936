"""What can be learnt: problems with a reward that can be verified."""

from sps.config import TaskSettings
from sps.records import Task


def load_task(settings: TaskSettings) -> Task:
    """The task that the settings name.

    Raises:
        ValueError: there is none of that name, or its files or functions are unusable.
    """
    if settings.name == "arithmetic":
        from sps.tasks.arithmetic import Arithmetic

        return Arithmetic(settings)
    if settings.name == "countdown":
        from sps.tasks.countdown import Countdown

        return Countdown(settings)
    if settings.name == "gsm8k":
        from sps.tasks.gsm8k import Gsm8k

        return Gsm8k(settings)
    if settings.name == "math":
        from sps.tasks.math_problems import MathProblems

        return MathProblems(settings)
    if settings.name == "user":
        from sps.tasks.user import UserTask

        return UserTask(settings)
    raise ValueError(f"no task {settings.name!r}; known are arithmetic, countdown, gsm8k, math and user")
