"""The stand-in for strong LLM annotators: labels from known judgments, with the errors of real judges.

It reads no text to decide, unless it is made susceptible to attacks (`swayed`): then it looks for them in the prompt.
It looks the pair's true grade up and errs as measured (see `judges`). The model is
Gaussian (ours): annotator m on pair i along path p has the standard normal

    z = sqrt(1 - pi) * (sqrt(rho) * c_i + sqrt(1 - rho) * a_mi) + sqrt(pi) * e_mip

with c shared by all annotators (what makes them wrong together), a the annotator's own settled opinion, e the path's
whim, pi = `path_share` and rho = `correlation`. The answer is the quantile at Phi(z) of the truth's row of the
confusion matrix, so that every single path has exactly that confusion, whatever pi and rho. All draws are hashes of
seed, annotator, pair and path: the same question always gets the same answer.
"""

import hashlib
from collections.abc import Iterable, Sequence

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

from serm.config import SimulateLLMSettings
from serm.simulate.judges import confusion_for
from serm.simulate.susceptible import seen
from serm.simulate.words import words


class StandIn:
    """Every annotator at once: one per model name."""

    def __init__(
        self, judgments: pl.DataFrame, scale: Sequence[int], settings: SimulateLLMSettings, seed: int = 0
    ) -> None:
        """Bind the truth (`query`, `doc_id`, `grade`) to a scale, ascending; a pair judged twice counts as its mean.

        Raises:
            ValueError: a grade is not on the scale, or the configured confusion matrix does not fit it.
        """
        self.scale = list(scale)
        self.settings = settings
        self.seed = seed
        self.confusion = (
            confusion_for(scale, settings.binary_from)
            if settings.confusion is None
            else _checked(settings.confusion, len(self.scale))
        )
        truth = true_grades(judgments, scale)
        rank = {grade: i for i, grade in enumerate(self.scale)}
        self._truth = {
            (query, doc_id): rank[grade]
            for query, doc_id, grade in truth.select("query", "doc_id", "grade").iter_rows()
        }

    def labels(
        self, annotator: str, queries: Sequence[str], doc_ids: Sequence[str], paths: int, seed: int = 0
    ) -> NDArray[np.int32]:
        """The annotator's labels for aligned pairs along independent paths; shape (n, paths), values on the scale.

        Pairs without a known judgment count as the lowest grade: in judged collections the unjudged are mostly
        irrelevant. `seed` moves only the paths; the settled opinion stays.
        """
        pairs = list(zip(queries, doc_ids, strict=True))
        truth = np.fromiter((self._truth.get(pair, 0) for pair in pairs), dtype=np.int64, count=len(pairs))
        identity = np.fromiter((digest(query, doc_id) for query, doc_id in pairs), dtype=np.uint64, count=len(pairs))
        rho, pi = self.settings.correlation, self.settings.path_share
        shared = _normal(identity, digest("shared", self.seed))
        own = _normal(identity, digest("own", self.seed, annotator))
        settled = np.sqrt(rho) * shared + np.sqrt(1 - rho) * own  # (n,)
        columns = np.empty((len(pairs), paths), dtype=np.int32)
        cumulative = np.cumsum(self.confusion, axis=1)[:, :-1][truth]  # (n, k - 1)
        for path in range(paths):
            whim = _normal(identity, digest("path", self.seed, annotator, seed, path))
            level = ndtr(np.sqrt(1 - pi) * settled + np.sqrt(pi) * whim)
            columns[:, path] = np.asarray(self.scale)[(level[:, None] > cumulative).sum(axis=1)]
        return columns

    def swayed(self, annotator: str, query: str, doc_id: str, prompt: str, labels: Sequence[int]) -> list[int]:
        """The labels of a pair's paths, or the top grade for all where the prompt shows an attack that this one buys.

        Each kind of attack that is seen (`susceptible.seen`) is bought with its chance, once for annotator and pair
        (not path); annotators are taken in together as often as they err together: by `correlation`.
        """
        chances = self.settings.susceptibility
        if not any(chances.values()):
            return list(labels)
        identity = np.array([digest(query, doc_id)], dtype=np.uint64)
        for kind in seen(prompt, query):
            shared = _normal(identity, digest("bait", self.seed, kind))
            own = _normal(identity, digest("bait", self.seed, kind, annotator))
            rho = self.settings.correlation
            if ndtr(np.sqrt(rho) * shared + np.sqrt(1 - rho) * own)[0] < chances.get(kind, 0.0):
                return [self.scale[-1]] * len(labels)
        return list(labels)

    def label(self, annotator: str, query: str, doc_id: str, path_seed: int = 0) -> int:
        """One label: the first path of `labels` under `path_seed`."""
        return int(self.labels(annotator, [query], [doc_id], 1, path_seed)[0, 0])

    def pairs(self) -> Iterable[tuple[str, str]]:
        """The judged pairs, (query, doc_id)."""
        return self._truth.keys()

    def reasoning(self, query: str, text: str, label: int) -> str:
        """A short reason for a label, that names words which query and document share; for people and prompts."""
        shared = [word for word in dict.fromkeys(words(query)) if word in set(words(text))]
        share = (self.scale.index(label) + 1) / len(self.scale)
        verdict = "answers the query" if share > 0.75 else "touches the query" if share > 0.5 else "does not answer it"
        seen = f"The document shares {', '.join(shared[:5])} with the query" if shared else "No word is shared"
        return f"{seen}; read as a whole, it {verdict}. Label {label}."


def true_grades(judgments: pl.DataFrame, scale: Sequence[int]) -> pl.DataFrame:
    """One grade per (query, doc_id): the mean over its judges, rounded half up to the nearest grade of the scale.

    Returns columns query, doc_id, grade, locale (null where unknown), sorted by query and doc_id.

    Raises:
        ValueError: a grade is not on the scale.
    """
    strange = judgments.filter(~pl.col("grade").is_in(list(scale)))
    if strange.height:
        query, doc_id, grade = strange.select("query", "doc_id", "grade").row(0)
        raise ValueError(f"judgments: grade {grade} of ({query!r}, {doc_id!r}) is not on labels.scale {list(scale)}")
    locale = pl.col("locale") if "locale" in judgments.columns else pl.lit(None, pl.String).alias("locale")
    grouped = (
        judgments.select("query", "doc_id", "grade", locale)
        .group_by("query", "doc_id")
        .agg(pl.col("grade").mean(), pl.col("locale").drop_nulls().min())
        .sort("query", "doc_id")
    )
    grades = np.asarray(scale, dtype=float)
    middles = (grades[1:] + grades[:-1]) / 2
    nearest = np.asarray(scale, dtype=np.int32)[np.searchsorted(middles, grouped["grade"].to_numpy(), side="right")]
    return grouped.with_columns(grade=pl.Series(nearest, dtype=pl.Int32))


def digest(*parts: object) -> int:
    """A 64-bit hash of the parts, the same in every process."""
    text = "\x00".join(map(str, parts))
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")


def chance(*parts: object) -> float:
    """A uniform draw from [0, 1) that depends on nothing but the parts."""
    return (digest(*parts) >> 11) * 2.0**-53


def _checked(rows: list[list[float]], size: int) -> NDArray[np.float64]:
    matrix = np.asarray(rows, dtype=float)
    if matrix.shape != (size, size) or (matrix < 0).any() or not np.allclose(matrix.sum(axis=1), 1, atol=1e-6):
        raise ValueError(f"simulate_llm.confusion: give {size} rows of {size} probabilities, each row summing to 1")
    return matrix


def _normal(identity: NDArray[np.uint64], stream: int) -> NDArray[np.float64]:
    """Standard normals that depend on nothing but identity and stream (SplitMix64's finaliser, then Phi inverse)."""
    x = identity ^ np.uint64(stream)
    with np.errstate(over="ignore"):
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    x ^= x >> np.uint64(31)
    return np.asarray(ndtri(((x >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53))
