"""The training mixture: shares, and every row once before any comes again."""

import numpy as np
import polars as pl

from serm.config import UpdateSettings
from serm.evolution.mixture import draw, mix


def frame(name: str, rows: int) -> pl.DataFrame:
    return pl.DataFrame({"query": [f"{name}{i}" for i in range(rows)], "text": ["t"] * rows, "label": [1] * rows})


def sources(mixed: pl.DataFrame) -> dict[str, int]:
    return dict(mixed.group_by(pl.col("query").str.slice(0, 1)).len().iter_rows())


def test_shares_are_kept() -> None:
    settings = UpdateSettings(new_share=0.5, earlier_share=0.2, original_share=0.3, epochs=2)
    mixed = mix(frame("n", 50), frame("e", 500), frame("o", 500), settings, 0)
    assert sources(mixed) == {"n": 100, "e": 40, "o": 60}


def test_the_original_data_fills_in_for_earlier_rounds() -> None:
    settings = UpdateSettings(new_share=0.5, earlier_share=0.2, original_share=0.3, epochs=1)
    mixed = mix(frame("n", 50), frame("e", 0), frame("o", 20), settings, 0)
    assert sources(mixed) == {"n": 50, "o": 50}


def test_rows_repeat_only_when_all_were_drawn() -> None:
    drawn = draw(frame("n", 7), 17, np.random.default_rng(0))
    counts = drawn.group_by("query").len()["len"]
    assert sorted(counts) == [2, 2, 2, 2, 3, 3, 3]


def test_weights_by_source_and_by_agreement() -> None:
    settings = UpdateSettings(new_weight=2.0, earlier_weight=0.5, original_weight=1.5, posterior_power=2.0, epochs=1)
    new = frame("n", 30).with_columns(
        posterior=pl.Series([[0.4, 0.6], None] * 15), rationale=pl.lit("why"), agreed=pl.lit(True)
    )
    mixed = mix(new, frame("e", 30), frame("o", 30), settings, 0)
    weights = {
        source: sorted(mixed.filter(pl.col("query").str.starts_with(source))["weight"].unique().round(9))
        for source in "neo"
    }
    assert weights == {"n": [2 * 0.36, 2.0], "e": [0.5], "o": [1.5]}
    assert set(mixed.filter(pl.col("query").str.starts_with("n"))["rationale"]) == {"why"}
    assert mixed.filter(~pl.col("query").str.starts_with("n"))["rationale"].null_count() == mixed.height - 30


def test_soft_labels_can_be_left_out() -> None:
    new = frame("n", 30).with_columns(posterior=pl.lit([0.4, 0.6]))
    for soft in (True, False):
        settings = UpdateSettings(soft_labels=soft, posterior_power=1.0)
        mixed = mix(new, frame("e", 0), frame("o", 30), settings, 0).filter(pl.col("query").str.starts_with("n"))
        assert mixed["posterior"].null_count() == (0 if soft else mixed.height)
        assert mixed["weight"].unique().to_list() == [0.6]  # how sure they were counts in any case
