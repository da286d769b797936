"""One optimiser step: forward and backward over micro-batches, with normalisers of the whole step.

Every term is a weighted sum whose weights were fixed before the first backward, from all rows of all processes; so the
gradient is the same however the step is cut. Processes average gradients, hence the factor `world` on each loss.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from contextlib import nullcontext
from dataclasses import dataclass, field

import torch
from torch import Tensor

from sps.batch import Row
from sps.config import Config
from sps.objectives.irl import irl_loss
from sps.objectives.kl import kl_loss
from sps.objectives.policy_gradient import LossInputs, policy_loss
from sps.objectives.regularisers import entropy_loss, kl_cov_loss, nll_loss
from sps.objectives.weights import normaliser, token_weights
from sps.policy import collate, micro_batches
from sps.processes import Processes


@dataclass
class Figures:
    """What a step measured. `sums` add up over micro-batches and processes, `maxima` are maxima over them."""

    sums: dict[str, float] = field(default_factory=dict)
    maxima: dict[str, float] = field(default_factory=dict)

    def add(self, name: str, value: Tensor | float) -> None:
        """Add to a sum."""
        self.sums[name] = self.sums.get(name, 0.0) + float(value)

    def merge(self, other: "Figures") -> None:
        """Add another optimiser step's."""
        for name, value in other.sums.items():
            self.add(name, value)
        for name, value in other.maxima.items():
            self.widen(name, value)

    def widen(self, name: str, value: Tensor | float) -> None:
        """Raise a maximum."""
        self.maxima[name] = max(self.maxima.get(name, float("-inf")), float(value))


@dataclass(frozen=True)
class Totals:
    """Normalisers of one optimiser step, over all processes: the policy gradient's, all tokens it reinforces, the
    rehearsal's, and the IRL term's."""

    reinforced: float
    tokens: float
    rehearsed: float
    steering: float


class NotFinite(ArithmeticError):
    """A loss or gradient was NaN or infinite."""


def totals(
    reinforced: Iterable[Row], rehearsed: Iterable[Row], sampled: Sequence[Row], config: Config, processes: Processes
) -> Totals:
    """Normalisers of an optimiser step of which this process holds these rows.

    sampled: all rows of the training step, by whose prompts and lengths the IRL term is scaled (see `irl_loss`).
    """
    lengths = torch.tensor([len(row.completion_ids) for row in reinforced if row.counts])
    reinforcing, tokens, rehearsing, prompts, completions, length = processes.sum(
        [
            normaliser(lengths, config.objective.normalise),
            float(lengths.sum()),
            float(sum(len(row.completion_ids) for row in rehearsed)),
            float(len({row.group for row in sampled})),
            float(len(sampled)),
            float(sum(len(row.completion_ids) for row in sampled)),
        ]
    )
    mean_length = length / max(completions, 1.0)
    return Totals(reinforcing, tokens, rehearsing, prompts * mean_length ** (1 - config.steering.length_exponent))


def backward(
    policy: torch.nn.Module,
    rows: Sequence[Row],
    reinforced: Set[Row],
    steering: Mapping[Row, float],
    total: Totals,
    config: Config,
    processes: Processes,
) -> Figures:
    """Accumulate the gradient of one optimiser step over this process's rows.

    Rows in `reinforced` carry the policy gradient, those in `steering` the IRL term, rehearsed ones the forward KL.
    They need no `old_logprobs` when the step is on-policy: then the old policy is the present one, whose detached
    log-probabilities serve. Each row's `log_prob` is set anew.

    Raises:
        NotFinite: a micro-batch's loss is not.
    """
    figures = Figures()
    pushing = [row for row in rows if pushes(row, row in reinforced, steering, config)]
    still = [row for row in rows if not pushes(row, row in reinforced, steering, config)]
    with torch.no_grad():
        for part in _turns(still, config, processes):
            _micro_batch(policy, part, reinforced, steering, total, config, figures)
    parts = _turns(pushing, config, processes) or [[]]
    for turn, part in enumerate(parts):
        with nullcontext() if turn == len(parts) - 1 else processes.no_sync(policy):
            loss = _micro_batch(policy, part, reinforced, steering, total, config, figures)
            processes.backward(loss * processes.world)
    return figures


def pushes(row: Row, reinforced: bool, steering: Mapping[Row, float], config: Config) -> bool:
    """Whether the loss has a gradient at this row: one that has none is measured without, at a third of the cost.

    Most groups of a hard or of an easy task are flat: their advantages are all zero.
    """
    settings = config.objective
    regularised = settings.entropy_bonus or settings.kl_coefficient or settings.kl_cov_fraction
    drawn = reinforced and row.counts and (row.advantage != 0 or bool(regularised))
    return drawn or row.rehearsed or row in steering


def _turns(rows: Sequence[Row], config: Config, processes: Processes) -> list[list[Row]]:
    """Rows in micro-batches, and empty ones at the end where other processes have more: collectives must match."""
    lengths = [len(row.prompt_ids) + len(row.completion_ids) for row in rows]
    parts = micro_batches(lengths, config.trainer.micro_batch_tokens, [tuple(row.prompt_ids) for row in rows])
    return [[rows[i] for i in part] for part in parts] + [[]] * (processes.most(len(parts)) - len(parts))


def _micro_batch(
    policy: torch.nn.Module,
    rows: Sequence[Row],
    reinforced: Set[Row],
    steering: Mapping[Row, float],
    total: Totals,
    config: Config,
    figures: Figures,
) -> Tensor:
    """The loss of some rows, and what they measure; of no rows zero, through a forward pass all the same."""
    if not rows:
        return _nothing(policy, config)
    settings = config.objective
    device = next(policy.parameters()).device
    stats = policy(
        *collate([(row.prompt_ids, row.completion_ids) for row in rows], 0, device), config.rollout.temperature, True
    )
    logprobs, entropy = stats.logprobs, stats.entropy
    lengths = torch.tensor([len(row.completion_ids) for row in rows], device=device)
    sequence = torch.repeat_interleave(torch.arange(len(rows), device=device), lengths)
    for row, part in zip(rows, logprobs.detach().split(lengths.tolist()), strict=True):
        row.log_prob = float(part.double().sum())

    def tokens(values: Sequence[Tensor | None]) -> Tensor:
        """Per-token values, the present log-probabilities where a row has none."""
        parts = logprobs.detach().split(lengths.tolist())
        return torch.cat(
            [part if value is None else value.to(device) for part, value in zip(parts, values, strict=True)]
        )

    loss = 0.0 * logprobs.sum()
    counted = torch.tensor([float(row in reinforced and row.counts) for row in rows], device=device)[sequence]
    if bool(counted.any()):
        weights = counted * token_weights(
            lengths, sequence, settings.normalise, total.reinforced, config.rollout.max_tokens
        )
        old = tokens([row.old_logprobs for row in rows])
        outputs = policy_loss(
            LossInputs(
                logprobs=logprobs,
                old_logprobs=old,
                sampler_logprobs=tokens([row.sampler_logprobs if row in reinforced else None for row in rows]),
                advantages=torch.tensor([row.advantage for row in rows], device=device, dtype=logprobs.dtype)[sequence],
                sequence=sequence,
                rows=len(rows),
                weights=weights,
            ),
            settings,
            config.rollout.importance_cap,
        )
        loss = loss + outputs.loss
        figures.add("loss_policy", outputs.loss.detach())
        for name, value in outputs.sums.items():
            figures.add(name, value)
        for name, value in outputs.maxima.items():
            figures.widen(f"{name}_max", value)
        per_token = counted / total.tokens
        figures.add("entropy", (per_token * entropy.detach()).sum())
        if settings.entropy_bonus:
            term = settings.entropy_bonus * entropy_loss(entropy, weights)
            loss = loss + term
            figures.add("loss_entropy", term.detach())
        if settings.kl_coefficient:
            reference = tokens([row.reference_logprobs for row in rows])
            term = settings.kl_coefficient * kl_loss(logprobs, reference, weights, settings.kl)
            loss = loss + term
            figures.add("loss_kl", term.detach())
            figures.add("kl_to_initial", (per_token * (logprobs.detach() - reference)).sum())
        if settings.kl_cov_fraction:
            mask = torch.cat([_mask(row) for row in rows]).to(device)
            term = settings.kl_cov_coefficient * kl_cov_loss(logprobs, old, mask, weights)
            loss = loss + term
            figures.add("loss_kl_cov", term.detach())
    if any(row.rehearsed for row in rows):
        weights = torch.tensor([float(row.rehearsed) for row in rows], device=device)[sequence] / total.rehearsed
        term = settings.forward_kl * nll_loss(logprobs, weights)
        loss = loss + term
        figures.add("loss_forward_kl", term.detach())
    coefficients = torch.tensor([steering.get(row, 0.0) for row in rows], device=device, dtype=torch.float64)
    if bool(coefficients.any()):
        exponent = config.steering.length_exponent
        term = config.steering.coefficient * irl_loss(
            logprobs, sequence, coefficients, lengths, exponent, total.steering
        )
        loss = loss + term
    if not bool(torch.isfinite(loss)):
        raise NotFinite(f"the loss is {float(loss)}")
    return loss


def _mask(row: Row) -> Tensor:
    return torch.zeros(len(row.completion_ids), dtype=torch.bool) if row.kl_cov is None else row.kl_cov


def _nothing(policy: torch.nn.Module, config: Config) -> Tensor:
    """A forward pass whose loss is zero."""
    device = next(policy.parameters()).device
    stats = policy(*collate([([0], [0])], 0, device), config.rollout.temperature, False)
    return 0.0 * stats.logprobs.sum()


def score(policy: torch.nn.Module, rows: Sequence[Row], config: Config, processes: Processes) -> Iterator[Tensor]:
    """Log-probabilities (T,) float32 on the CPU of every row's completion under the policy now, in order."""
    found: dict[Row, Tensor] = {}
    device = next(policy.parameters()).device
    with torch.no_grad():
        for part in _turns(rows, config, processes):
            if not part:
                _nothing(policy, config)
                continue
            pairs = [(row.prompt_ids, row.completion_ids) for row in part]
            stats = policy(*collate(pairs, 0, device), config.rollout.temperature, False)
            found |= dict(zip(part, stats.logprobs.cpu().split([len(ids) for _, ids in pairs]), strict=True))
    yield from (found[row] for row in rows)


def adamw(policy: torch.nn.Module, config: Config) -> torch.optim.AdamW:
    """AdamW over what is trainable; no weight decay on vectors (norms and biases)."""
    settings = config.optimiser
    trained = [parameter for parameter in policy.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim >= 2], "weight_decay": settings.weight_decay},
        {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW([g for g in groups if g["params"]], lr=settings.learning_rate, betas=settings.betas)
