"""One page on which a lead sees whether search got better, what changed, and what needs a decision."""

from serm.report.gather import gather
from serm.report.verb import ReportSummary, headline, report

__all__ = ["ReportSummary", "gather", "headline", "report"]
