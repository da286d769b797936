"""Words view: do more searches than before hold a word never seen before?"""

import polars as pl
from scipy.stats import fisher_exact

from serm.shift.report import View

SHOWN_WORDS = 5


def words_view(reference: list[str], current: list[str]) -> View:
    """Compare the shares of searches with a new word; queries in random order, one a search; effect = rise in share.

    The first half of the reference is the vocabulary; its second half shows how many searches hold an unseen word when
    nothing has changed. Given the vocabulary, that half and the current window are exchangeable, so Fisher's exact test
    holds, and the vocabulary's size does not grow with the window (ours).
    """
    half = len(reference) // 2
    known = set(_tokens(reference[:half]).explode(empty_as_null=False))
    before, after = _new_words(reference[half:], known), _new_words(current, known)
    old, new = int(before.list.len().gt(0).sum()), int(after.list.len().gt(0).sum())
    table = [[new, len(after) - new], [old, len(before) - old]]
    p_value = float(fisher_exact(table, alternative="greater").pvalue)
    share_before, share_after = old / len(before), new / len(after)
    text = f"{share_after:.0%} of searches hold a new word, {share_before:.0%} would be usual"
    words = (
        after.explode(empty_as_null=False)
        .alias("word")
        .value_counts(sort=False)
        .sort("count", "word", descending=[True, False])
    )
    if share_after > share_before and words.height:
        text += f"; most often {', '.join(words['word'].head(SHOWN_WORDS))}"
    return View("words", max(0.0, share_after - share_before), p_value, len(reference), len(current), text)


def _tokens(queries: list[str]) -> pl.Series:
    """Each query's distinct words, lower case: a list a query."""
    return pl.Series(queries, dtype=pl.String).str.to_lowercase().str.extract_all(r"\w+").list.unique()


def _new_words(queries: list[str], known: set[str]) -> pl.Series:
    return _tokens(queries).list.set_difference(pl.Series([sorted(known)], dtype=pl.List(pl.String)))
