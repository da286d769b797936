"""What all rooms' settings share."""

from pydantic import BaseModel, ConfigDict


class Room(BaseModel):
    """One room's settings: unknown keys are errors, so that a typo never passes for a default."""

    model_config = ConfigDict(extra="forbid", validate_assignment=True)
