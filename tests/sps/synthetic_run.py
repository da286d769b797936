"""A run's folder as the trainer leaves it, from a policy small enough to follow exactly: a softmax over solutions.

Solutions are right for some problems and wrong for others; logits are linear in a problem's features, so that training
on some problems squeezes others, for the reason it would in a real run. No file is read and no model is needed.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from sps.config import Config
from sps.logs import append_lines

SOLUTIONS = 14
GROUP, TRAIN, FEATURES = 16, 160, 10


def make_run(
    folder: Path,
    seed: int = 0,
    coefficient: float = 0.0,
    entropy_bonus: float = 0.0,
    steps: int = 200,
    every: int = 25,
    problems: int = 80,
    samples: int = 64,
    probes: int = 40,
    task_seed: int = 0,
) -> Path:
    """Write a run's folder and return it."""
    config = Config.model_validate(
        {
            "seed": seed,
            "output": str(folder),
            "task": {"name": "countdown", "seed": task_seed, "test_size": problems},
            "steering": {"coefficient": coefficient, "period": 2},
            "objective": {"entropy_bonus": entropy_bonus},
            "rollout": {"group": GROUP, "prompts": TRAIN},
            "trainer": {"steps": steps, "evaluate_every": every},
            "evaluation": {
                "problems": problems,
                "samples": samples,
                "ks": sorted({k for k in (1, 4, 16) if k <= samples} | {samples}),
                "resamples": 500,
            },
        }
    )
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False))
    (folder / "versions.json").write_text(json.dumps({"python": "3.11.7", "torch": "2.13.0", "serm": "0.1.0"}))
    tasks, rng = np.random.default_rng(task_seed), np.random.default_rng(seed + 1)
    features = tasks.normal(size=(TRAIN + problems, FEATURES))
    teacher = tasks.normal(size=(FEATURES, SOLUTIONS)) / FEATURES**0.5
    right = features @ teacher + tasks.normal(size=(len(features), SOLUTIONS)) > 1.27
    weights, bias = tasks.normal(size=(FEATURES, SOLUTIONS)) / FEATURES**0.5, tasks.normal(size=SOLUTIONS)
    train, test = slice(0, TRAIN), slice(TRAIN, None)
    followed = _probes(rng, _softmax(features[train] @ weights + bias)[:probes])

    def observe(step: int) -> None:
        p = _softmax(features @ weights + bias)
        append_lines(folder / "evaluations.jsonl", _evaluations(rng, step, p[test], right[test], samples))
        append_lines(folder / "probes.jsonl", [_probe(step, i, s, p[i, s], right[i, s]) for i, s in followed])

    observe(0)
    for step in range(1, steps + 1):
        p = _softmax(features[train] @ weights + bias)
        drawn = (p.cumsum(axis=1)[:, None, :] < rng.random((TRAIN, GROUP, 1))).sum(axis=2).clip(max=SOLUTIONS - 1)
        line, gradient = _learn(drawn, p, right[train], rng)
        gradient -= entropy_bonus * p * (np.log(p) - (p * np.log(p)).sum(axis=1, keepdims=True))
        steered, irl = coefficient > 0 and step % 2 == 0, 0.0
        if steered:
            irl, flatten = _steer(p, right[train])
            gradient += coefficient * flatten
        weights, bias = weights + features[train].T @ gradient / TRAIN, bias + gradient.mean(axis=0)
        line |= {"step": step, "steered": float(steered), "prompts_steered": 110 * steered}
        append_lines(folder / "log.jsonl", [line | {"irl_kl": irl if steered else None}])
        if step % 5 == 0:
            append_lines(folder / "samples.jsonl", _samples(rng, step, drawn, right))
        if step % every == 0:
            observe(step)
    return folder


def _learn(
    drawn: NDArray[np.int64], p: NDArray[np.float64], right: NDArray[np.bool_], rng: np.random.Generator
) -> tuple[dict[str, Any], NDArray[np.float64]]:
    """A step's figures, and the gradient of GRPO's objective for the logits."""
    rewards = np.take_along_axis(right, drawn, axis=1).astype(float)
    spread = rewards.std(axis=1, keepdims=True)
    advantages = np.where(spread > 0, (rewards - rewards.mean(axis=1, keepdims=True)) / np.maximum(spread, 1e-9), 0.0)
    gradient = np.zeros_like(p)
    for i in range(len(p)):
        np.add.at(gradient[i], drawn[i], advantages[i] / GROUP)
    tops, effective, distinct = [], [], []
    for i in range(len(p)):
        found = sorted({s for s in drawn[i] if right[i, s]})
        distinct.append(len(found))
        if rewards[i].sum() >= 2:
            share = p[i, found] / p[i, found].sum()
            tops.append(share.max())
            effective.append(np.exp(-(share * np.log(share)).sum()))
    entropy = float(-(p * np.log(p)).sum(axis=1).mean()) / 4
    noise = rng.normal(size=12)
    tokens = int(drawn.size * (14 + noise[0]))
    seconds = tokens / (9_000 + 900 * noise[1])
    return {
        "reward_mean": float(rewards.mean()), "reward_std": float(rewards.std()),
        "correct_share": float(rewards.mean()),
        "truncated_share": float(np.clip(0.03 * entropy + 0.01 * abs(noise[2]), 0, 1)),
        "length_mean": float(11 + 4 * entropy + 0.4 * noise[3]), "groups_used": len(p),
        "groups_flat": int((spread == 0).sum()), "groups_replaced": 0,
        "reward_missing": {"timeout": int(noise[4] > 1.8)}, "updates": 1, "learning_rate": 2e-4,
        "loss_policy": float(0.01 * noise[5]), "gradient_norm": float(0.6 * np.exp(0.3 * noise[6])),
        "entropy": entropy, "ratio_mean": 1.0, "ratio_max": float(1 + 0.02 * abs(noise[7])), "clipped_share": 0.0,
        "importance_mean": float(1 + 1e-4 * noise[8]), "importance_max": float(1.02 + 0.02 * abs(noise[9])),
        "capped_share": 0.0, "top_share": float(np.mean(tops)), "effective_number": float(np.mean(effective)),
        "distinct_correct": float(np.mean(distinct) + 0.2), "distinct_keys": float(np.mean(distinct)),
        "tokens": tokens, "tokens_per_second": tokens / seconds, "seconds_sampling": 0.6 * seconds,
        "seconds_judging": 0.02 * seconds, "seconds_training": 0.38 * seconds,
    }, gradient  # fmt: skip


def _steer(p: NDArray[np.float64], right: NDArray[np.bool_]) -> tuple[float, NDArray[np.float64]]:
    """KL of the uniform over right solutions to the policy's own, and where its descent moves the logits."""
    mass = np.where(right, p, 0.0)
    own = mass / np.maximum(mass.sum(axis=1, keepdims=True), 1e-300)
    number = right.sum(axis=1, keepdims=True)
    target = np.where(right, 1 / np.maximum(number, 1), 0.0)
    several = number[:, 0] > 1
    kl = np.where(right, target * np.log(np.maximum(target, 1e-300) / np.maximum(own, 1e-300)), 0.0).sum(axis=1)
    return float(kl[several].mean()), np.where(several[:, None], target - own, 0.0)


def _evaluations(
    rng: np.random.Generator, step: int, p: NDArray[np.float64], right: NDArray[np.bool_], samples: int
) -> list[dict[str, Any]]:
    rows = []
    for i, chances in enumerate(p):
        counts = rng.multinomial(samples, chances)
        row = {"step": step, "problem": f"test-{i:04}", "level": "1", "n": samples, "c": int(counts[right[i]].sum())}
        rows.append(row | {"keys": int((counts[right[i]] > 0).sum()), "ended": 1.0, "missing": 0})
    return rows


def _probe(step: int, problem: int, sample: int, chance: float, correct: bool) -> dict[str, Any]:
    row = {"step": step, "problem": f"train-{problem:04}", "sample": sample, "correct": bool(correct)}
    return row | {"logprob": float(np.log(chance)) - 0.3, "length": 11 + sample % 5}


def _probes(rng: np.random.Generator, p: NDArray[np.float64]) -> list[tuple[int, int]]:
    return [(i, int(s)) for i in range(len(p)) for s in np.unique(rng.choice(SOLUTIONS, 10, p=p[i]))]


def _samples(
    rng: np.random.Generator, step: int, drawn: NDArray[np.int64], right: NDArray[np.bool_]
) -> list[dict[str, Any]]:
    rows = []
    for i in rng.integers(0, len(drawn), 2):
        a, b, c, d = (int(x) for x in rng.integers(1, 12, 4))
        good = bool(right[i, drawn[i, 0]])
        rows.append(
            {
                "step": step, "problem": f"train-{i:04}", "prompt": f"{a} {b} {c} {d} -> {a * b + c - d}:",
                "completion": f"{a}*{b}={a * b}\n{a * b}+{c}={a * b + c}\n{a * b + c}-{d}={a * b + c - d}</s> & done"
                if good else f"{a}+{b}={a + b}\n{a + b}*{c}={(a + b) * c}", "finished": good,
                "reward": float(good), "correct": good, "key": f"{a}*{b}+{c}-{d}" if good else None,
            }
        )  # fmt: skip
    return rows


def _softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))
