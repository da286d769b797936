"""The loop, and nothing but the loop: sample, judge, learn, measure, keep."""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from sps import checkpoint, figures, progress
from sps.batch import Row, rows_of
from sps.config import Config
from sps.evaluate import evaluate
from sps.learner import BadBatch, Learner
from sps.problems import Judge, Problem
from sps.replay import Memory, recall, remember
from sps.rollout.protocol import Engine
from sps.runfolder import RunFolder
from sps.sampling import collect
from sps.schedule import learning_rate, steers
from sps.update import score


class TrainingError(RuntimeError):
    """Training cannot go on; the message says why, where the evidence lies, and what to try."""


@dataclass
class State:
    """What a step hands to the next, besides weights and optimiser; plain values, so that a checkpoint can hold it.

    Attributes:
        step: steps done.
        position: where in the stream of prompts the next step begins.
        top_share: as last measured, for trigger "squeezing".
        tokens: completion tokens sampled so far, over all processes.
        replay: what the replay window holds.
    """

    step: int = 0
    position: int = 0
    top_share: float | None = None
    tokens: int = 0
    replay: Memory = field(default_factory=dict)


@dataclass
class Trainer:
    """Everything a step needs, made once (see train.py)."""

    config: Config
    learner: Learner
    engine: Engine
    judge: Judge
    problems: Sequence[Problem]
    held_out: Sequence[Problem]
    probes: Sequence[Row]
    folder: RunFolder
    too_long: int = 0  # training prompts that were set aside

    def run(self, state: State) -> State:
        """Train from `state` to the last step; every step is logged, and evaluated and kept where that is due."""
        settings = self.config.trainer
        if state.step == 0:
            self.observe(state)
        with progress.track("training", settings.steps, state.step) as advance:
            while state.step < settings.steps:
                logged = self.step(state)
                last = state.step == settings.steps
                self.folder.log(logged)
                advance(1, f"reward {logged['reward_mean']:.3f}, {logged['tokens_per_second']:,.0f} tokens/s")
                if last or state.step % settings.evaluate_every == 0:
                    self.observe(state)
                if last or state.step % settings.checkpoint_every == 0:
                    self.keep(state)
        return state

    def step(self, state: State) -> dict[str, Any]:
        """One step on new groups; what it measured. Changes `state`.

        Raises:
            TrainingError: no rollout had a reward, or a loss was not finite.
        """
        began, number, processes = time.perf_counter(), state.step + 1, self.learner.processes
        collected = collect(
            self.problems, self.engine, self.judge, self.config, number, state.position,
            processes.rank, processes.world, processes.any,
        )  # fmt: skip
        if not processes.any(bool(collected.groups)):
            raise TrainingError(figures.nothing_to_learn(number, collected))
        rows = rows_of(collected.groups, self.config.objective, self.config.rollout.max_tokens)
        sampled = time.perf_counter()
        steering = steers(number, self.config.steering, state.top_share)
        rate = learning_rate(number, self.config.trainer.steps, self.config.optimiser)
        try:
            learnt = self.learner.learn(rows, recall(state.replay, rows) if steering else [], steering, number, rate)
        except BadBatch as error:
            path = self.folder.failure(number, error.rows, str(error), processes.rank)
            raise TrainingError(
                f"step {number}: {error}; the batch is in {path} and nothing was updated. A lower "
                "optimiser.learning_rate or fp32 may help; the same command goes on from the last checkpoint"
            ) from error
        self.engine.update(self.learner.policy)
        logged = figures.of_step(collected, rows, learnt, self.config, self.learner.clusters, processes)
        logged |= {"step": number, "learning_rate": rate, "steered": float(steering), "prompts_too_long": self.too_long}
        if self.config.steering.replay:
            state.replay = remember(state.replay, rows, number, self.config.steering.replay)
        state.step, state.position = number, collected.position
        state.top_share = state.top_share if logged["top_share"] is None else logged["top_share"]
        state.tokens += logged["tokens"]
        seconds = time.perf_counter()
        logged |= {"seconds_training": seconds - sampled, "tokens_per_second": logged["tokens"] / (seconds - began)}
        self.folder.samples(number, collected.groups)
        return logged

    def observe(self, state: State) -> None:
        """Evaluate on held-out problems and see where the probe set's probability went."""
        rows = evaluate(self.held_out, self.engine, self.judge, self.config, state.step, self.learner.processes)
        values = score(self.learner.module, self.probes, self.config, self.learner.processes)
        probes = [figures.of_probe(state.step, row, found) for row, found in zip(self.probes, values, strict=True)]
        self.folder.observed(state.step, rows, probes)

    def keep(self, state: State) -> None:
        """Write a checkpoint."""
        checkpoint.save(
            self.folder.checkpoints,
            state.step,
            self.learner.module,
            self.learner.optimiser,
            asdict(state),
            self.learner.processes,
            self.config.trainer.keep_checkpoints,
        )
