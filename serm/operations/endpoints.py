"""Whether an annotator could be asked: its key is there, its endpoint answers and knows the model."""

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import httpx

from serm.annotation.openai_compatible import api_key
from serm.config import AnnotatorSettings

Found = tuple[Literal["ok", "warn", "fail"], str, str, str]  # level, address, what was found, what mends it
TIMEOUT = 10.0  # seconds
REFUSED = (401, 403)


def ask_endpoint(annotator: AnnotatorSettings) -> Iterator[Found]:
    """One finding an address; it costs nothing: only the list of models is asked for."""
    if annotator.provider != "openai":
        yield _in_process(annotator)
        return
    try:
        key = api_key(annotator)
    except ValueError as error:
        yield "fail", annotator.base_url, str(error), f"export {annotator.api_key_env}=..."
        return
    for address in annotator.addresses():
        yield _ask(annotator, address, key)


def _ask(annotator: AnnotatorSettings, address: str, key: str) -> Found:
    try:
        reply = httpx.get(f"{address}/models", headers={"Authorization": f"Bearer {key}"}, timeout=TIMEOUT)
    except httpx.TransportError as error:
        return "fail", address, f"no answer ({error})", "start the server, or mend annotation.annotators[].base_url"
    if reply.status_code in REFUSED:
        return (
            "fail",
            address,
            f"HTTP {reply.status_code}: the key is refused",
            f"put a valid key into {annotator.api_key_env}",
        )
    if not reply.is_success:
        return "warn", address, f"HTTP {reply.status_code} to a question for its models", "look at the server's log"
    try:
        known = [model["id"] for model in reply.json()["data"]]
    except (ValueError, KeyError, TypeError):
        return "warn", address, "answers, but lists no models", ""
    if annotator.model not in known:
        shown = ", ".join(known[:5]) or "none"
        return (
            "warn",
            address,
            f"answers, but does not list {annotator.model!r} (it lists {shown})",
            "check the model's name",
        )
    return "ok", address, f"answers and lists {annotator.model}", ""


def _in_process(annotator: AnnotatorSettings) -> Found:
    if find_spec(annotator.provider) is None:
        return "fail", annotator.model, f"{annotator.provider} is not installed", f"pip install {annotator.provider}"
    local = Path(annotator.model).expanduser()
    if annotator.model.startswith(("/", "~", ".")) and not local.is_dir():
        return "fail", annotator.model, "no such folder", "mend annotation.annotators[].model"
    return "ok", annotator.model, f"by {annotator.provider}, in this process", ""
