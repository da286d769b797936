"""The verb eval: Pass@k of any model on any task."""

from pathlib import Path
from typing import Any

import torch

from sps import checkpoint
from sps.config import Config
from sps.configure import load
from sps.evaluate import evaluate, summary
from sps.policy import Policy, load_policy
from sps.problems import judge_with, prepare
from sps.rollout import make_engine
from sps.tasks import load_task


def evaluate_model(model: str, config: str = "tiny-arithmetic", overrides: list[str] | None = None) -> dict[str, Any]:
    """Sample and judge `evaluation.samples` completions of each held-out problem.

    Args:
        model: a run's folder (its final model), a checkpoint's folder, both with the run's own settings; or a Hugging
            Face folder or name, or "tiny", with the settings of `config`.

    Returns:
        `model`, `task`, `passk` (rows of k and an interval, None where too few verdicts), `levels` (Pass@1 by level),
        `problems` (a row each).

    Raises:
        ValueError: there is no such model, or its task has no problems that fit.
    """
    settings, policy = _open(model, config, overrides or [])
    task = load_task(settings.task)
    problems = prepare(policy, task.examples("test")[: settings.evaluation.problems], settings)
    engine = make_engine(policy, settings.rollout)
    try:
        engine.update(policy)
        rows = evaluate(problems, engine, judge_with(task, settings), settings, 0)
    finally:
        engine.close()
    found = summary(rows, settings.evaluation.ks, settings.evaluation.resamples, settings.seed)
    return {
        "model": model,
        "task": task.name,
        "passk": [{"k": k, "passk": found[k]} for k in settings.evaluation.ks],
        "levels": _levels(rows),
        "problems": rows,
    }


def _open(model: str, config: str, overrides: list[str]) -> tuple[Config, Policy]:
    path = Path(model)
    run = next((folder for folder in (path, path.parent.parent) if (folder / "config.yaml").is_file()), None)
    if run is None:
        settings = load(config, [*overrides, f"policy.model={model}"])
        return settings, _loaded(settings)
    settings = load(run / "config.yaml", overrides)
    if path == run and (run / "final").is_dir():
        settings = settings.model_copy(
            update={
                "policy": settings.policy.model_copy(update={"model": str(run / "final"), "gguf": None, "lora": None})
            }
        )
        return settings, _loaded(settings)
    policy = _loaded(settings)
    chosen = checkpoint.latest(run / "checkpoints") if path == run else path
    if chosen is None:
        raise ValueError(f"{model} holds neither a final model nor a checkpoint yet")
    policy.load_state_dict(checkpoint.weights(chosen), strict=False)
    return settings, policy


def _loaded(settings: Config) -> Policy:
    task = load_task(settings.task)
    policy = load_policy(settings.policy, task, settings.seed, Path(settings.policy.tiny_cache).expanduser())
    return policy.to(torch.device("cuda" if torch.cuda.is_available() else "cpu"))


def _levels(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Pass@1 by level, where there are several."""
    levels = sorted({row["level"] for row in rows})
    if len(levels) < 2:
        return []
    table = []
    for level in levels:
        own = [row for row in rows if row["level"] == level and row["n"]]
        mean = sum(row["c"] / row["n"] for row in own) / len(own) if own else None
        table.append({"level": level, "problems": len(own), "Pass@1": mean})
    return table
