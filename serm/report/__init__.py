"""One page on which a lead sees whether search got better, what changed, and what needs a decision."""

from serm.report.backtest import gather_backtest
from serm.report.gather import gather
from serm.report.verb import BacktestSummary, ReportSummary, markdown, report, report_backtest

__all__ = ["BacktestSummary", "ReportSummary", "gather", "gather_backtest", "markdown", "report", "report_backtest"]
