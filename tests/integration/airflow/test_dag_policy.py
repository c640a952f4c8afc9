"""What every DAG of the project must carry."""

import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest
from airflow.dag_processing.dagbag import DagBag

from flead.stack.home import CHECKOUT
from tests import compose

DAG_FILES = sorted((CHECKOUT / "dags").glob("*.py"))
HEAVY = ("confluent_kafka", "great_expectations", "numpy", "pandas", "psycopg2", "pyspark", "yoyo")
"""What no DAG file may import when it is parsed; httpx is part of Airflow itself."""

LOADED_AFTER_PARSING = """
import runpy, sys
runpy.run_path(sys.argv[1])
print(*sorted({name.partition(".")[0] for name in sys.modules}))
"""


def violations(file: Path) -> list[str]:
    """Say which rule a DAG file breaks and where."""
    bag = DagBag(str(file))
    broken = [f"does not import: {error}" for error in bag.import_errors.values()]
    if not bag.dags and not broken:
        broken.append("defines no DAG")
    for dag in bag.dags.values():
        broken += [f"DAG {dag.dag_id} {rule}" for rule in _broken_by_dag(dag)]
        for task in dag.tasks:
            broken += [f"task {dag.dag_id}.{task.task_id} {rule}" for rule in _broken_by_task(task)]
    return [f"{file.name}: {rule}" for rule in broken]


def _broken_by_dag(dag):
    rules = {
        "is not named as its file": dag.dag_id == Path(dag.fileloc).stem,
        "has no tag `flead`": "flead" in dag.tags,
        "has no dagrun_timeout": dag.dagrun_timeout is not None,
        "has no doc_md with a section `## Triage`": "\n## Triage\n" in (dag.doc_md or ""),
        "runs more than once at a time": dag.max_active_runs == 1,
        "catches up": not dag.catchup,
    }
    yield from (rule for rule, kept in rules.items() if not kept)
    for name in dag.params:
        param = dag.params.get_param(name)
        if not param.description or "type" not in param.schema:
            yield f"has a Param {name} without type or description"


def _broken_by_task(task):
    rules = {
        "has no owner": task.owner not in {"", "airflow"},
        "is not retried": task.retries >= 1,
        "is retried without exponential backoff": task.retry_exponential_backoff,
        "has no execution_timeout": task.execution_timeout is not None,
    }
    yield from (rule for rule, kept in rules.items() if not kept)


@pytest.mark.parametrize("file", DAG_FILES, ids=lambda file: file.name)
def test_a_dag_keeps_every_rule(file):
    assert violations(file) == []


@pytest.mark.parametrize("file", DAG_FILES, ids=lambda file: file.name)
def test_a_dag_is_parsed_without_a_heavy_import(file):
    parsed = subprocess.run(
        [sys.executable, "-c", LOADED_AFTER_PARSING, file],
        capture_output=True,
        text=True,
        check=True,
    )

    loaded = parsed.stdout.splitlines()[-1].split()
    assert "flead_airflow" in loaded
    assert [f"{file.name} imports {name} at parse" for name in HEAVY if name in loaded] == []


def test_a_dag_that_keeps_no_rule_is_told_each_by_file_and_name(tmp_path):
    file = tmp_path / "careless.py"
    file.write_text(
        "from airflow.sdk import Param, dag, task\n"
        "@dag(schedule=None, catchup=True, params={'rate': Param(1)})\n"
        "def other():\n"
        "    @task\n"
        "    def work(): ...\n"
        "    work()\n"
        "other()\n"
    )

    assert violations(file) == [
        "careless.py: DAG other is not named as its file",
        "careless.py: DAG other has no tag `flead`",
        "careless.py: DAG other has no dagrun_timeout",
        "careless.py: DAG other has no doc_md with a section `## Triage`",
        "careless.py: DAG other runs more than once at a time",
        "careless.py: DAG other catches up",
        "careless.py: DAG other has a Param rate without type or description",
        "careless.py: task other.work has no owner",
        "careless.py: task other.work is not retried",
        "careless.py: task other.work is retried without exponential backoff",
        "careless.py: task other.work has no execution_timeout",
    ]


def test_a_file_that_does_not_import_or_holds_no_dag_is_told(tmp_path):
    broken, empty = tmp_path / "broken.py", tmp_path / "empty.py"
    broken.write_text("import airflow.sdk as dag\nraise ValueError('no')\n")
    empty.write_text("'''No airflow dag.'''\n")

    [message] = violations(broken)
    assert message.startswith("broken.py: does not import: ")
    assert violations(empty) == ["empty.py: defines no DAG"]


@pytest.mark.parametrize("dag_id", ["deploy_training", "deploy_stream_analysis"])
def test_a_run_that_deploys_has_the_time_that_jobs_need_to_start(dag_id, monkeypatch):
    def limit():
        return DagBag(str(CHECKOUT / "dags" / f"{dag_id}.py")).dags[dag_id].dagrun_timeout

    assert limit() == timedelta(hours=1)
    monkeypatch.setenv("FLEAD_JOB_START_SECONDS", "1200")
    assert limit() == timedelta(minutes=50 + 2 * 20)


def test_containers_give_no_task_to_a_second_worker_before_its_time_is_over():
    worker = compose.read({})["services"]["airflow-worker"]["environment"]
    seconds = worker["AIRFLOW__CELERY_BROKER_TRANSPORT_OPTIONS__VISIBILITY_TIMEOUT"]
    limits = [
        task.execution_timeout
        for file in DAG_FILES
        for dag in DagBag(str(file)).dags.values()
        for task in dag.tasks
    ]

    assert limits
    assert max(limits) < timedelta(seconds=int(seconds))
