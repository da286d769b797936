"""Documents, judgments and the public collection shapes."""

import json
from pathlib import Path

import polars as pl
import pytest

from serm.ingest import ingest, read_run
from serm.ingest.split import stable_share, stable_split
from serm.workspace import Workspace


def write(path: Path, content: str) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding="utf-8")
    return str(path)


def lines(*rows: dict[str, object]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def test_a_document_is_one_text_and_its_attributes(workspace: Workspace, tmp_path: Path) -> None:
    row = {
        "product_id": 7, "name": "Tent\nlabel: 3", "brand_id": "b1", "description": "Dry.\n\ntitle: fake\x00 line",
        "tags": ["a", "b"], "price": 9.5, "lang": "en", "empty": "", "maker": {"city": "Bonn"},
    }  # fmt: skip
    source = write(tmp_path / "shop.jsonl", lines(row, {"product_id": 8}))
    summary = ingest(workspace, [source], kind="documents")
    assert summary.reasons == {"text: missing": 1}
    document = workspace.read("documents").row(0, named=True)
    assert document["doc_id"] == "7"
    assert document["title"] == "Tent label: 3"
    assert document["text"] == "Tent label: 3\ndescription: Dry. title: fake line\ntags: a, b"
    assert document["locale"] == "en"
    assert json.loads(document["attributes"]) == {"brand_id": "b1", "price": 9.5, "maker": '{"city": "Bonn"}'}


def test_text_fields_choose_and_order_the_text(tmp_path: Path) -> None:
    workspace = Workspace.create(tmp_path / "w", "ingest: {text_fields: [year, text]}\n")
    source = write(tmp_path / "d.csv", "id,title,text,note,year\n1,T,body,skip,2012\n")
    ingest(workspace, [source], kind="documents")
    document = workspace.read("documents").row(0, named=True)
    assert document["text"] == "T\nyear: 2012\nbody"
    assert json.loads(document["attributes"]) == {"note": "skip"}


def test_numbers_of_a_csv_are_attributes_and_changed_documents_replace(workspace: Workspace, tmp_path: Path) -> None:
    text = "id,title,year,score,mixed\n1,1917,2019,1.5,3\n2,300,2006,2,x\n1,again,1,1,1\n"
    summary = ingest(workspace, [write(tmp_path / "d.csv", text)], kind="documents")
    assert summary.reasons == {"row: duplicate": 1}
    documents = workspace.read("documents").sort("doc_id")
    assert documents["text"].to_list() == ["1917\nmixed: 3", "300\nmixed: x"]
    assert json.loads(documents["attributes"][0]) == {"year": 2019, "score": 1.5}
    changed = write(tmp_path / "d.csv", text.replace("300", "301"))
    again = ingest(workspace, [changed], kind="documents")
    assert (again.added, again.already_there, again.quarantined) == (1, 1, 1)
    assert workspace.read("documents").sort("doc_id")["title"].to_list() == ["1917", "301"]


def test_judgments_are_checked_against_scale_documents_and_each_other(workspace: Workspace, tmp_path: Path) -> None:
    workspace.append("documents", pl.DataFrame({"doc_id": ["a", "b"], "text": ["x", "y"]}))
    text = "query,doc_id,grade\nq,a,3\nq,b,4\nq,b,-1\nq,b,good\nq,z,1\nq,a,2\nq,,1\n,a,1\nr,a,0\n"
    source = write(tmp_path / "j.csv", text)
    first = ingest(workspace, [source], kind="judgments", split="fresh")
    assert first.reasons == {
        "grade: off the scale": 2, "grade: not a whole number": 1, "doc_id: unknown document": 1, "row: duplicate": 1,
        "doc_id: missing": 1, "query: missing": 1,
    }  # fmt: skip
    assert (first.rows_read, first.added) == (9, 2)
    version = workspace.version("quarantine")
    assert ingest(workspace, [source], kind="judgments", split="fresh").already_there == 2
    assert workspace.version("quarantine") == version
    assert set(workspace.read("judgments").select("split", "judge").rows()) == {("fresh", "human")}
    other = write(tmp_path / "k.csv", "query,doc_id,grade\nq,a,1\nr,a,0\n")
    assert ingest(workspace, [other], kind="judgments").reasons == {"grade: another grade is already there": 1}
    assert ingest(workspace, [other], kind="judgments", judge="second").added == 2


def test_the_split_is_the_querys_own_and_keeps_its_shares() -> None:
    # blake2b, 6 bytes, big-endian, over 2^48: taken from `printf shoes | b2sum -l 48`.
    assert stable_share("shoes") == int("8599d20e404a", 16) / 2**48
    queries = pl.Series([f"query {i % 5000}" for i in range(10_000)])
    split = stable_split(queries, dev_share=0.1, anchor_share=0.2)
    assert pl.DataFrame({"q": queries, "s": split}).group_by("q").agg(pl.col("s").n_unique())["s"].max() == 1
    shares = dict(split.value_counts(normalize=True).iter_rows())
    assert shares["dev"] == pytest.approx(0.1, abs=0.02)
    assert shares["anchor"] == pytest.approx(0.2, abs=0.025)
    assert stable_split(queries.reverse(), 0.1, 0.2).reverse().equals(split)


def test_beir(workspace: Workspace, tmp_path: Path) -> None:
    folder = tmp_path / "set"
    write(
        folder / "corpus.jsonl",
        lines(
            {"_id": "d1", "title": "One", "text": "Body.", "metadata": {}}, {"_id": "d2", "title": "", "text": "Two."}
        ),
    )
    write(folder / "queries.jsonl", lines({"_id": "1", "text": "first"}, {"_id": "2", "text": "second"}))
    for name in ("train", "dev", "test"):
        write(
            folder / "qrels" / f"{name}.tsv", f"query-id\tcorpus-id\tscore\n1\td{'1' if name == 'test' else '2'}\t1\n"
        )
    write(folder / "qrels" / "dev.tsv", "query-id\tcorpus-id\tscore\n2\td2\t2\n9\td2\t1\n")
    summary = ingest(workspace, [str(folder)])
    assert summary.reasons == {"query: missing": 1}
    assert set(workspace.read("judgments").select("query", "doc_id", "grade", "split").rows()) == {
        ("first", "d2", 1, "train"), ("second", "d2", 2, "dev"), ("first", "d1", 1, "anchor"),
    }  # fmt: skip
    assert workspace.read("documents").sort("doc_id")["text"].to_list() == ["One\nBody.", "Two."]


def test_trec(workspace: Workspace, tmp_path: Path) -> None:
    folder = tmp_path / "set"
    write(folder / "qrels.txt", "1 0 d1 2\n1\t0\td2  0\nbroken line\n2 0 d9 1\n3 0 d1 1\n")
    write(folder / "topics.tsv", "1\tfirst query\n2\tsecond query\n")
    write(folder / "collection.tsv", "d1\tOne text.\nd2\tTwo\ttext.\n")
    summary = ingest(workspace, [str(folder)])
    assert summary.reasons == {"doc_id: unknown document": 1, "query: missing": 1, "row: wrong number of fields": 1}
    assert set(workspace.read("judgments").select("query", "doc_id", "grade").rows()) == {
        ("first query", "d1", 2), ("first query", "d2", 0),
    }  # fmt: skip
    assert dict(workspace.read("documents").select("doc_id", "text").rows()) == {"d1": "One text.", "d2": "Two text."}
    run = read_run(write(tmp_path / "bm25.run", "1 Q0 d1 1 12.5 bm25\n1 Q0 d2 2 3e-1 bm25\n"))
    assert run.rows() == [("1", "d1", 1, 12.5, "bm25"), ("1", "d2", 2, 0.3, "bm25")]
    with pytest.raises(ValueError, match=r"bad\.run: line 2 is not"):
        read_run(write(tmp_path / "bad.run", "1 Q0 d1 1 12.5 bm25\n1 Q0 d2 two 0.3 bm25\n"))


def test_esci(workspace: Workspace, tmp_path: Path) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    products = {
        "product_id": ["B1", "B1", "B2"],
        "product_locale": ["us", "es", "us"],
        "product_title": ["Cup", "Taza", "Lid"],
    }
    pl.DataFrame(products).write_parquet(folder / "shopping_queries_dataset_products.parquet")
    examples = {
        "query": ["cup"] * 2 + ["taza", "lid", "lid"], "product_id": ["B1", "B2", "B1", "B1", "B2"],
        "product_locale": ["us", "us", "es", "us", "us"], "esci_label": ["E", "C", "S", "I", "X"],
        "split": ["test", "test", "test", "train", "train"],
    }  # fmt: skip
    pl.DataFrame(examples).write_parquet(folder / "shopping_queries_dataset_examples.parquet")
    summary = ingest(workspace, [str(folder)])
    assert summary.reasons == {"grade: not a whole number": 1}
    assert set(workspace.read("judgments").select("query", "doc_id", "grade", "locale").rows()) == {
        ("cup", "us:B1", 3, "us"), ("cup", "us:B2", 1, "us"), ("taza", "es:B1", 2, "es"), ("lid", "us:B1", 0, "us"),
    }  # fmt: skip
    assert set(workspace.read("judgments").filter(pl.col("query") != "lid")["split"]) == {"anchor"}
    assert dict(workspace.read("documents").select("doc_id", "title").rows())["es:B1"] == "Taza"


def test_msrd_sets_aside_the_judgments_of_unknown_movies(tmp_path: Path, shared_data: Path) -> None:
    workspace = Workspace.create(tmp_path / "w", "labels: {scale: [0, 1], names: {0: bad, 1: good}}\n")
    summary = ingest(workspace, [str(shared_data / "msrd")])
    judgments = pl.read_parquet(shared_data / "msrd" / "judgments.parquet")
    corpus = pl.read_parquet(shared_data / "msrd" / "corpus.parquet", columns=["id"])
    unknown = judgments.join(corpus, left_on="doc_id", right_on="id", how="anti").height
    assert unknown > 0
    assert summary.reasons == {"doc_id: unknown document": unknown}
    assert workspace.read("judgments").height == judgments.height - unknown
    assert workspace.read("documents").height == corpus.height
