"""Rate limits and the breaker on a clock that is turned by hand: no test here waits."""

import asyncio
import heapq
from collections.abc import Awaitable, Callable
from itertools import count

import numpy as np
import pytest

from serm.annotation.breaker import Breaker
from serm.annotation.llm import ProviderError
from serm.annotation.rate_limit import BURST_SECONDS, RateLimit


class Time:
    """A clock that stands still until everybody sleeps; then it goes to the first alarm."""

    def __init__(self) -> None:
        self.now = 0.0
        self._numbers = count()
        self._alarms: list[tuple[float, int, asyncio.Future[None]]] = []

    def clock(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._alarms, (self.now + seconds, next(self._numbers), future))
        await future

    async def run(self, *jobs: Awaitable[object]) -> None:
        tasks = [asyncio.ensure_future(job) for job in jobs]
        while not all(task.done() for task in tasks):
            for _ in range(20):  # let everybody go as far as they can
                await asyncio.sleep(0)
            if self._alarms:
                self.now, _, future = heapq.heappop(self._alarms)
                future.set_result(None)
        await asyncio.gather(*tasks)


def most_in_a_minute(times: list[float], amounts: list[float]) -> float:
    """The largest sum of amounts in any 60 s that begin with one of the times."""
    at, much = np.array(times), np.array(amounts)
    return max(float(much[(at >= t) & (at < t + 60 - 1e-6)].sum()) for t in times)


def passes(limit_of: Callable[[Time], RateLimit], amounts: list[float]) -> list[float]:
    """When each of many calls, made all at once, is let pass."""
    time, passed = Time(), []

    async def call(limit: RateLimit, amount: float) -> None:
        await limit.enter(amount)
        passed.append(time.now)

    async def everything() -> None:
        limit = limit_of(time)
        await time.run(*(call(limit, amount) for amount in amounts))

    asyncio.run(everything())
    return passed


@pytest.mark.parametrize("per_minute", [6.0, 60.0, 600.0])
def test_requests_a_minute(per_minute: float) -> None:
    calls = int(3 * per_minute)
    times = passes(lambda time: RateLimit(per_minute, None, time.clock, time.sleep), [1.0] * calls)
    assert most_in_a_minute(times, [1.0] * calls) <= 1.1 * per_minute + 1
    burst = per_minute * BURST_SECONDS / 60
    assert times[-1] == pytest.approx((calls - max(burst, 1)) * 60 / per_minute, abs=60 / per_minute)


def test_tokens_a_minute_and_a_call_larger_than_the_burst() -> None:
    rng = np.random.default_rng(1)
    amounts = [float(amount) for amount in rng.integers(100, 2_000, 80)]
    times = passes(lambda time: RateLimit(None, 6_000, time.clock, time.sleep), amounts)
    assert times == sorted(times)
    assert most_in_a_minute(times, amounts) <= 1.1 * 6_000 + max(amounts)
    assert times[-1] == pytest.approx((sum(amounts) - 600) / 100, abs=20)


def test_the_narrower_limit_rules_and_none_is_no_limit() -> None:
    both = passes(lambda time: RateLimit(600, 60, time.clock, time.sleep), [1.0] * 60)
    tokens = passes(lambda time: RateLimit(None, 60, time.clock, time.sleep), [1.0] * 60)
    assert both == pytest.approx(tokens, abs=0.2)
    assert passes(lambda time: RateLimit(None, None, time.clock, time.sleep), [1e9] * 5) == [0.0] * 5


def test_tokens_that_were_not_used_come_back() -> None:
    async def waits(used: float) -> float:
        time = Time()
        limit = RateLimit(None, 600, time.clock, time.sleep)

        async def two() -> None:
            await limit.enter(60)
            limit.settle(60, used)
            await limit.enter(60)

        await time.run(two())
        return time.now

    assert asyncio.run(waits(60)) == pytest.approx(6)
    assert asyncio.run(waits(20)) == pytest.approx(2)
    assert asyncio.run(waits(0)) == 0
    assert asyncio.run(waits(90)) == pytest.approx(9)


BUSY = ProviderError("busy")


def test_a_breaker_opens_tries_and_closes() -> None:
    async def story() -> None:
        time = Time()
        breaker = Breaker(3, 10.0, 2, time.clock, time.sleep)
        for _ in range(3):
            breaker.failed(BUSY, await breaker.admit())
        assert breaker.opened == 1
        admitted: list[tuple[float, bool]] = []

        async def call(fails: bool) -> None:
            admission = await breaker.admit()
            admitted.append((time.now, admission.trial))
            if admission.trial and fails:
                breaker.failed(BUSY, admission)
            else:
                breaker.answered()

        await time.run(call(True), call(False), call(False))
        # One tries at 10 s and fails; the next tries at 20 s; its answer lets the third pass.
        assert admitted == [(10.0, True), (20.0, True), (20.0, False)]
        assert breaker.lost is None
        for _ in range(2):
            breaker.failed(BUSY, await breaker.admit())
        assert breaker.opened == 2  # the count of failures began anew

    asyncio.run(story())


def test_a_breaker_gives_up_after_its_tries() -> None:
    async def story() -> None:
        time = Time()
        breaker = Breaker(2, 10.0, 2, time.clock, time.sleep)
        trials = []

        async def call() -> None:
            while True:
                admission = await breaker.admit()
                trials.append((time.now, admission.trial))
                breaker.failed(BUSY, admission)

        with pytest.raises(ProviderError, match="not asked any more in this run: busy"):
            await time.run(call())
        assert trials == [(0.0, False), (0.0, False), (10.0, True), (20.0, True)]
        with pytest.raises(ProviderError, match="not asked any more"):
            await breaker.admit()

    asyncio.run(story())


def test_what_does_not_count_against_an_endpoint() -> None:
    async def story() -> None:
        breaker = Breaker(1, 10.0, 0)
        breaker.failed(ProviderError("HTTP 400", request_at_fault=True), await breaker.admit())
        early = await breaker.admit()
        breaker.answered()
        breaker.failed(BUSY, early)  # another call was answered meanwhile
        assert breaker.lost is None
        breaker.failed(BUSY, await breaker.admit())
        assert breaker.lost is not None  # no tries: the first opening is the last

        patient = Breaker(9, 10.0, 9)
        patient.failed(ProviderError("HTTP 401", fatal=True), await patient.admit())
        assert patient.lost == "not asked any more in this run: HTTP 401"

    asyncio.run(story())


def test_failures_of_calls_made_before_it_opened_do_not_use_up_its_tries() -> None:
    async def story() -> None:
        time = Time()
        breaker = Breaker(2, 10.0, 1, time.clock, time.sleep)
        flying = [await breaker.admit() for _ in range(6)]
        for admission in flying:
            breaker.failed(BUSY, admission)
        assert (breaker.opened, breaker.lost) == (1, None)

        async def call() -> None:
            assert (await breaker.admit()).trial
            breaker.answered()

        await time.run(call())
        assert (await breaker.admit()).trial is False

    asyncio.run(story())
