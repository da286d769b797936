"""Several servers of one model: evenly asked, left alone when they fail, and every answer paid once."""

import json
from collections import Counter
from pathlib import Path

import polars as pl
import pytest
from starlette.responses import JSONResponse

from serm.annotation.ledger import Ledger
from serm.annotation.servers import REST_SECONDS, Servers
from serm.annotation.verbs import annotate
from serm.config import AnnotatorSettings
from serm.workspace import Workspace
from tests.serm.annotation_server import CountingServer, serving

PAIRS = 40


def test_a_server_that_failed_rests_and_comes_back() -> None:
    now = [100.0]
    servers = Servers(["a", "b", "c"], clock=lambda: now[0])
    assert [servers.next() for _ in range(6)] == ["a", "b", "c", "a", "b", "c"]
    servers.failed("b")
    assert Counter(servers.next() for _ in range(10)) == {"a": 5, "c": 5}
    now[0] += 1
    servers.failed("a")
    servers.failed("c")
    assert not servers.any_awake()
    assert servers.next() == "b"  # it wakes first
    now[0] += REST_SECONDS
    assert servers.any_awake()
    assert {servers.next() for _ in range(3)} == {"a", "b", "c"}


def test_addresses_are_checked_and_named_once() -> None:
    settings = AnnotatorSettings(
        name="a", model="m", base_url="http://h:1/v1", more_urls=["http://h:2/v1/", "http://h:1/v1"]
    )
    assert settings.addresses() == ["http://h:1/v1", "http://h:2/v1"]
    with pytest.raises(ValueError, match="credentials"):
        AnnotatorSettings(name="a", model="m", more_urls=["http://user:word@h/v1"])


@pytest.mark.parametrize("status", [503, 404])
def test_a_dead_server_costs_nothing_and_loses_no_pair(tmp_path: Path, status: int) -> None:
    """Two servers share the calls; one of them fails after its fifth request, for a moment or for good."""

    def fails(number: int, body: dict[str, object]) -> JSONResponse | None:
        return JSONResponse({"error": {"message": "no"}}, status) if number >= 5 else None

    with serving(CountingServer([0, 1])) as well, serving(CountingServer([0, 1], behave=fails)) as ill:
        annotator = {"name": "ada", "model": "m", "base_url": ill.url, "more_urls": [well.url], "retries": 0}
        text = json.dumps({"labels": {"scale": [0, 1]}, "annotation": {
            "annotators": [annotator], "paths": 1, "knowledge": False}})  # fmt: skip
        space = Workspace.create(tmp_path / "space", text)
        names = [f"d{i}" for i in range(PAIRS)]
        space.append("documents", pl.DataFrame({"doc_id": names, "text": names}))
        pairs = pl.DataFrame({"query": names, "doc_id": names}).with_columns(
            round=pl.lit(1, pl.Int32), reason=pl.lit("r"), agents=pl.lit(["click"])
        )
        space.append("mined", pairs)
        summary = annotate(space)
    assert (summary.failed, summary.kept + summary.review, summary.calls) == (0, PAIRS, PAIRS)
    assert sum(ill.billed.values()) == 5
    assert sum(well.billed.values()) == PAIRS - 5
    assert not set(well.billed) & set(ill.billed)
    ledger = Ledger(space.local("ledger.sqlite"))
    assert ledger.answered_keys() == set(well.billed) | set(ill.billed)
    ledger.close()
