"""Every verb of the command line as a plain function, in one place for notebooks and programs."""

from serm.annotation.attack_verb import attack
from serm.annotation.quality import report_annotations
from serm.annotation.verbs import annotate
from serm.clicks.verbs import compare_clicks, fit_clicks
from serm.demo import demo
from serm.evaluation import evaluate, gate
from serm.evolution.compare import backtest
from serm.evolution.round import evolve
from serm.evolution.update import update
from serm.ingest import ingest
from serm.mining import explain, mine
from serm.operations.doctor import doctor
from serm.operations.resume import resume
from serm.registry import promote, rollback
from serm.review.queue import review_queue
from serm.shift.verb import shift
from serm.simulate import simulate
from serm.status import status

__all__ = [
    "annotate",
    "attack",
    "backtest",
    "compare_clicks",
    "demo",
    "doctor",
    "evaluate",
    "evolve",
    "explain",
    "fit_clicks",
    "gate",
    "ingest",
    "mine",
    "promote",
    "report_annotations",
    "resume",
    "review_queue",
    "rollback",
    "shift",
    "simulate",
    "status",
    "update",
]
