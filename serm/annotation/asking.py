"""One annotator takes the reasoning paths of one pair: earlier answers first, then as many calls as the vote needs."""

import asyncio
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field

from serm.annotation.agreement import Ties, Vote, next_paths, settled, stable_label
from serm.annotation.breaker import Breaker
from serm.annotation.journal import Journal
from serm.annotation.ledger import Call, question_key, request_key
from serm.annotation.llm import LLM, Messages, ProviderError, Reply
from serm.annotation.parsing import Outcome, parse
from serm.annotation.prompt import digest


@dataclass(frozen=True, slots=True)
class Votes:
    """What one annotator's paths said about a pair; `error` is set when the provider let it down."""

    outcomes: tuple[Outcome, ...]
    stable: int | None
    paths: int  # that it may take; fewer outcomes than this when the vote was settled early
    calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    error: str | None = None

    def describe(self) -> str:
        """The vote in words, for reviewers and logs."""
        if self.error is not None:
            return self.error
        said = Counter(outcome.kind if outcome.label is None else str(outcome.label) for outcome in self.outcomes)
        heard = ", ".join(f"{count}× {what}" for what, count in sorted(said.items()))
        return f"{'no stable label' if self.stable is None else self.stable} ({heard})"


@dataclass
class Tally:
    """What this run paid for (calls and tokens sent now) and what it found already paid."""

    calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    reused: int = 0
    failed: int = 0  # calls that brought no answer after all attempts, or were not made any more
    outcomes: Counter[str] = field(default_factory=Counter)  # kind -> paths that came to it, reused ones included


@dataclass(frozen=True, slots=True)
class Voting:
    """How many paths an annotator takes and what makes a label stable."""

    scale: Collection[int]
    paths: int
    minimum_support: float
    adaptive: bool
    vote: Vote = "exact"
    ties: Ties = "none"


class Asker:
    """An annotator at work in one run: its LLM, ledger, bill and breaker."""

    def __init__(self, name: str, llm: LLM, voting: Voting, journal: Journal | None, breaker: Breaker) -> None:
        """One run's annotator; its answers count from here on."""
        self.name = name
        self.llm = llm
        self.voting = voting
        self.tally = Tally()
        self.breaker = breaker
        self._journal = journal
        self._slots = asyncio.Semaphore(llm.concurrency)

    async def votes(self, query: str, doc_id: str, messages: Messages) -> Votes:
        """Take the paths of one pair; never raises for what a provider does."""
        question = "" if self._journal is None else self._question(messages)
        past = [] if self._journal is None else await self._journal.past(question)
        replies: list[Reply] = []
        outcomes: list[Outcome] = []
        while not self._enough(outcomes):
            first = len(outcomes)
            earlier = next((call for call in past if call.first_path == first), None)
            if earlier is not None and earlier.reply is not None:
                reply = earlier.reply
                self.tally.reused += 1
            else:
                call = earlier or self._call(question, query, doc_id, outcomes)
                try:
                    async with self._slots:
                        reply = await self._ask(call, messages, known=earlier is not None)
                except ProviderError as error:
                    return self._count(outcomes, replies, f"{self.name} at {self.llm.address}: {error}")
            replies.append(reply)
            outcomes += [parse(answer, self.voting.scale) for answer in reply.answers]
        return self._count(outcomes[: self.voting.paths], replies, None)

    def _question(self, messages: Messages) -> str:
        prompt_hash = digest(*(message["content"] for message in messages))
        return question_key(self.name, self.llm.model, self.llm.parameters, prompt_hash)

    def _call(self, question: str, query: str, doc_id: str, outcomes: list[Outcome]) -> Call:
        voting = self.voting
        labels = [outcome.label for outcome in outcomes]
        left = voting.paths - len(outcomes)
        n = next_paths(labels, voting.paths, voting.minimum_support) if voting.adaptive else left
        key = request_key(question, len(outcomes), n) if question else ""
        return Call(key, question, self.name, self.llm.model, query, doc_id, len(outcomes), n)

    def _enough(self, outcomes: list[Outcome]) -> bool:
        if len(outcomes) >= self.voting.paths:
            return True
        labels = [outcome.label for outcome in outcomes]
        voting = self.voting
        return voting.adaptive and settled(labels, voting.paths, voting.minimum_support, voting.vote, voting.ties)

    async def _ask(self, call: Call, messages: Messages, known: bool) -> Reply:
        admission = await self.breaker.admit()
        if self._journal is not None and not known:
            await self._journal.intend(call)
        metadata = {
            "query": call.query,
            "doc_id": call.doc_id,
            "annotator": self.name,
            "path": str(call.first_path),
        }
        try:
            reply = await self.llm.complete(messages, call.paths, call.request_key, metadata)
        except ProviderError as error:
            self.breaker.failed(error, admission)
            raise
        self.breaker.answered()
        if self._journal is not None:
            await self._journal.answer(call.request_key, reply)
        self.tally.calls += 1
        self.tally.prompt_tokens += reply.prompt_tokens
        self.tally.completion_tokens += reply.completion_tokens
        return reply

    def _count(self, outcomes: list[Outcome], replies: list[Reply], error: str | None) -> Votes:
        voting = self.voting
        missing = [Outcome("provider_error")] if error is not None else []
        self.tally.failed += len(missing)
        self.tally.outcomes.update(outcome.kind for outcome in outcomes + missing)
        labels = [outcome.label for outcome in outcomes]
        return Votes(
            tuple(outcomes + missing),
            None
            if error is not None
            else stable_label(labels, voting.minimum_support, voting.paths, voting.vote, voting.ties),
            voting.paths,
            len(replies),
            sum(reply.prompt_tokens for reply in replies),
            sum(reply.completion_tokens for reply in replies),
            error,
        )
