"""Token weights: what each normalisation means, and gradients that do not depend on how a step is cut."""

from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor

from sps.config import ObjectiveSettings
from sps.objectives.irl import irl_loss
from sps.objectives.kl import kl_loss
from sps.objectives.policy_gradient import LossInputs, policy_loss
from sps.objectives.regularisers import entropy_loss, kl_cov_loss, kl_cov_mask, nll_loss
from sps.objectives.weights import Normalise, normaliser, token_weights

LENGTHS = [3, 1, 7, 2, 5, 4, 9, 2]
LIMIT = 9
CUTS = {
    "whole": [[0, 1, 2, 3, 4, 5, 6, 7]],
    "two": [[0, 1, 2, 3], [4, 5, 6, 7]],
    "four": [[0, 1], [2, 3], [4, 5], [6, 7]],
    "uneven": [[6], [0, 1, 2, 3, 5], [7, 4]],
}
KINDS: list[Normalise] = ["sequence", "token", "constant"]


def packed(lengths: Sequence[int]) -> tuple[Tensor, Tensor]:
    counts = torch.tensor(lengths)
    return counts, torch.repeat_interleave(torch.arange(len(lengths)), counts)


@pytest.mark.parametrize("kind", KINDS)
def test_weights_give_the_means_that_the_papers_write(kind: Normalise) -> None:
    lengths, sequence = packed(LENGTHS)
    values = torch.randn(sum(LENGTHS), dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    rows = [part.tolist() for part in values.split(LENGTHS)]
    expected = {
        "sequence": sum(sum(row) / len(row) for row in rows) / len(rows),
        "token": sum(map(sum, rows)) / sum(map(len, rows)),
        "constant": sum(map(sum, rows)) / (LIMIT * len(rows)),
    }[kind]
    weights = token_weights(lengths, sequence, kind, normaliser(lengths, kind), LIMIT)
    assert float((weights * values).sum()) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_normalisers_add_up(kind: Normalise) -> None:
    lengths = torch.tensor(LENGTHS)
    whole = normaliser(lengths, kind)
    assert whole == sum(normaliser(lengths[cut], kind) for cut in CUTS["uneven"])
    assert whole == (33 if kind == "token" else 8)


def test_tokens_without_a_normaliser_are_an_error() -> None:
    lengths, sequence = packed([2])
    with pytest.raises(ValueError, match="2 tokens but a normaliser of 0"):
        token_weights(lengths, sequence, "token", 0.0, LIMIT)


class Step:
    """One optimiser step of a bigram policy: 8 completions over 5 tokens, with what every term needs."""

    def __init__(self) -> None:
        draw = torch.Generator().manual_seed(1)
        self.table = torch.randn(5, 5, dtype=torch.float64, generator=draw)
        self.tokens = [torch.randint(5, (n + 1,), generator=draw) for n in LENGTHS]
        self.advantages = torch.randn(8, dtype=torch.float64, generator=draw)
        self.coefficients = torch.randn(8, dtype=torch.float64, generator=draw)
        size = sum(LENGTHS)
        self.old, self.sampler, self.reference = (
            (torch.cat([self.scores(self.table, row) for row in self.tokens]) + 0.3 * noise).split(LENGTHS)
            for noise in torch.randn(3, size, dtype=torch.float64, generator=draw)
        )
        flat = self.advantages[packed(LENGTHS)[1]]
        self.mask = kl_cov_mask(torch.cat(self.old), flat, 0.2).split(LENGTHS)

    @staticmethod
    def scores(table: Tensor, row: Tensor) -> Tensor:
        return table.log_softmax(1)[row[:-1], row[1:]]

    def loss(
        self, table: Tensor, rows: list[int], kind: Normalise, total: float, settings: ObjectiveSettings
    ) -> Tensor:
        """All terms at once for some of the rows; `total` is the step's normaliser."""
        lengths, sequence = packed([LENGTHS[i] for i in rows])
        weights = token_weights(lengths, sequence, kind, total, LIMIT)
        logprobs = torch.cat([self.scores(table, self.tokens[i]) for i in rows])
        full = table.log_softmax(1)
        entropy = -(full.exp() * full).sum(1)[torch.cat([self.tokens[i][:-1] for i in rows])]
        old, sampler, reference, mask = (
            torch.cat([part[i] for i in rows]) for part in (self.old, self.sampler, self.reference, self.mask)
        )
        inputs = LossInputs(
            logprobs, old, sampler, self.advantages[rows][sequence], sequence, len(rows), weights
        )  # fmt: skip
        return (
            policy_loss(inputs, settings, 2.0).loss
            + 0.1 * kl_loss(logprobs, reference, weights, settings.kl)
            + 0.2 * entropy_loss(entropy, weights)
            + 0.3 * kl_cov_loss(logprobs, old, mask, weights)
            + 0.4 * nll_loss(logprobs, weights)
            + 0.5 * irl_loss(logprobs, sequence, self.coefficients[rows], lengths, 0.5, 3)
        )

    def gradient(self, losses: Callable[[Tensor], list[Tensor]]) -> Tensor:
        table = self.table.clone().requires_grad_()
        for loss in losses(table):
            loss.backward()
        assert table.grad is not None
        return table.grad


@pytest.mark.parametrize("ratio", ["token", "sequence"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_gradient_is_the_same_however_a_step_is_cut(kind: Normalise, ratio: str) -> None:
    step, settings = Step(), ObjectiveSettings(ratio=ratio, kl="k2", clip_low=0.1, clip_high=0.1)
    total = normaliser(torch.tensor(LENGTHS), kind)

    def gradient(cut: list[list[int]]) -> Tensor:
        return step.gradient(lambda table: [step.loss(table, rows, kind, total, settings) for rows in cut])

    whole = gradient(CUTS["whole"])
    assert float(whole.abs().max()) > 1e-2
    for name in ("two", "four", "uneven"):
        torch.testing.assert_close(gradient(CUTS[name]), whole, rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", ["sequence", "token"])
def test_the_mean_of_micro_batch_means_is_another_gradient(kind: Normalise) -> None:
    step, settings, cut = Step(), ObjectiveSettings(), CUTS["uneven"]
    total = normaliser(torch.tensor(LENGTHS), kind)
    right = step.gradient(lambda table: [step.loss(table, rows, kind, total, settings) for rows in cut])

    def wrong(table: Tensor) -> list[Tensor]:
        own = [normaliser(torch.tensor([LENGTHS[i] for i in rows]), kind) for rows in cut]
        return [step.loss(table, rows, kind, n, settings) / len(cut) for rows, n in zip(cut, own, strict=True)]

    assert float((step.gradient(wrong) - right).abs().max()) > 1e-2
