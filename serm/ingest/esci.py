"""Product search judgments in the ESCI shape: an examples file and a products file, labels E, S, C, I.

One product id names different listings in different locales, so a document's id is `locale:product_id` (ours).
"""

from functools import partial
from pathlib import Path

import polars as pl

from serm.ingest.sources import FORMATS, Part, file_part
from serm.ingest.split import stable_split

GRADES = {
    "e": 3, "exact": 3, "s": 2, "substitute": 2, "c": 1, "complement": 1, "i": 0, "irrelevant": 0,
}  # fmt: skip

_LISTING = ("product_id", "product_locale")


def fits(folder: Path) -> bool:
    """Whether a folder has this shape."""
    return bool(_files(folder, "examples") and _files(folder, "products"))


def parts(folder: Path, dev_share: float) -> list[Part]:
    """Products, then examples: its test rows are the anchor, of its training queries `dev_share` are for dev."""
    listed = {"doc_id": "listing", "locale": "product_locale"}
    products = [
        file_part("documents", path, transform=_with_listing, needs=_LISTING, adds=["listing"], columns=listed)
        for path in _files(folder, "products")
    ]
    return products + [
        file_part(
            "judgments", path, transform=partial(_example, dev_share=dev_share),
            needs=[*_LISTING, "query", "esci_label"], adds=["listing", "grade"], columns={**listed, "grade": "grade"},
        )
        for path in _files(folder, "examples")
    ]  # fmt: skip


def _files(folder: Path, word: str) -> list[Path]:
    return sorted(path for path in folder.glob(f"*{word}*") if path.suffix in FORMATS)


def _with_listing(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.with_columns(pl.format("{}:{}", "product_locale", "product_id").alias("listing"))


def _example(frame: pl.DataFrame, dev_share: float) -> pl.DataFrame:
    label = pl.col("esci_label")
    grade = label.str.strip_chars().str.to_lowercase().replace_strict(GRADES, default=None, return_dtype=pl.Int64)
    frame = _with_listing(frame).with_columns(
        # A label that is none of the four stays as it is, for the check to name.
        pl.coalesce(grade.cast(pl.String), label).alias("grade")
    )
    if "split" not in frame.columns:
        return frame
    hashed = stable_split(frame["query"], dev_share, 0.0)
    return frame.with_columns(
        pl.when(pl.col("split") == "train").then(hashed).otherwise(pl.col("split")).alias("split")
    )
