"""Background for annotators: the documents nearest to a query, and whatever plug-ins add (SERM, "external knowledge").

The paper does not name its knowledge source; nearest documents of the collection itself are our choice.
"""

import hashlib
import importlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from serm.annotation.ledger import Ledger
from sps import progress

Embed = Callable[[Sequence[str]], NDArray[np.float32]]
Plugin = Callable[[str], list[str]]

EMBED_BATCH = 1_024
PLUGIN_THREADS = 8
PROBE = "A fixed sentence whose vector tells one embedder from another."


class Knowledge:
    """Nearest documents and plug-in texts for queries that were announced with `prepare`."""

    def __init__(
        self,
        documents: pl.DataFrame,
        vectors: NDArray[np.float32],
        embed: Embed,
        count: int,
        max_characters: int,
        plugins: Sequence[str] = (),
    ) -> None:
        """Index documents (`doc_id`, `text`) by their vectors, shape (n, dimensions), rows of unit length.

        `count` documents a query, `max_characters` of text in all; `plugins` are "module:function" names.

        Raises:
            ValueError: vectors and documents differ in number, or a plug-in cannot be found.
        """
        import faiss

        if len(vectors) != documents.height:
            raise ValueError(f"knowledge: {len(vectors)} vectors for {documents.height} documents; give one a document")
        self._ids = documents["doc_id"]
        self._texts = documents["text"]
        self._row = dict(zip(self._ids, range(documents.height), strict=True))
        self._rows: dict[str, tuple[int, ...]] = {}
        self._embed = embed
        self._count = min(count, documents.height)
        self._max_characters = max_characters
        self._plugins = {name: load_plugin(name) for name in plugins}
        self._added: dict[str, list[str]] = {}
        self._index = faiss.IndexFlatIP(vectors.shape[1] if vectors.ndim == 2 else 1)
        if self._count:
            self._index.add(np.ascontiguousarray(vectors, dtype=np.float32))

    def prepare(self, queries: Sequence[str], ledger: Ledger | None = None) -> None:
        """Find neighbours and plug-in texts of these queries at once.

        Give all queries of a round, not those left after a restart: equal batches make equal vectors, so equal prompts.
        With a ledger, a plug-in is asked once per query ever: a prompt that changed would have to be paid again.
        """
        new = sorted(set(queries) - self._rows.keys())
        if not new:
            return
        if self._count:
            wanted = min(self._count + 1, len(self._ids))  # one more: the graded document itself may be among them
            _, rows = self._index.search(np.ascontiguousarray(self._embed(new), dtype=np.float32), wanted)
            self._rows.update(zip(new, map(tuple, rows.tolist()), strict=True))
        else:
            self._rows.update(dict.fromkeys(new, ()))
        for name, plugin in self._plugins.items():
            self._ask_plugin(name, plugin, new, ledger)

    def sources(self, query: str, doc_id: str) -> tuple[str, ...]:
        """Ids of the documents shown as background, nearest first; never the graded document itself."""
        ids = (self._ids[row] for row in self._rows[query])
        return tuple(found for found in ids if found != doc_id)[: self._count]

    def background(self, query: str, sources: Sequence[str]) -> list[str]:
        """The background texts of a query, plug-ins' first, each cut to an equal part of the budget."""
        texts = [*self._added.get(query, []), *(self._texts[self._row[source]] for source in sources)]
        share = self._max_characters // max(len(texts), 1)
        return [text[:share] for text in texts if text[:share]]

    def _ask_plugin(self, name: str, plugin: Plugin, queries: Sequence[str], ledger: Ledger | None) -> None:
        known = {} if ledger is None else ledger.plugin_texts(name, queries)
        unknown = [query for query in queries if query not in known]

        def ask(query: str) -> list[str]:
            texts = plugin(query)
            if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
                raise ValueError(f"annotation.knowledge_plugins: {name}({query!r}) gave no list of texts")
            if ledger is not None:
                ledger.keep_plugin_texts(name, query, texts)
            return texts

        with ThreadPoolExecutor(PLUGIN_THREADS) as pool, progress.track(f"asking {name}", len(unknown)) as advance:
            for query, texts in zip(unknown, pool.map(ask, unknown), strict=True):
                known[query] = texts
                advance(1)
        for query in queries:
            self._added.setdefault(query, []).extend(known[query])


def load_plugin(name: str) -> Plugin:
    """The function behind "module:function".

    Raises:
        ValueError: the module or the function cannot be found.
    """
    module_name, colon, function = name.partition(":")
    if not colon or not module_name or not function:
        raise ValueError(f"annotation.knowledge_plugins: {name!r} is not of the form module:function")
    try:
        plugin: Plugin = vars(importlib.import_module(module_name))[function]
    except (ModuleNotFoundError, KeyError) as error:
        raise ValueError(f"annotation.knowledge_plugins: {name!r} cannot be found: {error}") from error
    return plugin


def embed_documents(texts: pl.Series, embed: Embed, folder: Path | None = None) -> NDArray[np.float32]:
    """Vectors of texts, shape (n, dimensions); with a folder, each text is embedded once ever.

    The cache holds one vector a text hash, in a file named by the embedder's vector of a fixed sentence: documents may
    change one by one, and another embedder never reads this one's vectors.
    """
    if folder is None:
        return _embed_all(texts.to_list(), embed)
    path = folder / f"embeddings-{_fingerprint(embed)}.parquet"
    wanted = pl.DataFrame({"hash": texts.hash(), "text": texts})
    known = pl.read_parquet(path) if path.exists() else None
    missing = wanted.unique("hash", maintain_order=True)
    if known is not None:
        missing = missing.join(known, on="hash", how="anti", maintain_order="left")
    if missing.height or known is None:
        fresh = _embed_all(missing["text"].to_list(), embed)
        rows = pl.DataFrame(
            {"hash": missing["hash"], "vector": pl.Series(fresh, dtype=pl.Array(pl.Float32, fresh.shape[1]))}
        )
        known = rows if known is None else pl.concat([known, rows])
        folder.mkdir(parents=True, exist_ok=True)
        staging = path.with_suffix(f".{hashlib.sha256(fresh.tobytes()).hexdigest()[:12]}.tmp")
        known.write_parquet(staging)
        staging.replace(path)
    found = wanted.join(known, on="hash", how="left", maintain_order="left")["vector"]
    return np.ascontiguousarray(found.to_numpy(), dtype=np.float32)


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
