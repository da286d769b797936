"""Models as they lie in folders: which family a folder holds, and whether all of its weights are there.

transformers loads a folder that lacks weights, or has them in another shape, with fresh random ones and a warning. What
leaves the workshop must not answer at random, so here such a folder is an error.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError

from serm.config import RelevanceSettings
from serm.relevance import load
from serm.relevance.model import RelevanceModel

FAMILIES = {"ForSequenceClassification": "cross_encoder", "ForCausalLM": "generative", "LMHeadModel": "generative"}
PROBE = (["red shoes", "a"], ["Red running shoes for the rain.", ""])


def family(folder: Path) -> str:
    """The family of the model in a Hugging Face folder: cross_encoder or generative.

    Raises:
        ValueError: the folder's config.json is not there, cannot be read, or names neither kind of network.
    """
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        names = list(config.get("architectures") or [])
    except (OSError, ValueError, AttributeError) as error:
        raise ValueError(f"{folder}: no readable config.json ({error}); it is no whole model folder") from error
    for name in names:
        for ending, kind in FAMILIES.items():
            if str(name).endswith(ending):
                return kind
    raise ValueError(f"{folder}/config.json: architectures {names} name neither a sequence classifier nor a causal LM")


def load_whole(folder: Path, settings: RelevanceSettings, scale: Sequence[int]) -> RelevanceModel:
    """Load a saved model, of whichever family it is, and make sure that it can answer.

    Raises:
        ValueError: the folder is not whole: files are missing or broken, weights are missing, of another shape than
            the scale asks for, or give scores that are no numbers.
    """
    kind = family(folder)
    try:
        model: Any = load(folder, settings.model_copy(update={"family": kind}), scale)
    except (SafetensorError, OSError, RuntimeError, KeyError, TypeError) as error:
        raise ValueError(f"{folder}: the model cannot be loaded ({error}); publish it again or roll back") from error
    answer = model.probabilities(*PROBE)
    if not np.isfinite(answer).all():
        raise ValueError(f"{folder}: the model's scores are no numbers; its weights are broken")
    return model
