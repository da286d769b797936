"""The annotator: LLMs label mined pairs, vote within, agree across; disagreements wait for a person.

Verb: `serm.annotation.verbs.annotate`; without a workspace: `serm.annotation.core.annotate_pairs`.
"""

from serm.annotation.agreement import agree, stable_label, unify
from serm.annotation.llm import LLM, Answer, ProviderError, Reply
from serm.annotation.parsing import Outcome, parse
from serm.annotation.stand_in import StandInLLM

__all__ = [
    "LLM",
    "Answer",
    "Outcome",
    "ProviderError",
    "Reply",
    "StandInLLM",
    "agree",
    "parse",
    "stable_label",
    "unify",
]
