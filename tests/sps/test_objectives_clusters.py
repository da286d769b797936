"""Clusters by text, by key and by a real embedding model."""

import itertools
import sys

import numpy as np
import pytest

from serm.relevance.weights import resolve
from sps.config import SteeringSettings
from sps.objectives.clusters import by_key, by_similarity, make_clusters


def partition(numbers: list[int]) -> set[frozenset[int]]:
    return {frozenset(i for i, n in enumerate(numbers) if n == number) for number in numbers}


def test_by_text_ignores_keys() -> None:
    clusters = make_clusters(SteeringSettings())(["a", "b", "a"], ["k", "k", "l"])
    assert partition(clusters) == {frozenset({0, 2}), frozenset({1})}


def test_by_key_keeps_those_without_one_apart() -> None:
    clusters = make_clusters(SteeringSettings(distinct_by="key"))(
        ["1+2", "2+1", "what", "no idea", "1+2", "what"], ["1+2", "1+2", None, None, "1+2", None]
    )
    assert partition(clusters) == {frozenset({0, 1, 4}), frozenset({2, 5}), frozenset({3})}


def test_a_key_is_not_a_text() -> None:
    assert len(set(by_key(["x", "y"], [None, "x"]))) == 2


def test_complete_linkage_never_joins_two_that_are_too_far_apart() -> None:
    """Directions 20 degrees apart on a circle chain together link by link, but no cluster may span 45 degrees."""
    angles = np.deg2rad(np.arange(0, 180, 20))
    vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    clusters = by_similarity(vectors * 3, float(np.cos(np.deg2rad(45))))
    for i, j in itertools.combinations(range(len(angles)), 2):
        if clusters[i] == clusters[j]:
            assert np.rad2deg(abs(angles[i] - angles[j])) <= 45
    assert 1 < len(set(clusters)) < len(angles)


def test_similarity_at_its_edges() -> None:
    same = np.tile(np.random.default_rng(0).standard_normal(384).astype(np.float32), (3, 1))
    rounded = same * np.array([[1], [0.3], [7.7]], dtype=np.float32)  # equal but for float32's last digits
    assert len(set(by_similarity(rounded, 1.0))) == 1
    assert len(set(by_similarity(np.eye(3, dtype=np.float32), 0.9))) == 3
    assert len(set(by_similarity(np.zeros((2, 4), dtype=np.float32), 0.9))) == 2
    assert by_similarity(same[:1], 0.9) == [0]
    assert by_similarity(same[:0], 0.9) == []


def test_paraphrases_are_one_solution_to_an_embedding_model() -> None:
    settings = SteeringSettings(
        distinct_by="embedding", embedding_model=resolve("embedded:minilm"), embedding_similarity=0.75
    )
    texts = [
        "First add 3 and 4, then double the sum.",
        "The cat sat on the mat.",
        "Add three and four first and then double the result.",
    ]
    assert partition(make_clusters(settings)(texts, [None] * 3)) == {frozenset({0, 2}), frozenset({1})}


def test_embedding_needs_a_model_that_is_there() -> None:
    with pytest.raises(ValueError, match=r"steering\.embedding_model"):
        make_clusters(SteeringSettings(distinct_by="embedding"))
    with pytest.raises(ValueError, match="'/nowhere/model' cannot be loaded"):
        make_clusters(SteeringSettings(distinct_by="embedding", embedding_model="/nowhere/model"))


def test_embedding_without_its_library_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(ValueError, match="pip install 'sentence-transformers"):
        make_clusters(SteeringSettings(distinct_by="embedding", embedding_model="any"))
