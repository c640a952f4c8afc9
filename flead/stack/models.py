"""Global models of the running stack: look them up, compare them, go back to one."""

import time
from collections.abc import Sequence

import msgspec

from flead.contracts.schema import input_names
from flead.federation.difference import ChangedWeight, compare_weights
from flead.stack.addresses import Addresses
from flead.stack.airflow import PROCESSES
from flead.stack.airflow_rest import AirflowClient
from flead.stack.home import Home
from flead.stack.lifecycle import running_services
from flead.stack.service import StackError
from flead.stack.training import Say
from flead.storage import catalog, models, promotions
from flead.storage.catalog import ListedModel, MadeDecision
from flead.storage.connection import connect
from flead.storage.migrations import migrate

ROLLBACK_DAG = "rollback_model"
ROLLBACK_SECONDS = 300.0
NEEDED = ("postgres", *PROCESSES)


class ModelList(msgspec.Struct, frozen=True):
    """Versions, newest first."""

    models: list[ListedModel]


class Weight(msgspec.Struct, frozen=True):
    """One weight of a model, by the input that it belongs to."""

    input: str
    weight: float


class ShownModel(msgspec.Struct, frozen=True):
    """All of a version: figures, decisions, weights; the intercept has an entry of its own."""

    model: ListedModel
    decisions: list[MadeDecision]
    weights: list[Weight]
    artifact_path: str
    artifact_sha256: str


class ModelDifference(msgspec.Struct, frozen=True):
    """Two versions weight by weight, the largest change first.

    `distance` is the Euclidean one; `cosine` is None when one of the models is zero.
    """

    before: ListedModel
    after: ListedModel
    distance: float
    cosine: float | None
    weights: list[ChangedWeight]


class RolledBack(msgspec.Struct, frozen=True):
    """The version that carries the good weights now."""

    version: int
    restored_version: int
    rolled_back_versions: list[int]
    dag_run_id: str
    seconds: float


def list_models(home: Home, limit: int) -> ModelList:
    """Return the newest versions."""
    with connect(_database(home)) as connection, connection.cursor() as cursor:
        return ModelList(catalog.newest(cursor, limit))


def show_model(home: Home, version: int) -> ShownModel:
    """Return all that is known of a version.

    Raises
    ------
    StackError
        There is no such version.
    """
    with connect(_database(home)) as connection, connection.cursor() as cursor:
        found = catalog.listed(cursor, version)
        if found is None:
            raise StackError(f"there is no version {version}: see `flead models list`")
        stored = models.models(cursor, [version])[version]
        made = catalog.decisions_on(cursor, version)
    names, model = _names(stored.model.feature_names), stored.model
    values = [*model.weights, model.intercept]
    weights = [Weight(*pair) for pair in zip(names, values, strict=True)]
    return ShownModel(found, made, weights, stored.artifact_path, stored.artifact_sha256)


def compare_models(home: Home, before: int, after: int) -> ModelDifference:
    """Compare two versions of a feature list, weight by weight.

    Raises
    ------
    StackError
        There is no such version, or they are of different feature lists.
    """
    with connect(_database(home)) as connection, connection.cursor() as cursor:
        rows = [catalog.listed(cursor, version) for version in (before, after)]
        stored = models.models(cursor, [before, after])
    first, second = rows
    if first is None or second is None:
        missing = before if first is None else after
        raise StackError(f"there is no version {missing}: see `flead models list`")
    try:
        found = compare_weights(stored[before].model, stored[after].model)
    except ValueError as error:
        raise StackError(str(error)) from None
    return ModelDifference(first, second, found.distance, found.cosine, found.weights)


def roll_back(home: Home, version: int | None, reason: str, say: Say) -> RolledBack:
    """Have Airflow go back to a version, the parent of the head for None, and wait.

    Raises
    ------
    AirflowError
        The run failed: the message has the end of its log.
    StackError
        The stack does not run.
    """
    running = running_services(home)
    if missing := [name for name in NEEDED if name not in running]:
        raise StackError(f"{', '.join(missing)} of the stack do not run: start it with `flead up`")
    addresses = Addresses.of(home)
    began = time.monotonic()
    with AirflowClient.of(addresses) as airflow:
        run_id = airflow.trigger(ROLLBACK_DAG, {"version": version, "reason": reason})
        airflow.wait(ROLLBACK_DAG, run_id, ROLLBACK_SECONDS, on_progress=say)
    with connect(addresses.database_url) as connection, connection.cursor() as cursor:
        request = f"{ROLLBACK_DAG}/{run_id}"
        restored = promotions.restored_by(cursor, request)
        if restored is None:
            raise StackError(f"run {run_id} of {ROLLBACK_DAG} has restored no version")
        model = models.models(cursor, [restored])[restored].model
        taken_back = promotions.rolled_back_by(cursor, request)
    return RolledBack(
        version=restored,
        restored_version=model.restored_version or 0,
        rolled_back_versions=taken_back,
        dag_run_id=run_id,
        seconds=round(time.monotonic() - began, 1),
    )


def _database(home: Home) -> str:
    """Return the URL of the database, which has all tables."""
    url = Addresses.of(home).database_url
    migrate(url)
    return url


def _names(features: Sequence[str]) -> list[str]:
    return [*input_names(features), "intercept"]
