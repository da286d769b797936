"""Make the demo collection: an invented shop, its product pages over ten years, and graded searches in four languages.

    python data/make_demo.py [folder]

Every (year, language) has an assortment: some product types, each as a dozen products that share few colours, features
and brands. A search is made from one product of its year: its type and two or three of its properties. The grade of any
other product follows from its properties alone (see `grade`). From 2021 on people search with new words for old needs
("glimmer" for reflective) that no product page uses, so a model that learned on earlier searches must learn them.
Everything follows from the seed; the same seed gives the same rows.
"""

import random
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import yaml

HERE = Path(__file__).resolve().parent
YEARS = range(2016, 2026)
NEW_WORDS_FROM = 2021


@dataclass(frozen=True)
class Size:
    """How much to make for every (year, language)."""

    types: int = 8
    products: int = 12  # of each type
    searches: int = 52


@dataclass(frozen=True)
class Product:
    """One document and the properties that its text expresses."""

    doc_id: str
    year: int
    language: int  # index into the vocabulary's languages
    type: str
    category: str
    properties: frozenset[tuple[str, str]]  # (colour | feature | brand | use, value)
    title: str
    description: str


@dataclass(frozen=True)
class Search:
    """One query and what it asks for."""

    text: str
    year: int
    language: int
    type: str
    asked: frozenset[tuple[str, str]]


def grade(search: Search, product: Product, categories: dict[str, str]) -> int:
    """How well a product answers a search: 0 bad, 1 fair, 2 good, 3 excellent.

    3: the type and everything asked. 2: the type and at least half of what is asked. 1: the type with less, or another
    type of the same category with at least half. 0: everything else.
    """
    share = len(search.asked & product.properties) / len(search.asked)
    if search.type == product.type:
        return 3 if share == 1 else 2 if share >= 0.5 else 1
    return int(categories[search.type] == product.category and share >= 0.5)


def make(size: Size, seed: int = 0) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The documents and the judgments."""
    words: dict[str, Any] = yaml.safe_load((HERE / "demo_vocabulary.yaml").read_text(encoding="utf-8"))
    draw = random.Random(seed)
    products: list[Product] = []
    for year in YEARS:
        for language in range(len(words["languages"])):
            products += assortment(words, draw, size, year, language, first=len(products))
    searches = make_searches(words, draw, size, products)
    return _documents(words, products), _judgments(words, draw, products, searches)


# --- products -------------------------------------------------------------------------------------------------------


def assortment(
    words: dict[str, Any], draw: random.Random, size: Size, year: int, language: int, first: int
) -> Iterator[Product]:
    """The products that are new in a year, in one language."""
    brands = [brand for brand, since in words["brands"].items() if since <= year]
    kinds = draw.sample(sorted(words["types"]), size.types)
    number = first
    for kind in kinds:
        colours = draw.sample(sorted(words["colours"]), 3)
        features = draw.sample(words["types"][kind]["features"], 4)
        makers = draw.sample(brands[-6:], 3)
        uses = draw.sample(sorted(words["uses"]), 2)
        for _ in range(size.products):
            chosen = [("colour", draw.choice(colours)), ("brand", draw.choice(makers))]
            chosen += [("feature", feature) for feature in draw.sample(features, draw.choice((2, 2, 3)))]
            if draw.random() < 0.6:
                chosen.append(("use", draw.choice(uses)))
            number += 1
            yield _product(words, draw, f"p{number:05d}", year, language, kind, chosen)


def _product(
    words: dict[str, Any], draw: random.Random, doc_id: str, year: int, language: int, kind: str,
    properties: list[tuple[str, str]],
) -> Product:  # fmt: skip
    category = words["types"][kind]["category"]
    name = words["types"][kind]["name"][language]
    brand = dict(properties)["brand"]
    colour = words["colours"][dict(properties)["colour"]][language]
    if words["languages"][language] == "de":
        colour = colour.capitalize()
    opening = draw.choice(words["openings"])[language]
    sentences = []
    for field, value in properties:
        if field == "feature" and draw.random() < 0.25:
            sentences.append(words["literal"][language].format(word=words["features"][value]["word"][language]))
        elif field == "feature":
            sentences.append(draw.choice(words["features"][value]["pages"])[language])
        elif field == "use":
            sentences.append(draw.choice(words["use_sentences"])[language].format(use=words["uses"][value][language]))
    draw.shuffle(sentences)
    filled = opening.format(name=name, colour=colour, material=words["materials"][category][language])
    filled = filled[0].upper() + filled[1:]
    title = f"{brand} {draw.choice(words['models'])} {draw.randint(1, 9)} – {name}"
    return Product(doc_id, year, language, kind, category, frozenset(properties), title, " ".join([filled, *sentences]))


# --- searches -------------------------------------------------------------------------------------------------------


def make_searches(words: dict[str, Any], draw: random.Random, size: Size, products: list[Product]) -> list[Search]:
    """Searches of every year and language; no text twice, so that a query has one year and one language."""
    taken: set[str] = set()
    searches: list[Search] = []
    for year in YEARS:
        for language in range(len(words["languages"])):
            here = [product for product in products if (product.year, product.language) == (year, language)]
            made = 0
            for _ in range(size.searches * 40):
                if made == size.searches:
                    break
                search, new_words = _search(words, draw, draw.choice(here))
                wanted = year < NEW_WORDS_FROM or new_words > 0 or draw.random() < 0.1
                if wanted and search.text not in taken:
                    taken.add(search.text)
                    searches.append(search)
                    made += 1
    return searches


def _search(words: dict[str, Any], draw: random.Random, target: Product) -> tuple[Search, int]:
    """A search that `target` answers in full, and how many new words it uses."""
    language, year = target.language, target.year
    features = sorted(p for p in target.properties if p[0] == "feature")
    others = sorted(p for p in target.properties if p[0] != "feature")
    asked = [draw.choice(features)]
    rest = [p for p in features if p not in asked] + others
    asked += draw.sample(rest, draw.choice((1, 1, 2)))
    said, new_words = [], 0
    for field, value in asked:
        slang = _slang(words["slang"]["features"], value, year) if field == "feature" else None
        if slang and draw.random() < 0.85:
            said.append(slang)
            new_words += 1
        elif field == "feature":
            said.append(words["features"][value]["word"][language])
        else:
            said.append(value if field == "brand" else words[f"{field}s"][value][language])
    name = words["types"][target.type]["name"][language]
    slang = _slang(words["slang"]["types"], target.type, year)
    if slang and draw.random() < 0.75:
        name = slang
        new_words += 1
    uses = [text for text, (field, _) in zip(said, asked, strict=True) if field == "use"]
    before = [text for text, (field, _) in zip(said, asked, strict=True) if field != "use"]
    draw.shuffle(before)
    english = words["languages"][language] == "en"
    parts = [*before, name, *uses] if english or draw.random() < 0.2 else [name, *before, *uses]
    return Search(" ".join(parts).lower(), year, language, target.type, frozenset(asked)), new_words


def _slang(terms: dict[str, dict[str, Any]], meaning: str, year: int) -> str | None:
    """The new word for a meaning, once it has appeared."""
    return next((word for word, term in terms.items() if term["means"] == meaning and term["year"] <= year), None)


# --- tables ---------------------------------------------------------------------------------------------------------


def _documents(words: dict[str, Any], products: list[Product]) -> pl.DataFrame:
    return pl.DataFrame(
        [
            {
                "doc_id": product.doc_id, "title": product.title, "description": product.description,
                "category": words["categories"][product.category][product.language],
                "language": words["languages"][product.language], "year": product.year,
            }
            for product in products
        ]
    )  # fmt: skip


def _judgments(
    words: dict[str, Any], draw: random.Random, products: list[Product], searches: list[Search]
) -> pl.DataFrame:
    """For every search up to 4 products of each grade, and of grade 0 half that share words with it.

    Judged are products of the search's language that existed in its year; the excellent ones are new in that year, so
    that a search's year can be read off them (a product of another year that would be excellent stays unjudged).
    """
    categories = {kind: entry["category"] for kind, entry in words["types"].items()}
    rows = []
    for search in searches:
        pool: dict[int, list[Product]] = {0: [], 1: [], 2: [], 3: []}
        for product in products:
            if product.language == search.language and product.year <= search.year:
                level = grade(search, product, categories)
                if level < 3 or product.year == search.year:
                    pool[level].append(product)
        near = [product for product in pool[0] if search.asked & product.properties]
        judged = [
            (product, level) for level in (3, 2, 1) for product in draw.sample(pool[level], min(4, len(pool[level])))
        ]
        chosen = draw.sample(near, min(2, len(near))) + draw.sample(pool[0], min(4, len(pool[0])))
        judged += [(product, 0) for product in dict.fromkeys(chosen)]
        locale = words["languages"][search.language]
        rows += [
            {"query": search.text, "doc_id": product.doc_id, "grade": level, "locale": locale}
            for product, level in judged
        ]
    return pl.DataFrame(rows)


def main(folder: Path) -> None:
    """Write documents.parquet and judgments.parquet."""
    folder.mkdir(parents=True, exist_ok=True)
    documents, judgments = make(Size())
    documents.write_parquet(folder / "documents.parquet", compression="zstd")
    judgments.write_parquet(folder / "judgments.parquet", compression="zstd")
    queries = judgments["query"].n_unique()
    print(f"{folder}: {documents.height} documents, {queries} searches, {judgments.height} judgments")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE / "demo")
