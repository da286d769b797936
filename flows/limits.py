"""Shared slots of Prefect's server: how many runs may ask LLMs, or use a GPU, at the same time."""

from collections.abc import Iterator
from contextlib import contextmanager

from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate
from prefect.concurrency.asyncio import ConcurrencySlotAcquisitionError
from prefect.concurrency.sync import concurrency
from prefect.exceptions import ObjectNotFound

LLM, GPU = "serm-llm", "serm-gpu"
LIMITS = {LLM: 2, GPU: 1}  # what a new server is given; change them there, and they stay as you changed them
LEASE_SECONDS = 60.0  # a slot of a process that died is free again after so long


@contextmanager
def slot(limit: str) -> Iterator[None]:
    """Wait for a slot and hold it while the block runs; strict: without the limit on the server nothing runs.

    Raises:
        RuntimeError: the server has no such limit.
    """
    try:
        # A server that is away for a minute must not end a day of training: a lost lease warns and goes on.
        with concurrency(limit, lease_duration=LEASE_SECONDS, strict=True, raise_on_lease_renewal_failure=False):
            yield
    except ConcurrencySlotAcquisitionError as error:
        raise RuntimeError(f"Prefect's server has no concurrency limit {limit!r}; make it with: serm deploy") from error


def create_limits() -> list[str]:
    """Make the limits that the server lacks; returns their names."""
    made = []
    with get_client(sync_client=True) as client:
        for name, limit in LIMITS.items():
            try:
                client.read_global_concurrency_limit_by_name(name)
            except ObjectNotFound:
                client.create_global_concurrency_limit(GlobalConcurrencyLimitCreate(name=name, limit=limit))
                made.append(name)
    return made
