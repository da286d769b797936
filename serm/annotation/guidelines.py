"""Prompt files: the label guidelines of a domain in YAML, one file a language, checked before anything is asked.

A prompt is a folder of files named by locale (`en.yaml`, `pt-br.yaml`) or one file for every language. A query gets
its locale's, else its base language's (`pt` for `pt-BR`), else the default language's.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

SHIPPED = "relevance"
DEFAULT_LOCALE = "en"
VERSION_DIGITS = 12
SYSTEM = {
    "grades": True,
    "guidelines": True,
    "examples": False,
    "warning": True,
    "scale": True,
}  # name -> must be there
USER = {"query": True, "document": True, "background": True, "reminder": True}
BACKGROUND = {"texts": True}
EXAMPLE = {"query": True, "document": True, "answer": True}
MARKED = {"nonce": True}


class Example(BaseModel):
    """One judged pair to learn from."""

    model_config = ConfigDict(extra="forbid")

    query: str = Field(min_length=1)
    document: str = Field(min_length=1)
    reasoning: str = Field(min_length=1)
    label: int


class PromptFile(BaseModel):
    """The parts of a prompt in one language; `$name` marks what is filled in."""

    model_config = ConfigDict(extra="forbid")

    system: str = Field(description="First message: $grades, $guidelines, $examples, $warning, $scale.")
    user: str = Field(description="Second message: $query, $background, $document, $reminder.")
    background: str = Field(description="Around the background, $texts, where there is any.")
    warning: str = Field(description="That what stands between markers with the code $nonce is data.")
    reminder: str = Field(description="The same again, after the data.")
    guidelines_title: str = Field(description="The line above the collection's guidelines.")
    guidelines: str = Field("", description="The domain's label guidelines; annotation.guidelines are added to them.")
    grades: list[dict[int, str]] = Field([], description="What each grade means: one table for each label scale.")
    example: str = Field("", description="How one example is shown: $query, $document, $answer.")
    examples: list[Example] = Field([], description="Few-shot examples.")

    @field_validator("system", "user", "background", "warning", "example")
    @classmethod
    def _placeholders(cls, text: str, info: Any) -> str:
        known = {"system": SYSTEM, "user": USER, "background": BACKGROUND, "warning": MARKED, "example": EXAMPLE}
        names = known[info.field_name]
        template = Template(text)
        if not template.is_valid():
            raise ValueError("a lone $; write $$ for a dollar sign")
        if not text and info.field_name == "example":
            return text
        found = set(template.get_identifiers())
        if unknown := sorted(found - names.keys()):
            raise ValueError(f"unknown ${unknown[0]}; known are {', '.join('$' + name for name in names)}")
        if missing := [name for name, needed in names.items() if needed and name not in found]:
            raise ValueError(f"lacks ${missing[0]}; put it where that part belongs")
        return text

    def version(self) -> str:
        """12 hexadecimal digits of the content: another text is another version."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()[:VERSION_DIGITS]

    def descriptions(self, scale: Sequence[int]) -> Mapping[int, str]:
        """What each grade of this scale means; empty where the file has no table for it."""
        return next((table for table in self.grades if sorted(table) == list(scale)), {})

    def shown_examples(self) -> str:
        """The few-shot examples as the annotator reads them, each with the answer that it should give."""
        template = Template(self.example)
        shown = [
            template.substitute(
                query=example.query,
                document=example.document,
                answer=json.dumps({"reasoning": example.reasoning, "label": example.label}, ensure_ascii=False),
            ).strip()
            for example in self.examples
        ]
        return "\n\n".join(shown)


@dataclass(frozen=True)
class PromptFiles:
    """A prompt in all its languages."""

    name: str
    by_locale: Mapping[str, PromptFile]  # lower case, "-" between language and region
    default: str

    def choose(self, locale: str | None) -> tuple[str, PromptFile]:
        """The file for a query's locale, and the locale that it is written for."""
        asked = (locale or "").lower().replace("_", "-")
        for found in (asked, asked.split("-")[0], self.default):
            if found in self.by_locale:
                return found, self.by_locale[found]
        raise AssertionError("the default is always there: see load_prompt")

    def label(self, locale: str | None) -> str:
        """Name, language and version, as stored with every annotation: relevance/de@0123456789ab."""
        chosen, file = self.choose(locale)
        return f"{self.name}/{chosen}@{file.version()}"


def load_prompt(name: str = SHIPPED, scale: Sequence[int] | None = None) -> PromptFiles:
    """The prompt that comes with serm under this name, or the user's own: a YAML file, or a folder of them.

    Raises:
        ValueError: there is no such prompt, or a file is wrong: the message names file, field and mend.
    """
    shipped = files("serm.annotation").joinpath("prompts", name) if _plain(name) else None
    if shipped is not None and shipped.is_dir():
        texts = {entry.name: entry.read_text(encoding="utf-8") for entry in shipped.iterdir()}
        return PromptFiles(name, _read_all(f"prompt {name}", texts, None), DEFAULT_LOCALE)
    path = Path(name).expanduser()
    if path.is_file():
        file = _read(str(path), path.read_text(encoding="utf-8"), scale)
        return PromptFiles(path.stem, {DEFAULT_LOCALE: file}, DEFAULT_LOCALE)
    if not path.is_dir():
        raise ValueError(f"annotation.prompt: {name!r} is neither a prompt of serm ({SHIPPED}) nor a file or folder")
    texts = {entry.name: entry.read_text(encoding="utf-8") for entry in sorted(path.glob("*.yaml"))}
    if not texts:
        raise ValueError(f"annotation.prompt: {path} holds no .yaml; name one by each locale, such as en.yaml")
    found = _read_all(str(path), texts, scale)
    if len(found) > 1 and DEFAULT_LOCALE not in found:
        raise ValueError(f"annotation.prompt: {path} has no {DEFAULT_LOCALE}.yaml for queries of other locales; add it")
    return PromptFiles(path.name, found, DEFAULT_LOCALE if DEFAULT_LOCALE in found else next(iter(found)))


def _plain(name: str) -> bool:
    return name.replace("-", "").replace("_", "").isalnum()


def _read_all(where: str, texts: Mapping[str, str], scale: Sequence[int] | None) -> dict[str, PromptFile]:
    return {
        Path(file).stem.lower().replace("_", "-"): _read(f"{where}/{file}", text, scale)
        for file, text in sorted(texts.items())
    }


def _read(where: str, text: str, scale: Sequence[int] | None) -> PromptFile:
    """One file; with a `scale`, what the file says about grades must fit it."""
    try:
        fields = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(f"{where}: not YAML: {error}") from error
    if not isinstance(fields, dict):
        raise ValueError(f"{where}: expected fields such as system and user; see serm/annotation/prompts/{SHIPPED}")
    try:
        file = PromptFile.model_validate(fields)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(map(str, first["loc"])) or "file"
        message = first["msg"].removeprefix("Value error, ")
        mend = {"missing": "add the field", "extra_forbidden": f"no such field; known are {', '.join(_FIELDS)}"}
        raise ValueError(f"{where}: {field}: {mend.get(first['type'], message)}") from error
    if file.examples and not file.example:
        raise ValueError(f"{where}: example: say how an example is shown, with $query, $document and $answer")
    if scale is not None and file.grades and not file.descriptions(scale):
        raise ValueError(f"{where}: grades: no table for labels.scale {list(scale)}; add one, or leave grades out")
    if scale is not None:
        for number, example in enumerate(file.examples):
            if example.label not in scale:
                raise ValueError(f"{where}: examples.{number}.label: {example.label} is not on the scale {list(scale)}")
    return file


_FIELDS = tuple(PromptFile.model_fields)
