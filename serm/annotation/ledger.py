"""The ledger of LLM calls: what was asked is written before the call, what was answered before it counts.

One row per request. Its key depends on everything that shapes the answer, so a rerun finds what was answered, and sends
again, under the same key, what was asked and never answered. SQLite (WAL, synced at every commit) by default,
PostgreSQL by URL.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    DateTime,
    Engine,
    Insert,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    bindparam,
    create_engine,
    event,
    func,
    make_url,
    select,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import IntegrityError, OperationalError, ProgrammingError

from serm.annotation.llm import Answer, Reply
from serm.annotation.prompt import digest

LOOKUP_BATCH = 500  # keys in one IN (…)
BUSY_SECONDS = 60

_metadata = MetaData()
_calls = Table(
    "calls",
    _metadata,
    Column("request_key", String(64), primary_key=True),
    Column("question_key", String(64), nullable=False, index=True),
    Column("annotator", String(64), nullable=False),
    Column("model", Text, nullable=False),
    Column("query", Text, nullable=False),
    Column("doc_id", Text, nullable=False),
    Column("first_path", Integer, nullable=False),
    Column("paths", Integer, nullable=False),
    Column("asked", DateTime(timezone=True), nullable=False),
    Column("answered", DateTime(timezone=True)),
    Column("answers", Text),  # JSON list; null = intent without answer
    Column("answer_count", Integer),
    Column("prompt_tokens", BigInteger),
    Column("completion_tokens", BigInteger),
)
_plugin_texts = Table(
    "plugin_texts",
    _metadata,
    Column("plugin", String(256), primary_key=True),
    Column("query", Text, primary_key=True),
    Column("texts", Text, nullable=False),  # JSON list
)


@dataclass(frozen=True, slots=True)
class Call:
    """One request: paths first_path … first_path + paths - 1 of a question; `reply` is None until answered."""

    request_key: str
    question_key: str
    annotator: str
    model: str
    query: str
    doc_id: str
    first_path: int
    paths: int
    reply: Reply | None = None


@dataclass(frozen=True)
class Totals:
    """What an annotator has cost so far; `open` counts requests asked and not answered."""

    calls: int
    open: int
    answers: int
    prompt_tokens: int
    completion_tokens: int


def question_key(annotator: str, model: str, parameters: Mapping[str, Any], prompt_hash: str) -> str:
    """What all paths of one annotator on one prompt share: SHA-256 of annotator, model, parameters and prompt."""
    return digest(annotator, model, json.dumps(dict(parameters), sort_keys=True, default=str), prompt_hash)


def request_key(question: str, first_path: int, paths: int) -> str:
    """The key of one request, sent as its Idempotency-Key."""
    return digest(question, str(first_path), str(paths))


class Ledger:
    """A door to the ledger's tables; every method is one transaction."""

    def __init__(self, url: str | Path) -> None:
        """Open (and where needed make) the ledger at an SQLAlchemy URL, or in an SQLite file given as a Path.

        Raises:
            ValueError: the database's driver is not installed, or it cannot be reached.
        """
        address = f"sqlite:///{url}" if isinstance(url, Path) else url
        try:
            self._engine = _engine(address)
            _create(self._engine)
        except ModuleNotFoundError as error:
            raise ValueError(
                f"annotation.ledger: the driver {error.name!r} is not installed; pip install it"
            ) from error
        except OperationalError as error:
            reason = str(error.orig).strip().splitlines()[0]
            raise ValueError(f"annotation.ledger: cannot open {self._shown(address)}: {reason}") from error

    @staticmethod
    def _shown(address: str) -> str:
        return make_url(address).render_as_string(hide_password=True)

    def close(self) -> None:
        """Close every connection."""
        self._engine.dispose()

    def lookup(self, questions: Iterable[str]) -> dict[str, list[Call]]:
        """The calls of each question that has any, by first path; where two share it, answered ones come first."""
        with self._engine.begin() as connection:
            return _lookup(connection, questions)

    def write(self, intents: Sequence[Call] = (), replies: Sequence[tuple[str, Reply]] = ()) -> None:
        """Record intents and answers, all or none; known intents and answered calls stay as they are."""
        with self._engine.begin() as connection:
            self._write(connection, intents, replies)

    def exchange(
        self, intents: Sequence[Call], replies: Sequence[tuple[str, Reply]], questions: Iterable[str]
    ) -> dict[str, list[Call]]:
        """`write`, then `lookup`, in one transaction."""
        with self._engine.begin() as connection:
            self._write(connection, intents, replies)
            return _lookup(connection, questions)

    def answered_keys(self) -> set[str]:
        """The request keys of every call whose answer is recorded."""
        with self._engine.begin() as connection:
            return set(connection.execute(select(_calls.c.request_key).where(_calls.c.answers.is_not(None))).scalars())

    def totals(self) -> dict[str, Totals]:
        """Calls, answers and tokens by annotator."""
        columns = (
            func.count(),
            func.count() - func.count(_calls.c.answered),
            func.coalesce(func.sum(_calls.c.answer_count), 0),
            func.coalesce(func.sum(_calls.c.prompt_tokens), 0),
            func.coalesce(func.sum(_calls.c.completion_tokens), 0),
        )
        statement = select(_calls.c.annotator, *columns).group_by(_calls.c.annotator).order_by(_calls.c.annotator)
        with self._engine.begin() as connection:
            return {row[0]: Totals(*(int(value) for value in row[1:])) for row in connection.execute(statement)}

    def plugin_texts(self, plugin: str, queries: Sequence[str]) -> dict[str, list[str]]:
        """What a knowledge plug-in said about these queries in earlier runs, so that prompts stay as they were."""
        found: dict[str, list[str]] = {}
        with self._engine.begin() as connection:
            for start in range(0, len(queries), LOOKUP_BATCH):
                part = queries[start : start + LOOKUP_BATCH]
                statement = select(_plugin_texts.c.query, _plugin_texts.c.texts).where(
                    _plugin_texts.c.plugin == plugin, _plugin_texts.c.query.in_(part)
                )
                found.update((query, json.loads(texts)) for query, texts in connection.execute(statement))
        return found

    def keep_plugin_texts(self, plugin: str, query: str, texts: Sequence[str]) -> None:
        """Remember what a plug-in said about a query."""
        row = {"plugin": plugin, "query": query, "texts": json.dumps(list(texts))}
        with self._engine.begin() as connection:
            connection.execute(self._insert(_plugin_texts), [row])

    def _write(self, connection: Connection, intents: Sequence[Call], replies: Sequence[tuple[str, Reply]]) -> None:
        now = datetime.now(UTC)
        if intents:
            rows = [_row(call) | {"asked": now} for call in intents]
            connection.execute(self._insert(_calls), rows)
        if replies:
            statement = (
                update(_calls)
                .where(_calls.c.request_key == bindparam("key"), _calls.c.answered.is_(None))
                .values(
                    answered=bindparam("now"),
                    answers=bindparam("said"),
                    answer_count=bindparam("count"),
                    prompt_tokens=bindparam("prompt"),
                    completion_tokens=bindparam("completion"),
                )
            )
            connection.execute(
                statement,
                [
                    {
                        "key": key,
                        "now": now,
                        "said": json.dumps([asdict(answer) for answer in reply.answers]),
                        "count": len(reply.answers),
                        "prompt": reply.prompt_tokens,
                        "completion": reply.completion_tokens,
                    }
                    for key, reply in replies
                ],
            )

    def _insert(self, table: Table) -> Insert:
        """INSERT that leaves a known key alone, in the database's own words."""
        if self._engine.dialect.name == "postgresql":
            return postgresql.insert(table).on_conflict_do_nothing()
        return sqlite.insert(table).on_conflict_do_nothing()


def _engine(address: str) -> Engine:
    if not address.startswith("sqlite"):
        return create_engine(address, pool_pre_ping=True)
    engine = create_engine(address, connect_args={"timeout": BUSY_SECONDS})

    @event.listens_for(engine, "connect")
    def _durable(connection: Any, _: Any) -> None:
        connection.execute(f"PRAGMA busy_timeout={BUSY_SECONDS * 1000}")
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")

    return engine


def _create(engine: Engine) -> None:
    try:
        _metadata.create_all(engine)
    except (OperationalError, ProgrammingError, IntegrityError):
        _metadata.create_all(engine)  # another process made the tables between our look and our CREATE


def _lookup(connection: Connection, questions: Iterable[str]) -> dict[str, list[Call]]:
    keys = list(dict.fromkeys(questions))
    found: dict[str, list[Call]] = {}
    for start in range(0, len(keys), LOOKUP_BATCH):
        statement = (
            select(_calls)
            .where(_calls.c.question_key.in_(keys[start : start + LOOKUP_BATCH]))
            .order_by(_calls.c.question_key, _calls.c.first_path, _calls.c.answered.is_(None), _calls.c.request_key)
        )
        for row in connection.execute(statement):
            found.setdefault(row.question_key, []).append(_call(row))
    return found


def _row(call: Call) -> dict[str, Any]:
    return {name: value for name, value in asdict(call).items() if name != "reply"}


def _call(row: Any) -> Call:
    reply = None
    if row.answers is not None:
        answers = [Answer(**answer) for answer in json.loads(row.answers)]
        reply = Reply(answers, row.prompt_tokens, row.completion_tokens)
    return Call(
        row.request_key,
        row.question_key,
        row.annotator,
        row.model,
        row.query,
        row.doc_id,
        row.first_path,
        row.paths,
        reply,
    )
