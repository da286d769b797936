"""The documents that a query finds: nearest by vectors (faiss) and by words (BM25), fused by reciprocal rank."""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy import sparse

from sps import progress

Embed = Callable[[Sequence[str]], NDArray[np.float32]]

EMBED_BATCH = 1_024
WORD_BATCH = 32  # queries whose scores for all documents that share a word are held at once
FEATURES = 2**20  # hashed words
FUSION = 60  # Cormack, Clarke and Büttcher, SIGIR 2009: score = sum over rankings of 1 / (60 + rank)
K1, B = 1.2, 0.75  # BM25's usual constants
PROBE = "A fixed sentence whose vector tells one embedder from another."


class Index:
    """Documents by number, found by vector and by word; made batch by batch, texts are not kept."""

    def __init__(self, batches: Iterable[tuple[pl.DataFrame, NDArray[np.float32]]]) -> None:
        """`batches` are (documents [doc_id, text], their unit vectors (n, dimensions)), in the order of doc_id.

        Raises:
            ValueError: vectors and documents of a batch differ in number.
        """
        import faiss
        from sklearn.feature_extraction.text import HashingVectorizer

        self._counter = HashingVectorizer(
            n_features=FEATURES, token_pattern=r"\w+", norm=None, alternate_sign=False, dtype=np.float32
        )
        self._vectors: faiss.IndexFlatIP | None = None
        ids, hashes, counts = [], [], []
        for documents, vectors in batches:
            if len(vectors) != documents.height:
                raise ValueError(f"knowledge: {len(vectors)} vectors for {documents.height} documents; give one each")
            if documents.is_empty():
                continue
            if self._vectors is None:
                self._vectors = faiss.IndexFlatIP(vectors.shape[1])
            self._vectors.add(np.ascontiguousarray(vectors, dtype=np.float32))
            counts.append(self._counter.transform(documents["text"].to_list()))
            ids.append(documents["doc_id"])
            hashes.append(documents["text"].str.strip_chars().hash())
        self.ids = pl.concat(ids) if ids else pl.Series("doc_id", [], pl.String)
        self._hashes = pl.concat(hashes).to_numpy() if hashes else np.zeros(0, np.uint64)
        self._row = dict(zip(self.ids, range(len(self.ids)), strict=True))
        self._words = bm25(sparse.vstack(counts, format="csr")).T.tocsr() if counts else None

    def __len__(self) -> int:
        return len(self.ids)

    def same(self, one: str, other: str) -> bool:
        """Whether two documents are one: the same id, or the same text under two."""
        if one == other:
            return True
        here, there = self._row.get(one), self._row.get(other)
        return here is not None and there is not None and bool(self._hashes[here] == self._hashes[there])

    def search(self, queries: Sequence[str], vectors: NDArray[np.float32], count: int) -> list[list[str]]:
        """The best `count` documents of each query, best first; of equals, the one that comes first in the index."""
        if self._vectors is None or self._words is None or count <= 0:
            return [[] for _ in queries]
        depth = min(max(4 * count, 20), len(self))  # what one ranking lacks the other may have further down
        _, near = self._vectors.search(np.ascontiguousarray(vectors, dtype=np.float32), depth)
        found = []
        for start in range(0, len(queries), WORD_BATCH):
            asked = self._counter.transform(queries[start : start + WORD_BATCH])
            asked.data[:] = 1.0
            scores = (asked @ self._words).tocsr()
            for place in range(scores.shape[0]):
                own = slice(scores.indptr[place], scores.indptr[place + 1])
                worded = _best(scores.indices[own], scores.data[own], depth)
                found.append([self.ids[row] for row in fuse([near[start + place], worded])[:count]])
        return found


def bm25(counts: sparse.csr_matrix) -> sparse.csr_matrix:
    """BM25 weights of words in documents from their counts, (n, words); a query's score is the sum over its words."""
    total = counts.shape[0]
    present = np.bincount(counts.indices, minlength=counts.shape[1])
    rarity = np.log1p((total - present + 0.5) / (present + 0.5)).astype(np.float32)
    length = np.asarray(counts.sum(axis=1)).ravel()
    norm = K1 * (1 - B + B * length / max(length.mean(), 1e-9))
    spread = np.repeat(norm, np.diff(counts.indptr))
    data = rarity[counts.indices] * counts.data * (K1 + 1) / (counts.data + spread)
    return sparse.csr_matrix((data.astype(np.float32), counts.indices, counts.indptr), shape=counts.shape)


def fuse(rankings: Sequence[Sequence[int] | NDArray[np.integer]]) -> list[int]:
    """Reciprocal rank fusion: items of several rankings, the best of the sum first, smaller numbers before equals."""
    rows = np.concatenate([np.asarray(ranking, dtype=np.int64) for ranking in rankings])
    gains = np.concatenate([1 / (FUSION + 1 + np.arange(len(ranking))) for ranking in rankings])
    items, places = np.unique(rows, return_inverse=True)
    total = np.bincount(places, gains, minlength=len(items))
    return [int(item) for item in items[np.lexsort((items, -total.round(12)))] if item >= 0]


def embed_documents(texts: pl.Series, embed: Embed, folder: Path | None = None) -> NDArray[np.float32]:
    """Vectors of texts, shape (n, dimensions); with a folder, each text is embedded once ever.

    The cache holds one vector a text hash, in parts under a folder named by the embedder's vector of a fixed sentence:
    documents may change one by one, and another embedder never reads this one's vectors. Only the rows asked for are
    read, so that a collection can be taken batch by batch.
    """
    if folder is None:
        return _embed_all(texts.to_list(), embed)
    parts = folder / f"embeddings-{_fingerprint(embed)}"
    wanted = pl.DataFrame({"hash": texts.hash(), "text": texts})
    known = _known(parts, wanted["hash"])
    missing = wanted.unique("hash", maintain_order=True)
    if known is not None:
        missing = missing.join(known, on="hash", how="anti", maintain_order="left")
    if missing.height or known is None:
        fresh = _embed_all(missing["text"].to_list(), embed)
        rows = pl.DataFrame(
            {"hash": missing["hash"], "vector": pl.Series(fresh, dtype=pl.Array(pl.Float32, fresh.shape[1]))}
        )
        known = rows if known is None else pl.concat([known, rows])
        if rows.height:
            parts.mkdir(parents=True, exist_ok=True)
            name = hashlib.sha256(rows["hash"].to_numpy().tobytes()).hexdigest()[:16]
            staging = parts / f"{name}.tmp"
            rows.write_parquet(staging)
            staging.replace(parts / f"{name}.parquet")
    found = wanted.join(known.unique("hash"), on="hash", how="left", maintain_order="left")["vector"]
    return np.ascontiguousarray(found.to_numpy(), dtype=np.float32)


def _known(parts: Path, hashes: pl.Series) -> pl.DataFrame | None:
    files = sorted(parts.glob("*.parquet"))
    if not files:
        return None
    asked = pl.LazyFrame({"hash": hashes.unique()})
    return pl.scan_parquet(files).join(asked, on="hash", how="semi").collect(engine="streaming")


def _embed_all(texts: list[str], embed: Embed) -> NDArray[np.float32]:
    parts = []
    with progress.track("embedding documents for background", len(texts)) as advance:
        for start in range(0, len(texts), EMBED_BATCH):
            parts.append(np.asarray(embed(texts[start : start + EMBED_BATCH]), dtype=np.float32))
            advance(len(parts[-1]))
    return np.concatenate(parts) if parts else np.asarray(embed([]), dtype=np.float32).reshape(0, -1)


def _fingerprint(embed: Embed) -> str:
    vector = np.round(np.asarray(embed([PROBE]), dtype=np.float32)[0], 2) + 0.0  # + 0.0: no negative zero
    return hashlib.sha256(vector.tobytes()).hexdigest()[:16]


def _best(rows: NDArray[np.int32], scores: NDArray[np.float32], count: int) -> NDArray[np.int32]:
    """The rows with the highest scores, best first; of equal scores the smaller row."""
    if len(rows) > count:
        cut = np.partition(scores, len(scores) - count)[len(scores) - count]
        rows, scores = rows[scores >= cut], scores[scores >= cut]
    return rows[np.lexsort((rows, -scores))][:count]
