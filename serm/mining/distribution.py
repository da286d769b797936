"""Parts of a job on the workers of a Ray cluster: the same code, the same result, in the order in which they finish."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

ATTEMPTS = 3  # of a part whose worker died; the others' results stay


def by_ray(
    compute: Callable[..., Any], shared: Any, parts: Sequence[Any], settings: Any, gpus: float = 0.0
) -> Iterator[tuple[Any, Any]]:
    """Yield (part, compute(shared, part, settings)) as workers finish them; `shared` travels once.

    Joins the cluster that RAY_ADDRESS names or that runs here, else starts a local one. What `shared` names (a log, a
    workspace) must be readable from every worker: a shared folder or an object store. `gpus`: how many a part takes.

    Raises:
        ValueError: Ray is not installed.
        RuntimeError: workers died on the same part again and again.
        Exception: whatever `compute` raised.
    """
    try:
        import ray
    except ImportError as error:
        raise ValueError("mining.distribute=ray needs Ray; install it with: pip install 'serm[ray]'") from error
    if not ray.is_initialized():
        ray.init(log_to_driver=False)
    task = ray.remote(max_retries=ATTEMPTS, num_gpus=gpus)(compute)
    common = ray.put(shared)
    running = {task.remote(common, part, settings): part for part in parts}
    while running:
        (done,), _ = ray.wait(list(running), num_returns=1)
        try:
            result = ray.get(done)
        except ray.exceptions.RayTaskError as error:
            raise error.cause from error
        except ray.exceptions.RayError as error:
            raise RuntimeError(
                f"a part of the job was lost {ATTEMPTS + 1} times with its worker on the Ray cluster, which often is "
                f"short of memory: let fewer run on a machine ({type(error).__name__})"
            ) from error
        yield running.pop(done), result
