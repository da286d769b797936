"""The ledger: intents before answers, nothing overwritten, groups committed before anyone goes on."""

import asyncio
import sqlite3
from pathlib import Path

import pytest
from sqlalchemy.dialects import postgresql

from serm.annotation import ledger as module
from serm.annotation.journal import Journal
from serm.annotation.ledger import Call, Ledger, Totals, question_key, request_key
from serm.annotation.llm import Answer, Reply

REPLY = Reply([Answer('{"label": 1}'), Answer(None, "stop", "no")], 7, 3)


def call(question: str = "q1", first: int = 0, paths: int = 2, annotator: str = "ada") -> Call:
    return Call(request_key(question, first, paths), question, annotator, "m", "whale", "d1", first, paths)


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "ledger.sqlite")


def test_intent_then_answer_survive_reopening(ledger: Ledger, tmp_path: Path) -> None:
    ledger.write([call()])
    assert ledger.lookup(["q1", "q2"]) == {"q1": [call()]}
    ledger.write(replies=[(call().request_key, REPLY)])
    ledger.close()
    (found,) = Ledger(tmp_path / "ledger.sqlite").lookup(["q1"])["q1"]
    assert found.reply == REPLY


def test_the_first_answer_stays(ledger: Ledger) -> None:
    ledger.write([call()])
    ledger.write([call()], [(call().request_key, REPLY)])
    ledger.write([call()], [(call().request_key, Reply([Answer("other")], 99, 99))])
    assert ledger.lookup(["q1"])["q1"][0].reply == REPLY


def test_calls_come_by_path_answered_first(ledger: Ledger) -> None:
    calls = [call(first=2, paths=1), call(first=0, paths=3), call(first=0, paths=2)]
    ledger.write(calls, [(calls[1].request_key, REPLY)])
    assert [(c.first_path, c.paths) for c in ledger.lookup(["q1"])["q1"]] == [(0, 3), (0, 2), (2, 1)]


def test_totals(ledger: Ledger) -> None:
    assert ledger.totals() == {}
    ledger.write(
        [call("q1"), call("q2"), call("q3"), call("q4", annotator="ben")],
        [(call("q1").request_key, REPLY), (call("q2").request_key, REPLY)],
    )
    assert ledger.totals() == {"ada": Totals(3, 1, 4, 14, 6), "ben": Totals(1, 1, 0, 0, 0)}


def test_many_questions_at_once(ledger: Ledger) -> None:
    calls = [call(f"q{i}") for i in range(1_203)]
    ledger.write(calls)
    assert len(ledger.lookup([c.question_key for c in calls])) == 1_203


def test_keys_depend_on_everything_that_shapes_the_answer() -> None:
    base = ("ada", "m", {"temperature": 0.7}, "prompt")
    others = [
        ("ben", *base[1:]),
        ("ada", "m2", *base[2:]),
        (*base[:2], {"temperature": 0.8}, "prompt"),
        (*base[:3], "p2"),
    ]
    keys = {question_key(*base), *(question_key(*other) for other in others)}
    assert len(keys) == 5
    assert len({request_key(key, first, 2) for key in keys for first in (0, 1)}) == 10


def test_every_commit_reaches_the_disk(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.sqlite")
    with ledger._engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2


def test_a_group_is_on_disk_when_its_members_go_on(tmp_path: Path) -> None:
    """Another connection sees each intent at the moment that `intend` returns, and each answer likewise."""
    path = tmp_path / "ledger.sqlite"
    journal = Journal(Ledger(path))
    reader = sqlite3.connect(path)
    transactions = 0

    async def one(i: int) -> None:
        mine = call(f"q{i}")
        assert await journal.past(f"q{i}") == []
        await journal.intend(mine)
        counted = reader.execute("SELECT count(*) FROM calls WHERE request_key = ?", (mine.request_key,)).fetchone()
        assert counted == (1,)
        await journal.answer(mine.request_key, REPLY)
        answered = reader.execute("SELECT answers IS NOT NULL FROM calls WHERE request_key = ?", (mine.request_key,))
        assert answered.fetchone() == (1,)
        assert (await journal.past(f"q{i}"))[0].reply == REPLY

    original = Ledger.exchange

    def counting(self: Ledger, *arguments: object) -> object:
        nonlocal transactions
        transactions += 1
        return original(self, *arguments)  # type: ignore[arg-type]

    async def everyone() -> None:
        await asyncio.gather(*(one(i) for i in range(50)))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Ledger, "exchange", counting)
        asyncio.run(everyone())
    assert transactions < 50  # 200 requests to the ledger shared transactions


def test_a_broken_ledger_stops_its_users(ledger: Ledger) -> None:
    ledger.write([call()])
    with ledger._engine.begin() as connection:
        connection.exec_driver_sql("DROP TABLE calls")

    async def use() -> None:
        await Journal(ledger).intend(call("q2"))

    with pytest.raises(module.OperationalError, match="no such table"):
        asyncio.run(asyncio.wait_for(use(), 5))


def test_postgresql_leaves_known_keys_alone() -> None:
    statement = postgresql.insert(module._calls).on_conflict_do_nothing()
    assert "ON CONFLICT DO NOTHING" in str(statement.compile(dialect=postgresql.dialect()))


def test_an_unusable_address_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"annotation.ledger: cannot open sqlite:.*nowhere"):
        Ledger(tmp_path / "nowhere" / "ledger.sqlite")
