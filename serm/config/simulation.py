"""Settings of simulated users, the stand-in LLM and the backtest."""

from datetime import date
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from serm.config.room import Room

# What the annotators' attack suite tries and the stand-in LLM can be made to fall for.
ATTACKS = (
    "keywords", "query", "instruction", "forged_verdict", "forged_delimiters", "language", "knowledge", "invisible",
    "chat_tokens",
)  # fmt: skip


class SimulateSettings(Room):
    """Simulated users and their stream."""

    sessions: int = Field(5_000, ge=1, description="How many, bots included.")
    days: float = Field(28.0, gt=0, description="Over which the sessions are spread.")
    start: str = Field("2026-01-05T00:00:00Z", description="First timestamp, ISO 8601.")
    user: Literal["pbm", "dbn"] = Field("dbn", description="The click model by which people look and click.")
    zipf: float = Field(1.0, ge=0, description="Exponent of query frequencies; 0 = uniform.")
    ranker_noise: float = Field(0.5, ge=0, description="Standard deviation of noise on standardised scores.")
    results: int = Field(10, ge=1, description="Shown for a search.")
    examination_decay: float = Field(1.0, ge=0, description="pbm: rank r is examined with chance 1 / r ** this.")
    continuation: float = Field(0.9, ge=0, le=1, description="dbn: chance that an unsatisfied user looks at the next.")
    attraction: tuple[float, float] = Field((0.05, 0.85), description="P(click | examined) at the lowest, top grade.")
    satisfaction: tuple[float, float] = Field((0.1, 0.8), description="dbn: P(satisfied | click) at the lowest, top.")
    dwell: tuple[float, float] = Field((8.0, 80.0), description="Median seconds on a document, lowest and top grade.")
    dwell_spread: float = Field(0.8, ge=0, description="Standard deviation of the logarithm of dwell.")
    bots: float = Field(0.02, ge=0, le=1, description="Share of sessions that are bots.")
    bot_searches: int = Field(5, ge=1, description="Searches in a bot's session; a person makes one.")
    bot_clicks: float = Field(0.6, ge=0, le=1, description="Chance that a bot clicks a result, whatever it is.")
    bot_targets: list[str] = Field([], description="Documents that bots push: they click these, and nothing else.")
    arrival: str | None = Field(None, description="Numeric document attribute, such as year, by which queries arrive.")
    arrival_from: float | None = Field(None, description="Queries whose arrival value is greater enter the stream.")

    @field_validator("attraction", "satisfaction")
    @classmethod
    def _chances(cls, pair: tuple[float, float]) -> tuple[float, float]:
        if not all(0 <= value <= 1 for value in pair):
            raise ValueError("chances lie between 0 and 1")
        return pair

    @field_validator("dwell")
    @classmethod
    def _positive(cls, pair: tuple[float, float]) -> tuple[float, float]:
        if min(pair) <= 0:
            raise ValueError("give two positive numbers of seconds, such as [8, 80]")
        return pair

    @field_validator("start", mode="before")
    @classmethod
    def _written_out(cls, start: Any) -> Any:
        """YAML reads an unquoted timestamp as a date."""
        return start.isoformat() if isinstance(start, date) else start


class SimulateLLMSettings(Room):
    """The stand-in LLM: its errors as a judge, and its faults as a server."""

    confusion: list[list[float]] | None = Field(
        None, description="P(answer | truth), a row per grade of the scale; none = as measured on real judges."
    )
    binary_from: int = Field(1, ge=1, le=3, description="On a scale of two, measured grades from this on are relevant.")
    correlation: float = Field(0.85, ge=0, le=1, description="Between the settled opinions of two annotators.")
    path_share: float = Field(0.1, ge=0, le=1, description="Share of error variance that each path draws anew.")
    susceptibility: dict[str, float] = Field(
        {}, description="Kind of attack -> chance that an annotator who sees it in the prompt gives the top grade."
    )
    models: list[str] = Field(["stand-in-a", "stand-in-b"], description="Listed at /v1/models; any name is answered.")
    rate_limited: float = Field(0.0, ge=0, le=1, description="Share of requests refused with 429.")
    server_error: float = Field(0.0, ge=0, le=1, description="Share of requests that end in 500.")
    hang: float = Field(0.0, ge=0, le=1, description="Share of requests answered (and billed) after hang_seconds.")
    truncated: float = Field(0.0, ge=0, le=1, description="Share of answers cut off, with finish_reason length.")
    malformed: float = Field(0.0, ge=0, le=1, description="Share of answers that are not JSON.")
    retry_after: float = Field(1.0, ge=0, description="Seconds in the Retry-After header of a 429.")
    hang_seconds: float = Field(120.0, ge=0, description="How long a hanging request takes.")

    @field_validator("susceptibility")
    @classmethod
    def _known_attacks(cls, chances: dict[str, float]) -> dict[str, float]:
        for kind, chance in chances.items():
            if kind not in ATTACKS:
                raise ValueError(f"no attack {kind!r}; known are {', '.join(ATTACKS)}")
            if not 0 <= chance <= 1:
                raise ValueError(f"{kind}: chances lie between 0 and 1")
        return chances

    @model_validator(mode="after")
    def _faults_fit(self) -> "SimulateLLMSettings":
        if max(self.rate_limited + self.server_error + self.hang, self.truncated + self.malformed) > 1:
            raise ValueError("rates of faults add up to more than 1; lower some")
        return self


STRATEGIES = (
    "static", "self_training", "random", "feedback", "click", "disagreement", "uncertainty", "serm", "oracle",
)  # fmt: skip


class BacktestSettings(Room):
    """The offline experiment: how a judged collection is cut, and what is compared."""

    strategies: list[str] = Field(list(STRATEGIES), description="Which strategies to run.")
    seeds: list[int] = Field([0, 1, 2], min_length=1, description="One whole run each.")
    rounds: int = Field(3, ge=1, description="Of self-evolution, in every run.")
    arrival: str = Field("year", description="Document attribute (a number) by which queries arrive.")
    arrival_from: float = Field(2012, description="Queries up to this value are old, later ones new.")
    start_queries: int = Field(500, ge=1, description="Old queries whose human grades train the starting model.")
    dev_queries: int = Field(100, ge=1, description="Old queries for early stopping.")
    old_queries: int = Field(400, ge=2, description="Old queries held out for evaluation.")
    fresh_queries: int = Field(400, ge=2, description="New queries held out for evaluation.")
    stream_queries: int = Field(800, ge=1, description="New queries in each round's traffic.")
    sessions: int = Field(4_000, ge=1, description="Sessions in each round's traffic.")
    split_seed: int = Field(0, description="Draws the held-out queries, the same for every seed.")
    every_round: bool = Field(True, description="Measure fresh queries after every round, not only the last.")

    @field_validator("strategies")
    @classmethod
    def _known(cls, strategies: list[str]) -> list[str]:
        unknown = [name for name in strategies if name not in STRATEGIES]
        if unknown:
            raise ValueError(f"no strategy {unknown[0]!r}; known are {', '.join(STRATEGIES)}")
        return strategies
