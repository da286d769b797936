"""Relevance models: one interface, two families."""

from collections.abc import Sequence
from pathlib import Path

from serm.config import RelevanceSettings
from serm.relevance.model import RelevanceModel, expected_label

__all__ = ["RelevanceModel", "expected_label", "load"]


def load(folder: Path, settings: RelevanceSettings, scale: Sequence[int]) -> RelevanceModel:
    """Load a saved model of the configured family."""
    if settings.family == "generative":
        from serm.relevance.generative import GenerativeModel

        return GenerativeModel(folder, settings, scale)
    from serm.relevance.cross_encoder import CrossEncoder

    return CrossEncoder(folder, settings, scale)
