"""The multi-agent miner: which pairs of the query stream are worth a label."""

from serm.mining.explain import Explanation, explain
from serm.mining.mine import MineSummary, mine
from serm.mining.window import Mined, mine_window

__all__ = ["Explanation", "MineSummary", "Mined", "explain", "mine", "mine_window"]
