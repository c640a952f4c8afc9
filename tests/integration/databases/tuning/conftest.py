"""Fleets whose hyperparameters the tests tune, in a real database, without a broker."""

import pytest

from flead.storage.connection import connect
from flead.storage.migrations import migrate
from tests.integration.tuned_fleet import Fleet


@pytest.fixture(scope="module")
def tuning_database(make_database):
    """Return the URL of a database of the module's own."""
    url = make_database()
    migrate(url)
    return url


@pytest.fixture
def fleet(tuning_database):
    """Return a fleet that was deployed under revision 1, without a model yet."""
    with connect(tuning_database) as connection, connection.cursor() as cursor:
        # With what refers to them; Optuna's tables are not there before the first proposal.
        cursor.execute(
            "TRUNCATE tuning_decisions, outbox, aggregation_rounds, model_evaluations,"
            " training_deployments RESTART IDENTITY CASCADE"
        )
        cursor.execute("SELECT to_regclass('optuna.studies') IS NOT NULL")
        [(has_studies,)] = cursor.fetchall()
        if has_studies:
            cursor.execute("TRUNCATE optuna.studies RESTART IDENTITY CASCADE")
    made = Fleet(tuning_database)
    made.deploy()
    return made


@pytest.fixture
def stuck(fleet):
    """Return a fleet of four versions that do not get better."""
    fleet.promote(1, 2, 3, 4)
    fleet.evaluate({1: 0.5, 2: 0.5, 3: 0.5, 4: 0.5})
    return fleet
