"""Foreign logs and public collections become records; bad rows go to quarantine with a reason."""

from serm.ingest.trec import read_run
from serm.ingest.verb import IngestSummary, SourceSummary, ingest

__all__ = ["IngestSummary", "SourceSummary", "ingest", "read_run"]
