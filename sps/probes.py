"""Where the probability went: the probe set's trajectories, sampled before training and followed through it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from sps.config import SteeringSettings
from sps.objectives.irl import Demonstrations
from sps.runs import Rows, steps_of
from sps.squeezing import squeezing_means, squeezing_sums

TENFOLD = float(np.log(10))  # a trajectory is squeezed out when its probability fell to a tenth or less
KINDS = {
    "likeliest": "the likeliest right one of its prompt, at the start",
    "other right": "the other right ones",
    "wrong": "the wrong ones",
}


@dataclass(frozen=True)
class Trajectory:
    """One completion of the initial policy.

    Attributes:
        kind: "likeliest" (among its prompt's right ones, at the start), "other right" or "wrong".
        logprobs: natural log-probability at each of the probe set's steps, NaN where it was not measured.
    """

    problem: str
    sample: int
    kind: str
    length: int
    logprobs: tuple[float, ...]

    @property
    def gain(self) -> float:
        """Log-probability at the last step less that at the first, in nats."""
        return self.logprobs[-1] - self.logprobs[0]


def trajectories(rows: Rows) -> list[Trajectory]:
    """The probe set, in order; a null logprob is NaN. None without rows."""
    steps = steps_of(rows)
    values: dict[tuple[str, int], dict[int, float]] = {}
    facts: dict[tuple[str, int], tuple[bool, int]] = {}
    for row in rows:
        name = (row["problem"], row["sample"])
        values.setdefault(name, {})[row["step"]] = float("nan") if row["logprob"] is None else row["logprob"]
        facts[name] = (row["correct"], row["length"])
    best: dict[str, tuple[float, int]] = {}  # of each prompt's right ones, the likeliest at the start
    for (problem, sample), measured in values.items():
        if facts[problem, sample][0]:
            start = (measured.get(steps[0], float("-inf")), -sample)
            best[problem] = max(best.get(problem, start), start)
    return [
        Trajectory(
            problem=problem,
            sample=sample,
            kind=_kind(facts[problem, sample][0], best.get(problem, (0.0, 1))[1] == -sample),
            length=facts[problem, sample][1],
            logprobs=tuple(measured.get(step, float("nan")) for step in steps),
        )
        for (problem, sample), measured in values.items()
    ]


def summary(found: Sequence[Trajectory]) -> list[dict[str, Any]]:
    """Per kind: trajectories, median gain in nats, share that gained, share that fell to a tenth or less."""
    rows = []
    for kind in KINDS:
        gains = np.array([t.gain for t in found if t.kind == kind and np.isfinite(t.gain)])
        if len(gains):
            rows.append(
                {
                    "trajectories": KINDS[kind],
                    "number": len(gains),
                    "median_gain": float(np.median(gains)),
                    "gained": float((gains > 0).mean()),
                    "squeezed_out": float((gains <= -TENFOLD).mean()),
                }
            )
    return rows


def squeezing_of_probes(rows: Rows, settings: SteeringSettings) -> list[dict[str, Any]]:
    """Per step: top_share and effective_number among each prompt's right trajectories of the probe set.

    Unlike the rollouts' own, these are of the same trajectories at every step. Both are None where no prompt has two.
    """
    table = []
    for step in steps_of(rows):
        groups: dict[str, Rows] = {}
        for row in rows:
            if row["step"] == step and row["correct"] and row["logprob"] is not None:
                groups.setdefault(row["problem"], []).append(row)
        sums = squeezing_sums(
            [_demonstrations(group) for group in groups.values()],
            [[None] * len(group) for group in groups.values()],
            settings,
        )
        means = squeezing_means(sums)
        table.append({"step": step, **{name: means[name] for name in ("top_share", "effective_number")}})
    return table


def _kind(correct: bool, likeliest: bool) -> str:
    if not correct:
        return "wrong"
    return "likeliest" if likeliest else "other right"


def _demonstrations(rows: Rows) -> Demonstrations:
    """Right trajectories of one prompt, all distinct."""
    log_probs = torch.tensor([row["logprob"] for row in rows], dtype=torch.float64)
    return Demonstrations(
        log_probs=log_probs,
        old_log_probs=log_probs,
        lengths=torch.tensor([row["length"] for row in rows]),
        rewards=torch.ones(len(rows)),
        correct=torch.ones(len(rows), dtype=torch.bool),
        clusters=[None] * len(rows),
        texts=[str(row["sample"]) for row in rows],
    )
