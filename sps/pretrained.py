"""Finding and loading a Hugging Face causal language model: a folder, a hub name, or a GGUF file."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedConfig

from sps.config import PolicySettings

_DROPOUTS = ("dropout", "pdrop", "dropout_prob", "dropout_rate")


def load_pretrained(settings: PolicySettings, dtype: torch.dtype) -> tuple[Any, Any]:
    """A causal language model with dropout off, and its tokenizer.

    With dropout a policy would not assign to its own samples the probabilities they were drawn with.

    Raises:
        ValueError: the folder is not there or holds no model, the hub cannot be reached or knows no such name, or a
            GGUF file needs the package gguf.
    """
    source, gguf = _find(settings.model, settings.gguf)
    options: dict[str, Any] = {"gguf_file": gguf} if gguf else {}
    if settings.attention is not None:
        options["attn_implementation"] = settings.attention
    try:
        config = AutoConfig.from_pretrained(source, **options)
        _switch_off_dropout(config)
        model = AutoModelForCausalLM.from_pretrained(source, config=config, dtype=dtype, **options)
        tokenizer = AutoTokenizer.from_pretrained(source, **({"gguf_file": gguf} if gguf else {}))
    except (OSError, ValueError, ImportError) as error:
        first = str(error).strip().split("\n")[0]
        raise ValueError(
            f"policy.model {settings.model!r} could not be loaded: {first} Give a folder with a causal language model, "
            "or the name of one that can be fetched from the hub"
        ) from error
    return (_dequantised(model) if gguf else model), tokenizer


def _find(model: str, gguf: str | None) -> tuple[str, str | None]:
    """What transformers is to load, and the GGUF file inside it."""
    folder = Path(model).expanduser()
    if not folder.is_dir():
        if model.startswith((".", "/", "~")) or gguf is not None:
            raise ValueError(f"policy.model {model!r}: there is no such folder")
        return model, None  # a hub name
    files = sorted(path.name for path in folder.glob("*.gguf"))
    if gguf is None and not (folder / "config.json").exists():
        if (folder / "adapter_config.json").exists():
            raise ValueError(f"policy.model {model!r} holds adapters alone; merge them into their model first")
        if len(files) != 1:
            holds = f"{len(files)} GGUF files; name one in policy.gguf" if files else "no config.json and no GGUF file"
            raise ValueError(f"policy.model {model!r} holds {holds}")
        gguf = files[0]
    if gguf is not None and gguf not in files:
        raise ValueError(f"policy.gguf {gguf!r} is not in {model!r}; there are: {', '.join(files) or 'none'}")
    if gguf is not None and find_spec("gguf") is None:
        raise ValueError(f"{gguf} needs the package gguf; install it with: pip install 'serm[sps]'")
    return str(folder), gguf


def _switch_off_dropout(config: PreTrainedConfig) -> None:
    for name, value in config.to_dict().items():
        if name.endswith(_DROPOUTS) and isinstance(value, float):
            setattr(config, name, 0.0)


def _dequantised(model: Any) -> Any:
    """The same network built afresh, which no longer takes itself for a quantised one and can be trained and saved."""
    values = model.config.to_dict()
    values.pop("quantization_config", None)
    config = type(model.config).from_dict(values)
    fresh = AutoModelForCausalLM.from_config(
        config, dtype=model.dtype, attn_implementation=model.config._attn_implementation
    )
    fresh.load_state_dict(model.state_dict())
    fresh.generation_config = model.generation_config
    return fresh.eval()
