"""What every rollout engine offers: completions with the log-probabilities of the distribution they were drawn from."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from sps.records import Completion

if TYPE_CHECKING:
    from sps.policy import Policy


@dataclass(frozen=True)
class Sampling:
    """How to draw completions.

    Attributes:
        max_tokens: longest completion, at least 1.
        temperature: divides the logits, above 0.
        top_p: keeps the smallest set of tokens whose probability reaches this, in (0, 1].
        top_k: keeps so many of the likeliest tokens, before top_p; 0 keeps all.
        seed: the draws are a function of it, of the weights and of the prompts; not negative.
    """

    max_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    seed: int = 0


class Engine(Protocol):
    """Samples completions from the policy."""

    def generate(self, prompts: Sequence[Sequence[int]], samples: int, sampling: Sampling) -> list[list[Completion]]:
        """`samples` completions of every prompt, in the order of the prompts.

        Raises:
            ValueError: a prompt is empty, or leaves no room for `max_tokens` in the policy's context.
        """

    def update(self, policy: "Policy") -> None:
        """Sample from the policy's present weights from now on."""

    def close(self) -> None:
        """Free what the engine holds."""


def check_prompts(prompts: Sequence[Sequence[int]], max_tokens: int, context: int) -> None:
    """Refuse prompts that no engine can complete.

    Raises:
        ValueError: a prompt is empty, or with `max_tokens` after it longer than `context`.
    """
    for number, prompt in enumerate(prompts):
        if not prompt:
            raise ValueError(f"prompt {number} has no tokens; give the task a template or the model a chat template")
        if len(prompt) + max_tokens > context:
            raise ValueError(
                f"prompt {number} has {len(prompt)} tokens, and {max_tokens} more do not fit the model's context of "
                f"{context}; lower rollout.max_tokens or rollout.max_prompt_tokens"
            )


def request_seeds(seed: int, prompts: int) -> list[int]:
    """A seed for each prompt's request, 0 to 2^62 - 1; vLLM adds the sample's number to it."""
    return [int(value) >> 2 for value in np.random.SeedSequence(seed).generate_state(prompts, np.uint64)]
