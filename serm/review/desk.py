"""One reviewer's desk: a queue with fixed places, handed out page by page, and what was decided on it."""

from dataclasses import dataclass
from threading import Lock
from typing import Any

import polars as pl

from serm.review.decisions import decide, own_grades, withdraw
from serm.review.queue import PAIR, details, judged_by_people, open_pairs, votes_of
from serm.workspace import Workspace

MOST_PAGE = 50  # pairs in one answer


class RefusedError(ValueError):
    """A decision that may not be taken, in words for the reviewer."""


@dataclass(frozen=True)
class Page:
    """Pairs from one place on, as JSON objects."""

    pairs: list[dict[str, Any]]
    progress: dict[str, int]


class Desk:
    """A queue as it was when the desk opened; `refresh` puts what is new at its end, so places never move.

    Memory holds the keys alone, about 200 bytes a pair; texts and votes are read for one page at a time.
    """

    def __init__(self, workspace: Workspace, reviewer: str, split: str = "train", round: int | None = None) -> None:
        """Read the queue of a round, or of all."""
        self.workspace = workspace
        self.reviewer = reviewer
        self.split = split
        self.round = round
        self.queue = open_pairs(workspace, round)
        self._places = {pair: place for place, pair in enumerate(self.queue.select(PAIR).iter_rows())}
        self._mine: set[int] = set()  # places that the reviewer decided
        self._others: set[int] = set()  # places that only others decided since the desk opened
        self._lock = Lock()  # decisions are written in the order in which they were taken

    def refresh(self) -> None:
        """Add pairs that came into the queue since."""
        with self._lock:
            now = open_pairs(self.workspace, self.round)
            new = now.join(self.queue, on=PAIR, how="anti", maintain_order="left")
            self._others = {place for pair, place in self._places.items()} - self._mine
            self._others -= {self._places[pair] for pair in now.select(PAIR).iter_rows() if pair in self._places}
            if not new.is_empty():
                start = self.queue.height
                self.queue = pl.concat([self.queue, new])
                self._places |= {pair: start + i for i, pair in enumerate(new.select(PAIR).iter_rows())}

    def progress(self) -> dict[str, int]:
        """Pairs in all, decided by this reviewer here, decided by others meanwhile, and left."""
        done, others = len(self._mine), len(self._others)
        total = self.queue.height
        return {"total": total, "done": done, "others": others, "left": total - done - others}

    def next_open(self, after: int) -> int | None:
        """The first undecided place behind `after` (-1: from the start), from the front again if need be; or none."""
        closed = self._mine | self._others
        places = (place % self.queue.height for place in range(after + 1, after + 1 + self.queue.height))
        return next((place for place in places if place not in closed), None)

    def page(self, start: int, count: int) -> Page:
        """Up to `count` pairs from place `start` on, with what they need to be judged."""
        keys = self.queue.slice(start, min(count, MOST_PAGE))
        if keys.is_empty():
            return Page([], self.progress())
        own = {(q, d): grade for q, d, grade in own_grades(self.workspace, keys, self.reviewer).iter_rows()}
        judges = self._other_judges(keys)
        names = self.workspace.config.labels.names
        pairs = []
        for place, row in enumerate(details(self.workspace, keys).iter_rows(named=True), start):
            pair = (row["query"], row["doc_id"])
            self._note(place, pair in own, pair in judges)
            row["votes"] = votes_of(row["votes"], names)
            pairs.append(row | {"place": place, "grade": own.get(pair), "judged_by": judges.get(pair, [])})
        return Page(pairs, self.progress())

    def decide(self, query: str, doc_id: str, grade: int) -> int | None:
        """Write a decision; returns the reviewer's earlier grade of the pair, if there was one.

        Raises:
            RefusedError: the pair is not of this queue, or may not be judged here.
        """
        place, pair = self._named(query, doc_id)
        with self._lock:
            own = own_grades(self.workspace, pair, self.reviewer)
            locale = details(self.workspace, pair)["locale"]
            row = pair.select(*PAIR, judge=pl.lit(self.reviewer), grade=pl.lit(grade, pl.Int32), locale=locale)
            outcome = decide(self.workspace, row, self.split)
            if outcome.refused:
                raise RefusedError(next(iter(outcome.refused.values())))
            self._note(place, True, False)
        return None if own.is_empty() else int(own["grade"][0])

    def undo(self, query: str, doc_id: str) -> int:
        """Take the decision on a pair back; returns how many there were (0 or 1)."""
        place, _ = self._named(query, doc_id)
        with self._lock:
            removed = withdraw(self.workspace, query, doc_id, self.reviewer)
            self._note(place, False, False)
        return removed

    def _named(self, query: str, doc_id: str) -> tuple[int, pl.DataFrame]:
        place = self._places.get((query, doc_id))
        if place is None:
            raise RefusedError("this pair is not in the queue of this desk; load the page again")
        return place, self.queue.slice(place, 1)

    def _note(self, place: int, mine: bool, others: bool) -> None:
        (self._mine.add if mine else self._mine.discard)(place)
        (self._others.add if others and not mine else self._others.discard)(place)

    def _other_judges(self, keys: pl.DataFrame) -> dict[tuple[str, str], list[str]]:
        named = pl.col("query").is_in(keys["query"].unique().implode()) & (pl.col("judge") != self.reviewer)
        judged = judged_by_people(self.workspace).filter(named).join(keys.lazy(), on=PAIR, how="semi")
        who = judged.group_by(PAIR).agg(pl.col("judge").unique().sort()).collect()
        return {(query, doc_id): judges for query, doc_id, judges in who.iter_rows()}
