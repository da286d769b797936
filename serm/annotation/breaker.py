"""A breaker per annotator: after failures in a row it opens, after a pause it lets one call try, at last it gives up.

Closed, every call passes. Open, calls wait. Half-open, one call passes and the rest wait for what becomes of it: an
answer closes the breaker, a failure opens it again. After the last try in vain the annotator is lost for the run.
"""

import asyncio
import time
from typing import NamedTuple

from serm.annotation.llm import ProviderError
from serm.annotation.rate_limit import Clock, Sleep


class Admission(NamedTuple):
    """A call that may be made."""

    answers: int  # that had been had when it was let pass
    trial: bool  # the one call of a half-open breaker


class Breaker:
    """Whether an annotator's endpoint is still worth asking; one event loop, no locks."""

    def __init__(
        self, failures: int, pause: float, trials: int, clock: Clock = time.monotonic, sleep: Sleep = asyncio.sleep
    ) -> None:
        """Open after `failures` in a row, for `pause` seconds, at most `trials` times before giving up."""
        self.lost: str | None = None
        self.opened = 0  # times that it opened, for the summary
        self._limit, self._pause, self._trials = failures, pause, trials
        self._clock, self._sleep = clock, sleep
        self._failures = self._tried = self._answers = 0
        self._open_until: float | None = None
        self._trying: asyncio.Future[None] | None = None

    async def admit(self) -> Admission:
        """Return when a call may be made; what becomes of it goes to `answered` or `failed`.

        Raises:
            ProviderError: the annotator is given up.
        """
        while self.lost is None:
            if self._open_until is None:
                return Admission(self._answers, False)
            if (wait := self._open_until - self._clock()) > 0:
                await self._sleep(wait)
            elif self._trying is None:
                self._trying = asyncio.get_running_loop().create_future()
                return Admission(self._answers, True)
            else:
                await asyncio.shield(self._trying)
        raise ProviderError(self.lost)

    def answered(self) -> None:
        """A call was answered: the endpoint lives."""
        self._answers += 1
        self._failures = self._tried = 0
        self._open_until = None
        self._tell()

    def failed(self, error: ProviderError, admission: Admission) -> None:
        """An admitted call failed; it counts unless another was answered meanwhile.

        A request that is itself at fault says nothing about the endpoint.
        """
        counts = not error.request_at_fault and self._answers == admission.answers
        if counts:
            self._failures += 1
            due = admission.trial or (self._open_until is None and self._failures >= self._limit)
            if error.fatal or (due and self._tried >= self._trials):
                self.lost = self.lost or f"not asked any more in this run: {error}"
            elif due:
                self._tried += 1
                self.opened += 1
                self._open_until = self._clock() + self._pause
        if admission.trial:
            self._tell()

    def _tell(self) -> None:
        """Wake who waits for the call that tries."""
        trying, self._trying = self._trying, None
        if trying is not None:
            trying.set_result(None)
