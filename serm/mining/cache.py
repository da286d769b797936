"""Whoever scores pairs is asked once: what was said of (query, document text) is kept on disk under its version.

Pairs are asked about in slices of like length, longest first, and a slice's answers are committed as they come: a run
that was killed loses the slices in flight, and the next round asks only about pairs that are new.
"""

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from hashlib import blake2b
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from serm.mining.asking import Ask, Question, Slice

SLICE = 2_048  # pairs between two commits
KEPT = 5_000_000  # answers; the oldest go first. About 100 bytes each
LOOKED_UP = 500  # keys a query


class Remembering:
    """A relevance model (`RelevanceModel`) behind a file of its answers."""

    def __init__(self, scale: Sequence[int], ask: Ask, path: Path, version: str, kept: int = KEPT) -> None:
        """`version` names the weights and every setting that answers depend on; `path` may serve many versions."""
        self.scale = list(scale)
        self._ask, self._path, self._version, self._kept = ask, path, version, kept
        with closing(self._open()) as database, database:
            database.execute("PRAGMA journal_mode = WAL")
            database.execute(
                "CREATE TABLE IF NOT EXISTS answers "
                "(number INTEGER PRIMARY KEY AUTOINCREMENT, key BLOB UNIQUE NOT NULL, answer BLOB NOT NULL)"
            )

    def probabilities(self, queries: Sequence[str], documents: Sequence[str]) -> NDArray[np.float32]:
        """Pr(y | q, d) for aligned pairs: (n, |Y|)."""
        return self._answers(Question("probabilities"), queries, documents, len(self.scale))

    def judgments(
        self, queries: Sequence[str], documents: Sequence[str], passes: int, seed: int
    ) -> NDArray[np.float32]:
        """K sampled scores f^k(q, d): (n, K); answers to another seed or K are other answers."""
        return self._answers(Question("judgments", (passes, seed)), queries, documents, passes)

    def _answers(
        self, question: Question, queries: Sequence[str], documents: Sequence[str], width: int
    ) -> NDArray[np.float32]:
        what = " ".join([question.method, *map(str, question.arguments)])
        keys = [self._key(what, query, text) for query, text in zip(queries, documents, strict=True)]
        first = {key: row for row, key in reversed(list(enumerate(keys)))}  # a pair asked for twice is asked once

        def place(key: bytes) -> tuple[int, str, str]:
            """Longest first, then by the pair itself: the version's name must not decide who shares a batch."""
            query, text = queries[first[key]], documents[first[key]]
            return -len(query) - len(text), query, text

        order = sorted(first, key=place)
        with closing(self._open()) as database:
            known = self._known(database, order)
            # Slices are cut from all pairs, not from the missing ones: a run that resumes pads texts as the first did.
            slices = [order[start : start + SLICE] for start in range(0, len(order), SLICE)]
            missing = [[key for key in keys if key not in known] for keys in slices]
            asked = [
                Slice(number, [queries[first[key]] for key in some], [documents[first[key]] for key in some])
                for number, some in enumerate(missing)
                if some
            ]
            for part, said in self._ask(question, asked):
                known.update(zip(missing[part.number], said, strict=True))
                self._keep(database, missing[part.number], said)
        return np.stack([known[key] for key in keys]) if keys else np.zeros((0, width), dtype=np.float32)

    def _key(self, what: str, query: str, text: str) -> bytes:
        digest = blake2b(digest_size=16)
        for part in (self._version, what, query, text):
            data = part.encode("utf-8", "surrogatepass")
            digest.update(len(data).to_bytes(8, "little") + data)
        return digest.digest()

    def _open(self) -> sqlite3.Connection:
        return sqlite3.connect(self._path, timeout=60)

    @staticmethod
    def _known(database: sqlite3.Connection, keys: Sequence[bytes]) -> dict[bytes, NDArray[np.float32]]:
        known = {}
        for start in range(0, len(keys), LOOKED_UP):
            some = keys[start : start + LOOKED_UP]
            marks = ",".join("?" * len(some))
            found = database.execute(f"SELECT key, answer FROM answers WHERE key IN ({marks})", some)
            known.update({key: np.frombuffer(answer, dtype=np.float32) for key, answer in found})
        return known

    def _keep(self, database: sqlite3.Connection, keys: Sequence[bytes], answers: NDArray[np.float32]) -> None:
        rows = [(key, answer.tobytes()) for key, answer in zip(keys, answers, strict=True)]
        with database:
            database.executemany("INSERT OR IGNORE INTO answers (key, answer) VALUES (?, ?)", rows)
            database.execute("DELETE FROM answers WHERE number <= (SELECT max(number) FROM answers) - ?", (self._kept,))
