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
    """One pass of training pairs made of three frames [query, text, label].

    `new` and `earlier` may have a boolean column `agreed`, false where a person gave the label; without it all labels
    are what the annotators agreed on. `agreed` labels are evidence of known strength in training, others are truth.
    They may have `posterior` over the scale and `rationale` too. A pair's weight is its source's, times the largest
    value of its posterior to the power `settings.posterior_power` (1 without a posterior).
    `settings.epochs` passes over `new` are `settings.new_share` of the result; what a source lacks, the original
    judgments fill. Sampling repeats a row only when its source is smaller than its share.

    Returns:
        query, text, label, agreed, posterior, rationale, weight; posterior and rationale are null where unknown.
    """
    rng = np.random.default_rng(seed)
    amount_new = round(new.height * settings.epochs)
    total = amount_new / settings.new_share
    amount_earlier = round(total * settings.earlier_share) if earlier.height else 0
    amount_original = max(0, round(total) - amount_new - amount_earlier) if original.height else 0
    parts = [
        draw(_columns(frame, agreed, weight), amount, rng)
        for frame, amount, agreed, weight in (
            (new, amount_new, True, settings.new_weight),
            (earlier, amount_earlier, True, settings.earlier_weight),
            (original, amount_original, False, settings.original_weight),
        )
    ]
    certainty = pl.col("posterior").list.max().fill_null(1.0) ** settings.posterior_power
    mixed = pl.concat(parts).with_columns(weight=pl.col("weight") * certainty)
    return mixed if settings.soft_labels else mixed.with_columns(posterior=pl.lit(None, pl.List(pl.Float64)))


def _columns(frame: pl.DataFrame, agreed: bool, weight: float) -> pl.DataFrame:
    """A source's pairs with every column of the mixture."""
    absent = {
        "agreed": pl.lit(agreed),
        "posterior": pl.lit(None, pl.List(pl.Float64)),
        "rationale": pl.lit(None, pl.String),
    }
    added = [value.alias(name) for name, value in absent.items() if name not in frame.columns]
    return frame.with_columns(*added, weight=pl.lit(weight)).select(*COLUMNS, *absent, "weight")


def draw(frame: pl.DataFrame, amount: int, rng: np.random.Generator) -> pl.DataFrame:
    """`amount` rows in random order, every row once before any comes again."""
    if frame.is_empty() or amount <= 0:
        return frame.clear()
    rows = np.concatenate([rng.permutation(frame.height) for _ in range(-(-amount // frame.height))])[:amount]
    return frame[rows]
