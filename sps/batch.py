"""From a step's groups to weighted rows: who is reinforced how much, who is steered where, who is rehearsed."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from sps.config import ObjectiveSettings, SteeringSettings
from sps.objectives.advantages import group_advantages, soft_overlong
from sps.objectives.clusters import Clusters
from sps.objectives.irl import Demonstrations, Steering, steering_coefficients
from sps.records import Rollout


@dataclass(eq=False)
class Row:
    """A completion in one optimiser step.

    Attributes:
        prompt_ids, completion_ids: tokens.
        group: which prompt of the step it answers; rows of one group are steered together.
        rollout: what it came from; None for a rehearsed completion.
        sampler_logprobs: (T,) as the engine gave them.
        advantage: of the policy gradient.
        counts: takes part in the policy gradient; False for a cut completion that is masked.
        rehearsed: takes part in the forward KL to the initial policy.
        old_logprobs: (T,) under the policy the step began with, once scored; of a replayed row, under its own sampler.
        reference_logprobs: (T,) under the initial policy, where a KL to it is asked for.
        kl_cov: (T,) bool, tokens that KL-Cov holds back.
        log_prob: the completion's log-probability when last scored.
        sample: its number within its group, in the probe set.
    """

    prompt_ids: Sequence[int]
    completion_ids: Sequence[int]
    group: int
    rollout: Rollout | None = None
    sampler_logprobs: torch.Tensor = field(default_factory=lambda: torch.zeros(0))
    advantage: float = 0.0
    counts: bool = True
    rehearsed: bool = False
    old_logprobs: torch.Tensor | None = None
    reference_logprobs: torch.Tensor | None = None
    kl_cov: torch.Tensor | None = None
    log_prob: float = 0.0
    sample: int = 0


def rows_of(groups: Sequence[Sequence[Rollout]], settings: ObjectiveSettings, max_tokens: int) -> list[Row]:
    """A row per rollout, with its advantage in its group.

    A group without spread has zero advantages (except with advantage "signed"), and stays: it counts in the normaliser,
    as in GRPO. truncated "mask": cut completions count in the group's mean and stay out of the loss (DAPO's
    overlong filtering); "soft": DAPO's penalty is added to the reward; "zero": judged as they are.
    """
    rows = []
    for number, group in enumerate(groups):
        rewards = torch.tensor([rollout.verdict.reward for rollout in group], dtype=torch.float64)
        if settings.truncated == "soft":
            lengths = torch.tensor([len(rollout.completion.token_ids) for rollout in group])
            rewards = rewards + soft_overlong(lengths, max_tokens, settings.soft_tokens)
        correct = torch.tensor([rollout.verdict.correct for rollout in group])
        for rollout, advantage in zip(group, group_advantages(rewards, settings, correct).tolist(), strict=True):
            rows.append(
                Row(
                    prompt_ids=rollout.prompt_ids,
                    completion_ids=rollout.completion.token_ids,
                    group=number,
                    rollout=rollout,
                    sampler_logprobs=torch.tensor(rollout.completion.logprobs, dtype=torch.float32),
                    advantage=advantage,
                    counts=settings.truncated != "mask" or rollout.completion.finished,
                )
            )
    return rows


def minibatches(rows: Sequence[Row], count: int) -> list[list[Row]]:
    """Rows cut into at most `count` parts of whole groups, as even as groups allow."""
    numbers = sorted({row.group for row in rows})
    count = max(1, min(count, len(numbers)))
    part = {number: i * count // len(numbers) for i, number in enumerate(numbers)}
    return [[row for row in rows if part[row.group] == i] for i in range(count)]


def demonstrating(rows: Sequence[Row], settings: SteeringSettings) -> list[Row]:
    """Rows that may be in the support of their prompt: the others' log-probabilities are not read by `steer`."""
    return [row for row in rows if row.rollout and (settings.support == "all" or row.rollout.verdict.correct)]


def steer(
    rows: Sequence[Row], settings: SteeringSettings, clusters: Clusters
) -> tuple[dict[Row, float], list[Steering]]:
    """IRL coefficients of rows that have any, from each row's `log_prob`, and what was found of every group."""
    coefficients: dict[Row, float] = {}
    found = []
    groups: dict[int, list[Row]] = {}
    for row in rows:
        if row.rollout is not None:
            groups.setdefault(row.group, []).append(row)
    for members in groups.values():
        steering = steering_coefficients(demonstrations(members, settings, clusters), settings)
        found.append(steering)
        coefficients |= {
            row: value for row, value in zip(members, steering.coefficients.tolist(), strict=True) if value != 0
        }
    return coefficients, found


def demonstrations(rows: Sequence[Row], settings: SteeringSettings, clusters: Clusters) -> Demonstrations:
    """One prompt's rows as demonstrations; clusters are looked for in the support alone."""
    rollouts = [row.rollout for row in rows if row.rollout is not None]
    texts = [rollout.completion.text for rollout in rollouts]
    inside = [i for i, rollout in enumerate(rollouts) if settings.support == "all" or rollout.verdict.correct]
    numbers = clusters([texts[i] for i in inside], [rollouts[i].verdict.key for i in inside]) if inside else []
    ids: list[int | None] = [None] * len(rollouts)
    for i, number in zip(inside, numbers, strict=True):
        ids[i] = number
    return Demonstrations(
        log_probs=torch.tensor([row.log_prob for row in rows], dtype=torch.float64),
        old_log_probs=torch.tensor(
            [float("nan") if row.old_logprobs is None else float(row.old_logprobs.double().sum()) for row in rows],
            dtype=torch.float64,
        ),
        lengths=torch.tensor([len(row.completion_ids) for row in rows]),
        rewards=torch.tensor([rollout.verdict.reward for rollout in rollouts], dtype=torch.float64),
        correct=torch.tensor([rollout.verdict.correct for rollout in rollouts]),
        clusters=ids,
        texts=texts,
    )
