"""The FlinkDeployment of the training job against the schema of Flink's Kubernetes operator."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml
from jsonschema import Draft202012Validator

from flead.contracts.deployment import TrainingDeployment
from flead.settings import FLINK_DEPLOYMENT, Settings
from flead_airflow.flink.checkpoints import StateDirectories
from flead_airflow.flink.manifests import JOB_ID, fill_in, job_id_of

CRD = Path(__file__).with_name("fixtures") / "flinkdeployment_crd.json"
KEEPS_UNKNOWN = "x-kubernetes-preserve-unknown-fields"
LETTERED_ID = "0123456789abcdef" * 2
CONFIGURATION = TrainingDeployment(
    features=["temperature", 'a "quoted": name'], bootstrap_servers="kafka:9092", parallelism=3
)
ARGUMENTS = ["--training-config", msgspec.json.encode(CONFIGURATION).decode()]


def strict(schema: Any) -> Any:
    """Refuse what the API server would prune: fields that the schema does not have."""
    if isinstance(schema, list):
        return [strict(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    made = {name: strict(each) for name, each in schema.items()}
    if schema.get("type") == "object" and "properties" in schema and not schema.get(KEEPS_UNKNOWN):
        made["additionalProperties"] = False
    return made


def schema_of_the_operator() -> dict[str, Any]:
    schema = strict(json.loads(CRD.read_text())["openAPIV3Schema"])
    # what every resource has
    schema["properties"] |= dict.fromkeys(("apiVersion", "kind", "metadata"), True)
    return dict(schema)


@pytest.fixture
def template() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(FLINK_DEPLOYMENT.read_text())
    return found


@pytest.fixture
def violations() -> Callable[[dict[str, Any]], list[str]]:
    validator = Draft202012Validator(schema_of_the_operator())
    return lambda manifest: [each.json_path for each in validator.iter_errors(manifest)]


def filled(template: dict[str, Any], savepoint_path: str | None = None) -> dict[str, Any]:
    return fill_in(
        template,
        job_id=LETTERED_ID,
        arguments=ARGUMENTS,
        parallelism=3,
        savepoint_path=savepoint_path,
    )


def test_the_shipped_manifest_is_what_the_operator_accepts_before_and_after_it_is_filled_in(
    template: dict[str, Any], violations: Callable[[dict[str, Any]], list[str]]
) -> None:
    assert violations(template) == []
    assert violations(filled(template, "s3://flead/savepoints/savepoint-1")) == []


@pytest.mark.parametrize(
    ("field", "value", "path"),
    [
        ("upgradeMode", "savepiont", "$.spec.job.upgradeMode"),
        ("paralelism", 3, "$.spec.job"),
        ("args", "-py script", "$.spec.job.args"),
    ],
)
def test_the_schema_finds_what_is_wrong(
    template: dict[str, Any],
    violations: Callable[[dict[str, Any]], list[str]],
    field: str,
    value: object,
    path: str,
) -> None:
    template["spec"]["job"][field] = value

    assert violations(template) == [path]


def test_the_job_gets_its_params_state_and_id_and_nothing_else_is_changed(
    template: dict[str, Any],
) -> None:
    before = copy.deepcopy(template)

    manifest = filled(template, "s3://flead/savepoints/savepoint-1")

    assert template == before
    job = manifest["spec"]["job"]
    assert job["args"] == ["-py", "/opt/flead/jobs/flink/local_training.py", *ARGUMENTS]
    assert (job["parallelism"], job["state"], job["upgradeMode"]) == (3, "running", "last-state")
    assert job["initialSavepointPath"] == "s3://flead/savepoints/savepoint-1"
    assert job_id_of(manifest) == LETTERED_ID
    added = {JOB_ID, "execution.shutdown-on-application-finish"}
    assert set(manifest["spec"]["flinkConfiguration"]) - added == set(
        before["spec"]["flinkConfiguration"]
    )
    assert {name: manifest["spec"][name] for name in before["spec"] if name != "job"} | {
        "flinkConfiguration": before["spec"]["flinkConfiguration"]
    } == {name: before["spec"][name] for name in before["spec"] if name != "job"}


def test_a_job_that_starts_from_nothing_names_no_savepoint(template: dict[str, Any]) -> None:
    assert "initialSavepointPath" not in filled(template)["spec"]["job"]


def test_what_it_is_filled_with_survives_yaml(template: dict[str, Any]) -> None:
    manifest = filled(template)

    assert yaml.safe_load(yaml.safe_dump(manifest, sort_keys=False)) == manifest


def test_the_shipped_manifest_says_where_state_is_kept(template: dict[str, Any]) -> None:
    directories = StateDirectories.of(template["spec"]["flinkConfiguration"])

    assert directories.checkpoints != directories.savepoints
    assert Path(Settings().kubernetes_manifest) == FLINK_DEPLOYMENT


@pytest.mark.parametrize("broken", [{}, {"kind": "FlinkDeployment"}, {"kind": "Pod", "spec": {}}])
def test_what_is_no_flink_deployment_is_refused(broken: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="the manifest is"):
        filled(broken)
