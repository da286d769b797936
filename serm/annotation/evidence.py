"""What people have said and done about queries: grades of judged queries like them, clicks of those who asked them."""

from collections.abc import Sequence

import numpy as np
import polars as pl
from numpy.typing import NDArray

from serm.annotation.retrieval import Embed, embed_documents
from serm.config import MiningSettings
from serm.mining.traffic import believable

SIMILAR = 0.7  # cosine from which a judged query says something about another (ours)
GRADES_KEPT = 8  # of one judged query: enough that leaving some out for a pair leaves some
SPLIT = "train"  # what people judged for evaluation, or hid, is never shown to an annotator


class Judged:
    """The judged queries of the train split, found by likeness."""

    def __init__(self, judgments: pl.DataFrame, embed: Embed, own: bool = True) -> None:
        """`judgments` [query, doc_id, grade, split]; other splits than train are dropped here, whatever is given.

        Without `own`, a query's own judgments are not shown for it: for pairs that are themselves judged, where other
        pairs of the stream have no such help.
        """
        import faiss

        train = judgments.filter(pl.col("split") == SPLIT).group_by("query", "doc_id").agg(pl.col("grade").median())
        place = pl.int_range(pl.len()).over("query", "grade")
        kept = (
            train.sort("query", "grade", "doc_id", descending=[False, True, False])
            .with_columns(place=place)
            .sort("query", "place", "grade", "doc_id", descending=[False, False, True, False])
            .group_by("query", maintain_order=True)
            .head(GRADES_KEPT)
        )
        self._own = own
        grouped = kept.group_by("query", maintain_order=True).agg("doc_id", "grade")
        self.queries = grouped["query"].to_list()
        self._grades = dict(zip(self.queries, zip(grouped["doc_id"], grouped["grade"], strict=True), strict=True))
        if self.queries:
            rows = embed_documents(grouped["query"], embed)
            self._index = faiss.IndexFlatIP(rows.shape[1])
            self._index.add(np.ascontiguousarray(rows, dtype=np.float32))

    def like(self, queries: Sequence[str], vectors: NDArray[np.float32], count: int) -> list[list[str]]:
        """For each query the judged queries most like it, itself first where it is judged."""
        if not self.queries or count <= 0:
            return [[] for _ in queries]
        wanted = min(count + 1, len(self.queries))
        nearness, rows = self._index.search(np.ascontiguousarray(vectors, dtype=np.float32), wanted)
        found = []
        for query, near, row in zip(queries, nearness, rows, strict=True):
            others = [
                self.queries[i] for i, s in zip(row, near, strict=True) if s >= SIMILAR and self.queries[i] != query
            ]
            itself = [query] if self._own and query in self._grades else []
            found.append([*itself, *others][:count])
        return found

    def grades(self, query: str) -> list[tuple[str, float]]:
        """Documents of a judged query with their grades (the median over judges), of every grade some, best first."""
        doc_ids, grades = self._grades[query]
        return list(zip(doc_ids, grades, strict=True))


def co_clicked(
    impressions: pl.LazyFrame, queries: Sequence[str], settings: MiningSettings, count: int
) -> dict[str, list[str]]:
    """The `count` documents that most sessions clicked which asked the query, for it or for another query.

    Bots' sessions and bounces are left out (`mining.sessions` distinct sessions at least, as for mining); one pass over
    the log, of which only the sessions that asked are held.
    """
    if count <= 0 or not queries:
        return {}
    asked = impressions.join(pl.LazyFrame({"query": sorted(set(queries))}), on="query", how="semi")
    sessions = asked.select("session").unique()
    theirs = believable(impressions.join(sessions, on="session", how="semi"), settings)
    clicks = theirs.filter("clicked").select("session", "doc_id").unique()
    found = (
        asked.select("session", "query")
        .unique()
        .join(clicks, on="session")
        .group_by("query", "doc_id")
        .agg(sessions=pl.col("session").n_unique())
        .filter(pl.col("sessions") >= settings.sessions)
        .collect(engine="streaming")
        .sort("query", "sessions", "doc_id", descending=[False, True, False])
        .group_by("query", maintain_order=True)
        .agg(pl.col("doc_id").head(count))
    )
    return dict(found.iter_rows())
