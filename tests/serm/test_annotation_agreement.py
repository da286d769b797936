"""Agreement: votes against brute force over all ways the paths can go on."""

from itertools import product

import numpy as np
import pytest

from serm.annotation.agreement import Ties, Vote, agree, next_paths, settled, stable_label, unify

SAID = [None, 0, 1, 2]


@pytest.mark.parametrize(
    ("labels", "support", "expected"),
    [
        ([2, 2, 1], 0.5, 2),
        ([2, 1, 0], 0.5, None),
        ([2, 2, 1, 1], 0.5, None),
        ([2, 2, 1, 1], 0.4, None),  # a tie has no winner even where both have the support
        ([2, None, None], 0.5, None),  # paths without a label count as asked
        ([2, 2, None], 0.5, 2),
        ([2, 2, 1], 0.7, None),
        ([1, None, None], 0.0, 1),
        ([1] * 3 + [None] * 27, 0.1, None),  # exactly 10% is not more than 10%
        ([], 0.5, None),
    ],
)
def test_stable_label(labels: list[int | None], support: float, expected: int | None) -> None:
    assert stable_label(labels, support) == expected


@pytest.mark.parametrize("support", [0.0, 0.3, 0.5, 0.7])
@pytest.mark.parametrize("paths", [1, 2, 3, 4, 5])
def test_settled_is_exactly_when_no_continuation_differs(paths: int, support: float) -> None:
    for taken in range(paths + 1):
        for labels in product(SAID, repeat=taken):
            ends = {stable_label([*labels, *rest], support) for rest in product(SAID, repeat=paths - taken)}
            assert settled(labels, paths, support) == (len(ends) == 1), (labels, ends)
            if len(ends) == 1:
                assert stable_label(labels, support, paths) == ends.pop()


@pytest.mark.parametrize("support", [0.3, 0.5, 0.7])
@pytest.mark.parametrize("paths", [2, 3, 5])
def test_fewer_than_the_next_paths_can_elect_nobody_for_sure(paths: int, support: float) -> None:
    for taken in range(paths):
        for labels in product(SAID, repeat=taken):
            if settled(labels, paths, support):
                continue
            n = next_paths(labels, paths, support)
            assert 1 <= n <= paths - taken
            for rest in product([0, 1, 2], repeat=n - 1):
                after = [*labels, *rest]
                assert not settled(after, paths, support) or stable_label(after, support, paths) is None


def test_agreement_is_unanimous() -> None:
    assert agree({"ada": 2, "ben": 2}) == 2
    assert agree({"ada": 2, "ben": 1}) is None
    assert agree({"ada": 2, "ben": None}) is None
    assert agree({"ada": None, "ben": None}) is None
    assert agree({"ada": 0, "ben": 0, "cy": 0}) == 0


def test_unify_takes_turns_and_drops_repetition() -> None:
    ada = ["The film is about whales. It names no ship.", "The film is about whales!"]
    ben = ["The film is about the whales. Its year fits."]
    assert unify([ada, ben]) == "The film is about whales. It names no ship. Its year fits."


def test_unify_is_short_and_bears_emptiness() -> None:
    assert unify([[], [""]]) == ""
    long = " ".join(f"Sentence number {i} says w{i} x{i} y{i} z{i}." for i in range(200))
    assert 0 < len(unify([[long], [long]], 100)) <= 100
    assert unify([["x" * 500]], 100) == "x" * 100


@pytest.mark.parametrize(("vote", "ties"), [("median", "none"), ("exact", "lower")])
@pytest.mark.parametrize("support", [0.0, 0.3, 0.5, 0.7])
@pytest.mark.parametrize("paths", [1, 3, 4, 5])
def test_other_policies_never_stop_too_early(paths: int, support: float, vote: Vote, ties: Ties) -> None:
    for taken in range(paths + 1):
        for labels in product(SAID, repeat=taken):
            if settled(labels, paths, support, vote, ties):
                ends = {
                    stable_label([*labels, *rest], support, paths, vote, ties)
                    for rest in product(SAID, repeat=paths - taken)
                }
                assert ends == {stable_label(labels, support, paths, vote, ties)}, labels


def test_ties_and_medians() -> None:
    assert stable_label([2, 2, 1, 1], 0.4, ties="lower") == 1
    assert stable_label([2, 2, 1, 1], 0.5, ties="lower") is None
    assert stable_label([0, 1, 2], 0.5, vote="median") == 1
    assert stable_label([0, 0, 3, 3], 0.5, vote="median") is None
    assert stable_label([1, 2, 2, None], 0.7, vote="median") == 2
    assert stable_label([None], 0.5, vote="median") is None


def test_adaptive_stopping_is_the_full_vote_with_30_percent_fewer_paths() -> None:
    """10,000 pairs, each path right with a probability of the pair's own (0.5 to 1), in the order of the asker."""
    rng = np.random.default_rng(11)
    n, paths = 10_000, 7
    truth, right = rng.integers(0, 4, n), rng.uniform(0.5, 1, n)
    said = np.where(rng.random((n, paths)) < right[:, None], truth[:, None], rng.integers(0, 4, (n, paths)))
    taken = 0
    for row in said.tolist():
        labels: list[int | None] = []
        while not settled(labels, paths, 0.5):
            labels += row[len(labels) : len(labels) + next_paths(labels, paths, 0.5)]
        taken += len(labels)
        assert stable_label(labels, 0.5, paths) == stable_label(row, 0.5)
    assert taken <= 0.7 * n * paths, taken / (n * paths)
