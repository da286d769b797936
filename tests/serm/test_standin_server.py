"""The stand-in as a server: asked by the real openai client over loopback, and by hand where that is in the way."""

import json
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import numpy as np
import openai
import polars as pl
import pytest
from starlette.testclient import TestClient

from serm.config import SimulateLLMSettings
from serm.simulate import StandIn
from serm.simulate.llm_server import Server, llm_server, running
from serm.workspace import Workspace

SCALE = [0, 1, 2, 3]
LONG = "why " * 200 + "?"
JUDGMENTS = pl.DataFrame(
    {"query": ["red fish"] * 4 + [LONG], "doc_id": ["a", "b", "c", "d", "a"], "grade": [0, 1, 2, 3, 3]}
)


def server(seed: int = 0, **settings: Any) -> Server:
    return Server(StandIn(JUDGMENTS, SCALE, SimulateLLMSettings(**settings), seed), {"d": "A red fish swims."})


def body(doc_id: str = "d", **extra: Any) -> dict[str, Any]:
    return {
        "model": "stand-in-a",
        "messages": [{"role": "user", "content": "x" * 40}],
        "metadata": {"query": "red fish", "doc_id": doc_id},
        **extra,
    }


def schema(*fields: str) -> dict[str, Any]:
    kinds = {
        "reasoning": {"type": "string"},
        "label": {"anyOf": [{"type": "integer", "enum": SCALE}, {"type": "null"}]},
    }
    properties = {field: kinds.get(field, {"type": "string"}) for field in fields}
    return {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object", "properties": properties}}}


def truthful(**settings: Any) -> dict[str, Any]:
    return {"confusion": np.eye(4).tolist(), **settings}


def test_the_openai_client_gets_labelled_choices_with_usage() -> None:
    with running(server(**truthful())) as url:
        client = openai.OpenAI(base_url=url, api_key="any", max_retries=0)
        assert [model.id for model in client.models.list()] == ["stand-in-a", "stand-in-b"]
        answer = client.chat.completions.create(**body(n=3, response_format=schema("reasoning", "label")))
        assert [choice.finish_reason for choice in answer.choices] == ["stop"] * 3
        for choice in answer.choices:
            fields = json.loads(choice.message.content or "")
            assert list(fields) == ["reasoning", "label"]
            assert fields["label"] == 3
            assert "red, fish" in fields["reasoning"]
        assert answer.usage is not None
        assert answer.usage.prompt_tokens == 10
        assert answer.usage.completion_tokens == sum(-(-len(c.message.content or "") // 4) for c in answer.choices)
        with pytest.raises(openai.BadRequestError, match=r"metadata.query and metadata.doc_id"):
            client.chat.completions.create(model="m", messages=[{"role": "user", "content": "?"}])


def test_the_openai_client_waits_out_429_and_500_and_is_billed_once() -> None:
    faulty = server(rate_limited=0.3, server_error=0.3, retry_after=0.0)
    with running(faulty) as url:
        client = openai.OpenAI(base_url=url, api_key="any", max_retries=30)

        def ask(i: int) -> str | None:
            key = {"Idempotency-Key": f"key {i}"}
            return client.chat.completions.create(**body(), extra_headers=key).choices[0].message.content

        # The client's own back-off is half a second at least, so a handful of keys and all at once.
        with ThreadPoolExecutor(12) as pool:
            first = list(pool.map(ask, range(12)))
            again = list(pool.map(ask, range(12)))
        stats = httpx.get(url.replace("/v1", "/stats")).json()
    assert first == again
    assert stats["completed"] == stats["replays"] == 12
    assert stats["completions_by_key"] == {f"key {i}": 1 for i in range(12)}
    assert stats["keys_billed_twice"] == 0
    faults = stats["faults"]
    assert faults["rate_limited"] > 0
    assert faults["server_error"] > 0
    assert stats["requests"] == 24 + faults["rate_limited"] + faults["server_error"]


def test_a_hanging_request_is_billed_and_its_key_gets_the_answer_later() -> None:
    slow = server(hang=1.0, hang_seconds=30)
    with running(slow) as url:
        client = openai.OpenAI(base_url=url, api_key="any", max_retries=0, timeout=0.3)
        key = {"Idempotency-Key": "once"}
        with pytest.raises(openai.APITimeoutError):
            client.chat.completions.create(**body(), extra_headers=key)
        answer = client.chat.completions.create(**body(), extra_headers=key)
    assert json.loads(answer.choices[0].message.content or "")["label"] in SCALE
    assert (slow.bill.completed, slow.bill.replays, slow.bill.faults["hang"]) == (1, 1, 1)


def test_faults_come_at_their_rates_and_the_same_in_every_run() -> None:
    rates = {"rate_limited": 0.2, "server_error": 0.1}
    runs = []
    for _ in range(2):
        client = TestClient(server(seed=4, **rates).app())
        runs.append(
            [
                client.post("/v1/chat/completions", json=body(), headers={"Idempotency-Key": f"k{i}"}).status_code
                for i in range(600)
            ]
        )
    assert runs[0] == runs[1]
    counts = Counter(runs[0])
    assert counts[429] / 600 == pytest.approx(0.2, abs=0.05)
    assert counts[500] / 600 == pytest.approx(0.1, abs=0.04)
    limited = server(rate_limited=1.0, retry_after=2.5)
    refused = TestClient(limited.app()).post("/v1/chat/completions", json=body())
    assert (refused.status_code, refused.headers["retry-after"]) == (429, "2.5")
    assert limited.bill.completed == 0


def test_truncated_and_malformed_answers_are_billed_and_stored() -> None:
    spoilt = server(truncated=0.3, malformed=0.3)
    client = TestClient(spoilt.app())
    answer = client.post("/v1/chat/completions", json=body(n=128), headers={"Idempotency-Key": "k"}).json()
    kinds: Counter[str] = Counter()
    for choice in answer["choices"]:
        try:
            json.loads(choice["message"]["content"])
            kind = "whole"
        except json.JSONDecodeError:
            kind = "truncated" if choice["finish_reason"] == "length" else "malformed"
        assert (choice["finish_reason"] == "length") == (kind == "truncated")
        kinds[kind] += 1
    assert {kind: kinds[kind] for kind in ("truncated", "malformed")} == dict(spoilt.bill.faults)
    assert kinds["truncated"] / 128 == pytest.approx(0.3, abs=0.15)
    assert kinds["malformed"] / 128 == pytest.approx(0.3, abs=0.15)
    again = client.post("/v1/chat/completions", json=body(n=128), headers={"Idempotency-Key": "k"})
    assert again.json() == answer
    assert again.headers["idempotent-replayed"] == "true"


def test_an_answer_longer_than_its_limit_is_cut() -> None:
    client = TestClient(server().app())
    choice = client.post("/v1/chat/completions", json=body(max_completion_tokens=3)).json()["choices"][0]
    assert (choice["finish_reason"], len(choice["message"]["content"])) == ("length", 12)


def labels(client: TestClient, request: dict[str, Any], key: str | None = None) -> list[int]:
    headers = {} if key is None else {"Idempotency-Key": key}
    choices = client.post("/v1/chat/completions", json=request, headers=headers).json()["choices"]
    return [json.loads(choice["message"]["content"])["label"] for choice in choices]


def test_numbered_paths_get_the_labels_of_the_stand_in_whatever_the_key() -> None:
    app = server(path_share=0.8)
    client = TestClient(app.app())
    expected = app.standin.labels("stand-in-a", ["red fish"], ["b"], 20)[0].tolist()
    assert len(set(expected)) > 1
    found = []
    for first in range(0, 20, 5):
        request = body(n=5, metadata={"query": "red fish", "doc_id": "b", "path": str(first)})
        found += labels(client, request, f"key {first}")
    assert found == expected
    assert app.bill.stats()["paths_billed_twice"] == 0
    request = body(n=3, metadata={"query": "red fish", "doc_id": "b", "path": "0"})
    assert labels(client, request, "new key") == expected[:3]
    assert app.bill.stats()["paths_billed_twice"] == 3
    assert app.bill.stats()["keys_billed_twice"] == 0


def test_without_numbers_a_seed_repeats_and_keys_or_attempts_differ() -> None:
    app = server(path_share=1.0)
    client = TestClient(app.app())
    assert labels(client, body("b", n=30, seed=1)) == labels(client, body("b", n=30, seed=1))
    assert labels(client, body("b", n=30, seed=1)) != labels(client, body("b", n=30, seed=2))
    assert labels(client, body("b", n=30), "k1") != labels(client, body("b", n=30), "k2")
    assert labels(client, body("b", n=30)) != labels(client, body("b", n=30))


def test_a_query_cut_to_the_apis_length_still_finds_its_judgment() -> None:
    client = TestClient(server(**truthful()).app())
    assert labels(client, body(metadata={"query": LONG[:512], "doc_id": "a"})) == [3]
    assert labels(client, body(metadata={"query": "never judged", "doc_id": "a"})) == [0]


def test_the_schema_is_honoured_in_order_and_refused_where_it_cannot_be() -> None:
    client = TestClient(server(**truthful()).app())
    for fields in (["label"], ["label", "reasoning"]):
        answer = client.post("/v1/chat/completions", json=body(response_format=schema(*fields))).json()
        assert list(json.loads(answer["choices"][0]["message"]["content"])) == fields
    texts = {"type": "json_schema", "json_schema": {"schema": {"properties": {"label": {"type": "string"}}}}}
    for bad, message in (
        (schema("reasoning", "label", "mood"), "the schema has"),
        (texts, "label 3 does not fit the schema"),
        ({"type": "xml"}, "none of text"),
    ):
        refused = client.post("/v1/chat/completions", json=body(response_format=bad))
        assert refused.status_code == 400
        assert message in refused.json()["error"]["message"]


@pytest.mark.parametrize(
    ("change", "status", "message"),
    [
        ({"n": 0}, 400, "n: "),
        ({"stream": True}, 400, "does not stream"),
        ({"messages": []}, 400, "messages: "),
        ({"metadata": {"query": "q"}}, 400, "metadata.doc_id"),
        ({"metadata": {"query": "q" * 513, "doc_id": "d"}}, 400, "longer than 512"),
        ({"metadata": {"query": "q", "doc_id": "d", "path": "-1"}}, 400, "metadata.path"),
        ({"pad": "x" * (5 * 1024 * 1024)}, 413, "4 MiB"),
    ],
)
def test_wrong_requests_are_named_and_not_billed(change: dict[str, Any], status: int, message: str) -> None:
    app = server()
    answer = TestClient(app.app()).post("/v1/chat/completions", json=body() | change)
    assert answer.status_code == status
    assert message in answer.json()["error"]["message"]
    assert (app.bill.completed, app.bill.rejected) == (0, 1)
    assert TestClient(app.app()).post("/v1/chat/completions", content=b"{").status_code == 400


def test_a_key_used_for_another_request_is_refused() -> None:
    client = TestClient(server().app())
    key = {"Idempotency-Key": "k"}
    assert client.post("/v1/chat/completions", json=body("a"), headers=key).status_code == 200
    assert client.post("/v1/chat/completions", json=body("b"), headers=key).status_code == 422


def test_a_workspace_is_served_and_a_taken_port_is_named(workspace: Workspace) -> None:
    with pytest.raises(ValueError, match="no judgments"):
        llm_server(workspace)
    workspace.append("judgments", JUDGMENTS.with_columns(split=pl.lit("train"), judge=pl.lit("human")))
    with running(llm_server(workspace)) as url:
        assert httpx.post(f"{url}/chat/completions", json=body()).status_code == 200
        port = int(url.rsplit(":", 1)[1].removesuffix("/v1"))
        with pytest.raises(ValueError, match=f"cannot listen on 127.0.0.1:{port}"), running(server(), port=port):
            pass
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{url}/models")


def test_rates_that_exceed_one_are_refused() -> None:
    with pytest.raises(ValueError, match="more than 1"):
        SimulateLLMSettings(rate_limited=0.6, hang=0.6)
