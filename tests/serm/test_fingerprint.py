"""A table's fingerprint: content counts, layout does not."""

import subprocess
import sys

import polars as pl

from serm.fingerprint import fingerprint

ROWS = {"a": ["x", "a text that is longer than twelve bytes", None], "b": [1, 2, 3]}


def test_layout_and_row_order_do_not_count() -> None:
    frame = pl.DataFrame(ROWS)
    pieces = pl.concat([frame[2:], frame[:1], frame[1:2]], rechunk=False)
    filtered = pl.concat([frame, pl.DataFrame({"a": ["gone"], "b": [9]})]).filter(pl.col("b") < 9)
    assert fingerprint(frame) == fingerprint(pieces) == fingerprint(filtered)


def test_values_and_names_count() -> None:
    frame = pl.DataFrame(ROWS)
    changed = [frame.with_columns(b=pl.col("b") + 1), frame.rename({"a": "c"}), frame[:2], frame.fill_null("")]
    assert len({fingerprint(f) for f in [frame, *changed]}) == 5


def test_lists_count() -> None:
    frames = [pl.DataFrame({"a": [1], "p": [values]}) for values in ([0.1, 0.9], [0.9, 0.1], [0.1], None)]
    assert len({fingerprint(frame.cast({"p": pl.List(pl.Float64)})) for frame in frames}) == 4


def test_another_process_agrees() -> None:
    program = (
        f"import polars as pl; from serm.fingerprint import fingerprint; print(fingerprint(pl.DataFrame({ROWS!r})))"
    )
    other = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.strip()
    assert other == fingerprint(pl.DataFrame(ROWS))
