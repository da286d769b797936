"""Evaluation on human judgments: measures, paired intervals, and the gate between candidate and champion."""

from serm.evaluation.metrics import PerQuery, per_query
from serm.evaluation.paired import Interval, mean_interval, sign_flip_p
from serm.evaluation.scoring import human, score_judged
from serm.evaluation.verbs import EvaluationSummary, evaluate, gate
from serm.evaluation.verdict import Comparison, Verdict, decide

__all__ = [
    "Comparison",
    "EvaluationSummary",
    "Interval",
    "PerQuery",
    "Verdict",
    "decide",
    "evaluate",
    "gate",
    "human",
    "mean_interval",
    "per_query",
    "score_judged",
    "sign_flip_p",
]
