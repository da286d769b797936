"""Evaluation on human judgments: measures, paired intervals, and the gate between candidate and champion.

The verbs are `serm.evaluation.verbs.evaluate` and `serm.evaluation.verbs.gate`.
"""

from serm.evaluation.gate import Comparison, Verdict, decide
from serm.evaluation.metrics import PerQuery, per_query
from serm.evaluation.paired import Interval, mean_interval, sign_flip_p
from serm.evaluation.scoring import human, score_judged

__all__ = [
    "Comparison",
    "Interval",
    "PerQuery",
    "Verdict",
    "decide",
    "human",
    "mean_interval",
    "per_query",
    "score_judged",
    "sign_flip_p",
]
