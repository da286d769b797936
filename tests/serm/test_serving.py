"""The endpoint as its clients meet it: a real server in a process of its own, its answers checked against the model."""

import concurrent.futures
import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest

from serm import registry
from serm.relevance.model import expected_label
from serm.workspace import Workspace
from tests.serm.serving_space import Running, direct, make, serving

WORDS = ["red", "blue", "shoe", "hat", "running", "warm", "été", "靴", "night", "rain"]
SCALE = [0, 1, 2, 3]


@pytest.fixture(scope="module")
def space(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return make(tmp_path_factory.mktemp("serving"), SCALE, ("one", "two", "three", "broken"))


@pytest.fixture(scope="module")
def server(space: Workspace) -> Iterator[Running]:
    """One server for the tests that only ask."""
    with serving(space, "serving.max_documents=50", "serving.max_characters=150000") as running:
        yield running


def request(number: int) -> dict[str, object]:
    """A request of one to twelve documents that no other number has."""
    rng = np.random.default_rng(number)
    texts = [" ".join(rng.choice(WORDS, rng.integers(1, 30))) for _ in range(rng.integers(1, 13))]
    documents = [text if rng.random() < 0.5 else {"text": text, "id": 7} for text in texts]
    return {"query": f"shoe {' '.join(rng.choice(WORDS, 2))} {number}", "documents": documents}


def expected(space: Workspace, version: str, asked: dict[str, object]) -> np.ndarray:
    """f(q, d) of every document, scored directly."""
    texts = [d if isinstance(d, str) else d["text"] for d in asked["documents"]]
    probabilities = direct(space, version).probabilities([str(asked["query"])] * len(texts), texts)
    return expected_label(probabilities, SCALE)


def check(space: Workspace, asked: dict[str, object], body: dict[str, object]) -> None:
    """The answer is the named version's: all scores, best first."""
    want = expected(space, str(body["model"]), asked)
    got = {result["index"]: result["expected_label"] for result in body["results"]}
    assert sorted(got) == list(range(len(want)))
    np.testing.assert_allclose([got[row] for row in sorted(got)], want, atol=1e-4)
    shares = [result["relevance_score"] for result in body["results"]]
    assert shares == sorted(shares, reverse=True)
    np.testing.assert_allclose([got[r["index"]] / 3 for r in body["results"]], shares, atol=1e-6)


def test_an_answer_has_the_shape_of_other_rerankers(server: Running, space: Workspace) -> None:
    asked = request(1) | {"model": "rerank-v3.5", "truncation": True}
    for path in ("/rerank", "/v1/rerank", "/v2/rerank"):
        check(space, asked, httpx.post(server.url + path, json=asked).json())
    body = httpx.post(f"{server.url}/rerank", json=asked | {"top_n": 2, "return_documents": True}).json()
    whole = httpx.post(f"{server.url}/rerank", json=asked).json()
    texts = [d if isinstance(d, str) else d["text"] for d in asked["documents"]]
    assert [result["index"] for result in body["results"]] == [r["index"] for r in whole["results"]][:2]
    assert [result["document"]["text"] for result in body["results"]] == [texts[r["index"]] for r in body["results"]]
    assert "document" not in whole["results"][0]
    tokenizer = direct(space, "one").tokenizer
    count = sum(min(48, len(tokenizer.tokenize(text))) for text in [str(asked["query"]), *texts])
    assert body["usage"]["total_tokens"] == count
    assert body["model"] == "one"


def test_many_at_once_get_each_their_own(server: Running, space: Workspace) -> None:
    asked = [request(number) for number in range(60)]
    with httpx.Client() as client, concurrent.futures.ThreadPoolExecutor(16) as pool:
        bodies = list(pool.map(lambda one: client.post(f"{server.url}/rerank", json=one).json(), asked))
    for one, body in zip(asked, bodies, strict=True):
        check(space, one, body)
    assert len({body["id"] for body in bodies}) == 60
    page = httpx.get(f"{server.url}/metrics").text
    batches = float(next(line for line in page.splitlines() if line.startswith("serm_batch_pairs_count")).split()[1])
    answers = float(next(line for line in page.splitlines() if 'serm_requests_total{status="200"}' in line).split()[1])
    assert answers >= 60
    assert batches < answers  # some were scored together


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        (b"{", 422, "not JSON"), (b"[]", 422, "request"), (b"\xff\xfe", 422, "not JSON"),
        (b'{"query": "a", "documents": ["\\ud800"]}', 422, "not JSON"),
        ({"documents": ["a"]}, 422, "query"), ({"query": "a"}, 422, "documents"),
        ({"query": " ", "documents": ["a"]}, 422, "query: it is empty"),
        ({"query": 3, "documents": ["a"]}, 422, "query"),
        ({"query": "a", "documents": []}, 422, "documents"), ({"query": "a", "documents": "b"}, 422, "documents"),
        ({"query": "a", "documents": ["b", {"title": "c"}]}, 422, "documents.1"),
        ({"query": "a", "documents": ["b", None]}, 422, "documents.1"),
        ({"query": "a", "documents": ["b"], "top_n": 0}, 422, "top_n"),
        ({"query": "a", "documents": ["b"], "top_n": "3"}, 422, "top_n"),
        ({"query": "a", "documents": ["b"] * 51}, 413, "51 are more than 50"),
        ({"query": "a", "documents": ["b" * 80_000] * 2}, 413, "more than 150,000"),
        (b" " * 2_000_000, 413, "longer than"),
    ],
)  # fmt: skip
def test_bad_requests_are_told_why(server: Running, body: object, status: int, words: str) -> None:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    answer = httpx.post(f"{server.url}/rerank", content=content)
    assert answer.status_code == status, answer.text
    assert words in answer.json()["detail"]
    assert answer.json()["error_type"] in ("validation", "too_large")


def test_odd_texts_are_scored(server: Running, space: Workspace) -> None:
    asked = {"query": "shoe", "documents": ["", " ", "x" * 100_000, "\u0000", "🦜", "red shoe"]}
    check(space, asked, httpx.post(f"{server.url}/rerank", json=asked).json())
    assert httpx.get(f"{server.url}/rerank").status_code == 405
    assert server.health()["status"] == "ok"


def test_a_promotion_in_traffic_mixes_nothing_and_a_broken_champion_is_not_taken(tmp_path: Path) -> None:
    space = make(tmp_path, SCALE, ("one", "two", "broken", "headless"))
    weights = registry.folder(space, "broken") / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:5_000])
    (registry.folder(space, "headless") / "model.safetensors").unlink()
    asked = [request(number) for number in range(40)]
    with (
        serving(space) as server,
        httpx.Client() as client,
        concurrent.futures.ThreadPoolExecutor(8) as pool,
    ):
        seen: list[tuple[dict[str, object], dict[str, object]]] = []

        def ask_until(done: dict[str, str]) -> None:
            until = time.monotonic() + 30
            while True:
                answers = list(pool.map(lambda one: client.post(f"{server.url}/rerank", json=one), asked))
                assert [answer.status_code for answer in answers] == [200] * len(asked)
                seen.extend(zip(asked, [answer.json() for answer in answers], strict=True))
                health = server.health()
                if all(health[name] == value for name, value in done.items()):
                    return
                assert time.monotonic() < until, health

        ask_until({"model": "one"})
        registry.promote(space, "two", "better")
        ask_until({"model": "two", "status": "ok"})
        for broken in ("broken", "headless"):
            registry.promote(space, broken, "a mistake")
            ask_until({"model": "two", "champion": broken, "status": "degraded"})
            assert broken in str(server.health()["problem"])
        assert "serm_champion_stale 1.0" in httpx.get(f"{server.url}/metrics").text
        registry.promote(space, "one", "mended")
        ask_until({"model": "one", "status": "ok", "problem": None})
        assert server.end() == 0
    models = {version: direct(space, version) for version in ("one", "two")}
    versions = [str(body["model"]) for _, body in seen]
    assert set(versions) == {"one", "two"}
    for version, model in models.items():  # all pairs of a version in one go: loading it for each answer takes long
        pairs = [
            (str(one["query"]), d if isinstance(d, str) else d["text"], result["expected_label"])
            for one, body in seen
            if body["model"] == version
            for d, result in zip(
                one["documents"], sorted(body["results"], key=lambda result: result["index"]), strict=True
            )
        ]
        known = sorted({pair[:2] for pair in pairs})
        scores = expected_label(model.probabilities(*map(list, zip(*known, strict=True))), SCALE)
        want = dict(zip(known, scores, strict=True))
        np.testing.assert_allclose([pair[2] for pair in pairs], [want[pair[:2]] for pair in pairs], atol=1e-4)


def test_a_full_queue_asks_to_come_back_and_a_key_is_demanded(space: Workspace) -> None:
    sets = ("serving.queue_pairs=50", "serving.max_documents=50", "serving.batch_pairs=50", "serving.wait_ms=300")
    asked = {"query": "shoe", "documents": ["a " * 2_000] * 40}
    with serving(space, *sets, key="secret ключ") as server:
        url = f"{server.url}/rerank"
        assert httpx.post(url, json=asked).status_code == 401
        assert httpx.post(url, json=asked, headers={"Authorization": "Bearer wrong"}).status_code == 401
        headers = {"Authorization": "Bearer secret ключ".encode()}
        with httpx.Client(headers=headers) as client, concurrent.futures.ThreadPoolExecutor(12) as pool:
            answers = list(pool.map(lambda _: client.post(url, json=asked, timeout=60), range(12)))
        statuses = [answer.status_code for answer in answers]
        assert set(statuses) == {200, 503}
        for answer in answers:
            if answer.status_code == 503:
                assert int(answer.headers["retry-after"]) >= 1
                assert answer.json()["error_type"] == "overloaded"
            else:
                assert len(answer.json()["results"]) == 40
        assert server.health()["queue_pairs"] == 0


def test_a_late_answer_is_given_up_and_what_waits_is_answered_before_the_end(space: Workspace) -> None:
    asked = {"query": "shoe", "documents": ["a " * 200] * 40}
    with serving(space, "serving.wait_ms=1000", "serving.request_seconds=0.1") as server:
        late = httpx.post(f"{server.url}/rerank", json=asked)
        assert late.status_code == 504
        assert late.json()["error_type"] == "timeout"
    with serving(space, "serving.wait_ms=1000") as server:
        with concurrent.futures.ThreadPoolExecutor(6) as pool:
            waiting = [pool.submit(httpx.post, f"{server.url}/rerank", json=asked, timeout=60) for _ in range(6)]
            while server.health()["queue_pairs"] != 240:
                time.sleep(0.02)
            code = server.end()
            assert [one.result().status_code for one in waiting] == [200] * 6
        assert code == 0
        with pytest.raises(httpx.ConnectError):
            server.health()


def test_what_cannot_be_served_is_said_before_it_starts(space: Workspace, tmp_path: Path) -> None:
    from serm.serving.server import serve

    empty = Workspace.create(tmp_path / "empty", "seed: 0\n")
    with pytest.raises(ValueError, match="no champion yet"):
        serve(empty, port=0)
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(ValueError, match="choose another --port"):
        serve(space, port=taken.getsockname()[1])
