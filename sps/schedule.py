"""When to steer, and how fast to learn; steps count from 1."""

import math

from sps.config import OptimiserSettings, SteeringSettings


def steers(step: int, settings: SteeringSettings, squeezing: float | None) -> bool:
    """Whether this step carries the IRL loss.

    Never in the first `warmup` steps, nor with coefficient 0. trigger periodic: then every `period`-th, so steps
    warmup + period, warmup + 2 period, ...; squeezing: whenever the top-1 share last measured, in (0, 1], is above
    `bound`; None, not measured yet, does not steer.
    """
    if settings.coefficient == 0 or step <= settings.warmup:
        return False
    if settings.trigger == "periodic":
        return (step - settings.warmup) % settings.period == 0
    return squeezing is not None and squeezing > settings.bound


def learning_rate(step: int, steps: int, settings: OptimiserSettings) -> float:
    """The learning rate of one step of `steps`: linear up to the whole rate at step `warmup`, then constant or cosine.

    The cosine falls from the whole rate in the step after warm-up towards 0, which would be reached in step
    steps + 1: no step is without effect. Raises ValueError for a step outside 1 to `steps`.
    """
    if not 1 <= step <= steps:
        raise ValueError(f"step {step} is not among the run's steps 1 to {steps}")
    if step <= settings.warmup:
        return settings.learning_rate * step / settings.warmup
    if settings.schedule == "constant":
        return settings.learning_rate
    progress = (step - 1 - settings.warmup) / (steps - settings.warmup)
    return settings.learning_rate * (1 + math.cos(math.pi * progress)) / 2
