"""Settings of what leaves the workshop: serving, scoring files, distillation."""

from typing import Literal

from pydantic import Field, model_validator

from serm.config.room import Room


class ServingSettings(Room):
    """The HTTP endpoint: how requests wait, how they are scored together, and what is refused."""

    wait_ms: float = Field(2.0, ge=0, le=1_000, description="Longest time that a request waits for others to join it.")
    batch_pairs: int = Field(256, ge=1, description="Pairs scored together; a larger request is scored by itself.")
    queue_pairs: int = Field(4_096, ge=1, description="Pairs that may wait; further requests get 503 and Retry-After.")
    max_documents: int = Field(1_000, ge=1, description="Documents in one request.")
    max_characters: int = Field(2_000_000, ge=1, description="Characters of all texts of one request together.")
    request_seconds: float = Field(30.0, gt=0, description="A request that is not answered by then gets 504.")
    shutdown_seconds: float = Field(30.0, ge=1, description="Time for requests under way when told to end.")
    watch_seconds: float = Field(2.0, gt=0, description="How often the registry is asked who is champion.")
    api_key_env: str = Field(
        "SERM_API_KEY", min_length=1, description="Environment variable with the key that clients send; unset = no key."
    )

    @model_validator(mode="after")
    def _one_request_fits(self) -> "ServingSettings":
        if self.max_documents > self.queue_pairs:
            raise ValueError("max_documents is more than queue_pairs: the largest request could never be taken")
        return self


class ScoringSettings(Room):
    """Scoring files."""

    batch_rows: int = Field(4_096, ge=1, description="Rows scored and kept at a time; a killed run loses one such.")


class DistillationSettings(Room):
    """From a large model's label distributions to a small model."""

    student: str = Field("embedded:minilm", description="Starting weights: embedded:minilm, a folder, or a hub name.")
    family: Literal["cross_encoder", "generative"] = Field("cross_encoder", description="What kind the student is.")
    pairs: int = Field(20_000, ge=0, description="Unlabelled (query, document) pairs drawn from the impressions.")
    head_share: float = Field(1 / 3, ge=0, le=1, description="Share of the pairs from the most searched queries.")
    torso_share: float = Field(1 / 3, ge=0, le=1, description="... from those in the middle; the tail gets the rest.")
    per_query: int = Field(20, ge=1, description="Most unlabelled pairs of one query.")
    temperature: float = Field(2.0, gt=0, description="T: both distributions are softened by it.")
    labelled_share: float = Field(0.3, ge=0, le=1, description="Share of labelled pairs; 0 = the teacher alone.")
    epochs: float = Field(2.0, gt=0, description="Passes over the pairs.")
    learning_rate: float = Field(1e-4, gt=0, description="Peak, of the student.")

    @model_validator(mode="after")
    def _shares_fit(self) -> "DistillationSettings":
        if self.head_share + self.torso_share > 1:
            raise ValueError("head_share and torso_share add up to more than 1")
        return self
