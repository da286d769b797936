"""Group commit: many pairs wait on the ledger together, and each goes on only when its own write is durable."""

import asyncio
from dataclasses import dataclass, field

from serm.annotation.ledger import Call, Ledger
from serm.annotation.llm import Reply


@dataclass
class _Group:
    intents: list[Call] = field(default_factory=list)
    replies: list[tuple[str, Reply]] = field(default_factory=list)
    questions: list[str] = field(default_factory=list)
    done: "asyncio.Future[dict[str, list[Call]]]" = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )


class Journal:
    """The ledger as concurrent pairs use it: while one transaction runs in a thread, the next group gathers."""

    def __init__(self, ledger: Ledger) -> None:
        """Bind to one ledger; use within one event loop."""
        self._ledger = ledger
        self._group: _Group | None = None
        self._busy = asyncio.Lock()
        self._writer: asyncio.Task[None] | None = None

    async def past(self, question: str) -> list[Call]:
        """The question's earlier calls."""
        group = self._gather()
        group.questions.append(question)
        return (await asyncio.shield(group.done)).get(question, [])

    async def intend(self, call: Call) -> None:
        """Return once the intent is committed."""
        group = self._gather()
        group.intents.append(call)
        await asyncio.shield(group.done)

    async def answer(self, request_key: str, reply: Reply) -> None:
        """Return once the answer is committed."""
        group = self._gather()
        group.replies.append((request_key, reply))
        await asyncio.shield(group.done)

    def _gather(self) -> _Group:
        if self._group is None:
            self._group = _Group()
            self._writer = asyncio.get_running_loop().create_task(self._commit(self._group))
        return self._group

    async def _commit(self, group: _Group) -> None:
        async with self._busy:
            self._group = None  # from here on, newcomers form the next group
            (result,) = await asyncio.gather(
                asyncio.to_thread(self._ledger.exchange, group.intents, group.replies, group.questions),
                return_exceptions=True,
            )
        if isinstance(result, BaseException):
            group.done.set_exception(result)
        else:
            group.done.set_result(result)
