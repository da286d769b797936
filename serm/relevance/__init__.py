"""Relevance models: one interface, two families."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from serm.config import RelevanceSettings
from serm.relevance.model import RelevanceModel, expected_label

__all__ = ["RelevanceModel", "expected_label", "load", "start"]


def load(folder: Path, settings: RelevanceSettings, scale: Sequence[int]) -> RelevanceModel:
    """Load a saved model: of the family that its manifest names, or without a manifest of the configured one."""
    manifest = folder / "manifest.json"
    if manifest.exists():
        family = json.loads(manifest.read_text(encoding="utf-8")).get("family", settings.family)
        settings = settings.model_copy(update={"family": family})
    model: RelevanceModel = _class(settings)(folder, settings, scale)
    return model


def start(settings: RelevanceSettings, scale: Sequence[int], seed: int) -> Any:
    """The untrained starting model of the configured family.

    Raises:
        ValueError: relevance.base cannot be used; the message says what to give.
    """
    return _class(settings).start(settings, scale, seed)


def _class(settings: RelevanceSettings) -> Any:
    if settings.family == "generative":
        from serm.relevance.generative import GenerativeModel

        return GenerativeModel
    from serm.relevance.cross_encoder import CrossEncoder

    return CrossEncoder
