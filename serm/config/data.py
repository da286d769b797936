"""Settings of labels, windows and ingestion."""

from pydantic import Field, field_validator, model_validator

from serm.config.room import Room


class LabelSettings(Room):
    """The relevance scale."""

    scale: list[int] = Field([0, 1, 2, 3], description="Grades from bad to excellent, ascending.")
    names: dict[int, str] = Field(
        {0: "bad", 1: "fair", 2: "good", 3: "excellent"}, description="A word for each grade, shown to annotators."
    )

    @field_validator("scale")
    @classmethod
    def _ascending(cls, scale: list[int]) -> list[int]:
        if len(scale) < 2 or scale != sorted(set(scale)):
            raise ValueError("give at least two different grades in ascending order, such as [0, 1]")
        return scale


class WindowSettings(Room):
    """Which part of the stream a round reads."""

    days: float = Field(14, gt=0, description="Length of the current window, ending at the newest impression.")
    reference_days: float = Field(14, gt=0, description="Length of the window before it, that it is compared with.")


class IngestSettings(Room):
    """How foreign files become records."""

    batch_rows: int = Field(200_000, ge=1, description="Rows per atomic commit.")
    max_query_characters: int = Field(1_000, ge=1, description="Longer queries go to quarantine.")
    max_position: int = Field(1_000, ge=1, description="Positions beyond this are impossible.")
    max_dwell: float = Field(86_400.0, gt=0, description="Seconds; longer dwell times are impossible.")
    columns: dict[str, str] = Field({}, description="Our field -> their column, for files with other names.")
    max_future_days: float = Field(366.0, ge=0, description="Timestamps further ahead of the clock are impossible.")
    timestamp_format: str | None = Field(None, description="strptime format for text timestamps; ISO 8601 otherwise.")
    text_fields: list[str] = Field([], description="Document fields joined into its text; empty = every text column.")
    dev_share: float = Field(0.1, ge=0, lt=1, description="Share of judged queries kept for early stopping.")
    anchor_share: float = Field(0.2, ge=0, lt=1, description="Share of judged queries kept as the gate's anchor set.")

    @model_validator(mode="after")
    def _some_train(self) -> "IngestSettings":
        if self.dev_share + self.anchor_share >= 1:
            raise ValueError("dev_share and anchor_share together leave no judged query to train on")
        return self
