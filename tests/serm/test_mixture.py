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
