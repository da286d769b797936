"""Words view: do more searches than before hold a word never seen before?"""

from collections.abc import Sequence

import polars as pl
from scipy.stats import fisher_exact

from serm.shift.report import View

SHOWN_WORDS = 5


def words_view(vocabulary: Sequence[str], reference: Sequence[str], current: Sequence[str]) -> View:
    """Compare the shares of searches with a new word: one the vocabulary lacks. All three are lists of searches.

    Vocabulary and reference are two samples of the earlier window; the second shows how many searches hold an unseen
    word when nothing has changed. Given the vocabulary, it and the current window are exchangeable, so Fisher's exact
    test holds. Nothing is embedded, so that these samples may be larger than the other views': the larger the
    vocabulary, the rarer unseen words of the tail are, and the more clearly a new intent stands out.

    Effect = (now - before) / (1 - before): if a share of the searches is of another kind, it is at least that (ours).
    """
    known = sorted(set(tokens(vocabulary).explode(empty_as_null=False)))
    before, after = _new_words(reference, known), _new_words(current, known)
    old, new = int(before.list.len().gt(0).sum()), int(after.list.len().gt(0).sum())
    table = [[new, len(after) - new], [old, len(before) - old]]
    p_value = float(fisher_exact(table, alternative="greater").pvalue)
    share_before, share_after = old / len(before), new / len(after)
    text = f"{share_after:.1%} of searches hold a new word, {share_before:.1%} would be usual"
    words = (
        after.explode(empty_as_null=False)
        .alias("word")
        .value_counts(sort=False)
        .sort("count", "word", descending=[True, False])
    )
    if share_after > share_before and words.height:
        text += f"; most often {', '.join(words['word'].head(SHOWN_WORDS))}"
    effect = max(0.0, share_after - share_before) / (1 - share_before) if share_before < 1 else 0.0
    return View("words", effect, p_value, len(reference), len(current), text)


def tokens(queries: Sequence[str]) -> pl.Series:
    """Each query's distinct words, lower case: a list a query."""
    return pl.Series(queries, dtype=pl.String).str.to_lowercase().str.extract_all(r"\w+").list.unique()


def _new_words(queries: Sequence[str], known: list[str]) -> pl.Series:
    words = pl.DataFrame({"row": range(len(queries)), "word": tokens(queries)})
    unseen = (
        words.explode("word", empty_as_null=False)
        .join(pl.DataFrame({"word": known}, {"word": pl.String}), on="word", how="anti")
        .group_by("row")
        .agg("word")
    )
    found = words.select("row").join(unseen, on="row", how="left", maintain_order="left")
    return found["word"].fill_null(pl.lit([], pl.List(pl.String)))
