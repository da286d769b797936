"""Settings of online tests: A/B tests and interleaving."""

from datetime import datetime
from typing import Literal, get_args

from pydantic import Field, model_validator

from serm.config.room import Room

Metric = Literal[
    "negative_feedback", "negative_feedback_tail", "reformulation", "reformulation_tail", "retention", "ctr",
    "ctr_tail", "dwell", "dwell_tail", "successful_sessions",
]  # fmt: skip
METRICS: tuple[Metric, ...] = get_args(Metric)


class OnlineSettings(Room):
    """How an online test is read."""

    primary: Metric = Field("successful_sessions", description="The one metric that decides, declared before the test.")
    metrics: list[Metric] = Field(list(METRICS), min_length=1, description="What is measured; the primary always is.")
    control: str = Field("", description="The variant that others are compared with; empty = one called control or a.")
    shares: dict[str, float] = Field(
        {}, description="Variant -> its intended share of users, to check against; empty = equal shares."
    )
    start: datetime | None = Field(
        None, description="When the test began, such as 2026-03-02 (UTC); rows before are the pre-period. none = all."
    )
    cuped: bool = Field(True, description="Use what users did before online.start to make intervals narrower.")
    alpha: float = Field(0.05, gt=0, lt=1, description="Level of tests; intervals cover 1 - alpha.")
    power: float = Field(0.8, gt=0, lt=1, description="Chance to see online.effect that a plan asks for.")
    effect: float = Field(0.01, gt=0, description="Relative change worth finding, for durations: 0.01 = 1%.")
    correction: Literal["holm", "bh", "none"] = Field(
        "holm", description="Over the metrics that are not primary: Holm's, Benjamini and Hochberg's, or none."
    )
    tightest_units: int = Field(
        10_000,
        ge=1,
        description="Users of two variants at which the interval that allows peeking is tightest. Set it before the "
        "test, from a plan, and leave it: it must not depend on what was seen.",
    )
    minimum_units: int = Field(100, ge=2, description="Fewer users than this in a variant: no intervals yet.")
    mismatch_p: float = Field(0.001, ge=0, lt=1, description="Below this the shares of users are wrong, and it stops.")
    tail_share: float = Field(
        0.2, gt=0, lt=1, description="The rarest queries that together make up this share of searches are the tail."
    )
    retention_days: int = Field(14, ge=1, description="Retained: searches again within so many days of the first.")
    success_dwell: float = Field(30.0, ge=0, description="Seconds on a clicked document that make a session a success.")
    dwell_cap: float = Field(600.0, gt=0, description="Seconds; longer dwell times count as this.")
    reformulation_seconds: float = Field(
        300.0, gt=0, description="Another query of the session within so many seconds reformulates the one before."
    )
    resamples: int = Field(2_000, ge=100, description="Bootstrap resamples over users, for interleaving.")

    @model_validator(mode="after")
    def _positive_shares(self) -> "OnlineSettings":
        if any(share <= 0 for share in self.shares.values()):
            raise ValueError("shares: every variant's share is above 0")
        return self
