"""The demo collection: made again alike, graded by its own rule, and drifting as its README says."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import polars as pl
import pytest
import yaml
from polars.testing import assert_frame_equal

from serm.ingest import ingest
from serm.workspace import Workspace

DATA = Path(__file__).resolve().parents[2] / "data"
DOCUMENTS = pl.read_parquet(DATA / "demo" / "documents.parquet")
JUDGMENTS = pl.read_parquet(DATA / "demo" / "judgments.parquet")
WORDS = yaml.safe_load((DATA / "demo_vocabulary.yaml").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_demo", DATA / "make_demo.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["make_demo"] = module
    spec.loader.exec_module(module)
    return module


def test_the_files_are_what_the_generator_makes(generator: ModuleType) -> None:
    documents, judgments = generator.make(generator.Size())
    assert_frame_equal(documents, DOCUMENTS)
    assert_frame_equal(judgments, JUDGMENTS)


def test_another_seed_is_another_collection(generator: ModuleType) -> None:
    small = generator.Size(types=2, products=4, searches=2)
    assert generator.make(small, seed=1)[0].equals(generator.make(small, seed=1)[0])
    assert not generator.make(small, seed=1)[0].equals(generator.make(small, seed=2)[0])


def test_grades_by_hand(generator: ModuleType) -> None:
    def product(kind: str, category: str, *properties: tuple[str, str]) -> object:
        return generator.Product("p", 2020, 0, kind, category, frozenset(properties), "", "")

    red, dry, kids = ("colour", "red"), ("feature", "waterproof"), ("use", "kids")
    search = generator.Search("", 2020, 0, "tent", frozenset({red, dry, kids}))
    categories = {"tent": "outdoor"}
    expected = [
        (3, product("tent", "outdoor", red, dry, kids, ("feature", "solar"))),
        (2, product("tent", "outdoor", red, dry)),
        (1, product("tent", "outdoor", red)),
        (1, product("tent", "outdoor")),
        (1, product("chair", "outdoor", red, dry)),
        (0, product("chair", "outdoor", red)),
        (0, product("kettle", "kitchen", red, dry, kids)),
    ]
    assert [generator.grade(search, each, categories) for _, each in expected] == [level for level, _ in expected]


def test_size_and_grades() -> None:
    assert sum(path.stat().st_size for path in (DATA / "demo").glob("*.parquet")) <= 5_000_000
    assert 3_000 <= DOCUMENTS.height <= 4_000
    assert DOCUMENTS["doc_id"].is_unique().all()
    per_query = JUDGMENTS.group_by("query").agg(
        pl.len(), pl.col("grade").n_unique().alias("grades"), pl.col("locale").n_unique()
    )
    assert 1_500 <= per_query.height <= 2_500
    assert per_query["len"].is_between(10, 20).mean() > 0.95  # type: ignore[operator]
    assert (per_query["grades"] == 4).mean() > 0.95  # type: ignore[operator]
    assert per_query["locale"].max() == 1
    assert set(JUDGMENTS["locale"].unique()) == {"en", "de", "es", "fr"}


def test_a_search_has_the_year_of_its_best_products_and_new_words_come_later() -> None:
    judged = JUDGMENTS.join(DOCUMENTS, on="doc_id", validate="m:1")
    assert judged.height == JUDGMENTS.height
    years = judged.filter(pl.col("grade") == 3).group_by("query").agg(
        pl.col("year").n_unique().alias("n"), pl.col("year").first().alias("arrival")
    )  # fmt: skip
    assert years.height == JUDGMENTS["query"].n_unique()
    assert years["n"].max() == 1
    assert (judged.join(years, on="query").select((pl.col("year") <= pl.col("arrival")).all())).item()
    slang = {**WORDS["slang"]["features"], **WORDS["slang"]["types"]}
    words = years.with_columns(pl.col("query").str.split(" ")).explode("query")
    first = dict(
        words.filter(pl.col("query").is_in(list(slang))).group_by("query").agg(pl.col("arrival").min()).iter_rows()
    )
    assert set(first) == set(slang)
    assert all(first[word] >= term["year"] for word, term in slang.items())
    with_slang = years.with_columns(
        pl.col("query").str.split(" ").list.set_intersection(list(slang)).list.len().alias("n")
    )
    assert with_slang.filter(pl.col("arrival") >= 2021).select((pl.col("n") > 0).mean()).item() > 0.8
    pages = DOCUMENTS.select(pl.concat_str("title", "description", separator=" ").str.to_lowercase().alias("text"))
    for word in slang:
        assert not pages["text"].str.contains(rf"\b{word}\b").any(), word


def test_the_folder_ingests_whole(workspace: Workspace) -> None:
    summary = ingest(workspace, [str(DATA / "demo")])
    assert (summary.added, summary.quarantined) == (DOCUMENTS.height + JUDGMENTS.height, 0)
    first = workspace.read("documents").filter(pl.col("doc_id") == DOCUMENTS["doc_id"][0])
    page = DOCUMENTS.row(0, named=True)
    assert first["text"][0].splitlines()[0] == first["title"][0] == page["title"]
    assert first["attributes"][0] == f'{{"year":{page["year"]}}}'
    assert first["locale"][0] == page["language"]
