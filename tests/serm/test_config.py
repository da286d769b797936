"""Settings: what wins over what, and that every mistake is named with its place."""

from pathlib import Path

import pytest

from serm.config import Config
from serm.configure import load, load_file


def test_defaults_validate_and_an_empty_file_is_the_defaults() -> None:
    assert load("") == load("# nothing\n") == load("mining:\n  # budget: 5\n")
    assert load("").labels.scale == [0, 1, 2, 3]


def test_precedence_is_file_then_environment_then_set(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "seed: 1\nmining: {budget: 10, per_query: 2, candidates: 30}\nlabels: {scale: [0, 1]}\n"
    monkeypatch.setenv("SERM_MINING__BUDGET", "20")
    monkeypatch.setenv("SERM_MINING__PER_QUERY", "4")
    monkeypatch.setenv("SERM_ANNOTATION__PATHS", "7")
    config = load(text, ["mining.budget=40", "seed=3", "labels.scale=[0, 2]"])
    assert (config.mining.budget, config.mining.per_query, config.mining.candidates) == (40, 4, 30)
    assert (config.seed, config.labels.scale, config.annotation.paths) == (3, [0, 2], 7)
    assert load(text).mining.budget == 20
    assert load(text).seed == 1
    monkeypatch.setenv("SERM_LABELS__SCALE", "[1, 2, 3]")
    monkeypatch.setenv("SERM_SEED", "9")
    assert (load(text).labels.scale, load(text).seed) == ([1, 2, 3], 9)


def test_set_keeps_what_it_does_not_name() -> None:
    text = "annotation:\n  annotators:\n    - {name: eve, model: m, temperature: 0.1}\n"
    config = load(text, ["annotation.paths=5", "ingest.columns={query: q}", "ingest.timestamp_format='%Y'"])
    assert [(a.name, a.temperature) for a in config.annotation.annotators] == [("eve", 0.1)]
    assert config.ingest.columns == {"query": "q"}
    assert config.ingest.timestamp_format == "%Y"
    assert load(text, ["annotation.annotators=[{name: al, model: n}]"]).annotation.annotators[0].name == "al"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("mining: {budget: none}", ["my.yaml", "mining.budget", "integer", "'none'"]),
        ("mining: {budget: 0}", ["my.yaml", "mining.budget", "greater than or equal to 1"]),
        ("mining: {budgte: 5}", ["my.yaml", "mining.budgte", "no such setting"]),
        ("minning: {budget: 5}", ["my.yaml", "no such setting 'minning'", "mining"]),
        ("1: {budget: 5}", ["my.yaml", "no such setting 1"]),
        ("_env_file: x", ["my.yaml", "no such setting '_env_file'"]),
        ("labels: {scale: [3, 1]}", ["my.yaml", "labels.scale", "ascending"]),
        ("labels: {scale: [1]}", ["my.yaml", "labels.scale", "two different grades"]),
        ("annotation: {annotators: [{model: m}]}", ["my.yaml", "annotation.annotators.0.name", "required"]),
        ("relevance: {family: neural}", ["my.yaml", "relevance.family", "cross_encoder"]),
        ("- a\n- b\n", ["my.yaml", "found list"]),
        ("mining: [1, 2\n", ["my.yaml", "not YAML"]),
        ("mining: 3", ["my.yaml", "mining", "'3'"]),
    ],
)
def test_mistakes_in_a_file_are_named(text: str, words: list[str], tmp_path: Path) -> None:
    path = tmp_path / "my.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError) as caught:
        load_file(path)
    assert [word for word in words if word not in str(caught.value)] == []


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("mining.budget", ["expected room.key=value"]),
        ("minning.budget=3", ["no such room 'minning'"]),
        ("mining.budget.most=3", ["no such room 'budget'"]),
        ("mining.budgte=3", ["mining.budgte", "no such setting"]),
        ("mining.budget=lots", ["mining.budget", "'lots'"]),
        ("labels.scale=[0, 1", ["not YAML"]),
        ("sede=3", ["sede", "no such setting"]),
    ],
)
def test_mistakes_in_an_override_are_named(override: str, words: list[str]) -> None:
    with pytest.raises(ValueError) as caught:
        load("", [override], "my.yaml")
    assert str(caught.value).startswith("--set")
    assert [word for word in words if word not in str(caught.value)] == []


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("SERM_MINING__BUDGET", "many", ["SERM_MINING__BUDGET", "mining.budget", "'many'"]),
        ("SERM_MINING__BUDGTE", "3", ["SERM_MINING__BUDGTE", "no such setting"]),
        ("SERM_MINNING__BUDGET", "3", ["SERM_MINNING__BUDGET", "no such room 'minning'"]),
        ("SERM_LABELS", "{scale", ["environment", "labels", "JSON"]),
    ],
)
def test_mistakes_in_the_environment_are_named(
    name: str, value: str, words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ValueError) as caught:
        load("mining: {budget: 3}")
    assert [word for word in words if word not in str(caught.value)] == []


def test_missing_folders_and_other_encodings(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no such configuration file"):
        load_file(tmp_path / "absent.yaml")
    with pytest.raises(ValueError, match="no such configuration file"):
        load_file(tmp_path)
    (tmp_path / "latin.yaml").write_bytes("annotation: {guidelines: über}".encode("latin-1"))
    with pytest.raises(ValueError, match=r"latin\.yaml: not UTF-8"):
        load_file(tmp_path / "latin.yaml")


def test_every_shipped_configuration_loads() -> None:
    shipped = sorted((Path(__file__).resolve().parents[2] / "configs").glob("*.yaml"))
    if not shipped:
        pytest.skip("configs/ holds no YAML yet")
    for path in shipped:
        assert isinstance(load_file(path), Config), path


def test_settings_do_not_leak_between_configurations() -> None:
    first = load("")
    first.labels.scale.append(9)
    first.mining.budget = 1
    assert load("").labels.scale == [0, 1, 2, 3]
    assert load("").mining.budget == 1_000


@pytest.mark.parametrize(
    ("text", "start"), [("2026-01-05", "2026-01-05"), ("2026-01-05T10:00:00Z", "2026-01-05T10:00:00+00:00")]
)
def test_an_unquoted_timestamp_is_read_as_written(text: str, start: str) -> None:
    assert load(f"simulate: {{start: {text}}}").simulate.start == start
