"""Distribution shift of the query stream: `detect` compares two windows and reports in words."""

from serm.shift.detect import Embed, detect
from serm.shift.report import Cluster, ShiftReport, View
from serm.shift.scores import Judge

__all__ = ["Cluster", "Embed", "Judge", "ShiftReport", "View", "detect"]
