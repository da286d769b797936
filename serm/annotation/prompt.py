"""The prompt for one pair: a versioned file, filled with cleaned texts between markers that they cannot forge."""

import hashlib
from collections.abc import Mapping, Sequence
from functools import lru_cache
from string import Template

from serm.annotation.cleaning import clean
from serm.annotation.guidelines import SHIPPED, PromptFile, PromptFiles, load_prompt
from serm.annotation.llm import Messages

NONCE_CHARACTERS = 16
SEPARATOR = "\n---\n"

__all__ = ["Prompt", "clean", "digest"]


class Prompt:
    """A run's prompt: files, grades and guidelines are fixed, the pair varies."""

    def __init__(
        self,
        scale: Sequence[int],
        names: Mapping[int, str],
        guidelines: str,
        max_characters: int,
        files: PromptFiles | None = None,
        guarded: bool = True,
    ) -> None:
        """`max_characters` cuts each document; `files` default to those that come with serm.

        A grade is shown with its name and with what the file says about it. Without `guarded`, texts go in as they are,
        between markers without a code, and nothing says that they are data: only to measure what the guard does.
        """
        self.files = files or load_prompt(SHIPPED)
        self._scale = list(scale)
        self._names = dict(names)
        self._guidelines = guidelines.strip()
        self._max_characters = max_characters
        self._guarded = guarded
        self._fixed = lru_cache(maxsize=64)(self._fill)  # one entry a language

    def label(self, locale: str | None = None) -> str:
        """Name, language and version of the file that a query of this locale gets."""
        return self.files.label(locale)

    def messages(
        self, query: str, document: str, background: Sequence[str] = (), locale: str | None = None
    ) -> Messages:
        """System and user message for one pair, in the query's language; equal inputs give equal messages.

        The markers' nonce is a hash of everything that stands between markers, so no text can contain it by design.
        """
        chosen, file = self.files.choose(locale)
        if self._guarded:
            query, document = clean(query), clean(document, self._max_characters)
            texts = SEPARATOR.join(filter(None, map(clean, background)))
            nonce = digest(query, document, texts)[:NONCE_CHARACTERS]
            warning = "\n" + Template(file.warning).substitute(nonce=nonce)
        else:
            document, texts, nonce, warning = document[: self._max_characters], SEPARATOR.join(background), "", ""
        shown = Template(file.background).substitute(texts=_marked("background", texts, nonce)) if texts else ""
        user = Template(file.user).substitute(
            query=_marked("query", query, nonce),
            document=_marked("document", document, nonce),
            background=shown,
            reminder=file.reminder if self._guarded else "",
        )
        system = Template(file.system).substitute(self._fixed(chosen), warning=warning)
        return [{"role": "system", "content": system.strip()}, {"role": "user", "content": user.strip()}]

    def _fill(self, locale: str) -> dict[str, str]:
        """What is the same for every pair of a language."""
        file: PromptFile = self.files.by_locale[locale]
        meanings = file.descriptions(self._scale)
        grades = [
            f"- {grade}: {' – '.join(filter(None, (self._names.get(grade), meanings.get(grade))))}".rstrip(": ")
            for grade in self._scale
        ]
        guidelines = "\n".join(filter(None, (file.guidelines.strip(), self._guidelines)))
        examples = file.shown_examples()
        placed = "$examples" in file.system or "${examples}" in file.system
        if examples and not placed:  # a file that says no place for them has them after the guidelines
            guidelines = "\n\n".join(filter(None, (guidelines, examples)))
        return {
            "grades": "\n".join(grades),
            "guidelines": f"\n{file.guidelines_title}\n{guidelines}\n" if guidelines else "",
            "examples": examples,
            "scale": ", ".join(map(str, self._scale)),
        }


def digest(*parts: str) -> str:
    """SHA-256 (hex) of texts, unambiguous about where one ends."""
    hashed = hashlib.sha256()
    for part in parts:
        data = part.encode("utf-8", "surrogatepass")
        hashed.update(len(data).to_bytes(8, "little") + data)
    return hashed.hexdigest()


def _marked(name: str, text: str, nonce: str) -> str:
    code = f" {nonce}" if nonce else ""
    return f"[begin {name}{code}]\n{text}\n[end {name}{code}]"
