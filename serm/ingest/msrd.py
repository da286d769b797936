"""The Movie Search Ranking Dataset: a folder with corpus.parquet and judgments.parquet (grades 0 and 1)."""

from pathlib import Path

from serm.ingest.sources import Part, file_part


def fits(folder: Path) -> bool:
    """Whether a folder has this shape."""
    return (folder / "corpus.parquet").is_file() and (folder / "judgments.parquet").is_file()


def parts(folder: Path) -> list[Part]:
    """Movies, then judgments; some judged rows name movies that the corpus lacks and go to quarantine."""
    return [
        file_part("documents", folder / "corpus.parquet", columns={"doc_id": "id"}),
        file_part("judgments", folder / "judgments.parquet"),
    ]
