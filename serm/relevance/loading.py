"""Loading networks and tokenizers, and saying plainly what is wrong with a folder that cannot be used."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer
from transformers.utils import logging as transformers_logging

MEND = {
    "cross_encoder": "it is a cross-encoder: set relevance.family to cross_encoder, or name a causal language model",
    "generative": "it is a causal language model: set relevance.family to generative, or name a cross-encoder",
}


def tokenizer_of(source: str | Path) -> Any:
    """The tokenizer of a folder or hub name.

    Raises:
        ValueError: there is none that can be read.
    """
    with _told(source, "tokenizer"):
        return AutoTokenizer.from_pretrained(source)


def causal_config(source: str | Path) -> Any:
    """The configuration of a causal language model.

    Raises:
        ValueError: there is none at `source`, or it is one of a cross-encoder.
    """
    with _told(source, "causal language model"):
        config = AutoConfig.from_pretrained(source)
    if _named(config, "ForSequenceClassification"):
        raise ValueError(f"{source}: no causal language model here; {MEND['cross_encoder']}")
    return config


def causal_network(source: str | Path, dtype: torch.dtype) -> Any:
    """A causal language model with all of its weights.

    Raises:
        ValueError: there is no readable one at `source`, weights are missing or of another shape, or it is a
            cross-encoder.
    """
    causal_config(source)
    with _told(source, "causal language model"):
        loaded: Any = AutoModelForCausalLM.from_pretrained(source, dtype=dtype, output_loading_info=True)
    network, about = loaded
    _complete(source, about["missing_keys"], about["mismatched_keys"])
    return network


def classifier(source: str | Path, labels: int, attention: str | None, fresh: bool) -> Any:
    """A sequence classifier with `labels` outputs.

    fresh: start from weights of an encoder; a head that is missing or of another size is drawn anew.

    Raises:
        ValueError: there is no readable one at `source`, weights are missing or of another shape, the head's size is
            not `labels` and not `fresh`, or it is a causal language model.
    """
    with _told(source, "cross-encoder"):
        config = AutoConfig.from_pretrained(source)
    if _named(config, "ForCausalLM", "LMHeadModel"):
        raise ValueError(f"{source}: no cross-encoder here; {MEND['generative']}")
    if not fresh and config.num_labels != labels:
        raise ValueError(
            f"{source}: its head has {config.num_labels} outputs and labels.scale {labels} labels; give the scale that "
            "it was trained on, or train anew"
        )
    with _told(source, "cross-encoder"):
        loaded: Any = AutoModelForSequenceClassification.from_pretrained(
            source, num_labels=labels, ignore_mismatched_sizes=True, dtype=torch.float32, attn_implementation=attention,
            output_loading_info=True,
        )  # fmt: skip
    network, about = loaded
    missing, mismatched = about["missing_keys"], [str(entry[0]) for entry in about["mismatched_keys"]]
    if fresh:  # an encoder has no head, and some no pooler
        body = f"{network.base_model_prefix}."
        missing = [name for name in missing if name.startswith(body) and ".pooler." not in name]
        mismatched = [name for name in mismatched if name.startswith(body)]
    _complete(source, missing, mismatched)
    return network


def _complete(source: str | Path, missing: Any, mismatched: Any) -> None:
    if missing or mismatched:
        name = sorted(map(str, missing or mismatched))[0]
        raise ValueError(
            f"{source}: {len(missing) + len(mismatched)} weights are missing or of another shape, {name} among them; "
            "the folder is incomplete or of another kind: copy it again, or roll back to a version that is whole"
        )


def _named(config: Any, *kinds: str) -> bool:
    return any(name.endswith(kinds) for name in config.architectures or ())


@contextmanager
def _told(source: str | Path, kind: str) -> Iterator[None]:
    """Turns what transformers and safetensors raise over an unreadable folder into one error that names it."""
    if str(source).startswith((".", "/", "~")) and not Path(source).is_dir():
        raise ValueError(f"{source}: no readable {kind}: there is no such folder")
    level = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError, json.JSONDecodeError) as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise ValueError(
            f"{source}: no readable {kind}: {lines[0]}; give a whole folder or a hub name, or roll back to a version "
            "that is whole"
        ) from error
    finally:
        transformers_logging.set_verbosity(level)
