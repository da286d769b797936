"""Texts as they go to a tokenizer: never longer than can matter, and without what no tokenizer takes."""

from collections.abc import Sequence

CHARACTERS_PER_TOKEN = 20  # tokens are far shorter: cutting here only spares the tokenizer very long texts


def shortened(texts: Sequence[str], tokens: int) -> list[str]:
    """The beginnings of texts of which at most `tokens` tokens are kept; lone surrogates become question marks."""
    cut = tokens * CHARACTERS_PER_TOKEN
    return [text[:cut].encode("utf-8", "replace").decode("utf-8") for text in texts]
