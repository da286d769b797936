"""Background: nearest documents against brute force, the embedding cache, plug-ins."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray

from serm.annotation import knowledge as module
from serm.annotation.knowledge import Knowledge, embed_documents
from serm.annotation.ledger import Ledger


def letters(texts: Sequence[str]) -> NDArray[np.float32]:
    """Unit vectors of letter counts."""
    counts = np.array([[text.count(chr(97 + i)) + 0.01 for i in range(26)] for text in texts], dtype=np.float32)
    return counts.reshape(-1, 26) / np.linalg.norm(counts.reshape(-1, 26), axis=1, keepdims=True)


def documents(n: int = 40) -> pl.DataFrame:
    rng = np.random.default_rng(1)
    texts = ["".join(rng.choice(list("abcdefghij"), 30)) for _ in range(n)]
    return pl.DataFrame({"doc_id": [f"d{i}" for i in range(n)], "text": texts})


def test_sources_are_the_nearest_others() -> None:
    docs = documents()
    vectors = letters(docs["text"].to_list())
    knowledge = Knowledge(docs, vectors, letters, 3, 1_000)
    queries = ["abba", "jig", "decade"]
    knowledge.prepare(queries)
    for query in queries:
        order = np.argsort(-(vectors @ letters([query])[0]), kind="stable")
        nearest = [docs["doc_id"][int(row)] for row in order]
        for excluded in (nearest[0], nearest[2], nearest[9]):
            expected = [doc_id for doc_id in nearest if doc_id != excluded][:3]
            assert list(knowledge.sources(query, excluded)) == expected


def test_background_keeps_to_its_budget() -> None:
    docs = documents()
    knowledge = Knowledge(docs, letters(docs["text"].to_list()), letters, 4, 42)
    knowledge.prepare(["abc"])
    texts = knowledge.background("abc", knowledge.sources("abc", "d0"))
    assert [len(text) for text in texts] == [10, 10, 10, 10]


def test_fewer_documents_than_wanted() -> None:
    docs = documents(2)
    knowledge = Knowledge(docs, letters(docs["text"].to_list()), letters, 5, 100)
    knowledge.prepare(["abc"])
    assert knowledge.sources("abc", "d0") == ("d1",)
    none = Knowledge(docs.clear(), np.zeros((0, 26), np.float32), letters, 0, 100)
    none.prepare(["abc"])
    assert none.sources("abc", "d0") == ()
    with pytest.raises(ValueError, match="1 vectors for 2 documents"):
        Knowledge(docs, letters(["x"]), letters, 1, 100)


def test_cache_embeds_each_text_once(tmp_path: Path) -> None:
    asked: list[str] = []

    def counting(texts: Sequence[str]) -> NDArray[np.float32]:
        asked.extend(texts)
        return letters(texts)

    docs = documents()
    first = embed_documents(docs["text"], counting, tmp_path)
    np.testing.assert_array_equal(first, letters(docs["text"].to_list()))
    asked.clear()
    changed = pl.concat([docs["text"].reverse().head(39), pl.Series("text", ["a new text", "a new text"])])
    second = embed_documents(changed, counting, tmp_path)
    np.testing.assert_array_equal(second, letters(changed.to_list()))
    assert [text for text in asked if text != module.PROBE] == ["a new text"]


def test_another_embedder_has_another_cache(tmp_path: Path) -> None:
    docs = documents()
    embed_documents(docs["text"], letters, tmp_path)
    reversed_letters = lambda texts: letters(texts)[:, ::-1]  # noqa: E731
    found = embed_documents(docs["text"], reversed_letters, tmp_path)
    np.testing.assert_array_equal(found, reversed_letters(docs["text"].to_list()))


ASKED: list[str] = []


def shout(query: str) -> list[str]:
    """A plug-in whose answer changes with every call."""
    ASKED.append(query)
    return [f"{query.upper()}! ({len(ASKED)})"]


def wrong(query: str) -> str:
    return query


def test_plugins_are_asked_once_a_query_ever(tmp_path: Path) -> None:
    ASKED.clear()
    docs = documents(3)
    ledger = Ledger(tmp_path / "ledger.sqlite")
    seen = []
    for queries in (["moby", "ahab"], ["moby", "ahab", "ship"]):
        knowledge = Knowledge(docs, letters(docs["text"].to_list()), letters, 1, 200, [f"{__name__}:shout"])
        knowledge.prepare(queries, ledger)
        seen.append({query: knowledge.background(query, knowledge.sources(query, "d0"))[0] for query in queries})
    assert sorted(ASKED) == ["ahab", "moby", "ship"]
    assert seen[0].items() <= seen[1].items()
    assert seen[0]["moby"].startswith("MOBY!")


@pytest.mark.parametrize("name", ["nothing", "no.such.module:f", f"{__name__}:no_such_function"])
def test_a_missing_plugin_is_named(name: str) -> None:
    with pytest.raises(ValueError, match=r"annotation.knowledge_plugins"):
        Knowledge(documents(1), letters(["x"]), letters, 1, 10, [name])


def test_a_plugin_that_gives_no_list_is_named() -> None:
    knowledge = Knowledge(documents(1), letters(["x"]), letters, 1, 10, [f"{__name__}:wrong"])
    with pytest.raises(ValueError, match="gave no list of texts"):
        knowledge.prepare(["moby"])
