"""What is deployed in the tests, and what is stored of it."""

import uuid

import msgspec

from flead.contracts.deployment import TrainingDeployment
from flead.contracts.messages import (
    GlobalModel,
    Hyperparameters,
    ModelStatus,
    Moments,
    TrainingControl,
)
from flead.contracts.schema import feature_schema, input_names
from flead.storage import deployments, models, outbox
from flead.storage.connection import connect
from flead.storage.models import StoredModel
from tests.integration.airflow.waiting import wait_for

PARAMS = {
    "features": ["temperature", "pressure"],
    "learning_rate": 0.25,
    "alpha": 0.001,
    "window_rows": 40,
    "window_seconds": 30,
    "local_epochs": 2,
    "ditto_pull": 0.5,
    "parallelism": 3,
    "checkpoint_interval_seconds": 2,
    "devices": None,
    "device_ttl_days": 7,
    "fresh": False,
    "restore_from": None,
    "resume": False,
}


CONFIGURATION = TrainingDeployment(
    features=["temperature", "pressure"],
    bootstrap_servers="broker:9092",
    hyperparameters=Hyperparameters(
        learning_rate=0.25,
        alpha=0.001,
        window_rows=40,
        window_seconds=30.0,
        local_epochs=2,
        ditto_pull=0.5,
    ),
    parallelism=3,
    checkpoint_interval_seconds=2.0,
    device_ttl_days=7.0,
    kafka={"security.protocol": "PLAINTEXT"},
)


SAVEPOINT = "file:/savepoints/savepoint-1"


EMPTY = dict.fromkeys(PARAMS) | {"fresh": False, "resume": False}
AS_BEFORE = EMPTY | {"checkpoint_interval_seconds": PARAMS["checkpoint_interval_seconds"]}


def configured(submission):
    return msgspec.json.decode(submission.arguments[1], type=TrainingDeployment)


def attempts(servers):
    with connect(servers.database_url) as connection, connection.cursor() as cursor:
        return deployments.newest_attempts(cursor)


def queued_controls(servers):
    with connect(servers.database_url) as connection, connection.cursor() as cursor:
        queued = [ready.message for ready in outbox.next_ready(cursor, 10)]
    assert {(message.topic, message.key) for message in queued} <= {("training-control", "control")}
    return [msgspec.json.decode(message.value, type=TrainingControl) for message in queued]


def insert_promoted(servers, version, features):
    """Store a model that is the head of its features, as a round does."""
    inputs = [0.5] * len(input_names(features))
    model = GlobalModel(
        version=version,
        parent_version=0,
        restored_version=None,
        status=ModelStatus.PROMOTED,
        aggregation_round=version,
        feature_schema=feature_schema(features),
        feature_names=features,
        weights=inputs,
        intercept=-1.0,
        standardizer=Moments(inputs, inputs, inputs),
        strategy="fedavg",
        num_devices=1,
        num_updates=1,
        total_samples=50,
        global_accuracy=None,
        global_loss=None,
        timestamp=1_764_000_000_000,
    )
    with connect(servers.database_url) as connection, connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO aggregation_rounds (round, version, state, start_offsets, end_offsets,"
            " updates, dead_letters, opened_at, attempted_at, completed_at)"
            " VALUES (%s, %s, 'aggregated', '{}', '{}', 1, 0, now(), now(), now())",
            (version, version),
        )
        models.insert_model(
            cursor, StoredModel(model, {}, {}, 0, f"model-{version}.json", "0" * 64)
        )
        models.advance_head(cursor, model.feature_schema, None, version)
    return model


def cancel(flink_hook, job_id):
    flink_hook.cancel(job_id)
    wait_for(lambda: flink_hook.job(job_id).state.ended)


def savepoint_of_tiny_job(flink_hook, tiny_job):
    """Run a job until it has a state, and return the savepoint that it is stopped with."""
    job_id, request_id = uuid.uuid4().hex, uuid.uuid4().hex
    flink_hook.run_python_job(job_id, tiny_job)
    wait_for(lambda: flink_hook.checkpoints(job_id).latest.completed)
    flink_hook.stop_with_savepoint(job_id, request_id)
    wait_for(lambda: flink_hook.find_savepoint(job_id, request_id).operation)
    return flink_hook.find_savepoint(job_id, request_id).operation.location


def suspend(servers, job_id, savepoint):
    with connect(servers.database_url) as connection, connection.cursor() as cursor:
        deployments.mark_suspended(cursor, job_id, "down", savepoint)
