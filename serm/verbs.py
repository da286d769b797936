"""Every verb of the command line as a plain function, in one place for notebooks and programs."""

from serm.annotation.verbs import annotate, review_queue
from serm.demo import demo
from serm.evaluation import evaluate, gate
from serm.evolution.compare import backtest
from serm.evolution.round import evolve
from serm.evolution.update import update
from serm.ingest import ingest
from serm.mining import explain, mine
from serm.registry import promote, rollback
from serm.simulate import simulate
from serm.status import status

__all__ = [
    "annotate", "backtest", "demo", "evaluate", "evolve", "explain", "gate", "ingest", "mine", "promote",
    "review_queue", "rollback", "simulate", "status", "update",
]  # fmt: skip
