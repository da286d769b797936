"""A name for a table's content, the same in every process and for every layout in memory."""

import hashlib

import polars as pl


def fingerprint(frame: pl.DataFrame) -> str:
    """32 hexadecimal digits that depend on columns and values, and not on the order of the rows.

    Not of Arrow's own bytes: equal strings may lie in different buffers there. Lists of plain values count as text.
    """
    frame = frame.with_columns(pl.selectors.list().list.eval(pl.element().cast(pl.String)).list.join(","))
    rows = frame.sort(frame.columns, nulls_last=True) if frame.width else frame
    return hashlib.sha256(rows.write_csv(float_precision=9).encode()).hexdigest()[:32]
