"""The IRL objective against enumeration, autograd and simulation on policies small enough for it."""

import itertools
import math
from collections.abc import Hashable, Sequence

import pytest
import torch
from torch import Tensor

from sps.config import SteeringSettings
from sps.objectives.irl import Demonstrations, irl_loss, steering_coefficients

ALPHABET = 3
Parameters = tuple[Tensor, Tensor]  # logits of the first token (V,), and of the next given the last (V, V)


def parameters(seed: int = 0) -> Parameters:
    draw = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(*shape, dtype=torch.float64, generator=draw) for shape in ((3,), (3, 3)))  # type: ignore[return-value]


# Token 0 ends a completion; after three tokens it ends anyway. These are all 1 + 2 + 4 * 3 completions there are.
COMPLETIONS = [(0,), (1, 0), (2, 0), *itertools.product((1, 2), (1, 2), (0, 1, 2))]


def token_logprobs(given: Parameters, completion: Sequence[int]) -> Tensor:
    first, following = given
    steps = [first.log_softmax(0)[completion[0]]]
    steps += [following[a].log_softmax(0)[b] for a, b in itertools.pairwise(completion)]
    return torch.stack(steps)


def demonstrations(
    given: Parameters, rewards: Sequence[float], correct: Sequence[bool], clusters: Sequence[Hashable | None]
) -> Demonstrations:
    """Every completion once, sampled from another policy."""
    with torch.no_grad():
        now = torch.stack([token_logprobs(given, c).sum() for c in COMPLETIONS])
        old = torch.stack([token_logprobs(parameters(9), c).sum() for c in COMPLETIONS])
    lengths = torch.tensor([len(c) for c in COMPLETIONS])
    return Demonstrations(
        now, old, lengths, torch.tensor(rewards, dtype=torch.float64), torch.tensor(correct), clusters,
        [str(c) for c in COMPLETIONS],
    )  # fmt: skip


def gradient(given: Parameters, coefficients: Tensor, exponent: float) -> Tensor:
    """What irl_loss does to all parameters, as one vector, with all completions in one micro-batch."""
    leaves = [p.clone().requires_grad_() for p in given]
    parts = [token_logprobs((leaves[0], leaves[1]), c) for c in COMPLETIONS]
    lengths = torch.tensor([len(c) for c in COMPLETIONS])
    sequence = torch.repeat_interleave(torch.arange(len(COMPLETIONS)), lengths)
    irl_loss(torch.cat(parts), sequence, coefficients, lengths, exponent, 1).backward()
    return torch.cat([leaf.grad.flatten() for leaf in leaves if leaf.grad is not None])


def score_gradient(given: Parameters, completion: Sequence[int], exponent: float) -> Tensor:
    """∇s of one completion in closed form: one-hot minus softmax at every token."""
    first, following = torch.zeros(3, dtype=torch.float64), torch.zeros(3, 3, dtype=torch.float64)
    first -= given[0].softmax(0)
    first[completion[0]] += 1
    for a, b in itertools.pairwise(completion):
        following[a] -= given[1][a].softmax(0)
        following[a, b] += 1
    return torch.cat([first, following.flatten()]) / len(completion) ** exponent


NONE: list[Hashable | None] = [None] * len(COMPLETIONS)
REWARDS = [0.1 * (i % 5) for i in range(len(COMPLETIONS))]
RIGHT = [i % 3 != 1 for i in range(len(COMPLETIONS))]


def test_the_enumeration_is_complete() -> None:
    total = sum(math.exp(float(token_logprobs(parameters(), c).sum())) for c in COMPLETIONS)
    assert total == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("exponent", [0.0, 1.0])
@pytest.mark.parametrize("alpha", [0.0, 0.6])
@pytest.mark.parametrize("kind", ["correct", "all"])
def test_the_gradient_is_demonstrations_minus_policy(kind: str, alpha: float, exponent: float) -> None:
    """Downhill is E_q[∇s] - E_p[∇s], with p, q and ∇s worked out completion by completion."""
    given = parameters()
    settings = SteeringSettings(support=kind, alpha=alpha, beta=0.3, length_exponent=exponent)
    inside = [i for i in range(len(COMPLETIONS)) if kind == "all" or RIGHT[i]]
    now = [float(token_logprobs(given, c).sum()) / len(c) ** exponent for c in COMPLETIONS]
    old = [math.exp(float(token_logprobs(parameters(9), c).sum())) for c in COMPLETIONS]
    p = {i: math.exp(now[i]) for i in inside}
    q = {i: math.exp(REWARDS[i] / 0.3) * old[i] ** alpha for i in inside}
    p, q = ({i: v / sum(d.values()) for i, v in d.items()} for d in (p, q))
    expected = torch.zeros(12, dtype=torch.float64)
    for i in inside:
        expected += (q[i] - p[i]) * score_gradient(given, COMPLETIONS[i], exponent)

    steering = steering_coefficients(demonstrations(given, REWARDS, RIGHT, NONE), settings)
    found = gradient(given, steering.coefficients, exponent)
    torch.testing.assert_close(-found, expected, rtol=0, atol=1e-12)
    assert float(expected.abs().max()) > 1e-2
    assert steering.kl == pytest.approx(sum(q[i] * math.log(q[i] / p[i]) for i in inside), abs=1e-12)


def test_with_every_completion_and_no_length_the_policy_half_is_nothing() -> None:
    """p is then the policy itself, E_π[∇ log π] = 0, and the gradient is that of -E_q[log π]."""
    given = parameters()
    settings = SteeringSettings(support="all", beta=0.3, length_exponent=0.0)
    q = torch.tensor(REWARDS, dtype=torch.float64).div(0.3).softmax(0)
    leaves = [p.clone().requires_grad_() for p in given]
    torch.stack([-w * token_logprobs((leaves[0], leaves[1]), c).sum() for w, c in zip(q, COMPLETIONS, strict=True)]
                ).sum().backward()  # fmt: skip
    expected = torch.cat([leaf.grad.flatten() for leaf in leaves if leaf.grad is not None])
    steering = steering_coefficients(demonstrations(given, REWARDS, RIGHT, NONE), settings)
    torch.testing.assert_close(gradient(given, steering.coefficients, 0.0), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("exponent", [0.0, 0.5, 1.0])
def test_with_clusters_it_is_the_gradient_of_the_kl_between_cluster_masses(exponent: float, alpha: float) -> None:
    given = parameters(3)
    clusters: list[Hashable | None] = [["a", "b", "b", None, "c", "a", None, 7][i % 8] for i in range(len(COMPLETIONS))]
    settings = SteeringSettings(distinct_by="key", alpha=alpha, beta=0.5, length_exponent=exponent)
    groups: dict[Hashable, list[int]] = {}
    for i, name in enumerate(clusters):
        if RIGHT[i]:
            groups.setdefault(("alone", i) if name is None else name, []).append(i)
    assert any(len(members) > 1 for members in groups.values())

    leaves = [p.clone().requires_grad_() for p in given]
    every = [token_logprobs((leaves[0], leaves[1]), c).sum() / len(c) ** exponent for c in COMPLETIONS]
    old = [math.exp(float(token_logprobs(parameters(9), c).sum())) for c in COMPLETIONS]
    masses = torch.stack([sum((every[i].exp() for i in members), torch.zeros(())) for members in groups.values()])
    target = torch.tensor(
        [
            math.exp(sum(REWARDS[i] for i in members) / len(members) / 0.5) * sum(old[i] for i in members) ** alpha
            for members in groups.values()
        ],
        dtype=torch.float64,
    )
    p, q = masses / masses.sum(), target / target.sum()
    kl = (q * (q / p).log()).sum()
    kl.backward()
    expected = torch.cat([leaf.grad.flatten() for leaf in leaves if leaf.grad is not None])

    steering = steering_coefficients(demonstrations(given, REWARDS, RIGHT, clusters), settings)
    torch.testing.assert_close(gradient(given, steering.coefficients, exponent), expected, rtol=0, atol=1e-12)
    shares = p.tolist()
    assert steering.kl == pytest.approx(float(kl), abs=1e-12)
    assert steering.distinct == len(groups)
    assert steering.top_share == pytest.approx(max(shares))
    assert steering.effective == pytest.approx(math.prod(share**-share for share in shares))


def descend(direction: str, steps: int = 200) -> tuple[list[float], list[float]]:
    """KL to the target and probability of the wrong, while a softmax over 5 answers, 3 of them right, is steered."""
    logits = torch.tensor([2.0, 0.5, 0.0, -1.0, 0.3], dtype=torch.float64)
    settings = SteeringSettings(direction=direction, length_exponent=0.0)
    correct = torch.tensor([True, True, False, True, False])
    ones = torch.ones(5, dtype=torch.int64)
    kls, wrong = [], []
    for _ in range(steps):
        logits.requires_grad_()
        logprobs = logits.log_softmax(0)
        given = Demonstrations(logprobs, logprobs.detach(), ones, correct.double(), correct, [None] * 5, list("abcde"))
        steering = steering_coefficients(given, settings)
        (step,) = torch.autograd.grad(irl_loss(logprobs, torch.arange(5), steering.coefficients, ones, 0.0, 1), logits)
        kls.append(steering.kl)
        wrong.append(float(logprobs.detach()[~correct].exp().sum()))
        logits = (logits - 0.2 * step).detach()
    return kls, wrong


def test_steering_flattens_what_is_right_and_the_literal_form_squeezes_it() -> None:
    match, _ = descend("match")
    literal, _ = descend("literal")
    assert all(later < earlier for earlier, later in itertools.pairwise(match))
    assert all(later > earlier for earlier, later in itertools.pairwise(literal))
    assert match[-1] < 0.01 * match[0]
    assert literal[-1] > 2 * literal[0]


def test_the_literal_form_is_the_exact_opposite() -> None:
    given = demonstrations(parameters(), REWARDS, RIGHT, NONE)
    match = steering_coefficients(given, SteeringSettings())
    literal = steering_coefficients(given, SteeringSettings(direction="literal"))
    assert literal.coefficients.tolist() == [-c for c in match.coefficients.tolist()]
    assert literal.kl == match.kl


def test_the_wrong_keep_their_logits() -> None:
    """Coefficients add up to 0, so that on logits the gradient of what is outside the support is 0 too."""
    logits = torch.tensor([2.0, 0.5, 0.0, -1.0, 0.3], dtype=torch.float64, requires_grad=True)
    correct = torch.tensor([True, True, False, True, False])
    logprobs, ones = logits.log_softmax(0), torch.ones(5, dtype=torch.int64)
    given = Demonstrations(logprobs, logprobs.detach(), ones, correct.double(), correct, [None] * 5, list("abcde"))
    coefficients = steering_coefficients(given, SteeringSettings()).coefficients
    irl_loss(logprobs, torch.arange(5), coefficients, ones, 1.0, 1).backward()
    assert logits.grad is not None
    assert logits.grad.tolist() == pytest.approx(coefficients.tolist(), abs=1e-12)
    assert logits.grad[~correct].tolist() == pytest.approx([0, 0], abs=1e-12)
    assert float(coefficients[0]) > 0.3  # too likely: it is pushed down
    assert float(coefficients[3]) < -0.2  # hardly there: it is lifted


def test_at_the_target_nothing_moves() -> None:
    ones = torch.full((3,), 4)
    given = Demonstrations(
        torch.tensor([-8.0, -8.0, -8.0]),
        torch.zeros(3),
        ones,
        torch.ones(3),
        torch.ones(3) > 0,
        [None] * 3,
        list("abc"),
    )
    steering = steering_coefficients(given, SteeringSettings())
    assert steering.coefficients.tolist() == pytest.approx([0, 0, 0], abs=1e-15)
    assert steering.effective == pytest.approx(3)
    assert steering.steered
