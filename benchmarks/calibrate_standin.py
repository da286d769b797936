"""Measure how strong real LLM judges err: the constants of serm/simulate/judges.py, printed.

    python benchmarks/calibrate_standin.py ../shared/data/judges/llmjudge_scores.parquet

Takes the LLMJudge benchmark's table (human_grade and one llm_* column per judge, grades 0..3). The latent correlation
of two judges is polychoric, given the assessor's grade: of all bivariate normals whose marginals are the judges' own
confusion rows, the likeliest. That is how the stand-in uses it.
"""

import argparse
from itertools import combinations
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.stats import multivariate_normal, norm

# Like the paper's annotators, two strong LLMs of different makers: of all judges built on GPT-4o and of all built on
# Llama 3, the best by balanced accuracy on "relevant at all" (grade 1 and up). Exact accuracy would favour judges that
# rarely say anything but 0, which are of no use where relevant pairs are what is looked for.
JUDGES = ("Olz-gpt4o", "RMITIR-llama70B")
RERUNS = (
    ("NISTRetrieval-instruct0", "NISTRetrieval-instruct1", "NISTRetrieval-instruct2"),
    ("NISTRetrieval-reason0", "NISTRetrieval-reason1", "NISTRetrieval-reason2"),
)
GRADES = 4
Grades = NDArray[np.int64]


def counts(rows: Grades, columns: Grades) -> NDArray[np.float64]:
    """Pairs by grade in `rows` and grade in `columns`; shape (4, 4)."""
    table = np.zeros((GRADES, GRADES))
    np.add.at(table, (rows, columns), 1)
    return table


def confusion(truth: Grades, answers: Grades) -> NDArray[np.float64]:
    """P(answer | truth); shape (4, 4), rows sum to 1."""
    table = counts(truth, answers)
    return np.asarray(table / table.sum(axis=1, keepdims=True))


def latent_correlation(truth: Grades, one: Grades, other: Grades) -> float:
    """The polychoric correlation of two judges' answers given the truth."""

    def edges(row: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.clip(norm.ppf(np.clip(np.append(0, np.cumsum(row)), 0, 1)), -8, 8)

    tables = [counts(one[truth == g], other[truth == g]) for g in range(GRADES)]
    cuts = [(edges(a), edges(b)) for a, b in zip(confusion(truth, one), confusion(truth, other), strict=True)]

    def cost(rho: float) -> float:
        total = 0.0
        for table, (rows, columns) in zip(tables, cuts, strict=True):
            grid = np.stack(np.meshgrid(rows, columns, indexing="ij"), axis=-1)
            below = multivariate_normal.cdf(grid, cov=np.array([[1, rho], [rho, 1]]))
            cells = np.diff(np.diff(below, axis=0), axis=1)
            total -= float((table * np.log(np.clip(cells, 1e-12, None))).sum())
        return total

    return float(minimize_scalar(cost, bounds=(-0.5, 0.9999), method="bounded", options={"xatol": 1e-3}).x)


def main() -> None:
    """Read the table named on the command line and print the constants."""
    parser = argparse.ArgumentParser(description="Measure the stand-in's constants on real LLM judges.")
    parser.add_argument("scores", type=Path, help="llmjudge_scores.parquet")
    table = pl.read_parquet(parser.parse_args().scores)
    on_scale = pl.all_horizontal(pl.col(f"llm_{name}").is_between(0, GRADES - 1) for name in JUDGES)
    print(f"pairs left out because a judge's grade is off the scale: {table.filter(~on_scale).height}")
    table = table.filter(on_scale)
    truth = table["human_grade"].to_numpy()
    answers = {name: table[f"llm_{name}"].to_numpy() for name in (*JUDGES, *(run for runs in RERUNS for run in runs))}

    matrix = np.mean([confusion(truth, answers[name]) for name in JUDGES], axis=0)
    print("CONFUSION, rows by the assessor's grade:")
    for row in matrix.round(3):
        print("   ", ", ".join(f"{value:.3f}" for value in row))
    print("GRADE_COUNTS:", np.bincount(truth, minlength=GRADES).tolist())

    found = []
    for one, other in combinations(JUDGES, 2):
        a, b = answers[one], answers[other]
        found.append(latent_correlation(truth, a, b))
        same, right, right_too = a == b, a == truth, b == truth
        print(
            f"{one} and {other}: latent correlation {found[-1]:.3f}, agree on {same.mean():.1%}, "
            f"then right on {right[same].mean():.1%} (alone {right.mean():.1%}, {right_too.mean():.1%})"
        )
    print(f"CORRELATION: {np.mean(found):.2f}")
    for runs in RERUNS:
        for one, other in combinations(runs, 2):
            rho = latent_correlation(truth, answers[one], answers[other])
            print(f"{one} and {other}: {(answers[one] != answers[other]).mean():.2%} differ, correlation {rho:.4f}")


if __name__ == "__main__":
    main()
