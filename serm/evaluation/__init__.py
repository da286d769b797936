"""Evaluation on human judgments: measures by slice, calibration, comparison, and the gate between two models."""

from serm.evaluation.against import compare
from serm.evaluation.calibration import Calibration, CalibrationFigures
from serm.evaluation.changes import Changes, PairChange, QueryChange
from serm.evaluation.comparison import SliceComparison
from serm.evaluation.metrics import PerQuery, per_query
from serm.evaluation.paired import Interval, mean_interval, sign_flip_p
from serm.evaluation.results import EvaluationSummary, ModelComparison
from serm.evaluation.scoring import human, score_judged
from serm.evaluation.slices import SliceFigure
from serm.evaluation.verbs import evaluate, gate
from serm.evaluation.verdict import Comparison, Verdict, decide

__all__ = [
    "Calibration",
    "CalibrationFigures",
    "Changes",
    "Comparison",
    "EvaluationSummary",
    "Interval",
    "ModelComparison",
    "PairChange",
    "PerQuery",
    "QueryChange",
    "SliceComparison",
    "SliceFigure",
    "Verdict",
    "compare",
    "decide",
    "evaluate",
    "gate",
    "human",
    "mean_interval",
    "per_query",
    "score_judged",
    "sign_flip_p",
]
