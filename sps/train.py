"""The verb train: put a run together, or take it up where it died, and see it through."""

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from sps import checkpoint
from sps.batch import Row
from sps.config import Config
from sps.evaluate import probes, summary
from sps.learner import Learner
from sps.objectives.clusters import make_clusters
from sps.policy import Policy, load_policy
from sps.problems import Judge, Problem, judge_with, prepare
from sps.processes import Processes
from sps.records import Task
from sps.report import write_report
from sps.rollout import make_engine
from sps.rollout.protocol import Engine, Sampling
from sps.runfolder import RunFolder, load_initial, save_initial
from sps.runs import read_evaluations
from sps.sampling import sample, seed_of
from sps.tasks import load_task
from sps.trainer import State, Trainer
from sps.update import adamw


def train(config: Config, task: Task | None = None) -> dict[str, Any]:
    """Train a policy as the settings say; a run that died goes on from its last checkpoint, a finished one is shown.

    task: problems and their reward, instead of the task that the settings name; an equal one each time a run goes on.

    Returns a dictionary: `output`, `model` (a Hugging Face folder), `report`, `steps`, and `passk`: rows of
    k, before, after.

    Raises:
        ValueError: settings, task or model are unusable; the message says what to mend.
        TrainingError: training cannot go on.
    """
    task = task or load_task(config.task)
    policy = load_policy(config.policy, task, config.seed, Path(config.policy.tiny_cache).expanduser())
    processes = Processes(config.trainer.sharding, policy.autocast, policy)
    policy.to(processes.device)
    torch.manual_seed(seed_of(config.seed, "dropout", processes.rank))  # sampling and order need no state
    folder = RunFolder(Path(config.output), config, processes.main)
    resumed = checkpoint.latest(folder.checkpoints)
    judge = judge_with(task, config)
    examples = task.examples("train")[: config.trainer.problems]
    problems = prepare(policy, examples, config)
    held_out = prepare(policy, task.examples("test")[: config.evaluation.problems], config)
    reference = _reference(policy, config, processes)
    engine = make_engine(policy, config.rollout, own_copy=processes.sharded)  # before the policy may be sharded
    optimiser = adamw(policy, config)
    module, shared = processes.prepare(policy, optimiser)
    state = State()
    if resumed is not None:
        state = State(**checkpoint.restore(resumed, module, shared, processes))
    folder.begin(state.step if resumed else -1)
    try:
        engine.update(policy)
        probe_rows, rehearsal = _initial(problems, engine, judge, config, folder, processes)
        clusters = make_clusters(config.steering)
        learner = Learner(config, policy, module, shared, reference, rehearsal, processes, clusters)
        too_long = len(examples) - len(problems)
        trainer = Trainer(config, learner, engine, judge, problems, held_out, probe_rows, folder, too_long)
        state = trainer.run(state)
    finally:
        engine.close()
        folder.close()
    state_dict = checkpoint.whole_weights(module) if processes.sharded else None
    if processes.main:
        policy.save(folder.final, state_dict)
        write_report(folder.root)
    return _outcome(config, folder)


def _reference(policy: Policy, config: Config, processes: Processes) -> torch.nn.Module | None:
    """A frozen copy of the initial policy, where a KL to it is asked for; with LoRA the adapters are switched off."""
    if not config.objective.kl_coefficient or config.policy.lora is not None:
        return None
    return processes.share(copy.deepcopy(policy).requires_grad_(False).eval())


def _initial(
    problems: Sequence[Problem], engine: Engine, judge: Judge, config: Config, folder: RunFolder, processes: Processes
) -> tuple[list[Row], list[Row]]:
    """The probe set and the rehearsal set, sampled from the initial policy by the main process, once."""
    path = folder.root / "initial.json"
    if processes.main and not path.exists():
        save_initial(path, probes(problems, engine, judge, config), _rehearsal(problems, engine, judge, config))
    processes.wait()
    return load_initial(path)


def _rehearsal(problems: Sequence[Problem], engine: Engine, judge: Judge, config: Config) -> list[Row]:
    """Right completions of the initial policy for prompts that it solves (DPH-RL's forward KL)."""
    settings = config.objective
    if not settings.forward_kl:
        return []
    chosen = problems[: settings.forward_kl_prompts]
    sampling = Sampling(
        config.rollout.max_tokens, config.rollout.temperature, 1.0, 0, seed_of(config.seed, "rehearsal")
    )
    rows = []
    for number, group in enumerate(sample(chosen, engine, judge, config.rollout.group, sampling)):
        right = [rollout for rollout in group if rollout.verdict.correct and rollout.completion.token_ids]
        if len(right) >= settings.forward_kl_solved * len(group):
            rows += [Row(r.prompt_ids, r.completion.token_ids, number, r, rehearsed=True) for r in right]
    if not rows:
        raise ValueError(
            f"the initial policy solves none of {len(chosen)} prompts to {settings.forward_kl_solved:.0%}, so that "
            "objective.forward_kl has nothing to rehearse; lower forward_kl_solved or raise forward_kl_prompts"
        )
    return rows


def _outcome(config: Config, folder: RunFolder) -> dict[str, Any]:
    """What a run came to: Pass@k before and after."""
    rows = read_evaluations(folder.root)
    first, last = min(row["step"] for row in rows), max(row["step"] for row in rows)
    settings = config.evaluation
    before, after = (
        summary([row for row in rows if row["step"] == step], settings.ks, settings.resamples, config.seed)
        for step in (first, last)
    )
    return {
        "output": str(folder.root),
        "model": str(folder.final),
        "report": str(folder.root / "report.html"),
        "steps": last,
        "passk": [{"k": k, "before": before[k], "after": after[k]} for k in settings.ks],
    }
