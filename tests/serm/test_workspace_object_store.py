"""A workspace in an S3-compatible store on this machine: the same promises, kept by conditional puts alone."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import polars as pl
import pytest

from serm import registry
from serm.workspace import Workspace, WorkspaceError

boto3 = pytest.importorskip("boto3", reason="boto3 is in the dev extra")
moto_server = pytest.importorskip("moto.server", reason="moto is in the dev extra")
pytest.importorskip("s3fs", reason="s3fs is in the s3 extra")


@pytest.fixture(scope="module")
def store() -> Iterator[str]:
    """A bucket behind a loopback server, with credentials and a cache folder of its own in the environment."""
    server = moto_server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {
            "AWS_ENDPOINT_URL": f"http://{host}:{port}", "AWS_ALLOW_HTTP": "true", "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test", "AWS_REGION": "us-east-1", "AWS_DEFAULT_REGION": "us-east-1",
        }.items():  # fmt: skip
            patch.setenv(name, value)
        boto3.client("s3").create_bucket(Bucket="workspaces")
        yield "s3://workspaces"
    server.stop()


@pytest.fixture
def remote(store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    monkeypatch.setenv("HOME", str(tmp_path))  # where fetched models are cached
    return Workspace.create(f"{store}/{tmp_path.name}/nested", "seed: 4\n")


def documents(ids: range, text: str = "text") -> pl.DataFrame:
    return pl.DataFrame({"doc_id": [f"d{i:03}" for i in ids], "text": [f"{text} {i}" for i in ids]})


def weights(content: str):
    def write(folder: Path) -> None:
        (folder / "nested").mkdir()
        (folder / "weights.bin").write_text(content)
        (folder / "nested" / "more.bin").write_text(content * 2)

    return write


def test_tables_in_the_store(remote: Workspace) -> None:
    assert Workspace.open(remote.root).config.seed == 4
    with pytest.raises(WorkspaceError, match="already a workspace"):
        Workspace.create(remote.root, "seed: 5\n")
    with pytest.raises(WorkspaceError, match="no workspace here"):
        Workspace.open(remote.root + "-absent")
    assert remote.append("documents", documents(range(5))) == 5
    assert remote.append("documents", documents(range(3, 8))) == 3
    version = remote.version("documents")
    assert remote.upsert("documents", documents(range(6, 9), "new")) == 3
    assert remote.read("documents").height == 9
    assert remote.read("documents", version).height == 8


def test_writers_at_once_in_the_store(remote: Workspace) -> None:
    def work(worker: int) -> None:
        own = Workspace.open(remote.root)
        for batch in range(4):
            own.append("documents", documents(range(batch * 4, batch * 4 + 8), f"worker {worker}"))

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(work, range(3)))
    assert sorted(remote.read("documents")["doc_id"]) == [f"d{i:03}" for i in range(20)]


def test_registry_in_the_store(remote: Workspace) -> None:
    assert registry.versions(remote) == []
    other = Workspace.open(remote.root)
    first = registry.publish(remote, "v1", weights("one"), {"parent": None})
    assert registry.publish(other, "v1", weights("late"), {"parent": "x"}) == first
    registry.publish(other, "v2", weights("two"), {"parent": "v1"})
    assert registry.versions(remote) == ["v1", "v2"]
    for version, content in (("v1", "one"), ("v2", "two")):
        folder = registry.folder(remote, version)
        assert (folder / "weights.bin").read_text() == content
        assert (folder / "nested" / "more.bin").read_text() == content * 2
        assert json.loads((folder / "manifest.json").read_text())["version"] == version
        assert registry.folder(remote, version) == folder
    registry.promote(remote, "v1", "first")
    registry.promote(other, "v2", "second")
    assert registry.rollback(remote) == "v1"
    assert registry.champion(other) == "v1"
    assert [path.name for path in folder.parent.iterdir() if path.name.startswith(".")] == []


def test_two_publishers_in_the_store_leave_one_whole_version(remote: Workspace) -> None:
    # The second begins before the first has ended: each is past the look whether the version is there.
    def slow(folder: Path) -> None:
        registry.publish(Workspace.open(remote.root), "v1", weights("faster"), {"by": "faster"})
        weights("slower")(folder)

    assert registry.publish(remote, "v1", slow, {"by": "slower"})["by"] == "faster"
    folder = registry.folder(remote, "v1")
    assert (folder / "weights.bin").read_text() == "faster"
    stored = remote.filesystem().find(remote.url("models", "v1"))
    assert len(stored) == 3  # the slower one's files are gone
