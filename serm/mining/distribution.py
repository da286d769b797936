"""Parts of a log on the workers of a Ray cluster: the same code, the same result, in the order in which they finish."""

from collections.abc import Callable, Iterator
from typing import Any

import polars as pl

ATTEMPTS = 3  # of a part whose worker died; the others' results stay


def by_ray(
    compute: Callable[..., list[pl.DataFrame]], impressions: pl.LazyFrame, parts: list[Any], settings: Any
) -> Iterator[tuple[Any, list[pl.DataFrame]]]:
    """Yield (part, compute(impressions, part, settings)) as workers finish them.

    Joins the cluster that RAY_ADDRESS names or that runs here, else starts a local one. The log must be readable from
    every worker (a shared folder or an object store); results travel back through Ray.

    Raises:
        ImportError: Ray is not installed.
    """
    try:
        import ray
    except ImportError as error:
        raise ImportError("mining.distribute=ray needs Ray; install it with: pip install 'serm[ray]'") from error
    if not ray.is_initialized():
        ray.init(log_to_driver=False)
    task = ray.remote(max_retries=ATTEMPTS)(compute)
    log = ray.put(impressions)
    running = {task.remote(log, part, settings): part for part in parts}
    while running:
        (done,), _ = ray.wait(list(running), num_returns=1)
        yield running.pop(done), ray.get(done)
