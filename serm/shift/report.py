"""What a shift check found: views, clusters and a verdict, as data and in words."""

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Verdict = Literal["none", "mild", "strong", "unknown"]


@dataclass(frozen=True)
class View:
    """One comparison of the two windows.

    `effect` is between 0 (nothing to tell the windows apart by) and 1; `effect` and `p_value` are null where the view
    had too little to go by, and `text` says why.
    """

    name: str
    effect: float | None
    p_value: float | None
    reference: int  # searches looked at
    current: int
    text: str
    significant: bool = False


@dataclass(frozen=True)
class Cluster:
    """A group of alike queries and its share of searches in both windows."""

    id: int
    share_reference: float | None  # null without a reference
    share_current: float
    p_value: float | None  # adjusted over the clusters
    grown: bool
    examples: tuple[str, ...]  # queries of the current window


@dataclass(frozen=True)
class ShiftReport:
    """The verdict over all views; "unknown" means that nothing could be compared."""

    verdict: Verdict
    views: tuple[View, ...] = ()
    clusters: tuple[Cluster, ...] = ()
    note: str = ""
    centroids: NDArray[np.float32] = field(
        default_factory=lambda: np.zeros((0, 0), dtype=np.float32), compare=False, repr=False
    )  # (clusters, dimensions)

    @property
    def grown(self) -> tuple[Cluster, ...]:
        """Clusters that take a larger share of searches than before."""
        return tuple(cluster for cluster in self.clusters if cluster.grown)

    def assign(self, vectors: NDArray[np.float32]) -> NDArray[np.int32] | None:
        """The nearest cluster of each query embedding (n, dimensions): (n,), or None where there are no clusters."""
        if not len(self.centroids):
            return None
        # |v - c|^2 = |v|^2 - 2 v.c + |c|^2, and |v|^2 does not change which c is nearest
        distances = (self.centroids**2).sum(axis=1) - 2 * vectors @ self.centroids.T
        return distances.argmin(axis=1).astype(np.int32)

    def to_dict(self) -> dict[str, Any]:
        """Everything but the centroids, ready for JSON."""
        return {
            "verdict": self.verdict,
            "note": self.note,
            "views": [vars(view).copy() for view in self.views],
            "clusters": [vars(cluster) | {"examples": list(cluster.examples)} for cluster in self.clusters],
        }

    def describe(self) -> str:
        """The report in words: the verdict, one line a view, one line a grown cluster."""
        headline = {
            "none": "The query stream has not shifted.",
            "mild": "The query stream has shifted mildly.",
            "strong": "The query stream has shifted strongly.",
            "unknown": "Whether the query stream shifted is unknown.",
        }[self.verdict]
        lines = [f"{headline} {self.note}".strip()]
        for view in self.views:
            if view.effect is None or view.p_value is None:
                lines.append(f"- {view.name}: {view.text}")
                continue
            mark = "significant" if view.significant else "not significant"
            lines.append(f"- {view.name}: {view.text} (effect {view.effect:.2f}, p {view.p_value:.2g}, {mark})")
        for cluster in self.grown:
            before = cluster.share_reference or 0.0
            examples = "; ".join(cluster.examples)
            lines.append(f"- cluster {cluster.id} grew from {before:.1%} to {cluster.share_current:.1%}: {examples}")
        return "\n".join(lines)
