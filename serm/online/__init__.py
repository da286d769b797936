"""Online tests: did the new model help the people who search? A/B tests that may be watched daily, and interleaving."""

from serm.online.experiment import analyse
from serm.online.interleaving import assign, compare, credit
from serm.online.verb import abtest, interleave, plan_abtest

__all__ = ["abtest", "analyse", "assign", "compare", "credit", "interleave", "plan_abtest"]
