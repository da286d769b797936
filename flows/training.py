"""The flow that trains a reasoning model with sps."""

from typing import Annotated, Any

from prefect import flow
from prefect.artifacts import create_table_artifact
from prefect.runtime import flow_run
from pydantic import Field

from flows.artifacts import progress_shown
from flows.limits import GPU, slot
from flows.parameters import Settings


def training_name() -> str:
    """A run's name: which configuration it trains."""
    return f"train {flow_run.parameters.get('config')}"


@flow(name="sps-train", flow_run_name=training_name, timeout_seconds=14 * 86_400.0, retries=1, retry_delay_seconds=60,
      persist_result=True, result_serializer="json")  # fmt: skip
def train(
    config: Annotated[str, Field(min_length=1, description="A YAML file, or the name of one that comes with sps.")],
    settings: Settings = [],  # noqa: B006
) -> dict[str, Any]:
    """Train a policy; a run that died goes on from its last checkpoint when it is given the same parameters again."""
    from sps.configure import load
    from sps.train import train as verb

    with progress_shown(f"train {config}"), slot(GPU):
        result = verb(load(config, settings))
    rows = [
        {"k": row["k"], **{when: None if row[when] is None else row[when].mean for when in ("before", "after")}}
        for row in result["passk"]
    ]
    create_table_artifact(rows, "sps-passk", f"Pass@k of {result['output']}")
    return {name: result[name] for name in ("output", "model", "report", "steps")}
