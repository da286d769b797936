"""Background: retrieval and budget against brute force, whose judgments and clicks are told, the cache, plug-ins."""

import json
import math
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.feature_extraction.text import HashingVectorizer

from serm.annotation import retrieval as module
from serm.annotation.evidence import Judged, co_clicked
from serm.annotation.knowledge import Knowledge, knowledge_of, spread, tokens
from serm.annotation.ledger import Ledger
from serm.annotation.retrieval import Index, bm25, embed_documents
from serm.annotation.stand_in import StandInLLM
from serm.annotation.verbs import annotate
from serm.config import MiningSettings
from serm.workspace import Workspace


def letters(texts: Sequence[str]) -> NDArray[np.float32]:
    """Unit vectors of letter counts."""
    counts = np.array([[text.count(chr(97 + i)) + 0.01 for i in range(26)] for text in texts], dtype=np.float32)
    return counts.reshape(-1, 26) / np.linalg.norm(counts.reshape(-1, 26), axis=1, keepdims=True)


def documents(n: int = 40) -> pl.DataFrame:
    rng = np.random.default_rng(1)
    texts = ["".join(rng.choice(list("abcdefghij"), 30)) for _ in range(n)]
    return pl.DataFrame({"doc_id": [f"d{i}" for i in range(n)], "text": texts})


def by_words(texts: Sequence[str], query: str) -> NDArray[np.float64]:
    """BM25 (k1 1.2, b 0.75) of each text, the formula word for word."""
    bags = [re.findall(r"\w+", text.lower()) for text in texts]
    mean = sum(map(len, bags)) / len(bags)
    scores = []
    for bag in bags:
        score = 0.0
        for word in set(re.findall(r"\w+", query.lower())):
            holding = sum(word in other for other in bags)
            rarity = math.log(1 + (len(bags) - holding + 0.5) / (holding + 0.5))
            count = bag.count(word)
            score += rarity * count * 2.2 / (count + 1.2 * (0.25 + 0.75 * len(bag) / mean))
        scores.append(score)
    return np.array(scores)


def worded(n: int = 60) -> pl.DataFrame:
    rng = np.random.default_rng(2)
    words = np.array(["whale", "ship", "sea", "captain", "leg", "storm", "harpoon", "ink", "letter", "sail"])
    texts = [" ".join(rng.choice(words, rng.integers(3, 9))) + f" {i}" for i in range(n)]
    return pl.DataFrame({"doc_id": [f"d{i:02}" for i in range(n)], "text": texts})


def test_word_scores_are_bm25() -> None:
    counter = HashingVectorizer(n_features=2**20, token_pattern=r"\w+", norm=None, alternate_sign=False)
    texts = worded()["text"].to_list()
    weights = bm25(counter.transform(texts))
    for query in ("whale storm", "captain", "ink ship 7"):
        asked = counter.transform([query])
        asked.data[:] = 1
        np.testing.assert_allclose((weights @ asked.T).toarray().ravel(), by_words(texts, query), rtol=1e-5)


def test_sources_are_the_fused_rankings() -> None:
    """Reciprocal ranks of both lists to their depth, added by hand; the graded document is stepped over."""
    docs = worded()
    texts, ids = docs["text"].to_list(), docs["doc_id"].to_list()
    vectors = letters(texts)
    knowledge = knowledge_of(docs.sample(fraction=1.0, shuffle=True, seed=1), letters(
        docs.sample(fraction=1.0, shuffle=True, seed=1)["text"].to_list()), letters, 3, 1_000)  # fmt: skip
    queries = ["whale ship", "a storm at sea", "ink"]
    knowledge.prepare(queries)
    depth = 4 * (3 + 4)
    for query in queries:
        near = np.argsort(-(vectors @ letters([query])[0]), kind="stable")[:depth]
        scores = by_words(texts, query)
        by_word = [i for i in np.argsort(-scores, kind="stable") if scores[i] > 0][:depth]
        gains = dict.fromkeys(ids, 0.0)
        for ranking in (near, by_word):
            for place, row in enumerate(ranking):
                gains[ids[row]] += 1 / (61 + place)
        best = sorted(ids, key=lambda doc_id: (-round(gains[doc_id], 12), doc_id))
        for excluded in (best[0], best[2], best[9]):
            expected = [f"corpus:{doc_id}" for doc_id in best if doc_id != excluded][:3]
            assert list(knowledge.sources(query, excluded)) == expected


def test_a_double_of_the_graded_document_is_no_background() -> None:
    docs = pl.DataFrame({"doc_id": ["a", "b", "c"], "text": ["the red shoe", " the red shoe\n", "a blue hat"]})
    knowledge = knowledge_of(docs, letters(docs["text"].to_list()), letters, 2, 1_000)
    knowledge.prepare(["red shoe"])
    assert knowledge.sources("red shoe", "a") == ("corpus:c",)
    assert knowledge.sources("red shoe", "c") == ("corpus:a", "corpus:b")


def test_tokens_are_counted_by_the_rule() -> None:
    assert [tokens(text) for text in ("", "a", "abcd", "abcde", "é", "日本", "abcd日")] == [0, 1, 1, 2, 1, 2, 2]


@given(st.lists(st.text(max_size=60), max_size=6), st.integers(1, 60))
def test_a_spread_keeps_to_the_budget_and_wastes_nothing(texts: list[str], budget: int) -> None:
    cut = spread(texts, budget)
    assert sum(map(tokens, cut)) <= budget
    if sum(map(tokens, texts)) <= budget:
        assert cut == [text for text in texts if text]
    else:  # what is not used is less than one token a text: a token is not split, nor a character
        assert sum(map(tokens, cut)) > budget - 1 - len(texts)


def test_background_keeps_to_its_budget() -> None:
    docs = documents()
    knowledge = knowledge_of(docs, letters(docs["text"].to_list()), letters, 4, 10)
    knowledge.prepare(["abc"])
    texts = knowledge.background("abc", "d0", knowledge.sources("abc", "d0"))
    assert [len(text) for text in texts] == [8, 8, 12, 12]


def test_fewer_documents_than_wanted() -> None:
    docs = documents(2)
    knowledge = knowledge_of(docs, letters(docs["text"].to_list()), letters, 5, 100)
    knowledge.prepare(["abc"])
    assert knowledge.sources("abc", "d0") == ("corpus:d1",)
    none = knowledge_of(docs.clear(), np.zeros((0, 26), np.float32), letters, 0, 100)
    none.prepare(["abc"])
    assert none.sources("abc", "d0") == ()
    with pytest.raises(ValueError, match="1 vectors for 2 documents"):
        Index([(docs, letters(["x"]))])


def test_an_index_made_in_batches_finds_the_same() -> None:
    docs = worded(50)
    vectors = letters(docs["text"].to_list())
    whole = Index([(docs, vectors)])
    parts = Index((docs[start : start + 7], vectors[start : start + 7]) for start in range(0, 50, 7))
    queries = ["whale ship", "ink 3", "nothing known"]
    asked = letters(queries)
    assert whole.search(queries, asked, 6) == parts.search(queries, asked, 6)


def graded(rows: list[tuple[str, str, int, str]]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=["query", "doc_id", "grade", "split"], orient="row")


def test_only_train_judgments_are_shown_and_never_the_pairs_own() -> None:
    rows = [("abc", f"d{i}", i % 4, "train") for i in range(6)]
    rows += [("abd", f"d{i}", 3, split) for i, split in enumerate(("fresh", "anchor", "hidden", "dev"))]
    rows += [("aabbcc", "d7", 2, "train")]
    judged = Judged(graded(rows), letters)
    assert judged.queries == ["aabbcc", "abc"]
    docs = documents(10)
    knowledge = Knowledge(
        Index([(docs, letters(docs["text"].to_list()))]),
        lambda ids: dict(docs.filter(pl.col("doc_id").is_in(ids)).iter_rows()), letters, 0, 500, judged=judged,
        judged_count=2,
    )  # fmt: skip
    knowledge.prepare(["abc", "xyz"])
    for own in ("d3", "d5", "d9"):
        sources = knowledge.sources("abc", own)
        assert sources == ("judged:abc", "judged:aabbcc")
        text, other = knowledge.background("abc", own, sources)
        titles = dict(docs.iter_rows())
        shown = [doc_id for doc_id, title in titles.items() if title in text]
        assert own not in shown
        assert len(shown) == 4
        for doc_id in shown:
            assert f"{int(doc_id[1:]) % 4} = {titles[doc_id]}" in text
        assert other == f"People's grades for “aabbcc”: 2 = {titles['d7']}"
    assert knowledge.sources("xyz", "d0") == ()
    assert knowledge.sources("abc", "d7") == ("judged:abc",)  # all that it could say is the pair's own document
    away = Judged(graded(rows), letters, own=False)
    assert away.like(["abc"], letters(["abc"]), 2) == [["aabbcc"]]


def log(rows: list[tuple[str, str, str, bool, float | None]]) -> pl.LazyFrame:
    return pl.LazyFrame(
        rows,
        schema={
            "session": pl.String,
            "query": pl.String,
            "doc_id": pl.String,
            "clicked": pl.Boolean,
            "dwell": pl.Float64,
        },
        orient="row",
    ).with_columns(ts=pl.lit(datetime(2026, 1, 1, tzinfo=UTC)))


def test_co_clicked_counts_believable_sessions() -> None:
    rows = [
        ("s1", "shoe", "a", True, 30.0), ("s1", "boot", "b", True, 30.0), ("s2", "shoe", "a", True, 30.0),
        ("s2", "shoe", "c", False, None), ("s3", "boot", "b", True, 30.0), ("s4", "shoe", "d", True, 0.5),
        *((("bot", "shoe", f"x{i}", True, 0.1)) for i in range(9)),
        ("s5", "hat", "e", True, 30.0),
    ]  # fmt: skip
    found = co_clicked(log(rows), ["shoe", "boot"], MiningSettings(), 5)
    # s1 asked both, so its click for boot speaks for shoe; d was left at once; the bot clicked nine and read none.
    assert found == {"boot": ["b", "a"], "shoe": ["a", "b"]}
    assert co_clicked(log(rows), ["shoe"], MiningSettings(sessions=2), 5) == {"shoe": ["a"]}
    assert co_clicked(log(rows), ["shoe"], MiningSettings(), 1) == {"shoe": ["a"]}


def test_a_workspace_knows_and_stores_what_it_showed(tmp_path: Path) -> None:
    """Through the verb: sources by name and a hash of the texts with each label; off by one switch."""
    workspace = Workspace.create(tmp_path / "w", "annotation: {knowledge_documents: 1, knowledge_clicked: 1}")
    docs = documents(12)
    workspace.append("documents", docs)
    pairs = pl.DataFrame(
        {
            "round": [1, 1], "query": ["abc", "abc"], "doc_id": ["d0", "d1"], "agents": [["click"]] * 2,
            "reason": ["r"] * 2, "locale": ["de", "xx"],
        },
        schema_overrides={"round": pl.Int32},
    )  # fmt: skip
    workspace.append("mined", pairs)
    judgments = graded([("abc", "d5", 3, "train"), ("abc", "d6", 0, "fresh")])
    workspace.append("judgments", judgments.with_columns(judge=pl.lit("eva")))
    start = datetime(2026, 1, 1, tzinfo=UTC)
    seen = [(start, "s", "abc", "d1", 1, True, 40.0), (start, "t", "abc", "d2", 1, True, 40.0)]
    names = ["ts", "session", "query", "doc_id", "position", "clicked", "dwell"]
    workspace.append("impressions", pl.DataFrame(seen, schema=names, orient="row"))

    class Fixed:
        def labels(self, annotator: str, queries: Sequence[str], doc_ids: Sequence[str], paths: int, seed: int):  # type: ignore[no-untyped-def]
            return np.ones((len(queries), paths), dtype=int)

    annotate(workspace, llms={"ada": StandInLLM(Fixed(), "ada")}, embed=letters)
    rows = workspace.read("annotations").sort("doc_id")
    stored = [json.loads(text) for text in rows["knowledge"]]
    assert [entry["sources"][:2] for entry in stored] == [["judged:abc", "clicked:d1"], ["judged:abc", "clicked:d2"]]
    assert all(entry["sources"][2].startswith("corpus:d") and len(entry["hash"]) == 16 for entry in stored)
    assert "d6" not in str(stored[0]["sources"][0])
    assert [text.split("@")[0] for text in rows["prompt"]] == ["relevance/de", "relevance/en"]
    off = Workspace.create(tmp_path / "off", "annotation: {knowledge: false}")
    off.append("documents", docs)
    off.append("mined", pairs)
    annotate(off, llms={"ada": StandInLLM(Fixed(), "ada")})
    assert off.read("annotations")["knowledge"].null_count() == 2


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
        knowledge = knowledge_of(docs, letters(docs["text"].to_list()), letters, 1, 200, [f"{__name__}:shout"])
        knowledge.prepare(queries, ledger)
        assert knowledge.sources(queries[0], "d0")[0] == f"plugin:{__name__}:shout"
        seen.append({query: knowledge.background(query, "d0", knowledge.sources(query, "d0"))[0] for query in queries})
    assert sorted(ASKED) == ["ahab", "moby", "ship"]
    assert seen[0].items() <= seen[1].items()
    assert seen[0]["moby"].startswith("MOBY!")


@pytest.mark.parametrize("name", ["nothing", "no.such.module:f", f"{__name__}:no_such_function"])
def test_a_missing_plugin_is_named(name: str) -> None:
    with pytest.raises(ValueError, match=r"annotation.knowledge_plugins"):
        knowledge_of(documents(1), letters(["x"]), letters, 1, 10, [name])


def test_a_plugin_that_gives_no_list_is_named() -> None:
    knowledge = knowledge_of(documents(1), letters(["x"]), letters, 1, 10, [f"{__name__}:wrong"])
    with pytest.raises(ValueError, match="gave no list of texts"):
        knowledge.prepare(["moby"])
