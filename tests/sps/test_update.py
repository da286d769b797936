"""One optimiser step: the same gradient however it is cut; every term against the plain formula."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch

from sps.batch import Row, steer
from sps.config import Config
from sps.objectives.clusters import make_clusters
from sps.policy import Policy, collate
from sps.processes import Processes
from sps.update import NotFinite, backward, score, totals
from tests.sps.conftest import random_rows


def settings(tokens: int = 100_000, **rooms: Any) -> Config:
    return Config.model_validate({"trainer": {"micro_batch_tokens": tokens}, **rooms})


def gradient(policy: Policy, rows: Sequence[Row], config: Config, steered: bool = False) -> dict[str, torch.Tensor]:
    processes = Processes("ddp", False, policy)
    policy.zero_grad()
    coefficients: dict[Row, float] = {}
    if steered:
        for row, values in zip(rows, score(policy, rows, config, processes), strict=True):
            row.log_prob = float(values.double().sum())
        coefficients, _ = steer(rows, config.steering, make_clusters(config.steering))
    rehearsed = [row for row in rows if row.rehearsed]
    reinforced = [row for row in rows if not row.rehearsed]
    total = totals(reinforced, rehearsed, reinforced, config, processes)
    backward(policy, rows, set(reinforced), coefficients, total, config, processes)
    return {name: p.grad.clone() for name, p in policy.named_parameters() if p.grad is not None}


def largest_difference(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    """Relative to the largest entry of the first."""
    assert one.keys() == other.keys()
    scale = max(float(value.abs().max()) for value in one.values())
    return max(float((one[name] - other[name]).abs().max()) for name in one) / scale


EVERY_TERM = {
    "objective": {"kl_coefficient": 0.1, "entropy_bonus": 0.05, "forward_kl": 0.2},
    "steering": {"coefficient": 0.5},
}


def with_all_terms(rows: list[Row]) -> list[Row]:
    for row in rows:
        row.reference_logprobs = torch.full((len(row.completion_ids),), -2.0)
    for row in rows[-3:]:
        row.rehearsed = True
    return rows


@pytest.mark.parametrize("normalise", ["sequence", "token", "constant"])
@pytest.mark.parametrize("tokens", [200, 60, 33, 1])
def test_the_gradient_does_not_depend_on_the_cut(policy: Policy, normalise: str, tokens: int) -> None:
    rooms = EVERY_TERM | {"objective": EVERY_TERM["objective"] | {"normalise": normalise}}
    rows = with_all_terms(random_rows(4, 4))
    whole = gradient(policy, rows, settings(100_000, **rooms), steered=True)
    cut = gradient(policy, rows, settings(tokens, **rooms), steered=True)
    assert max(float(value.abs().max()) for value in whole.values()) > 1e-2
    assert largest_difference(whole, cut) < 1e-5


def test_the_mean_of_micro_batch_means_is_another_gradient(policy: Policy) -> None:
    """The mistake guarded against: each micro-batch normalised by its own tokens, then averaged."""
    config = settings(objective={"normalise": "token"})
    rows = random_rows(3, 4)
    whole = gradient(policy, rows, config)
    parts = [gradient(policy, rows[:5], config), gradient(policy, rows[5:], config)]
    averaged = {name: (parts[0][name] + parts[1][name]) / 2 for name in whole}
    assert largest_difference(whole, averaged) > 1e-2


def test_rows_that_push_nothing_are_measured_without_a_gradient(
    policy: Policy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A flat group costs a forward pass alone: fewer rows under gradient, the same gradient and the same figures."""
    rows = random_rows(3, 4)
    for row in rows[4:8]:
        row.advantage = 0.0
    under_gradient: list[int] = []
    policy.register_forward_hook(
        lambda _, inputs, __: under_gradient.append(len(inputs[0])) if torch.is_grad_enabled() else None
    )
    config = settings(100_000)
    spared = gradient(policy, rows, config)
    assert under_gradient == [8]
    monkeypatch.setattr("sps.update.pushes", lambda *_: True)
    assert largest_difference(gradient(policy, rows, config), spared) < 1e-5
    assert under_gradient == [8, 12]


def test_the_policy_gradient_is_the_plain_formula(policy: Policy) -> None:
    """GRPO on-policy: the gradient of the mean over completions of (advantage x importance x mean log-probability)."""
    rows = random_rows()
    ours = gradient(policy, rows, settings(40))
    policy.zero_grad()
    loss = torch.zeros(())
    for row in rows:
        ids = torch.tensor([[*row.prompt_ids, *row.completion_ids]])
        logits = policy.model(input_ids=ids).logits[0, len(row.prompt_ids) - 1 : -1].double().log_softmax(-1)
        logprobs = logits.gather(1, torch.tensor(row.completion_ids)[:, None])[:, 0]
        importance = (logprobs.detach() - row.sampler_logprobs).exp().clamp(max=2.0)
        loss = loss - row.advantage * (importance * logprobs).mean() / len(rows)
    loss.backward()
    plain = {name: p.grad for name, p in policy.named_parameters() if p.grad is not None}
    assert largest_difference(ours, plain) < 1e-5


@pytest.mark.parametrize("power", [0.0, 1.0])
def test_the_steering_gradient_is_that_of_the_divergence(policy: Policy, power: float) -> None:
    """coefficient x KL(uniform ‖ softmax of log-probability over length^power, of the right ones), by autograd.

    Averaged over the step's prompts, and over the mean length where scores are sums over it.
    """
    rows = random_rows(2, 5)
    config = settings(30, steering={"coefficient": 0.7, "length_exponent": power})
    for row in rows:
        row.advantage = 0.0
    ours = gradient(policy, rows, config, steered=True)
    policy.zero_grad()
    loss = torch.zeros((), dtype=torch.float64)
    for group in range(2):
        members = [row for row in rows if row.group == group and row.rollout and row.rollout.verdict.correct]
        scores = []
        for row in members:
            stats = policy(*collate([(row.prompt_ids, row.completion_ids)], 0, policy.device), 1.0, False)
            scores.append(stats.logprobs.double().sum() / len(row.completion_ids) ** power)
        log_p = torch.stack(scores).log_softmax(0)
        loss = loss + (-torch.tensor(float(len(members))).log() - log_p).mean()
    mean_length = sum(len(row.completion_ids) for row in rows) / len(rows)
    (0.7 * loss / 2 / mean_length ** (1 - power)).backward()
    plain = {name: p.grad for name, p in policy.named_parameters() if p.grad is not None}
    assert largest_difference(ours, plain) < 1e-5


def test_a_coefficient_of_one_pushes_as_an_advantage_does(policy: Policy) -> None:
    """A completion off by 1 / group is pushed as the token-level policy gradient pushes an advantage of 1."""
    rows = random_rows(2, 5)
    config = settings(steering={"coefficient": 1.0}, objective={"normalise": "token"})
    for row in rows:
        row.advantage, row.sampler_logprobs = 0.0, torch.zeros(0)
    row = rows[3]
    processes = Processes("ddp", False, policy)
    total = totals(rows, [], rows, config, processes)
    found = []
    for advantage, share in [(1.0, 0.0), (0.0, -1 / 5)]:
        policy.zero_grad()
        row.advantage, row.sampler_logprobs = advantage, next(iter(score(policy, [row], config, processes)))
        backward(policy, [row], {row} if advantage else set(), {row: share} if share else {}, total, config, processes)
        found.append({name: p.grad.clone() for name, p in policy.named_parameters() if p.grad is not None})
    assert largest_difference(*found) < 1e-5


def test_masked_rows_neither_count_nor_train(policy: Policy) -> None:
    rows = random_rows()
    kept = gradient(policy, rows[1:], settings())
    rows[0].counts = False
    assert largest_difference(gradient(policy, rows, settings()), kept) < 1e-5


def test_scores_do_not_depend_on_the_cut(policy: Policy) -> None:
    rows, processes = random_rows(), Processes("ddp", False, policy)
    whole = torch.cat(list(score(policy, rows, settings(), processes)))
    cut = torch.cat(list(score(policy, rows, settings(25), processes)))
    assert torch.allclose(whole, cut, atol=1e-6)
    assert whole.shape == (sum(len(row.completion_ids) for row in rows),)


def test_a_loss_that_is_not_finite_is_refused(policy: Policy) -> None:
    rows = random_rows()
    rows[3].advantage = float("nan")
    with pytest.raises(NotFinite):
        gradient(policy, rows, settings())
