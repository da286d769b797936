"""Pass@k of a policy on held-out problems, and the probe set that is followed through training."""

from collections.abc import Sequence
from typing import Any

from sps import progress
from sps.batch import Row
from sps.config import Config
from sps.passk import Interval, pass_at_ks
from sps.problems import Judge, Problem
from sps.processes import Processes
from sps.records import Rollout
from sps.rollout.protocol import Engine, Sampling
from sps.sampling import sample, seed_of

CHUNK = 4_096  # completions sampled between two movements of the progress bar


def evaluate(
    problems: Sequence[Problem],
    engine: Engine,
    judge: Judge,
    config: Config,
    step: int,
    processes: Processes | None = None,
) -> list[dict[str, Any]]:
    """One row per problem: step, problem, level, n completions with a verdict, c correct, keys, ended, missing.

    `keys` counts distinct keys (else texts) among the correct; `ended` is the share that ended by itself; `missing` are
    completions whose verdict failed: they are in neither n nor c. Every process takes its share of the problems, and
    all get all rows.
    """
    settings = config.evaluation
    rank, world = (processes.rank, processes.world) if processes else (0, 1)
    mine = list(problems[rank::world])
    size = max(1, CHUNK // settings.samples)
    rows: list[dict[str, Any]] = []
    with progress.track(f"evaluating at step {step}", len(mine)) as advance:
        for start in range(0, len(mine), size):
            part = mine[start : start + size]
            sampling = Sampling(
                max_tokens=config.rollout.max_tokens,
                temperature=settings.temperature,
                top_p=settings.top_p,
                top_k=0,
                seed=seed_of(config.seed, "evaluation", step, start, rank),
            )
            groups = sample(part, engine, judge, settings.samples, sampling)
            rows.extend(_row(problem, group, step) for problem, group in zip(part, groups, strict=True))
            advance(len(part))
    everyone = processes.gather(rows) if processes else rows
    order = {problem.example.id: i for i, problem in enumerate(problems)}
    return sorted(everyone, key=lambda row: order[row["problem"]])


def _row(problem: Problem, group: Sequence[Rollout], step: int) -> dict[str, Any]:
    judged = [rollout for rollout in group if rollout.verdict.reward is not None]
    right = [rollout for rollout in judged if rollout.verdict.correct]
    return {
        "step": step,
        "problem": problem.example.id,
        "level": problem.example.level,
        "n": len(judged),
        "c": len(right),
        "keys": len({rollout.verdict.key or rollout.completion.text for rollout in right}),
        "ended": sum(rollout.completion.finished for rollout in group) / len(group),
        "missing": len(group) - len(judged),
    }


def summary(rows: Sequence[dict[str, Any]], ks: Sequence[int], resamples: int, seed: int) -> dict[int, Interval | None]:
    """Pass@k with its interval for every k, over the problems that have at least k verdicts; None where none has."""
    return pass_at_ks([(row["n"], row["c"]) for row in rows], ks, resamples, seed)


def probes(problems: Sequence[Problem], engine: Engine, judge: Judge, config: Config) -> list[Row]:
    """Completions of the initial policy for the first training problems, equal ones once: the probe set."""
    settings = config.evaluation
    sampling = Sampling(config.rollout.max_tokens, config.rollout.temperature, 1.0, 0, seed_of(config.seed, "probes"))
    chosen = problems[: settings.probes]
    rows: list[Row] = []
    for number, group in enumerate(sample(chosen, engine, judge, settings.probe_samples, sampling)):
        distinct = {tuple(rollout.completion.token_ids): rollout for rollout in group if rollout.completion.token_ids}
        rows.extend(
            Row(rollout.prompt_ids, ids, number, rollout, sample=i) for i, (ids, rollout) in enumerate(distinct.items())
        )
    return rows
