"""What a shift check found: views, clusters and a verdict, as data and in words."""

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Verdict = Literal["none", "mild", "strong", "unknown"]
Change = Literal["steady", "grown", "new", "shrunk", "vanished"]
HEADLINES = {
    "none": "The query stream has not shifted.",
    "mild": "The query stream has shifted mildly.",
    "strong": "The query stream has shifted strongly.",
    "unknown": "Whether the query stream shifted is unknown.",
}


@dataclass(frozen=True)
class View:
    """One comparison of the two windows.

    `effect` is between 0 (nothing to tell the windows apart by) and 1, and reads the same in every view: so large a
    share of the searches, at least, is of another kind than before. Seen so, the current window is a mixture of the old
    searches and of a share of others, and no difference of shares, of AUC or of distribution functions can exceed that
    share (ours; it is an estimate, so its noise may). `effect` and `p_value` are null where the view had too little to
    go by, and `text` says why.
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
    grown: bool  # or new
    examples: tuple[str, ...]  # queries of the current window; of the earlier one where it shrank or vanished
    change: Change = "steady"
    effect: float | None = None  # share now less share before
    terms: tuple[str, ...] = ()  # words that set it apart from the other clusters

    @property
    def title(self) -> str:
        """What it is about, in words."""
        return ", ".join(self.terms) if self.terms else "; ".join(self.examples[:2])


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

    @property
    def changed(self) -> tuple[Cluster, ...]:
        """Clusters that grew, are new, shrank or vanished, the largest change first."""
        moved = (cluster for cluster in self.clusters if cluster.change != "steady")
        return tuple(sorted(moved, key=lambda cluster: (-abs(cluster.effect or 0.0), cluster.id)))

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
            "clusters": [
                vars(cluster) | {"examples": list(cluster.examples), "terms": list(cluster.terms)}
                for cluster in self.clusters
            ],
        }

    def describe(self) -> str:
        """The report in words: the verdict, one line a view, one line a changed cluster."""
        lines = [f"{HEADLINES[self.verdict]} {self.note}".strip()]
        for view in self.views:
            if view.effect is None or view.p_value is None:
                lines.append(f"- {view.name}: {view.text}")
                continue
            mark = "significant" if view.significant else "not significant"
            lines.append(f"- {view.name}: {view.text} (effect {view.effect:.3f}, p {view.p_value:.2g}, {mark})")
        words = {"grown": "grew", "new": "is new,", "shrunk": "shrank", "vanished": "vanished,"}
        for cluster in self.changed:
            shares = f"from {cluster.share_reference or 0.0:.1%} to {cluster.share_current:.1%}"
            about = f" [{', '.join(cluster.terms)}]" if cluster.terms else ""
            examples = "; ".join(cluster.examples)
            lines.append(f"- cluster {cluster.id}{about} {words[cluster.change]} {shares}: {examples}")
        return "\n".join(lines)
