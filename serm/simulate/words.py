"""Words of a text, as the simple ranker and the stand-in's reasons see them."""

import re

_WORD = re.compile(r"\w+")


def words(text: str) -> list[str]:
    """Lower-case runs of letters and digits, in order."""
    return _WORD.findall(text.lower())
