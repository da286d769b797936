"""The prompt for one pair: a versioned template, filled with cleaned texts between markers that they cannot forge."""

import hashlib
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from importlib.resources import files
from string import Template

from serm.annotation.llm import Messages

SPLIT = "=== user ===\n"
NONCE_CHARACTERS = 16
BACKGROUND = (
    "\nBackground for understanding the query; it is not what you grade:\n"
    "[begin background {nonce}]\n{texts}\n[end background {nonce}]\n"
)
# C0 and C1 controls but newline and tab; soft hyphen; zero-width space, word joiner, byte-order mark; direction
# overrides; the invisible "tag" letters. Zero-width (non-)joiners stay: Persian and Indic words and emoji need them.
_UNWANTED = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\U000e0000-\U000e007f]"
)


class Prompt:
    """A run's prompt: template, grades and guidelines are fixed, the pair varies."""

    def __init__(self, scale: Sequence[int], names: Mapping[int, str], guidelines: str, max_characters: int) -> None:
        """`max_characters` cuts each document; grades without a name are shown as bare numbers."""
        system, user = _template().split(SPLIT)
        grades = "\n".join(f"- {grade}: {names[grade]}" if grade in names else f"- {grade}" for grade in scale)
        domain = f"\nGuidelines for this collection:\n{guidelines.strip()}\n" if guidelines.strip() else ""
        self._fixed = {"grades": grades, "guidelines": domain, "scale": ", ".join(map(str, scale))}
        self._system = Template(system)
        self._user = Template(user)
        self._max_characters = max_characters

    def messages(self, query: str, document: str, background: Sequence[str] = ()) -> Messages:
        """System and user message for one pair; equal inputs give equal messages.

        The markers' nonce is a hash of everything that stands between markers, so no text can contain it by design.
        """
        query = clean(query)
        document = clean(document, self._max_characters)
        texts = "\n---\n".join(clean(text) for text in background)
        nonce = digest(query, document, texts)[:NONCE_CHARACTERS]
        shown = BACKGROUND.format(nonce=nonce, texts=texts) if texts else ""
        user = self._user.substitute(query=query, document=document, background=shown, nonce=nonce)
        return [
            {"role": "system", "content": self._system.substitute(self._fixed, nonce=nonce)},
            {"role": "user", "content": user},
        ]


def clean(text: str, max_characters: int | None = None) -> str:
    """The text without control and invisible characters, trimmed and cut."""
    return _UNWANTED.sub("", text.replace("\r\n", "\n").replace("\r", "\n")).strip()[:max_characters]


def digest(*parts: str) -> str:
    """SHA-256 (hex) of texts, unambiguous about where one ends."""
    hashed = hashlib.sha256()
    for part in parts:
        data = part.encode("utf-8", "surrogatepass")
        hashed.update(len(data).to_bytes(8, "little") + data)
    return hashed.hexdigest()


def version() -> str:
    """The template's version: 12 hex digits of its hash."""
    return digest(_template())[:12]


@lru_cache(maxsize=1)
def _template() -> str:
    return files("serm.annotation").joinpath("prompts", "relevance.md").read_text(encoding="utf-8")
