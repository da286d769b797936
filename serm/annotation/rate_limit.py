"""Requests and tokens a minute: token buckets that callers wait on in the order they came."""

import asyncio
import time
from collections.abc import Awaitable, Callable

MINUTE = 60.0
BURST_SECONDS = 6.0  # what a bucket holds: any minute sees at most 1.1 times the limit, and one call more

Clock = Callable[[], float]
Sleep = Callable[[float], Awaitable[None]]


class Bucket:
    """One limit: `per_minute` units flow in evenly; a call takes what it needs, and may leave a debt."""

    def __init__(self, per_minute: float, clock: Clock = time.monotonic) -> None:
        """A full bucket."""
        self._rate = per_minute / MINUTE
        self._capacity = self._rate * BURST_SECONDS
        self._level = self._capacity
        self._clock = clock
        self._seen = clock()

    def wait(self, amount: float) -> float:
        """Seconds until `amount` may be taken: it must be there, or the bucket full where it holds less than that."""
        now = self._clock()
        self._level = min(self._level + (now - self._seen) * self._rate, self._capacity)
        self._seen = now
        missing = min(amount, self._capacity) - self._level
        return max(missing / self._rate, 0.0) if missing > 1e-9 * self._capacity else 0.0

    def take(self, amount: float) -> None:
        """Take `amount`, or give back what was taken in excess if it is negative."""
        self._level -= amount


class RateLimit:
    """An annotator's limits; every attempt of a call passes here."""

    def __init__(
        self,
        requests_per_minute: float | None,
        tokens_per_minute: float | None,
        clock: Clock = time.monotonic,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        """None is no limit."""
        self._requests = None if requests_per_minute is None else Bucket(requests_per_minute, clock)
        self._tokens = None if tokens_per_minute is None else Bucket(tokens_per_minute, clock)
        self._sleep = sleep
        self._turn = asyncio.Lock()

    async def enter(self, tokens: float) -> None:
        """Return when a request of about so many tokens may be sent; first come, first served."""
        amounts = [(bucket, amount) for bucket, amount in ((self._requests, 1.0), (self._tokens, tokens)) if bucket]
        if not amounts:
            return
        async with self._turn:
            while (wait := max(bucket.wait(amount) for bucket, amount in amounts)) > 0:
                await self._sleep(wait)
            for bucket, amount in amounts:
                bucket.take(amount)

    def settle(self, expected: float, used: float) -> None:
        """Correct the tokens that `enter` was told by those that the answer used; 0 for an attempt without one."""
        if self._tokens is not None:
            self._tokens.take(used - expected)
