"""What Prometheus is told."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
PAIRS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000)


class Metrics:
    """Counters of one server."""

    def __init__(self, waiting: Callable[[], float]) -> None:
        """`waiting` says how many pairs are in the queue."""
        self._registry = CollectorRegistry()
        here = self._registry
        self.requests = Counter("serm_requests", "Rerank requests by HTTP status.", ["status"], registry=here)
        self.seconds = Histogram("serm_request_seconds", "From request to answer.", buckets=SECONDS, registry=here)
        self.batch_pairs = Histogram("serm_batch_pairs", "Pairs scored together.", buckets=PAIRS, registry=here)
        self.batch_seconds = Histogram("serm_batch_seconds", "Scoring of one batch.", buckets=SECONDS, registry=here)
        self._champion = Gauge("serm_champion_info", "1 for the version that answers.", ["version"], registry=here)
        self._stale = Gauge(
            "serm_champion_stale", "1 while the registry's champion is not the one served.", registry=here
        )
        self._loads = Gauge("serm_champion_loads", "Versions loaded since the start.", registry=here)
        self._failures = Gauge("serm_champion_failures", "Failed attempts to find or load the champion.", registry=here)
        Gauge("serm_queue_pairs", "Pairs that wait.", registry=here).set_function(waiting)

    def batch(self, pairs: int, seconds: float) -> None:
        """A batch was scored."""
        self.batch_pairs.observe(pairs)
        self.batch_seconds.observe(seconds)

    def champion(self, version: str, stale: bool, loads: int, failures: int) -> None:
        """Who answers, and how finding the champion went."""
        self._champion.clear()
        self._champion.labels(version).set(1)
        self._stale.set(stale)
        self._loads.set(loads)
        self._failures.set(failures)

    def page(self) -> bytes:
        """The metrics in Prometheus' text format."""
        return generate_latest(self._registry)
