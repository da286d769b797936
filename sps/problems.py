"""Problems as the trainer meets them: prompts that are tokens and fit, and a judge for their completions."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sps import progress
from sps.config import Config
from sps.policy import Policy
from sps.records import Example, Task, Verdict
from sps.tasks.judge import judge_all

Judge = Callable[[Sequence[tuple[str, Example]]], list[Verdict]]


@dataclass(frozen=True)
class Problem:
    """A problem whose prompt is tokens already."""

    example: Example
    prompt_ids: list[int]


def prepare(policy: Policy, examples: Sequence[Example], config: Config) -> list[Problem]:
    """Problems with their prompts as tokens; those that leave no room for `max_tokens` are set aside.

    Raises:
        ValueError: there are no examples, or none fits.
    """
    if not examples:
        raise ValueError(f"task {config.task.name} has no problems of this kind; see task.train and task.test")
    room = policy.context - config.rollout.max_tokens
    longest = min(room, config.rollout.max_prompt_tokens or room)
    problems = [Problem(example, policy.prompt_ids(example.prompt, config.task)) for example in examples]
    fitting = [problem for problem in problems if 0 < len(problem.prompt_ids) <= longest]
    shortest = min(len(problem.prompt_ids) for problem in problems)
    if not fitting:
        raise ValueError(
            f"none of {len(problems)} prompts fits: the model's context of {policy.context} tokens less "
            f"rollout.max_tokens ({config.rollout.max_tokens}) leaves {longest} for a prompt, "
            f"and the shortest has {shortest}"
        )
    if len(fitting) < len(problems):
        progress.note(f"{len(problems) - len(fitting)} of {len(problems)} prompts set aside: over {longest} tokens")
    return fitting


def judge_with(task: Task, config: Config) -> Judge:
    """The task's verdicts, from `task.workers` threads with a time limit each."""

    def judge(pairs: Sequence[tuple[str, Example]]) -> list[Verdict]:
        return judge_all(task, pairs, config.task.workers, config.task.timeout)

    return judge
