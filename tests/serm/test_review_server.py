"""The page's server: what it answers, and that no other page, name or token gets in."""

import re
from collections.abc import Iterator

import pytest
from starlette.testclient import TestClient

from serm.review.desk import Desk
from serm.review.server import HEADERS, MOST_BODY_BYTES, application, review
from serm.workspace import Workspace
from tests.serm.review_space import fill

DECISION = {"query": "query 3", "doc_id": "d3", "grade": 2}


@pytest.fixture
def client(workspace: Workspace) -> Iterator[TestClient]:
    """A client that behaves like the page: it has read its token."""
    fill(workspace, 5)
    app = application(Desk(workspace, "eva"))
    with TestClient(app, base_url="http://127.0.0.1:8810") as client:
        token = re.search(r'name="serm-token" content="([^"]+)"', client.get("/").text)
        assert token is not None
        client.headers.update({"x-serm-token": token[1], "content-type": "application/json"})
        yield client


def test_the_page_and_its_files_carry_the_policy(client: TestClient) -> None:
    kinds = {
        "/": "text/html", "/review.css": "text/css", "/review.js": "text/javascript", "/review.svg": "image/svg+xml",
        "/api/state": "application/json", "/nowhere": "text/plain",
    }  # fmt: skip
    for path, kind in kinds.items():
        answer = client.get(path)
        assert answer.headers["content-type"].startswith(kind)
        assert {name: answer.headers[name] for name in HEADERS} == HEADERS
    page = client.get("/").text
    assert "http://" not in page
    assert "https://" not in page
    assert not re.search(r"<script(?![^>]*src=)|<style|\son\w+=|\sstyle=", page)


def test_pairs_come_in_pages_and_decisions_and_undo_are_told(client: TestClient, workspace: Workspace) -> None:
    state = client.get("/api/state").json()
    assert state["grades"][2] == {"grade": 2, "name": "good"}
    assert (state["reviewer"], state["split"], state["progress"]["left"]) == ("eva", "train", 5)
    pairs = client.get("/api/pairs?from=1&count=2").json()["pairs"]
    assert [(pair["place"], pair["doc_id"]) for pair in pairs] == [(1, "d3"), (2, "d2")]
    assert client.post("/api/decide", json=DECISION).json() == {
        "previous": None, "progress": {"total": 5, "done": 1, "others": 0, "left": 4},
    }  # fmt: skip
    assert client.post("/api/decide", json=DECISION).json()["previous"] == 2
    assert workspace.read("judgments").select("grade", "locale").rows() == [(2, "de")]
    assert client.get("/api/pairs?from=1&count=1").json()["pairs"][0]["grade"] == 2
    assert client.get("/api/next?after=0").json() == {"place": 2}
    assert client.post("/api/undo", json={"query": "query 3", "doc_id": "d3"}).json()["removed"] == 1
    assert workspace.read("judgments").is_empty()


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"host": "evil.example:8810"}, 403),
        ({"host": "127.0.0.1.evil.example"}, 403),
        ({"host": "localhost:9000"}, 200),
        ({"host": "[::1]:8810"}, 200),
        ({"host": "["}, 403),
        ({"origin": "https://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": "http://127.0.0.1:9999"}, 403),
        ({"origin": "http://127.0.0.1:8810"}, 200),
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"sec-fetch-site": "same-site"}, 403),
        ({"sec-fetch-site": "same-origin"}, 200),
        ({"x-serm-token": "guess"}, 403),
        ({"x-serm-token": ""}, 403),
        ({"content-type": "text/plain"}, 403),
        ({"content-type": "application/x-www-form-urlencoded"}, 403),
    ],
)
def test_only_the_page_itself_writes(
    client: TestClient, workspace: Workspace, headers: dict[str, str], status: int
) -> None:
    assert client.post("/api/decide", json=DECISION, headers=headers).status_code == status
    assert workspace.read("judgments").height == (status == 200)


def test_other_names_and_pages_read_nothing(client: TestClient) -> None:
    for headers in ({"host": "evil.example"}, {"origin": "https://evil.example"}):
        for path in ("/", "/api/pairs", "/api/state"):
            answer = client.get(path, headers=headers)
            assert answer.status_code == 403
            assert "query 3" not in answer.text
            assert "serm-token" not in answer.text


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ('{"query": "query 3", "doc_id": "d3", "grade": 9}', 400, "not on the scale"),
        ('{"query": "query 3", "doc_id": "d3", "grade": "2"}', 400, "grade"),
        ('{"query": "query 3", "doc_id": "d3", "grade": true}', 400, "grade"),
        ('{"query": "query 3", "doc_id": "d3"}', 400, "grade"),
        ('{"query": "query 3", "doc_id": "d3", "grade": 1, "judge": "ida"}', 400, "judge"),
        ('{"query": "query 9", "doc_id": "d3", "grade": 1}', 409, "not in the queue"),
        ("nonsense", 400, "JSON"),
        (" " * (MOST_BODY_BYTES + 1), 413, "longer"),
    ],
)
def test_wrong_requests_are_refused_in_words(
    client: TestClient, workspace: Workspace, body: str, status: int, words: str
) -> None:
    answer = client.post("/api/decide", content=body)
    assert answer.status_code == status
    assert words in answer.json()["error"]
    assert workspace.read("judgments").is_empty()


@pytest.mark.parametrize("query", ["from=x", "from=-1", "count=0", "count=x"])
def test_wrong_pages_are_refused(client: TestClient, query: str) -> None:
    assert client.get(f"/api/pairs?{query}").status_code == 400


def test_a_page_is_never_longer_than_fifty_pairs(workspace: Workspace) -> None:
    fill(workspace, 70)
    with TestClient(application(Desk(workspace, "eva")), base_url="http://localhost") as client:
        assert len(client.get("/api/pairs?count=1000").json()["pairs"]) == 50


def test_a_taken_port_and_a_wrong_split_are_named(workspace: Workspace) -> None:
    from serm.review.server import listen

    with listen(0) as taken:
        host, port = taken.getsockname()
        assert host == "127.0.0.1"
        with pytest.raises(ValueError, match="choose another --port"):
            review(workspace, "eva", port=port, browser=False)
    with pytest.raises(ValueError, match="train or dev only"):
        review(workspace, "eva", split="anchor", browser=False)
