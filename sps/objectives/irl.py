"""Inverse reinforcement on a prompt's own rollouts: make the policy's distribution over what is distinct the target's.

Our reading of SPS (arXiv 2604.16995), of which we do not have the full text. For one prompt, D is the support: the
correct rollouts (or all), equal texts once. With scores s_i = log π(y_i) / |y_i|^λ,
    p = softmax(s) over D,  p_c = sum of p_i over cluster c;
    q_c ∝ exp(mean reward in c / β) (sum of π_old(y_i) over c)^α;
    loss = KL(q ‖ p) over clusters, whose gradient is sum_i (p_i - q_c(i) p_i / p_c(i)) ∇s_i:
maximum-entropy inverse reinforcement's "demonstrations minus policy", with the score as the energy.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sps.config import SteeringSettings


@dataclass(frozen=True)
class Demonstrations:
    """The n rollouts of one prompt, in any order; replayed ones may be among them.

    Attributes:
        log_probs: (n,) natural log-probability of each completion under the policy now, its tokens' sum.
        old_log_probs: (n,) the same under the policy that sampled it; read only where alpha is not 0.
        lengths: (n,) in tokens, at least 1.
        rewards: (n,).
        correct: (n,) bool.
        clusters: (n,) what a rollout counts as one with, from clusters.py; None: with none but its equals.
        texts: (n,) completions; of equal ones the first alone is a demonstration.
    """

    log_probs: Tensor
    old_log_probs: Tensor
    lengths: Tensor
    rewards: Tensor
    correct: Tensor
    clusters: Sequence[Hashable | None]
    texts: Sequence[str]


@dataclass(frozen=True)
class Steering:
    """How to move one prompt's rollouts, and how squeezed they are.

    Attributes:
        coefficients: (n,) float64 on the CPU, what each score's gradient is multiplied by; 0 outside the support;
            they add up to 0. Positive: too likely already.
        kl: KL(q ‖ p) in nats, whichever the direction; 0 where not steered.
        distinct: number of clusters in the support.
        top_share: largest p_c; 1 for one cluster, 0 for none.
        effective: exp of the entropy of p_c, between 1 and `distinct`; 0 for none.
    """

    coefficients: Tensor
    kl: float
    distinct: int
    top_share: float
    effective: float

    @property
    def steered(self) -> bool:
        """Whether there was anything to weigh against each other; a prompt that was not is left out of the mean."""
        return self.distinct > 1


def steering_coefficients(demonstrations: Demonstrations, settings: SteeringSettings) -> Steering:
    """The IRL gradient's coefficients of one prompt's rollouts, as of the log-probabilities given.

    Fewer than two clusters in the support: zeros. direction "literal" negates, which is Eq. 4 as printed: a control.
    Raises ValueError for a completion without tokens.
    """
    if int((demonstrations.lengths < 1).sum()):
        raise ValueError("a completion without tokens has no score; leave it out of the demonstrations")
    coefficients = torch.zeros(len(demonstrations.texts), dtype=torch.float64)
    members = support(demonstrations, settings)
    if not members:
        return Steering(coefficients, 0.0, 0, 0.0, 0.0)
    index = torch.tensor(members)
    cluster, distinct = _numbered([demonstrations.clusters[i] for i in members])

    lengths = demonstrations.lengths.double().cpu()[index]
    scores = demonstrations.log_probs.detach().double().cpu()[index] / lengths**settings.length_exponent
    old = demonstrations.old_log_probs.detach().double().cpu()[index]
    rewards = demonstrations.rewards.double().cpu()[index]

    log_mass = _log_sums(scores, cluster, distinct)  # (distinct,) up to the softmax's constant
    log_p = log_mass.log_softmax(0)
    mean_rewards = torch.zeros(distinct, dtype=torch.float64).index_add(0, cluster, rewards) / cluster.bincount()
    log_q = mean_rewards / settings.beta
    if settings.alpha != 0:
        log_q = log_q + settings.alpha * _log_sums(old, cluster, distinct)
    log_q = log_q.log_softmax(0)

    p = log_p.exp()
    top_share, effective = float(p.max()), float(torch.special.entr(p).sum().exp())
    if distinct < 2:
        return Steering(coefficients, 0.0, distinct, top_share, effective)
    within = (scores - log_mass[cluster]).exp()  # p_i / p_c(i)
    sign = 1.0 if settings.direction == "match" else -1.0
    coefficients[index] = sign * within * (p - log_q.exp())[cluster]
    return Steering(coefficients, float((log_q.exp() * (log_q - log_p)).sum()), distinct, top_share, effective)


def support(demonstrations: Demonstrations, settings: SteeringSettings) -> list[int]:
    """Which rollouts are demonstrations: the correct ones, or all, in their order; equal texts once, the first."""
    first: dict[str, int] = {}
    for i, text in enumerate(demonstrations.texts):
        if settings.support == "all" or bool(demonstrations.correct[i]):
            first.setdefault(text, i)
    return list(first.values())


def irl_loss(
    logprobs: Tensor,
    sequence: Tensor,
    coefficients: Tensor,
    lengths: Tensor,
    length_exponent: float,
    total: float,
) -> Tensor:
    """sum_i c_i s_i / total (scalar).

    logprobs (N,) of a micro-batch's tokens, sequence (N,) each token's row, coefficients (B,) and lengths (B,) of the
    rows. total is one number for the whole training step: its prompts, over all processes, times their mean length to
    the power of 1 - length_exponent. A completion whose share of the demonstrations is off by 1 / group is then pushed
    as hard as an advantage of 1 pushes it, whatever the lengths, the group and the number of prompts (ours).
    Linear in the scores, so that it adds up exactly however the step is cut, even through a group; its value means
    nothing: log `Steering.kl`. Raises ValueError where total is not positive although there is something to steer.
    """
    if total <= 0 and bool(coefficients.any()):
        raise ValueError(f"there are demonstrations to steer but a normaliser of {total:g}; see update.totals")
    per_row = coefficients.detach().double() / lengths.double() ** length_exponent / (total or 1.0)
    return (per_row.to(logprobs.dtype)[sequence] * logprobs).sum()


def _numbered(clusters: Sequence[Hashable | None]) -> tuple[Tensor, int]:
    """Clusters as numbers from 0 in the order of their first member, a new one for each None; and how many."""
    numbers: dict[Hashable, int] = {}
    named = [(True, i) if cluster is None else (False, cluster) for i, cluster in enumerate(clusters)]
    return torch.tensor([numbers.setdefault(name, len(numbers)) for name in named]), len(numbers)


def _log_sums(values: Tensor, cluster: Tensor, distinct: int) -> Tensor:
    """log of the sum of exp(values) in every cluster (distinct,)."""
    return torch.stack([values[cluster == c].logsumexp(0) for c in range(distinct)])
