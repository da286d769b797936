"""The model's answers on disk: nothing is asked twice, a killed run asks for the rest, old answers go."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from serm.mining import cache
from serm.mining.asking import here
from serm.mining.cache import Remembering

PAIRS = [(f"query {i % 7}", f"text {i} " + "x" * (i % 11)) for i in range(40)]
QUERIES, TEXTS = [q for q, _ in PAIRS], [t for _, t in PAIRS]


class Counting:
    """Answers that depend on the texts alone; counts what it is asked, and dies at a given call."""

    def __init__(self, dies_at: int | None = None) -> None:
        self.scale = [0, 1]
        self.asked: list[tuple[str, str]] = []
        self.calls, self.dies_at = 0, dies_at

    def probabilities(self, queries: Sequence[str], documents: Sequence[str]) -> NDArray[np.float32]:
        self.calls += 1
        if self.calls == self.dies_at:
            raise KeyboardInterrupt
        self.asked += list(zip(queries, documents, strict=True))
        p = np.array([len(q) / 100 + len(d) / 1000 for q, d in zip(queries, documents, strict=True)])
        return np.stack([1 - p, p], axis=1).astype(np.float32)

    def judgments(
        self, queries: Sequence[str], documents: Sequence[str], passes: int, seed: int
    ) -> NDArray[np.float32]:
        return np.repeat(self.probabilities(queries, documents)[:, 1:], passes, axis=1) + seed


def test_a_second_run_asks_for_nothing_and_says_the_same(tmp_path: Path) -> None:
    first, second = Counting(), Counting()
    plain = Counting().probabilities(QUERIES, TEXTS)
    assert np.array_equal(Remembering([0, 1], here(first), tmp_path / "a", "v1").probabilities(QUERIES, TEXTS), plain)
    assert np.array_equal(Remembering([0, 1], here(second), tmp_path / "a", "v1").probabilities(QUERIES, TEXTS), plain)
    assert (len(first.asked), len(second.asked)) == (40, 0)


def test_a_killed_run_is_asked_for_the_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "SLICE", 8)
    dying, fresh = Counting(dies_at=3), Counting()
    with pytest.raises(KeyboardInterrupt):
        Remembering([0, 1], here(dying), tmp_path / "a", "v1").probabilities(QUERIES, TEXTS)
    Remembering([0, 1], here(fresh), tmp_path / "a", "v1").probabilities(QUERIES, TEXTS)
    assert len(dying.asked) == 16
    assert sorted(dying.asked + fresh.asked) == sorted(PAIRS)


def test_slices_hold_texts_of_like_length(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "SLICE", 8)
    model = Counting()
    Remembering([0, 1], here(model), tmp_path / "a", "v1").probabilities(QUERIES, TEXTS)
    lengths = [len(q) + len(d) for q, d in model.asked]
    assert lengths == sorted(lengths, reverse=True)


def test_the_versions_name_does_not_decide_who_shares_a_batch(tmp_path: Path) -> None:
    one, other = Counting(), Counting()
    Remembering([0, 1], here(one), tmp_path / "a", "v1").probabilities(QUERIES, TEXTS)
    Remembering([0, 1], here(other), tmp_path / "b", "another").probabilities(QUERIES[::-1], TEXTS[::-1])
    assert one.asked == other.asked


def test_version_text_question_and_seed_tell_answers_apart(tmp_path: Path) -> None:
    model = Counting()
    one = Remembering([0, 1], here(model), tmp_path / "a", "v1")
    one.probabilities(["ab"], ["c"])
    one.probabilities(["a"], ["bc"])
    Remembering([0, 1], here(model), tmp_path / "a", "v2").probabilities(["ab"], ["c"])
    assert one.judgments(["ab"], ["c"], 3, seed=1).shape == (1, 3)
    assert one.judgments(["ab"], ["c"], 3, seed=2)[0, 0] == one.judgments(["ab"], ["c"], 3, seed=1)[0, 0] + 1
    assert model.calls == 5


def test_pairs_asked_for_twice_in_a_call_and_none_at_all(tmp_path: Path) -> None:
    model = Counting()
    remembering = Remembering([0, 1], here(model), tmp_path / "a", "v1")
    both = remembering.probabilities(["q", "q"], ["d", "d"])
    assert np.array_equal(both[0], both[1])
    assert len(model.asked) == 1
    assert remembering.probabilities([], []).shape == (0, 2)


def test_only_so_many_answers_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "SLICE", 8)
    model = Counting()
    small = Remembering([0, 1], here(model), tmp_path / "a", "v1", kept=16)
    small.probabilities(QUERIES, TEXTS)
    small.probabilities(QUERIES, TEXTS)
    assert len(model.asked) == 40 + 24
