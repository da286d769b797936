"""Make text from strangers safe to show to an LLM: nothing invisible, nothing that a chat template reads as control.

Three steps, none of which a reader would notice: characters that nobody sees are dropped; special tokens of chat
templates are broken with a space, because an engine that tokenises the filled template reads `<|im_end|>` as the end of
the message, whoever wrote it; lines that look like our own markers lose their bracket. What the rules are for is ours.
"""

import re
import unicodedata

# C0 and C1 controls but newline and tab; soft hyphen; combining grapheme joiner; fillers of Hangul; Khmer and Mongolian
# vowels and separators without a shape; zero-width space; directions; word joiner and its like; variation selectors
# but the one of emoji; byte-order mark; annotation anchors; musical formatting; invisible tags; lone surrogates.
_UNWANTED = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b\u200e\u200f\u2028-\u202e"
    "\u2060-\u206f\u3164\ufe00-\ufe0e\ufeff\uffa0\ufff9-\ufffb\U0001d173-\U0001d17a\U000e0000-\U000e0fff\ud800-\udfff]"
)
# Zero-width (non-)joiners stay inside words of scripts that need them (Persian, Indic) and in emoji: one at a time.
_JOINERS = re.compile("(?<![^\x00-\x7f\u200c\u200d])[\u200c\u200d]+|[\u200c\u200d]+(?![^\x00-\x7f\u200c\u200d])")
_JOINER_RUN = re.compile("[\u200c\u200d]{2,}")
# <|im_end|>, <｜User｜>, </s>, <start_of_turn>, <0x0A>, <<SYS>>; and [INST], [/INST], [TOOL_CALLS].
_ANGLE = re.compile(r"<(?=[|｜]|<?/?[\w▁][\w▁|｜.:-]{0,63}>)")
_SQUARE = re.compile(r"\[(?=/?[A-Z][A-Z_]{1,31}\])")
_MARKER = re.compile(r"\[(?=\s*/?\s*(?:begin|end)[\s_-]+(?:query|document|background)\b)", re.IGNORECASE)
_LETTERS = str.maketrans("авеіјкмнорѕстухԁɡӏοαενικτ", "abeijkmhopsctyxdgloaevikt")  # Cyrillic and Greek look-alikes
_BRACKETS = str.maketrans("［【〔⟦❲⁅〚", "[[[[[[[")


def clean(text: str, max_characters: int | None = None) -> str:
    """The text as an LLM may see it: without invisible characters, special tokens and look-alike markers; cut."""
    visible = _UNWANTED.sub("", text.replace("\r\n", "\n").replace("\r", "\n"))
    visible = _JOINER_RUN.sub(lambda run: run[0][0], _JOINERS.sub("", visible))
    broken = _SQUARE.sub("[ ", _ANGLE.sub("< ", visible))
    return _without_markers(broken).strip()[:max_characters]


def hidden(text: str) -> int:
    """How many characters of a text nobody sees, carriage returns not counted."""
    return len(_UNWANTED.findall(text.replace("\r", "")))


def _without_markers(text: str) -> str:
    """Brackets that open something like one of our markers become round, whatever alphabet imitates the letters."""
    folded = "".join(map(_fold, text)) if not text.isascii() else text
    places = [match.start() for match in _MARKER.finditer(folded)]
    if not places:
        return text
    letters = list(text)
    for place in places:
        letters[place] = "("
    return "".join(letters)


def _fold(letter: str) -> str:
    """One character for one: the plain Latin letter or bracket that it looks like."""
    if letter.isascii():
        return letter
    plain = unicodedata.normalize("NFKC", letter)
    one = plain if len(plain) == 1 else letter
    return one.lower().translate(_LETTERS).translate(_BRACKETS)[:1] or letter
