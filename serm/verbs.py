"""Every verb of the command line as a plain function, in one place for notebooks and programs."""

from serm.annotation.attack_verb import attack
from serm.annotation.quality import report_annotations
from serm.annotation.verbs import annotate
from serm.clicks.verbs import compare_clicks, fit_clicks
from serm.demo import demo
from serm.distillation.verb import distill
from serm.evaluation import compare, evaluate, gate
from serm.evolution.compare import backtest
from serm.evolution.round import evolve
from serm.evolution.update import update
from serm.ingest import ingest
from serm.mining import explain, mine
from serm.online import abtest, interleave, plan_abtest
from serm.operations.doctor import doctor
from serm.operations.resume import resume
from serm.registry import promote, rollback
from serm.report import report
from serm.review.queue import review_queue
from serm.serving.export import export
from serm.serving.score import score
from serm.serving.server import serve
from serm.shift.verb import shift
from serm.simulate import simulate
from serm.status import status

__all__ = [
    "abtest",
    "annotate",
    "attack",
    "backtest",
    "compare",
    "compare_clicks",
    "demo",
    "distill",
    "doctor",
    "evaluate",
    "evolve",
    "explain",
    "export",
    "fit_clicks",
    "gate",
    "ingest",
    "interleave",
    "mine",
    "plan_abtest",
    "promote",
    "report",
    "report_annotations",
    "resume",
    "review_queue",
    "rollback",
    "score",
    "serve",
    "shift",
    "simulate",
    "status",
    "update",
]
