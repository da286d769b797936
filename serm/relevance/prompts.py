"""A pair's prompt as tokens: instructions, query and document in this order, so that candidates share their beginning.

Instructions, query and document are turned into tokens each by itself. A query's candidates therefore begin with the
very same tokens whatever the tokenizer, and no text of a user can become a special token.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from jinja2 import TemplateError

from serm.config import RelevanceSettings
from serm.relevance.texts import shortened

BEFORE_QUERY = "\n\nQuery: "
BEFORE_DOCUMENT = "\nDocument: "
QUESTION = "\n\nGrade of the document, from {worst} (worst) to {best} (best):"
REASONED = (
    "\n\nFirst say in a sentence or two how well the document answers the query. Then write its grade, from {worst} "
    '(worst) to {best} (best), on a line of its own that begins with "Grade:".'
)
REASON = "\nReason:"
GRADE = "Grade:"
TOKENIZER_CHUNK = 20_000
_QUERY, _DOCUMENT = "\ue000query\ue001", "\ue000document\ue001"  # private characters that no template writes itself


class Prompt(NamedTuple):
    """One prompt, in two parts.

    Attributes:
        shared: tokens that all candidates of a query begin with, the document's heading included.
        own: the document's tokens and all that follows.
        instructions: so many of the first `shared` tokens are the same for every query.
    """

    shared: tuple[int, ...]
    own: list[int]
    instructions: int

    @property
    def ids(self) -> list[int]:
        """The whole prompt."""
        return [*self.shared, *self.own]


class PromptForm:
    """Turns pairs into prompts that ask for a grade, or for a reason and then a grade."""

    def __init__(self, tokenizer: Any, settings: RelevanceSettings, scale: Sequence[int], reasoned: bool) -> None:
        """Tokenise what is the same for all pairs.

        Raises:
            ValueError: `relevance.chat_template` is on, and the tokenizer has no template that keeps the texts as they
                are.
        """
        self._tokenizer, self._room = tokenizer, settings.max_tokens
        question = (REASONED if reasoned else QUESTION).format(worst=scale[0], best=scale[-1])
        if settings.chat_template:
            asked = settings.instructions + BEFORE_QUERY + _QUERY + BEFORE_DOCUMENT + _DOCUMENT + question
            before, between, after = _rendered(tokenizer, asked)
            after += "" if reasoned else GRADE
            start: list[int] = []  # a template writes the beginning of the text itself
        else:
            before, between = settings.instructions + BEFORE_QUERY, BEFORE_DOCUMENT
            after = question + (REASON if reasoned else "")
            empty = tokenizer("").input_ids
            start = empty[:1] if empty[:1] == [tokenizer.bos_token_id] else []
        self._before, self._between, self._after = start + self._ids(before), self._ids(between), self._ids(after)
        self.longest = len(self._before) + len(self._between) + len(self._after) + self._room

    def parts(self, queries: Sequence[str], documents: Sequence[str]) -> list[Prompt]:
        """Prompts of aligned pairs; query and document keep at most `max_tokens` tokens, the longer is cut first."""
        room, prompts = self._room, []
        for start in range(0, len(queries), TOKENIZER_CHUNK):
            asked, shown = (
                self._tokenizer(
                    shortened(texts[start : start + TOKENIZER_CHUNK], room),
                    add_special_tokens=False,
                    split_special_tokens=True,
                    return_attention_mask=False,
                ).input_ids
                for texts in (queries, documents)
            )
            for query, document in zip(asked, shown, strict=True):
                kept = query[: max(room // 2, room - len(document))]
                shared = (*self._before, *kept, *self._between)
                prompts.append(Prompt(shared, document[: room - len(kept)] + self._after, len(self._before)))
        return prompts

    def _ids(self, text: str) -> list[int]:
        return list(self._tokenizer(text, add_special_tokens=False).input_ids)


def _rendered(tokenizer: Any, message: str) -> tuple[str, str, str]:
    """What the chat template writes before the query, between query and document, and after."""
    if not tokenizer.chat_template:
        raise ValueError("relevance.chat_template is on, and the model's tokenizer has no chat template; switch it off")
    try:
        text: str = tokenizer.apply_chat_template(
            [{"role": "user", "content": message}], add_generation_prompt=True, tokenize=False
        )
    except TemplateError as error:
        raise ValueError(f"the model's chat template refuses a user's message: {error}") from error
    before, found, rest = text.partition(_QUERY)
    between, also, after = rest.partition(_DOCUMENT)
    if not found or not also:
        raise ValueError("the model's chat template changes its messages' texts; switch relevance.chat_template off")
    return before, between, after
