"""The multi-agent miner: which pairs of the query stream are worth a label."""

from serm.mining.mine import MineSummary, mine
from serm.mining.window import Mined, mine_window

__all__ = ["MineSummary", "Mined", "mine", "mine_window"]
