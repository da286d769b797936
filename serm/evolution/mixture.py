"""The training mixture of an update: this round's labels, earlier rounds' labels and the original human judgments.

Replay of earlier and original data is what keeps a model from forgetting (SERM, step 3); the shares are ours.
"""

import numpy as np
import polars as pl

from serm.config import UpdateSettings

COLUMNS = ("query", "text", "label")


def mix(
    new: pl.DataFrame, earlier: pl.DataFrame, original: pl.DataFrame, settings: UpdateSettings, seed: int
) -> pl.DataFrame:
    """One pass of training pairs [query, text, label, weight, agreed] made of three frames [query, text, label].

    `new` and `earlier` may have a boolean column `agreed`, false where a person gave the label; without it all labels
    are what the annotators agreed on. `agreed` labels are evidence of known strength in training, others are truth.
    `settings.epochs` passes over `new` are `settings.new_share` of the result; what a source lacks, the original
    judgments fill. Sampling repeats a row only when its source is smaller than its share.
    """
    rng = np.random.default_rng(seed)
    amount_new = round(new.height * settings.epochs)
    total = amount_new / settings.new_share
    amount_earlier = round(total * settings.earlier_share) if earlier.height else 0
    amount_original = max(0, round(total) - amount_new - amount_earlier) if original.height else 0
    parts = [
        draw(frame.select(*COLUMNS, _agreed(frame, agreed)), amount, rng)
        for frame, amount, agreed in (
            (new, amount_new, True), (earlier, amount_earlier, True), (original, amount_original, False),
        )
    ]  # fmt: skip
    return pl.concat(parts).with_columns(pl.lit(1.0).alias("weight"))


def _agreed(frame: pl.DataFrame, otherwise: bool) -> pl.Expr:
    return pl.col("agreed") if "agreed" in frame.columns else pl.lit(otherwise).alias("agreed")


def draw(frame: pl.DataFrame, amount: int, rng: np.random.Generator) -> pl.DataFrame:
    """`amount` rows in random order, every row once before any comes again."""
    if frame.is_empty() or amount <= 0:
        return frame.clear()
    rows = np.concatenate([rng.permutation(frame.height) for _ in range(-(-amount // frame.height))])[:amount]
    return frame[rows]
