"""Several servers of one model: calls go round them, and for a while past one that failed."""

import time
from collections.abc import Sequence

from serm.annotation.rate_limit import Clock

REST_SECONDS = 30.0  # that a server which failed is left alone, while there are others


class Servers:
    """Whose turn it is."""

    def __init__(self, addresses: Sequence[str], clock: Clock = time.monotonic) -> None:
        """All of them awake; the first is the first to be asked."""
        self.addresses = tuple(addresses)
        self._clock = clock
        self._turn = 0
        self._rests = dict.fromkeys(self.addresses, 0.0)  # until when

    def next(self) -> str:
        """The next server that is awake; where all rest, the one that wakes first."""
        now = self._clock()
        order = [self.addresses[(self._turn + i) % len(self.addresses)] for i in range(len(self.addresses))]
        chosen = next((a for a in order if self._rests[a] <= now), min(order, key=lambda a: self._rests[a]))
        self._turn = (self.addresses.index(chosen) + 1) % len(self.addresses)
        return chosen

    def failed(self, address: str, seconds: float = REST_SECONDS) -> None:
        """It let a call down: leave it alone for a while."""
        self._rests[address] = self._clock() + seconds

    def any_awake(self) -> bool:
        """Whether there is a server that has not failed of late."""
        return any(until <= self._clock() for until in self._rests.values())

    def answered(self, address: str) -> None:
        """It lives."""
        self._rests[address] = 0.0
