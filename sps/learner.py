"""What one step of training does to the weights: the policy gradient's optimiser steps, and the steering ones."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from sps.batch import Row, demonstrating, minibatches, steer
from sps.config import Config
from sps.objectives.clusters import Clusters
from sps.objectives.irl import Steering
from sps.objectives.regularisers import kl_cov_mask
from sps.policy import Policy
from sps.processes import Processes
from sps.sampling import seed_of
from sps.update import Figures, NotFinite, backward, score, totals


class BadBatch(ArithmeticError):
    """A loss or gradient was not finite; nothing was updated. `rows` are the batch that did it."""

    def __init__(self, message: str, rows: Sequence[Row]) -> None:
        super().__init__(message)
        self.rows = rows


@dataclass
class Learnt:
    """What a step of learning measured.

    Attributes:
        figures: sums and maxima over its optimiser steps in this process; `updates` counts them.
        steerings: of this process's prompts at the last steering; empty where there was none.
        gradient_norm: of the last optimiser step, before clipping.
    """

    figures: Figures = field(default_factory=Figures)
    steerings: list[Steering] = field(default_factory=list)
    gradient_norm: float = 0.0


@dataclass
class Learner:
    """The policy, its optimiser, and what its losses compare it with.

    Attributes:
        module: the policy as processes share it; `policy` is what lies inside.
        reference: the initial policy, frozen; None where none is needed, or where LoRA's adapters can be switched off.
        rehearsal: the initial policy's completions for the forward KL.
    """

    config: Config
    policy: Policy
    module: torch.nn.Module
    optimiser: Any
    reference: torch.nn.Module | None
    rehearsal: Sequence[Row]
    processes: Processes
    clusters: Clusters

    def learn(self, rows: list[Row], replayed: list[Row], steering: bool, step: int, rate: float) -> Learnt:
        """Change the weights by one step's rows of this process.

        Optimiser steps: `epochs` passes over `minibatches` parts, of which the first carries the IRL term of all the
        step's prompts too; then `inner_steps` - 1 of the IRL term alone. With `steering.alone` the IRL steps are all.

        Raises:
            BadBatch: a loss or gradient is not finite; this optimiser step did not happen.
        """
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        self._prepare(rows, replayed, steering)
        learnt = Learnt()
        for turn, (part, steered) in enumerate(self._plan(rows, steering)):
            candidates = [*rows, *replayed] if steered else []
            if turn > 0:
                self._rescore(demonstrating(candidates, self.config.steering))  # the policy has moved
            coefficients, found = steer(candidates, self.config.steering, self.clusters)
            learnt.steerings = found or learnt.steerings
            rehearsed = self._rehearsed(step, turn) if part else []
            learnt.gradient_norm = self._optimise(part, rehearsed, coefficients, rows, learnt.figures)
        return learnt

    def _plan(self, rows: list[Row], steering: bool) -> list[tuple[list[Row], bool]]:
        """(rows reinforced, steered?) of every optimiser step."""
        settings = self.config.optimiser
        plan = [(part, False) for _ in range(settings.epochs) for part in minibatches(rows, settings.minibatches)]
        if not steering:
            return plan
        inner = self.config.steering.inner_steps
        if self.config.steering.alone:
            return [([], True)] * inner
        return [(plan[0][0], True), *plan[1:], *[([], True)] * (inner - 1)]

    def _prepare(self, rows: list[Row], replayed: list[Row], steering: bool) -> None:
        """Give rows the log-probabilities that their losses need: on-policy, those of demonstrations alone."""
        several = self.config.optimiser.epochs * self.config.optimiser.minibatches > 1
        whole = several or bool(self.config.objective.kl_cov_fraction)
        needed = rows if whole else demonstrating(rows, self.config.steering) if steering else []
        if whole or steering:
            for row, values in zip(needed, score(self.module, needed, self.config, self.processes), strict=True):
                row.old_logprobs, row.log_prob = values, float(values.double().sum())
        if steering:
            self._rescore(replayed)
        if self.config.objective.kl_coefficient:
            for row, values in zip(rows, self._reference_scores(rows), strict=True):
                row.reference_logprobs = values
        if self.config.objective.kl_cov_fraction:
            self._hold_back(rows)

    def _rescore(self, rows: Sequence[Row]) -> None:
        for row, values in zip(rows, score(self.module, rows, self.config, self.processes), strict=True):
            row.log_prob = float(values.double().sum())

    def _reference_scores(self, rows: Sequence[Row]) -> list[torch.Tensor]:
        if self.reference is not None:
            return list(score(self.reference, rows, self.config, self.processes))
        with self.policy.reference():
            return list(score(self.module, rows, self.config, self.processes))

    def _hold_back(self, rows: Sequence[Row]) -> None:
        """Mark KL-Cov's tokens, chosen among those of all processes."""
        mine = [(self.processes.rank, row.old_logprobs, row.advantage) for row in rows if row.old_logprobs is not None]
        everyone = self.processes.gather(mine)
        if not everyone:
            return
        logprobs = torch.cat([values for _, values, _ in everyone])
        advantages = torch.cat([torch.full_like(values, advantage) for _, values, advantage in everyone])
        mask = kl_cov_mask(logprobs, advantages, self.config.objective.kl_cov_fraction)
        parts = zip(mask.split([len(values) for _, values, _ in everyone]), everyone, strict=True)
        for row, part in zip(rows, [part for part, (rank, _, _) in parts if rank == self.processes.rank], strict=True):
            row.kl_cov = part

    def _rehearsed(self, step: int, turn: int) -> list[Row]:
        """As many completions of the initial policy as a step has prompts; this process's share."""
        if not self.rehearsal:
            return []
        generator = torch.Generator().manual_seed(seed_of(self.config.seed, "rehearsal", step, turn))
        order = torch.randperm(len(self.rehearsal), generator=generator).tolist()[: self.config.rollout.prompts]
        return [self.rehearsal[i] for i in order[self.processes.rank :: self.processes.world]]

    def _optimise(
        self,
        reinforced: Sequence[Row],
        rehearsed: Sequence[Row],
        coefficients: dict[Row, float],
        sampled: Sequence[Row],
        figures: Figures,
    ) -> float:
        """One optimiser step of a training step that sampled these rows; the gradient's norm before clipping."""
        inside = set(reinforced)
        steered_only = [row for row in coefficients if row not in inside]
        rows = [*reinforced, *steered_only, *rehearsed]
        total = totals(reinforced, rehearsed, sampled, self.config, self.processes)
        self.module.train()
        try:
            new = backward(self.module, rows, inside, coefficients, total, self.config, self.processes)
            norm = self.processes.clip(self.module, self.config.optimiser.clip)
            if self.processes.any(not norm < float("inf")):
                raise NotFinite(f"the gradient's norm is {norm}")
        except NotFinite as error:
            self.optimiser.zero_grad(set_to_none=True)
            raise BadBatch(str(error), rows) from error
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        figures.merge(new)
        figures.add("updates", 1.0)
        return norm
