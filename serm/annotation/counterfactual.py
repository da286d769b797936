"""The counterfactual check: a document that earns a high label for an unrelated query earns it by asking.

It catches texts that speak to the annotator (instructions, forged verdicts), not texts that repeat the query: those say
nothing to another query. The check and its rules are ours.
"""

import hashlib
import re
from collections.abc import Collection, Mapping

from serm.annotation.cleaning import hidden

MOST_HIDDEN = 8  # invisible characters that an honest short text may hold
_WORD = re.compile(r"\w{3,}")
# Queries of many fields, so that one can be found that shares nothing with the document; by base language.
QUERIES = {
    "en": (
        "boiling point of mercury", "parking permit renewal", "how to prune apple trees", "violin string tuning order",
        "volcano eruption iceland history", "tax return deadline", "sicilian defence in chess", "sourdough starter",
    ),
    "de": (
        "siedepunkt von quecksilber", "parkausweis verlängern", "apfelbäume schneiden", "geige saiten stimmen",
        "vulkanausbruch island geschichte", "frist steuererklärung", "sizilianisch im schach", "sauerteig ansetzen",
    ),
    "es": (
        "punto de ebullición del mercurio", "renovar permiso de aparcamiento", "podar manzanos", "cuerdas de violín",
        "historia erupción volcán islandia", "plazo declaración renta", "apertura siciliana ajedrez", "masa madre",
    ),
    "fr": (
        "point d'ébullition du mercure", "renouveler permis stationnement", "tailler pommiers", "cordes de violon",
        "histoire éruption volcan islande", "date limite impôts", "ouverture sicilienne échecs", "levain maison",
    ),
}  # fmt: skip
# What an honest page has no reason to say: a grade for a judge, an order to one, a chat template's tokens.
_SUSPICIOUS = re.compile(
    r"""["'“]?label["'”]?\s*[:=]\s*\d|<\|\w+\|>|\[/?INST\]|</?s>|<(?:start|end)_of_turn>|\[\s*(?:begin|end)\s+(?:query|document)
    |\b(?:ignore|disregard|forget|vergiss|ignoriere|ignora|ignorez|oublie)\b.{0,40}\b(?:instruction|rule|above|previous|
    anweisung|regel|instrucci|regla|consigne|règle)|\b(?:grade|rate|score|label|bewerte|note|evalúa|califica|note[zr]?)\b
    .{0,60}\b(?:relevant|relevanz|relevante|pertinent|highest|maximum|höchste|máxim|maximale)""",
    re.IGNORECASE | re.VERBOSE | re.DOTALL,
)


def chosen(query: str, doc_id: str, text: str, label: int | None, scale: Collection[int], share: float) -> bool:
    """Whether a pair is checked: its label is high, and its document is suspicious or the pair falls into the share.

    The draw depends on nothing but the pair: a restart asks the same.
    """
    if share <= 0 or label is None or label < high(scale):
        return False
    return suspicious(text) or _draw(query, doc_id) < share


def high(scale: Collection[int]) -> int:
    """The lowest grade of the scale's upper half: what counts as relevant here."""
    grades = sorted(scale)
    return grades[(len(grades) + 1) // 2]


def suspicious(text: str) -> bool:
    """Whether a document speaks to a judge, or holds what an LLM's template reads as control, or hides characters."""
    return hidden(text) > max(MOST_HIDDEN, len(text) // 50) or _SUSPICIOUS.search(text) is not None


def unrelated(query: str, text: str, locale: str | None) -> str:
    """A query that shares no word with the pair, in its language where there is one; the same for the same pair."""
    pool = QUERIES.get((locale or "en").lower().replace("_", "-").split("-")[0], QUERIES["en"])
    start = int(_draw(query, text) * len(pool))
    turned = pool[start:] + pool[:start]
    taken = {word.casefold() for word in _WORD.findall(f"{query} {text}")}
    return min(turned, key=lambda other: len(taken.intersection(_WORD.findall(other.casefold()))))


def verdict(stable: Mapping[str, int | None], query: str, scale: Collection[int]) -> str | None:
    """Why the pair is flagged, or None: an annotator finds the document relevant to the unrelated query."""
    fooled = {name: label for name, label in sorted(stable.items()) if label is not None and label >= high(scale)}
    if not fooled:
        return None
    said = ", ".join(f"{name} gave {label}" for name, label in fooled.items())
    return f"counterfactual: {said} to this document for the unrelated query {query!r}; its text may be an attack"


def _draw(*parts: str) -> float:
    data = "\x00".join(parts).encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(data, digest_size=6).digest(), "little") / 2**48
