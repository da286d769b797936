"""The nouns of the trainer: a problem, a sampled completion, a judged rollout. Everything else passes these around."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

Message = dict[str, str]


@dataclass(frozen=True)
class Tokens:
    """A prompt that is tokens already: they are taken as they are; `text` is what a reader sees."""

    ids: Sequence[int]
    text: str


Prompt = str | list[Message] | Tokens


@dataclass(frozen=True)
class Example:
    """A problem.

    Attributes:
        id: names the problem within its task and split.
        prompt: text, or chat messages [{"role": ..., "content": ...}], or tokens.
        answer: whatever the task's verifier needs.
        level: difficulty or type, for tables; may be empty.
    """

    id: str
    prompt: Prompt
    answer: Any = None
    level: str = ""


@dataclass(frozen=True)
class Completion:
    """What an engine sampled for one prompt.

    Attributes:
        token_ids: the sampled tokens, the end-of-sequence token included where the policy gave it.
        logprobs: natural log-probabilities of those tokens under the distribution that was sampled from (after
            temperature, top-p and top-k), one per token.
        finished: the policy ended by itself; otherwise the completion was cut at the token limit.
        text: the decoded tokens without special ones.
    """

    token_ids: Sequence[int]
    logprobs: Sequence[float]
    finished: bool
    text: str


@dataclass(frozen=True)
class Verdict:
    """What a task says of a completion.

    Attributes:
        reward: finite; 1 for a right answer and 0 for a wrong one, unless the task says otherwise. None where the
            reward function failed: such a completion is left out of training and counted, never taken as 0.
        correct: counts for Pass@k and as a demonstration.
        key: the solution's canonical form, where the task knows one.
        problem: empty, or why there is no reward: "raised", "timeout", "not a number".
    """

    reward: float | None
    correct: bool
    key: str | None = None
    problem: str = ""


@dataclass(frozen=True)
class Rollout:
    """A completion with its verdict; rollouts of one prompt and step form a group (a list)."""

    example: Example
    prompt_ids: Sequence[int]
    completion: Completion
    verdict: Verdict


class Task(Protocol):
    """Problems and their verifiable reward."""

    name: str

    def examples(self, split: str) -> Sequence[Example]:
        """Problems of "train" or "test", always in the same order."""

    def judge(self, completion: str, example: Example) -> Verdict:
        """The verdict on one completion; called from worker threads, so it must be thread-safe."""
