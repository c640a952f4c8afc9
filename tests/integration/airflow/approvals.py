"""Who answers what a task asks while a DAG runs: a person, or the scheduler after the timeout."""

import threading
import time
from contextlib import contextmanager

from airflow.api_fastapi.app import create_app, get_auth_manager
from airflow.api_fastapi.auth.managers.simple.user import SimpleAuthManagerUser
from airflow.jobs.job import Job
from airflow.jobs.scheduler_job_runner import SchedulerJobRunner
from airflow.models.taskinstance import TaskInstance
from airflow.utils.session import create_session
from airflow.utils.state import TaskInstanceState
from sqlalchemy import select
from starlette.testclient import TestClient


def by_a_person(option):
    """Return what answers by the REST API, as the pages do."""
    client = TestClient(create_app(apps="core"))
    token = get_auth_manager().generate_jwt(SimpleAuthManagerUser(username="ada", role="admin"))

    def give(run_id):
        answered = client.patch(
            f"/api/v2/dags/hyperparameter_tuning/dagRuns/{run_id}/taskInstances/approve/-1"
            "/hitlDetails",
            json={"chosen_options": [option]},
            headers={"Authorization": f"Bearer {token}"},
        )
        assert answered.status_code == 200, answered.text

    return give


def by_the_scheduler(run_id):
    """Do what the scheduler does over and over: end the waits that are out of time."""
    scheduler = SchedulerJobRunner(job=Job())
    while waiting_run() == run_id:
        scheduler.check_awaiting_input_timeouts()
        time.sleep(0.1)


def waiting_run():
    """Return the id of the run whose `approve` waits, if any."""
    with create_session() as session:
        return session.scalar(
            select(TaskInstance.run_id).where(
                TaskInstance.task_id == "approve",
                TaskInstance.state == TaskInstanceState.AWAITING_INPUT,
            )
        )


@contextmanager
def answered(give, look):
    """Answer, once a task waits, while the block runs; yield a list of what `look` saw then."""
    seen, errors, is_over = [], [], threading.Event()

    def wait_and_answer():
        try:
            while not is_over.wait(0.2):
                if (run_id := waiting_run()) is not None:
                    seen.append(look())
                    give(run_id)
                    return
        except Exception as error:
            errors.append(error)

    thread = threading.Thread(target=wait_and_answer)
    thread.start()
    try:
        yield seen
    finally:
        is_over.set()
        thread.join()
    assert errors == []
