"""Settings of shift, clicks and mining."""

from typing import Literal

from pydantic import Field

from serm.config.room import Room


class ShiftSettings(Room):
    """Distribution shift between the reference and the current window."""

    sample: int = Field(2_000, ge=50, description="Fixed subsample per window: verdicts do not depend on its size.")
    kernel_sample: int = Field(1_000, ge=50, description="Searches per window that the kernel view compares.")
    words_sample: int = Field(
        10_000, ge=50, description="Searches per window that the words view compares; it embeds nothing."
    )
    season: Literal["week", "day", "none"] = Field(
        "week",
        description="Compare with earlier searches of the same hour (UTC) of the week or of the day; none: with all. "
        "With less than a week of history it falls back to day, with less than a day to none, and says so.",
    )
    minimum: int = Field(50, ge=10, description="Fewer distinct queries than this in a window: no verdict.")
    false_discovery_rate: float = Field(0.01, gt=0, lt=1, description="Benjamini-Hochberg level over the views.")
    mild_effect: float = Field(0.01, ge=0, description="Share of other searches from which a significant view counts.")
    strong_effect: float = Field(0.08, ge=0, description="Share of other searches from which the verdict is strong.")
    clusters: int = Field(40, ge=2, description="Query clusters looked at for change.")
    growth: float = Field(1.5, ge=1, description="A cluster has grown when its share is so many times what it was.")
    scored: int = Field(400, ge=50, description="Searches per window whose top result the model scores.")
    trigger: Literal["mild", "strong", "never"] = Field(
        "strong", description="Verdict from which a round is due early."
    )
    trigger_days: float = Field(
        3.0, ge=0, description="Days of log since the last mined round before another one may be due early."
    )


class ClickSettings(Room):
    """The click model that takes bias and sparsity out of raw clicks."""

    model: Literal["auto", "pbm", "cascade", "dcm", "dbn", "sdbn", "ubm", "ctr_global", "ctr_rank", "ctr_pair"] = Field(
        "auto", description="auto: the lowest held-out perplexity on the window, click-through rates (ctr_*) left out."
    )
    iterations: int = Field(30, ge=1, description="Of expectation-maximisation.")
    prior_clicks: float = Field(1.0, gt=0, description="Beta prior: pseudo-clicks per pair.")
    prior_skips: float = Field(4.0, gt=0, description="Beta prior: pseudo-skips per pair.")
    sessions: int = Field(200_000, ge=10, description="Most sessions that a click model is fitted on, drawn by hash.")
    compared: int = Field(20_000, ge=10, description="Most sessions on which auto and serm clicks compare models.")
    held_out: float = Field(0.25, gt=0, lt=1, description="Share of the compared sessions that judge, not teach.")


class MiningSettings(Room):
    """What the miner takes, and how much of it."""

    budget: int = Field(1_000, ge=1, description="Pairs per round.")
    quiet_share: float = Field(0.25, gt=0, le=1, description="Share of the budget spent when nothing shifted.")
    mild_share: float = Field(
        0.6, gt=0, le=1, description="Share spent on a mild shift, if above quiet_share; a strong one gets all."
    )
    thresholds: Literal["quantile", "absolute"] = Field(
        "quantile", description="Agents take what is above a quantile of the window, or above fixed values."
    )
    dwell: float = Field(30.0, gt=0, description="tau_u: seconds of dwell that count as engagement.")
    low_score: float = Field(0.5, ge=0, le=1, description="tau_c: f below this share of the scale is low.")
    click: float = Field(0.5, ge=0, le=1, description="tau_cm: click-model attractiveness that counts as a click.")
    disagreement: float = Field(0.25, ge=0, description="Absolute threshold on MD, as a share of the scale.")
    uncertainty: float = Field(0.5, ge=0, description="Absolute threshold on MU, as a share of log|Y|.")
    quantile: float = Field(0.9, gt=0, lt=1, description="Quantile mode: each agent takes what lies above this.")
    candidates: int = Field(20_000, ge=1, description="Most pairs of the window that the model scores.")
    per_query: int = Field(5, ge=1, description="Most pairs taken from one query.")
    per_session: int = Field(3, ge=1, description="Most clicks of one session (and day) that count.")
    per_document: float = Field(
        2.0, gt=0, description="Most clicks of one document that count: so many times what its ranks would earn."
    )
    sessions: int = Field(1, ge=1, description="Distinct clicking sessions that a pair needs to count as clicked.")
    duplicate_similarity: float = Field(
        0.97, gt=0, le=1, description="Cosine above which two pairs are one; 1 = nothing is."
    )
    per_cluster: float = Field(0.5, gt=0, le=1, description="Most of the budget from one query cluster; 1 = no cap.")
    scores: Literal["model", "logged"] = Field(
        "model", description="logged: use the log's own scores; no model is loaded and only feedback and click work."
    )
    spread: float = Field(
        1.5, gt=0, description="Clicked for so many times more of its queries than usual, a document is being pushed."
    )
    distribute: Literal["none", "ray"] = Field(
        "none", description="ray: add the log up, and score the candidates, on a Ray cluster's workers."
    )
    scoring_gpus: float = Field(0.0, ge=0, description="GPUs that a scoring task on Ray takes; 0.5: two tasks share.")
    judged: int = Field(4_000, ge=0, description="Most pairs, the most uncertain first, that get K passes.")
    coverage: float = Field(0.25, ge=0, le=1, description="Share of the budget split over query clusters by traffic.")
    facility: float = Field(
        1.0,
        ge=1,
        description="The rest is chosen for coverage among so many times as many pairs; 1 = not for coverage.",
    )
    random_share: float = Field(0.05, ge=0, lt=1, description="Share of the budget drawn uniformly, to measure by.")
    calibration: bool = Field(True, description="Rank by what earlier rounds' labels say of the agents' scores.")
    prior_labels: float = Field(20.0, gt=0, description="How many labels the ranks of an agent's pairs weigh.")
    agent_floor: float = Field(
        0.8, ge=0, le=1, description="Share of the budget split evenly over agents, the rest by yield; 1 = all of it."
    )
    grown_weight: float = Field(2.0, ge=1, description="How much more of it a grown cluster gets.")
    bot_clicks: int = Field(4, ge=1, description="A session with fewer clicks than this is never taken for a bot.")
    bot_dwell: float = Field(2.0, ge=0, description="Seconds; bots' median dwell is below this.")
    bot_share: float = Field(0.5, ge=0, le=1, description="Bots click at least this share of what they are shown.")
