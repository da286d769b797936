"""One step's groups: which prompts, their completions and verdicts, drawn again where a prompt teaches nothing."""

import hashlib
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from sps.config import Config
from sps.objectives.advantages import equal_rewards
from sps.problems import Judge, Problem
from sps.records import Completion, Example, Rollout, Verdict
from sps.rollout.protocol import Engine, Sampling


@dataclass
class Collected:
    """A step's groups and what it took to have them.

    Attributes:
        groups: rollouts with a reward, by prompt; a group has as many as had a verdict, at least one.
        position: where in the endless stream of prompts the next step begins.
        drawn: rollouts sampled, over all rounds.
        flat: groups with equal rewards that were replaced by others.
        problems: why rollouts have no reward, counted.
    """

    groups: list[list[Rollout]] = field(default_factory=list)
    position: int = 0
    drawn: int = 0
    flat: int = 0
    problems: Counter[str] = field(default_factory=Counter)
    tokens: int = 0
    seconds_sampling: float = 0.0
    seconds_judging: float = 0.0


def collect(
    problems: Sequence[Problem],
    engine: Engine,
    judge: Judge,
    config: Config,
    step: int,
    position: int,
    rank: int = 0,
    world: int = 1,
    any_process: Callable[[bool], bool] = lambda wanting: wanting,
) -> Collected:
    """Sample and judge this process's share of a step's groups.

    Every round takes the stream's next `rollout.prompts` prompts, of which process `rank` samples every `world`-th.
    With dynamic sampling (DAPO, 2503.14476, Sec. 3.2) groups whose rewards are all equal are dropped and rounds go on,
    at most `dynamic_rounds`, until all processes have their share; the last round's flat groups then stay out.

    Args:
        any_process: whether a flag is up in any process; it keeps the rounds of all in step.
    """
    settings, result = config.rollout, Collected(position=position)
    share = len(range(rank, settings.prompts, world))
    for turn in range(config.objective.dynamic_rounds if config.objective.dynamic_sampling else 1):
        indices = stream(result.position, settings.prompts, len(problems), config.seed)[rank::world]
        result.position += settings.prompts
        chosen = [problems[i] for i in indices]
        sampling = Sampling(
            max_tokens=settings.max_tokens,
            temperature=settings.temperature,
            top_p=settings.top_p,
            top_k=settings.top_k,
            seed=seed_of(config.seed, "rollout", step, turn, rank),
        )
        for group in _sampled(chosen, engine, judge, settings.group, sampling, result):
            if config.objective.dynamic_sampling and _flat(group):
                result.flat += 1
            elif len(result.groups) < share:
                result.groups.append(group)
        if not any_process(len(result.groups) < share):
            break
    return result


def sample(
    problems: Sequence[Problem], engine: Engine, judge: Judge, samples: int, sampling: Sampling
) -> list[list[Rollout]]:
    """Rollouts of every problem, `samples` each, those without a reward among them."""
    completions = engine.generate([problem.prompt_ids for problem in problems], samples, sampling)
    pairs = [
        (problem, completion) for problem, group in zip(problems, completions, strict=True) for completion in group
    ]
    verdicts = judge([(completion.text, problem.example) for problem, completion in pairs])
    rollouts = [
        Rollout(problem.example, problem.prompt_ids, completion, verdict)
        for (problem, completion), verdict in zip(pairs, verdicts, strict=True)
    ]
    return [rollouts[i * samples : (i + 1) * samples] for i in range(len(problems))]


def stream(position: int, count: int, size: int, seed: int) -> list[int]:
    """Indices `position` to `position + count - 1` of an endless stream that is a fresh shuffle of `size` every pass.

    A function of its arguments alone: a resumed run needs its position and nothing else.
    """
    indices: list[int] = []
    while len(indices) < count:
        epoch, offset = divmod(position + len(indices), size)
        order = np.random.default_rng([seed, epoch]).permutation(size)
        indices.extend(int(i) for i in order[offset : offset + count - len(indices)])
    return indices


def seed_of(*parts: int | str) -> int:
    """A seed, 0 to 2^63 - 1, for anything that can be named; other names, other draws."""
    digest = hashlib.sha256("/".join(str(part) for part in parts).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def _sampled(
    problems: Sequence[Problem], engine: Engine, judge: Judge, samples: int, sampling: Sampling, result: Collected
) -> list[list[Rollout]]:
    """Groups of rollouts that have a reward and at least one token; the others are counted."""
    began = time.perf_counter()
    judging = 0.0

    def timed(pairs: Sequence[tuple[str, Example]]) -> list[Verdict]:
        nonlocal judging
        start = time.perf_counter()
        verdicts = judge(pairs)
        judging = time.perf_counter() - start
        return verdicts

    groups = sample(problems, engine, timed, samples, sampling) if problems else []
    result.seconds_judging += judging
    result.seconds_sampling += time.perf_counter() - began - judging
    kept = []
    for group in groups:
        result.drawn += len(group)
        result.tokens += sum(len(rollout.completion.token_ids) for rollout in group)
        result.problems.update(reason for rollout in group if (reason := _lacking(rollout.completion, rollout.verdict)))
        usable = [rollout for rollout in group if not _lacking(rollout.completion, rollout.verdict)]
        if usable:
            kept.append(usable)
    return kept


def _lacking(completion: Completion, verdict: Verdict) -> str:
    """Why a rollout cannot train: no reward, or no token at all; empty if it can."""
    if verdict.reward is None:
        return verdict.problem
    return "" if completion.token_ids else "empty"


def _flat(group: Sequence[Rollout]) -> bool:
    return equal_rewards(torch.tensor([rollout.verdict.reward for rollout in group], dtype=torch.float64))
