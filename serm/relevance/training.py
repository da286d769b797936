"""Supervised training of a cross-encoder: resumable step by step, stopped early on human judgments.

The order of batches and every step's dropout are functions of the seed and the step alone, so a run that was killed
and resumed takes the same steps as one that was not.
"""

import os
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray

from serm.relevance.cross_encoder import CrossEncoder
from sps import progress

BUCKET_BATCHES = 32  # pairs are sorted by length inside windows of so many batches: less padding, still random


@dataclass(frozen=True)
class Plan:
    """How long and how fast to train."""

    epochs: float
    batch_pairs: int
    learning_rate: float
    weight_decay: float
    warmup_share: float
    evaluate_every: int
    patience: int
    checkpoint_every: int
    seed: int


@dataclass
class Trained:
    """What a training run did."""

    steps: int = 0
    best_step: int = 0
    loss: list[float] = field(default_factory=list)  # mean over each evaluation period
    dev: list[float] = field(default_factory=list)


class TrainingError(RuntimeError):
    """Training cannot go on; the model in charge is untouched."""


def train(
    model: CrossEncoder,
    pairs: pl.DataFrame,
    plan: Plan,
    dev: Callable[[], float] | None = None,
    checkpoint: Path | None = None,
    confusion: NDArray[np.float64] | None = None,
) -> Trained:
    """Minimise −w log Pr(y | q, d) over pairs [query, text, label, weight] (SERM's supervised loss), in place.

    With `confusion` (|Y|, |Y|), the annotators' P(label | truth), pairs whose boolean column `agreed` is true are given
    the likelihood of the label that was seen, −w log sum_y Pr(y | q, d) confusion[y, label]: the forward correction of
    Patrini et al. (2017). A label that errs at a known rate then cannot overrule what the model is sure of (ours to
    use it here).

    With `dev` the weights of the best dev value are kept, and training stops after `patience` values without a
    better one. With `checkpoint` the run goes on from that file if it is there, and leaves it to the caller to delete.

    Raises:
        TrainingError: there are no pairs, a label is off the scale, or the loss is not a number.
    """
    index = {label: position for position, label in enumerate(model.scale)}
    unknown = set(pairs["label"].unique()) - set(index)
    if pairs.is_empty() or unknown:
        raise TrainingError(f"labels off the scale {model.scale}: {sorted(unknown)}" if unknown else "no pairs")
    encodings = model.encode(pairs["query"].to_list(), pairs["text"].to_list())
    labels = np.array([index[label] for label in pairs["label"]])
    weights = pairs["weight"].to_numpy().astype(np.float32)
    agreed = pairs["agreed"].to_numpy() if confusion is not None else np.zeros(len(labels), dtype=bool)
    evidence = log_likelihoods(labels, agreed, confusion, len(index))
    batches = plan_batches(np.array([len(ids) for ids, _ in encodings]), plan)
    network = model.network
    optimizer = torch.optim.AdamW(
        network.parameters(), lr=plan.learning_rate, weight_decay=plan.weight_decay, fused=model.device.type != "mps"
    )
    warmup = max(1, int(plan.warmup_share * len(batches)))
    done, best, trained, period = 0, None, Trained(), []
    if checkpoint and checkpoint.exists():
        state = torch.load(checkpoint, map_location=model.device, weights_only=False)
        network.load_state_dict(state["network"])
        optimizer.load_state_dict(state["optimizer"])
        done, best, trained, period = state["done"], state["best"], state["trained"], state["period"]
    with progress.track("training steps", len(batches)) as advance:
        advance(done)
        for step in range(done, len(batches)):
            rows = batches[step]
            torch.manual_seed(plan.seed * 1_000_003 + step)
            for group in optimizer.param_groups:
                group["lr"] = plan.learning_rate * _schedule(step, len(batches), warmup)
            network.train()
            logits = model.forward([encodings[row] for row in rows])
            seen = torch.from_numpy(evidence[rows]).to(model.device)  # (B, |Y|)
            losses = -torch.logsumexp(logits.log_softmax(dim=-1) + seen, dim=-1)
            weight = torch.from_numpy(weights[rows]).to(model.device)
            loss = (losses * weight).sum() / weight.sum()
            if not torch.isfinite(loss):
                raise TrainingError(f"the loss became {loss.item()} at step {step}; lower the learning rate")
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            period.append(loss.item())
            trained.steps = step + 1
            advance(1)
            last = step + 1 == len(batches)
            if (step + 1) % plan.evaluate_every == 0 or last:
                trained.loss.append(float(np.mean(period)))
                period = []
                best = _keep_best(network, dev, trained, best)
                if dev and len(trained.dev) - 1 - int(np.argmax(trained.dev)) >= plan.patience:
                    break
            if checkpoint and (step + 1) % plan.checkpoint_every == 0 and not last:
                _save(checkpoint, network, optimizer, step + 1, best, trained, period)
    if best is not None:
        network.load_state_dict(best)
    network.eval()
    return trained


def log_likelihoods(
    labels: NDArray[np.int64], agreed: NDArray[np.bool_], confusion: NDArray[np.float64] | None, classes: int
) -> NDArray[np.float32]:
    """log P(seen label | truth y) for every row and y: (n, |Y|); a human label is certain."""
    table = np.log(np.maximum(np.eye(classes), 1e-30))[:, labels].T
    if confusion is not None:
        table[agreed] = np.log(np.maximum(confusion, 1e-30))[:, labels[agreed]].T
    return table.astype(np.float32)


def plan_batches(lengths: NDArray[np.int64], plan: Plan) -> list[list[int]]:
    """Row numbers of every step's batch for the whole run: shuffled epochs, bucketed by length."""
    rng = np.random.default_rng(plan.seed)
    count = len(lengths)
    wanted = max(1, round(plan.epochs * count))
    rows = np.concatenate([rng.permutation(count) for _ in range(-(-wanted // count))])[:wanted]
    batches: list[list[int]] = []
    window = plan.batch_pairs * BUCKET_BATCHES
    for start in range(0, wanted, window):
        part = rows[start : start + window]
        part = part[np.argsort(lengths[part], kind="stable")]
        cut = [part[i : i + plan.batch_pairs].tolist() for i in range(0, len(part), plan.batch_pairs)]
        batches += [cut[i] for i in rng.permutation(len(cut))]
    return batches


def _schedule(step: int, total: int, warmup: int) -> float:
    """Linear warm-up, then linear to zero."""
    if step < warmup:
        return (step + 1) / warmup
    return max(0.0, (total - step) / max(1, total - warmup))


def _keep_best(
    network: torch.nn.Module, dev: Callable[[], float] | None, trained: Trained, best: dict[str, Any] | None
) -> dict[str, Any] | None:
    """Evaluate on dev and return a copy of the weights if they are the best so far."""
    if dev is None:
        trained.best_step = trained.steps
        return None
    network.eval()
    value = dev()
    better = not trained.dev or value > max(trained.dev)
    trained.dev.append(value)
    if not better:
        return best
    trained.best_step = trained.steps
    return {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}


def _save(
    path: Path, network: torch.nn.Module, optimizer: torch.optim.Optimizer, done: int,
    best: dict[str, Any] | None, trained: Trained, period: list[float],
) -> None:  # fmt: skip
    """Write a checkpoint whole or not at all."""
    scratch = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    state = {
        "network": network.state_dict(), "optimizer": optimizer.state_dict(), "done": done,
        "best": best, "trained": trained, "period": period,
    }  # fmt: skip
    torch.save(state, scratch)
    os.replace(scratch, path)
