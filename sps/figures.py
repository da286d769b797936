"""What is logged of a step: every name here has its meaning in metrics.py."""

from collections.abc import Sequence
from typing import Any

import torch

from sps.batch import Row, demonstrations
from sps.config import Config
from sps.learner import Learnt
from sps.objectives.advantages import equal_rewards
from sps.objectives.clusters import Clusters
from sps.processes import Processes
from sps.sampling import Collected
from sps.squeezing import squeezing_means, squeezing_sums

# Sums that policy_loss weights by the tokens' loss weights; logged as means.
WEIGHTED = {
    "ratio": "ratio_mean",
    "clipped": "clipped_share",
    "importance": "importance_mean",
    "capped": "capped_share",
}
LOSSES = ("loss_policy", "loss_entropy", "loss_kl", "loss_kl_cov", "loss_forward_kl")


def of_step(
    collected: Collected, rows: Sequence[Row], learnt: Learnt, config: Config, clusters: Clusters, processes: Processes
) -> dict[str, Any]:
    """A step's figures over all processes; the trainer adds step, rate and times."""
    sums = _rollout_sums(collected) | {f"update/{name}": value for name, value in learnt.figures.sums.items()}
    sums |= {f"squeezing/{name}": value for name, value in _squeezing(rows, config, clusters).items()}
    steered = [steering for steering in learnt.steerings if steering.steered]
    sums |= {"steered": float(len(steered)), "irl_kl": sum(steering.kl for steering in steered)}
    total = _over(sums, processes)
    maxima = processes.greatest([learnt.figures.maxima.get(name, 0.0) for name in ("ratio_max", "importance_max")])
    updates = total["update/updates"] / processes.world

    count, mean = max(total["count"], 1.0), total["reward"] / max(total["count"], 1.0)
    logged: dict[str, Any] = {
        "reward_mean": mean,
        "reward_std": max(total["reward_squared"] / count - mean * mean, 0.0) ** 0.5,
        "correct_share": total["correct"] / count,
        "truncated_share": total["truncated"] / count,
        "length_mean": total["length"] / count,
        "groups_used": int(total["groups"]),
        "groups_flat": int(total["flat"]),
        "groups_replaced": int(total["replaced"]),
        "reward_missing": {
            name.removeprefix("missing/"): int(n) for name, n in total.items() if name.startswith("missing/")
        },
        "tokens": int(total["tokens"]),
        "seconds_sampling": total["seconds_sampling"] / processes.world,
        "seconds_judging": total["seconds_judging"] / processes.world,
        "updates": int(updates),
        "gradient_norm": learnt.gradient_norm,
        "ratio_max": maxima[0],
        "importance_max": maxima[1],
        "entropy": total.get("update/entropy", 0.0) / updates,
        "irl_kl": total["irl_kl"] / total["steered"] if total["steered"] else None,
        "prompts_steered": int(total["steered"]),
    }
    weight = total.get("update/weight", 0.0)
    logged |= {ours: total[f"update/{name}"] / weight for name, ours in WEIGHTED.items() if weight}
    logged |= {name: total[f"update/{name}"] / updates for name in LOSSES if f"update/{name}" in total}
    if "update/kl_to_initial" in total:
        logged["kl_to_initial"] = total["update/kl_to_initial"] / updates
    return logged | squeezing_means(_under("squeezing/", total))


def of_probe(step: int, row: Row, logprobs: torch.Tensor) -> dict[str, Any]:
    """Where one trajectory of the probe set stands."""
    assert row.rollout is not None
    return {
        "step": step,
        "problem": row.rollout.example.id,
        "sample": row.sample,
        "correct": row.rollout.verdict.correct,
        "logprob": float(logprobs.double().sum()),
        "length": len(row.completion_ids),
    }


def nothing_to_learn(step: int, collected: Collected) -> str:
    """Why a step has no groups, in words."""
    if collected.problems:
        reasons = ", ".join(f"{reason}: {count}" for reason, count in collected.problems.most_common())
        return (
            f"step {step}: not one of {collected.drawn} completions got a reward ({reasons}); "
            "try the task's reward function on one"
        )
    return (
        f"step {step}: all {collected.flat} groups had equal rewards within themselves: there is nothing to compare. "
        "The task is too hard or too easy for this policy: change its level, raise rollout.group or "
        "objective.dynamic_rounds, or turn objective.dynamic_sampling off"
    )


def _rollout_sums(collected: Collected) -> dict[str, float]:
    rollouts = [rollout for group in collected.groups for rollout in group]
    rewards = torch.tensor([rollout.verdict.reward for rollout in rollouts], dtype=torch.float64)
    flat = [equal_rewards(torch.tensor([r.verdict.reward for r in group])) for group in collected.groups]
    return {
        "count": float(len(rollouts)),
        "reward": float(rewards.sum()),
        "reward_squared": float(rewards.square().sum()),
        "correct": float(sum(rollout.verdict.correct for rollout in rollouts)),
        "truncated": float(sum(not rollout.completion.finished for rollout in rollouts)),
        "length": float(sum(len(rollout.completion.token_ids) for rollout in rollouts)),
        "groups": float(len(collected.groups)),
        "flat": float(sum(flat)),
        "replaced": float(collected.flat),
        "tokens": float(collected.tokens),
        "seconds_sampling": collected.seconds_sampling,
        "seconds_judging": collected.seconds_judging,
    } | {f"missing/{reason}": float(count) for reason, count in collected.problems.items()}


def _squeezing(rows: Sequence[Row], config: Config, clusters: Clusters) -> dict[str, float]:
    groups: dict[int, list[Row]] = {}
    for row in rows:
        groups.setdefault(row.group, []).append(row)
    settings = config.steering.model_copy(update={"support": "correct"})
    keys = [[row.rollout.verdict.key for row in members if row.rollout] for members in groups.values()]
    return squeezing_sums([demonstrations(members, settings, clusters) for members in groups.values()], keys, settings)


def _under(prefix: str, values: dict[str, float]) -> dict[str, float]:
    return {name.removeprefix(prefix): value for name, value in values.items() if name.startswith(prefix)}


def _over(sums: dict[str, float], processes: Processes) -> dict[str, float]:
    """Sums over processes, some of which may lack a name."""
    names = sorted(set(processes.gather(list(sums))))
    return dict(zip(names, processes.sum([sums.get(name, 0.0) for name in names]), strict=True))
