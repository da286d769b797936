"""Background for annotators: what the collection, people's grades, their clicks and plug-ins say about a query.

The paper does not name its knowledge source ("external knowledge"); these sources and their order are ours. Nothing
that would give a pair's grade away is shown: neither its document (nor its double under another id) as background, nor
what people judged or clicked of it.
"""

import importlib
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import polars as pl
from numpy.typing import NDArray

from serm.annotation.evidence import Judged
from serm.annotation.ledger import Ledger
from serm.annotation.retrieval import Embed, Index, embed_documents
from sps import progress

Plugin = Callable[[str], list[str]]
Texts = Callable[[Sequence[str]], Mapping[str, str]]
Clicked = Callable[[Sequence[str], int], Mapping[str, list[str]]]

PLUGIN_THREADS = 8
SPARE = 4  # documents looked for beyond those shown: the graded one and its doubles fall out
GRADES_SHOWN = 4
TITLE_CHARACTERS = 80
ASCII_PER_TOKEN = 4  # a usual rule of thumb; any other character counts as a token, on the safe side
WORDS = {"judged": "People's grades for", "clicked": "Clicked by people who searched this: "}

__all__ = ["Embed", "Knowledge", "embed_documents", "load_plugin", "spread", "tokens"]


class Knowledge:
    """What is known about queries that were announced with `prepare`."""

    def __init__(
        self,
        index: Index,
        texts: Texts,
        embed: Embed,
        documents: int,
        max_tokens: int,
        plugins: Sequence[str] = (),
        judged: Judged | None = None,
        judged_count: int = 1,
        clicked: Clicked | None = None,
        clicked_count: int = 2,
    ) -> None:
        """Bind the sources: `documents` nearest, `judged_count` judged queries, `clicked_count` clicked documents.

        `texts` gives the texts of documents by id, `clicked` the clicked documents of queries; `max_tokens` bounds one
        pair's background; `plugins` are "module:function" names.

        Raises:
            ValueError: a plug-in cannot be found.
        """
        self._index, self._lookup, self._embed = index, texts, embed
        self._count, self._max_tokens = documents, max_tokens
        self._judged, self._judged_count = judged, judged_count
        self._clicked, self._clicked_count = clicked, clicked_count
        self._plugins = {name: load_plugin(name) for name in plugins}
        self._found: dict[str, list[tuple[str, str]]] = {}  # query -> (kind, what), best first
        self._texts: dict[str, str] = {}
        self._added: dict[tuple[str, str], list[str]] = {}

    def prepare(self, queries: Sequence[str], ledger: Ledger | None = None) -> None:
        """Find what is known about these queries at once.

        Give all queries of a round, not those left after a restart: equal batches make equal vectors, so equal prompts.
        With a ledger, a plug-in is asked once per query ever: a prompt that changed would have to be paid again.
        """
        new = sorted(set(queries) - self._found.keys())
        if not new:
            return
        for name, plugin in self._plugins.items():
            self._ask_plugin(name, plugin, new, ledger)
        near: list[list[str]] = [[] for _ in new]
        like = near
        if (self._count and len(self._index)) or self._judged is not None:
            vectors = np.asarray(self._embed(new), dtype=np.float32)
            near = self._index.search(new, vectors, self._count + SPARE if self._count else 0)
            if self._judged is not None:
                like = self._judged.like(new, vectors, self._judged_count)
        clicks = {} if self._clicked is None else self._clicked(new, self._clicked_count + SPARE)
        for query, documents, judged in zip(new, near, like, strict=True):
            self._found[query] = [
                *(("plugin", name) for name in self._plugins if self._added[name, query]),
                *(("judged", other) for other in judged),
                *(("clicked", doc_id) for doc_id in clicks.get(query, [])),
                *(("corpus", doc_id) for doc_id in documents),
            ]
        wanted = {what for query in new for kind, what in self._found[query] if kind in ("clicked", "corpus")}
        if self._judged is not None:
            wanted |= {doc_id for judged in like for other in judged for doc_id, _ in self._judged.grades(other)}
        self._texts.update(self._lookup(sorted(wanted - self._texts.keys())))

    def sources(self, query: str, doc_id: str) -> tuple[str, ...]:
        """Names of what is shown as background of a pair, such as corpus:doc-7; never the graded document itself."""
        left = {"plugin": len(self._plugins), "judged": self._judged_count, "clicked": self._clicked_count,
                "corpus": self._count}  # fmt: skip
        taken: dict[str, str] = {}  # what -> kind; a document that was clicked is not shown again as near
        for kind, what in self._found[query]:
            if left[kind] == 0 or what in taken:
                continue
            if kind in ("clicked", "corpus") and (what not in self._texts or self._index.same(what, doc_id)):
                continue
            if kind == "judged" and not self._graded(what, doc_id):
                continue
            taken[what] = kind
            left[kind] -= 1
        return tuple(f"{kind}:{what}" for what, kind in taken.items())

    def background(self, query: str, doc_id: str, sources: Sequence[str]) -> list[str]:
        """The texts behind the names of a pair's sources, cut together to the budget of tokens."""
        texts: list[str] = []
        for source in sources:
            kind, _, what = source.partition(":")
            if kind == "plugin":
                texts += self._added[what, query]
            elif kind == "judged":
                grades = "; ".join(f"{grade:g} = {title}" for grade, title in self._graded(what, doc_id))
                texts.append(f"{WORDS[kind]} “{what}”: {grades}")
            else:
                texts.append(WORDS.get(kind, "") + self._texts[what])
        return spread(texts, self._max_tokens)

    def _graded(self, query: str, doc_id: str) -> list[tuple[float, str]]:
        """Grade and title of a judged query's documents, without those that are the graded document."""
        if self._judged is None:
            return []
        found = [
            (grade, self._texts[other].strip().splitlines()[0][:TITLE_CHARACTERS])
            for other, grade in self._judged.grades(query)
            if self._texts.get(other, "").strip() and not self._index.same(other, doc_id)
        ]
        return found[:GRADES_SHOWN]

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
        self._added.update({(name, query): known[query] for query in queries})


def knowledge_of(
    documents: pl.DataFrame, vectors: NDArray[np.float32], embed: Embed, count: int, max_tokens: int,
    plugins: Sequence[str] = (),
) -> Knowledge:  # fmt: skip
    """Knowledge from documents in memory and plug-ins alone: for programs without a workspace."""
    ordered = documents.with_row_index("row").sort("doc_id")
    index = Index([(ordered.select("doc_id", "text"), np.asarray(vectors)[ordered["row"].to_numpy()])])
    texts = dict(documents.select("doc_id", "text").iter_rows())
    return Knowledge(index, lambda ids: {doc_id: texts[doc_id] for doc_id in ids}, embed, count, max_tokens, plugins)


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


def tokens(text: str) -> int:
    """An estimate of a text's tokens: one for four ASCII characters, one for every other character."""
    return -(-int(_quarters(text)[-1]) // ASCII_PER_TOKEN) if text else 0


def spread(texts: Sequence[str], budget: int) -> list[str]:
    """Texts cut so that together they keep to a budget of tokens: an equal part each, what one leaves to others."""
    costs = [tokens(text) for text in texts]
    shares = [0] * len(texts)
    left = budget
    for place, number in enumerate(sorted(range(len(texts)), key=lambda i: (costs[i], i))):
        shares[number] = min(costs[number], left // (len(texts) - place))
        left -= shares[number]
    cut = [text[: int(np.searchsorted(_quarters(text), share * ASCII_PER_TOKEN, side="right"))] if text else ""
           for text, share in zip(texts, shares, strict=True)]  # fmt: skip
    return [text for text in cut if text]


def _quarters(text: str) -> NDArray[np.int64]:
    """The cost of every beginning of a text, in quarters of a token."""
    letters = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
    return np.cumsum(np.where(letters < 128, 1, ASCII_PER_TOKEN))
