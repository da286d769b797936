"""Training without a workspace, as update and the backtest do it: the first model, the next one, sps."""

import os
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from serm.config import Config
from serm.evaluation.metrics import per_query
from serm.evaluation.scoring import score_judged
from serm.evolution.mixture import mix

DEV_MEASURE = "nDCG@10"


def train_first(
    original: pl.DataFrame, dev: pl.DataFrame, config: Config, checkpoint: Path | None = None,
    texts: Sequence[str] = (),
) -> tuple[Any, Any]:  # fmt: skip
    """The starting model: base weights trained on human pairs [query, text, label], stopped early on `dev`.

    A generative one reads `texts` before, `relevance.pretrain_epochs` times. `dev` has query, doc_id, text, grade and
    may be empty. Returns (model, Trained).
    """
    from serm.relevance import start
    from serm.relevance.training import train

    relevance = config.relevance
    model = start(relevance, config.labels.scale, config.seed)
    if texts:
        from serm.relevance.pretraining import pretrain

        reading = _plan(
            config, relevance.pretrain_epochs, relevance.pretrain_learning_rate, config.seed, relevance.pretrain_blocks
        )
        pretrain(model, texts, reading, checkpoint.with_suffix(".texts.pt") if checkpoint else None)
    plan = _plan(config, relevance.max_epochs, relevance.learning_rate, config.seed)
    pairs = original.select("query", "text", "label").with_columns(pl.lit(1.0).alias("weight"))
    return model, train(model, pairs, plan, dev_measure(model, dev, config), checkpoint)


def train_next(
    model: Any, new: pl.DataFrame, earlier: pl.DataFrame, original: pl.DataFrame, config: Config, round: int,
    errors: NDArray[np.float64] | None = None, checkpoint: Path | None = None, dev: pl.DataFrame | None = None,
) -> Any:  # fmt: skip
    """Continue `model` in place on the mixture of three frames [query, text, label]; returns Trained.

    `errors` is the confusion of the annotators who labelled `new` and `earlier`; None takes their labels for true. With
    `dev` and `update.stop_on_dev` the weights that are best on it are kept.
    """
    from serm.relevance.training import train

    seed = round_seed(config, round)
    measure = None if dev is None or not config.update.stop_on_dev else dev_measure(model, dev, config)
    mixture = mix(new, earlier, original, config.update, seed)
    return train(model, mixture, _plan(config, 1.0, config.update.learning_rate, seed), measure, checkpoint, errors)


def reinforce_on(model: Any, pairs: pl.DataFrame, dev: pl.DataFrame, config: Config, round: int, folder: Path) -> Any:
    """A generative model after sps on pairs [query, text, label]: (model, what sps reports).

    `folder` keeps the run, so that a killed one goes on; `model`'s weights are let go of. Held-out problems are pairs
    of `dev`, or of the training pairs where there are none.
    """
    from serm.relevance.reinforcement import reinforce

    start = folder / "start"
    if not start.exists():
        scratch = folder / f".start-{uuid.uuid4().hex}"
        model.save(scratch)
        os.replace(scratch, start)
    model.network = None
    held_out = pairs if dev.is_empty() else dev.rename({"grade": "label"})
    held_out = held_out.select("query", "text", "label").unique(maintain_order=True)
    amount = min(config.update.sps.held_out, held_out.height)
    drawn = held_out.sample(amount, seed=config.seed, shuffle=True)
    settings, scale = model.settings, config.labels.scale
    return reinforce(start, settings, scale, pairs, drawn, config.update.sps, round_seed(config, round), folder / "sps")


def round_seed(config: Config, round: int) -> int:
    """The seed of everything that is drawn in a round's update."""
    return config.seed * 1_009 + round


def dev_measure(model: Any, dev: pl.DataFrame, config: Config) -> Callable[[], float] | None:
    """A function that gives the model's mean nDCG@10 on `dev`; None if no grade there is above the least."""
    if dev.filter(pl.col("grade") > config.labels.scale[0]).is_empty():
        return None

    def measure() -> float:
        scores = score_judged(model, dev, dev.select("doc_id", "text").unique("doc_id"))
        values = per_query(dev.select("query", "doc_id", "grade"), scores, [DEV_MEASURE]).values[DEV_MEASURE]
        return float(values.to_numpy().mean())

    return measure


def _plan(config: Config, epochs: float, rate: float, seed: int, batch: int | None = None) -> Any:
    from serm.relevance.loop import Plan

    settings = config.relevance
    return Plan(
        epochs, batch or settings.batch_pairs, rate, settings.weight_decay, settings.warmup_share,
        settings.evaluate_every, settings.patience, settings.checkpoint_every, seed, settings.micro_batch_tokens,
    )  # fmt: skip
