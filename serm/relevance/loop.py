"""The training loop of every relevance model: resumable step by step, stopped early on human judgments.

The order of batches and every step's dropout are functions of the seed and the step alone, so a run that was killed
and resumed takes the same steps as one that was not. An objective is a few weighted sums over rows; each is divided by
its weight in the whole step, which is known before the first backward: however a step is cut into micro-batches, its
gradient is the same.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from serm.relevance import checkpoint as checkpoints
from serm.relevance.examples import TrainingError
from sps import progress

BUCKET_BATCHES = 32  # rows are sorted by length inside windows of so many batches: less padding, still random


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
    micro_batch_tokens: int = 16_384  # padding included; a row that is longer goes alone


@dataclass
class Trained:
    """What a training run did."""

    steps: int = 0
    best_step: int = 0
    loss: list[float] = field(default_factory=list)  # mean over each evaluation period
    dev: list[float] = field(default_factory=list)


class Objective(Protocol):
    """What is minimised: for a set of rows, K weighted sums, and the weights that they are divided by.

    Attributes:
        network: its parameters that require a gradient are trained.
        device: where it computes.
        lengths: (n,) tokens of each row.
    """

    network: Any
    device: torch.device
    lengths: NDArray[np.int64]

    def weight(self, rows: Sequence[int]) -> NDArray[np.float64]:
        """The weight of each sum over these rows: (K,)."""
        ...

    def sums(self, rows: Sequence[int]) -> torch.Tensor:
        """The weighted sums of the losses of one micro-batch, in float32: (K,)."""
        ...


def minimise(
    objective: Objective, plan: Plan, dev: Callable[[], float] | None = None, checkpoint: Path | None = None
) -> Trained:
    """Train the objective's network in place by AdamW.

    With `dev` the weights of the best dev value are kept, and training stops after `plan.patience` values without a
    better one. With `checkpoint` the run goes on from that file if it is there; its last state stays in it, for the
    caller to delete. A file that cannot be read is passed over with a note, and training begins anew.

    Raises:
        TrainingError: the loss or its gradient is not a number.
    """
    network = objective.network
    batches = plan_batches(objective.lengths, plan)
    trainable = {name: weight for name, weight in network.named_parameters() if weight.requires_grad}
    optimizer = torch.optim.AdamW(
        trainable.values(), lr=plan.learning_rate, weight_decay=plan.weight_decay,
        fused=objective.device.type != "mps",
    )  # fmt: skip
    warmup = max(1, int(plan.warmup_share * len(batches)))
    done, ended, best, trained, period = 0, False, None, Trained(), []
    state = checkpoints.read(checkpoint, objective.device) if checkpoint else None
    if state is not None:
        checkpoints.restore(trainable, state["weights"])
        optimizer.load_state_dict(state["optimizer"])
        done, ended, best, period = state["done"], state["ended"], state["best"], state["period"]
        trained = Trained(**state["trained"])
    with progress.track("training steps", len(batches), done) as advance:
        for step in range(len(batches) if ended else done, len(batches)):
            torch.manual_seed(plan.seed * 1_000_003 + step)
            for group in optimizer.param_groups:
                group["lr"] = plan.learning_rate * _schedule(step, len(batches), warmup)
            network.train()
            optimizer.zero_grad(set_to_none=True)
            period.append(_backward(objective, batches[step], plan, step))
            norm = torch.nn.utils.clip_grad_norm_(trainable.values(), 1.0)
            if not torch.isfinite(norm):
                raise TrainingError(f"the gradient became {norm.item()} at step {step}; lower the learning rate")
            optimizer.step()
            trained.steps = step + 1
            advance(1)
            last = step + 1 == len(batches)
            if (step + 1) % plan.evaluate_every == 0 or last:
                trained.loss.append(float(np.mean(period)))
                period = []
                best = _keep_best(network, trainable, dev, trained, best)
                ended = last or bool(dev and len(trained.dev) - 1 - int(np.argmax(trained.dev)) >= plan.patience)
            if checkpoint and ((step + 1) % plan.checkpoint_every == 0 or ended):
                content = {
                    "weights": trainable, "optimizer": optimizer.state_dict(), "done": step + 1, "ended": ended,
                    "best": best, "trained": asdict(trained), "period": period,
                }  # fmt: skip
                checkpoints.write(checkpoint, content)
            if ended:
                break
    if best is not None:
        checkpoints.restore(trainable, best)
    network.eval()
    return trained


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


def micro_batches(rows: Sequence[int], lengths: NDArray[np.int64], tokens: int) -> Iterator[list[int]]:
    """Rows in their order, cut so that no padded part holds more than `tokens`, unless it is a single row."""
    part: list[int] = []
    longest = 0
    for row in rows:
        longest = max(longest, int(lengths[row]))
        if part and longest * (len(part) + 1) > tokens:
            yield part
            part, longest = [], int(lengths[row])
        part.append(row)
    if part:
        yield part


def _backward(objective: Objective, rows: Sequence[int], plan: Plan, step: int) -> float:
    """Gradients of one step, micro-batch after micro-batch; returns its loss."""
    weight = objective.weight(rows)
    factors = torch.tensor(np.where(weight > 0, 1 / np.where(weight > 0, weight, 1), 0), dtype=torch.float32)
    total = 0.0
    for part in micro_batches(rows, objective.lengths, plan.micro_batch_tokens):
        loss = (objective.sums(part) * factors.to(objective.device)).sum()
        if not torch.isfinite(loss):
            raise TrainingError(f"the loss became {loss.item()} at step {step}; lower the learning rate")
        loss.backward()  # type: ignore[no-untyped-call]
        total += loss.item()
    return total


def _schedule(step: int, total: int, warmup: int) -> float:
    """Linear warm-up, then linear to zero."""
    if step < warmup:
        return (step + 1) / warmup
    return max(0.0, (total - step) / max(1, total - warmup))


def _keep_best(
    network: Any, trainable: dict[str, torch.nn.Parameter], dev: Callable[[], float] | None, trained: Trained,
    best: dict[str, torch.Tensor] | None,
) -> dict[str, torch.Tensor] | None:  # fmt: skip
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
    return {name: weight.detach().clone() for name, weight in trainable.items()}
