"""What a folder is: the public collection shapes, and our own (documents.*, judgments.*, impressions.*)."""

from pathlib import Path
from typing import Literal, get_args

from serm.ingest import beir, esci, msrd, trec
from serm.ingest.columns import KINDS
from serm.ingest.sources import FORMATS, Part, file_part

Shape = Literal["auto", "files", "tables", "msrd", "beir", "trec", "esci"]
SHAPES: tuple[str, ...] = get_args(Shape)


def folder_parts(folder: Path, shape: str, dev_share: float) -> list[Part]:
    """A folder's parts, documents first.

    Raises:
        ValueError: the folder does not have the shape, or with "auto" none that is known.
    """
    found = recognise(folder)
    wanted = found[0] if shape == "auto" and found else shape
    if wanted not in found:
        looked = "a known shape" if shape == "auto" else f"the shape {shape!r}"
        raise ValueError(
            f"{folder}: not {looked}. Folders can be: tables (documents.*, judgments.* or impressions.*), msrd "
            "(corpus.parquet, judgments.parquet), beir (corpus.jsonl, queries.jsonl, qrels/*.tsv), trec (*qrels*), "
            "esci (*examples*, *products*); for plain files give a pattern such as 'folder/*.parquet'"
        )
    if wanted == "esci":
        return esci.parts(folder, dev_share)
    return {"tables": _tables, "msrd": msrd.parts, "beir": beir.parts, "trec": trec.parts}[wanted](folder)


def recognise(folder: Path) -> list[str]:
    """The shapes that a folder has, the most telling first."""
    fits = {"msrd": msrd.fits, "beir": beir.fits, "esci": esci.fits, "trec": trec.fits, "tables": _has_tables}
    return [shape for shape, test in fits.items() if test(folder)]


def _has_tables(folder: Path) -> bool:
    return bool(_tables(folder))


def _tables(folder: Path) -> list[Part]:
    """Files called after our tables, in any format, documents first."""
    return [
        file_part(kind, path)
        for kind in sorted(KINDS, key=lambda kind: kind != "documents")
        for path in sorted(folder.glob(f"{kind}.*"))
        if any(suffix in FORMATS for suffix in path.suffixes)
    ]
