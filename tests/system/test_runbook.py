"""The entries of docs/operations.md as a person meets them: seen, done, well again.

What the runbook tells people to ask is asked in its own words. Entries of which other tests make
the symptom and see it end: a JobManager or a driver that dies, a database and a broker that come
back, a disk with room again, everything killed (tests/faults); a standstill, a growing lag and a
restart loop (test_symptoms.py); a bad version (test_taking_back_models.py); an approval
(tests/integration/airflow).
"""

import contextlib
import json
import re
import subprocess
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any

import httpx
import psutil
import pytest

from flead.settings import TRAINING_SCRIPT
from flead.stack import streams, training
from flead.stack.airflow_rest import AirflowClient, AirflowError
from flead.stack.flink_rest import FlinkClient
from flead.stack.home import CHECKOUT, Home
from flead.stack.postgres import Placement
from flead.stack.spark import STREAM
from flead.storage.connection import connect
from tests.conftest import run_flead
from tests.faults.catalogue import checkpoints, small_disk
from tests.running_stack import frozen, kill, wait_until
from tests.system.conftest import Resumed, bring_up, demonstrate, fleet_of
from tests.system.readings import await_found, await_healthy, now

pytestmark = [pytest.mark.servers, pytest.mark.lengthy, pytest.mark.timeout(1500)]

RUNBOOK = (CHECKOUT / "docs" / "operations.md").read_text()
ROUND, DEPLOY, QUALITY = "aggregation_round", "deploy_training", "evaluation_quality"
SETTINGS = {
    "FLEAD_MAX_WAIT_SECONDS": "20",
    # Failures that an entry has brought about are forgotten before the next one.
    "FLEAD_HEALTH_WINDOW_SECONDS": "60",
}
BUSY_SECONDS = 600.0
BREAK_ONE_DEVICE = """
CREATE FUNCTION break_update() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.device_id = (SELECT min(device_id) FROM device_status) THEN
        NEW.intercept := 'NaN';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER break_updates BEFORE INSERT ON local_models
    FOR EACH ROW EXECUTE FUNCTION break_update();
"""


def statements_of(entry: str) -> list[str]:
    """Return the statements that an entry of the runbook tells people to type."""
    [text] = re.findall(rf"^### {re.escape(entry)}\n(.*?)(?=^### |\Z)", RUNBOOK, re.M | re.S)
    found = re.findall(r'bin/flead sql "([^"]+)"|`(SELECT [^`]+)`', text)
    return [command or inline for command, inline in found]


def sql(stack: Resumed, statement: str) -> str:
    """Type a statement into `bin/flead sql`, and return what it prints."""
    asked = run_flead(stack.home, "sql", statement)
    assert asked.returncode == 0, asked.stderr
    return asked.stdout


def change(stack: Resumed, statement: str, *values: object) -> None:
    """Change rows of the stack's database."""
    with connect(stack.addresses.database_url) as connection, connection.cursor() as cursor:
        cursor.execute(statement, values)


def states_of_services(stack: Resumed) -> dict[str, str]:
    """Return what `bin/flead status` says of each server."""
    asked = run_flead(stack.home, "status", "--json")
    return {each["name"]: each["state"] for each in json.loads(asked.stdout)["services"]}


@contextlib.contextmanager
def restarted_with(stack: Resumed, **settings: str) -> Iterator[None]:
    """Set settings as the runbook says, and no longer after the block."""
    with pytest.MonkeyPatch.context() as environment:
        for name, value in settings.items():
            environment.setenv(name, value)
        assert run_flead(stack.home, "down").returncode == 0
        bring_up(stack.home)
        yield
    assert run_flead(stack.home, "down").returncode == 0
    bring_up(stack.home)


def active(stack: Resumed) -> tuple[str, dict[str, Any]]:
    """Return job and configuration of the active deployment."""
    [(job_id, configuration)] = stack.query(
        "SELECT job_id, configuration FROM training_deployments WHERE status = 'active'"
    )
    return job_id, configuration


def deploy(stack: Resumed, **params: object) -> None:
    """Trigger `deploy_training` with Params, and wait until its run has succeeded."""
    run = training.start_deployment(stack.addresses, params)
    training.finish_deployment(stack.addresses, run, lambda _: None)


def runs_since(stack: Resumed, dag: str, moment: datetime) -> list[tuple[Any, ...]]:
    return stack.query_airflow(
        "SELECT run_id FROM dag_run WHERE dag_id = %s AND queued_at > %s", dag, moment
    )


def tasks_since(stack: Resumed, dag: str, task: str, moment: datetime) -> set[str]:
    """Return the states of a task in the runs of a DAG that have begun since a moment."""
    found = stack.query_airflow(
        "SELECT task.state FROM task_instance AS task INNER JOIN dag_run AS run"
        " USING (dag_id, run_id)"
        " WHERE dag_id = %s AND task_id = %s AND run.start_date > %s AND task.state IS NOT NULL",
        dag, task, moment,
    )  # fmt: skip
    return {state for (state,) in found}


def trains_since(stack: Resumed, moment: datetime) -> None:
    """Wait until the active job has completed a checkpoint that began after a moment."""
    moment_ms = moment.timestamp() * 1000
    wait_until(lambda: stack.training_goes_on_since(moment_ms), "the job trains on", 420)


def version_since(stack: Resumed, moment: datetime, column: str = "version") -> None:
    """Wait until a round that was opened after a moment has made a version, or promoted one."""
    found = (
        "SELECT 1 FROM aggregation_rounds AS made"
        " WHERE opened_at > %s AND to_jsonb(made) ->> %s IS NOT NULL LIMIT 1"
    )
    wait_until(lambda: stack.query(found, moment, column), f"a round has its {column}")


def verdict_since(stack: Resumed, verdict: str, moment: datetime) -> None:
    """Wait until the health gate has come to a verdict."""
    found = "SELECT 1 FROM training_health WHERE created_at > %s AND verdict = %s"
    wait_until(lambda: stack.query(found, moment, verdict), f"a reading is {verdict}")


@pytest.fixture(scope="module")
def stack(make_home: Callable[[], Home], short_rounds: None) -> Iterator[Resumed]:
    """Bring up a stack that has a model, evaluations, job and stream, its checkpoints on a disk."""
    home = make_home()
    with pytest.MonkeyPatch.context() as environment, small_disk(home):
        for name, value in SETTINGS.items():
            environment.setenv(name, value)
        demonstrate(home)
        yield bring_up(home)
        run_flead(home, "down")


@pytest.fixture
def streaming(stack: Resumed) -> Iterator[Resumed]:
    with fleet_of(stack.home):
        yield stack


def test_rounds_are_skipped_while_the_fleet_is_silent(stack: Resumed) -> None:
    silent = now(stack)
    wait_until(
        lambda: "skipped" in tasks_since(stack, ROUND, "open_round", silent), "a round is skipped"
    )
    found = "SELECT lag_rows, rows_per_second FROM training_health WHERE created_at > %s"
    wait_until(lambda: (0, 0.0) in stack.query(found, silent), "a reading without rows")

    fed = now(stack)
    with fleet_of(stack.home):
        version_since(stack, fed)
    assert "skipped" in tasks_since(stack, ROUND, "open_round", silent)


def test_a_job_that_somebody_has_ended_waits_for_them(streaming: Resumed) -> None:
    trains_since(streaming, now(streaming))
    ended = now(streaming)
    FlinkClient(streaming.addresses.flink_url).cancel(active(streaming)[0])
    await_found(streaming, "job_ended", ended)
    assert runs_since(streaming, DEPLOY, ended) == []

    deploy(streaming, resume=True)

    trains_since(streaming, now(streaming))
    [statement] = statements_of("The job is FAILED, or absent")
    assert "active" in sql(streaming, statement)


def test_exhausted_attempts_to_heal_ask_for_a_person(streaming: Resumed) -> None:
    await_healthy(streaming)
    sql(
        streaming,
        "UPDATE training_health SET healing = '{training}' WHERE created_at IN"
        " (SELECT created_at FROM training_health ORDER BY created_at DESC LIMIT 3)",
    )
    killed = now(streaming)
    kill([each for each in streaming.members("flink-jobmanager") if each.name() == "java"])
    verdict_since(streaming, "exhausted", killed)
    assert runs_since(streaming, DEPLOY, killed) == []

    deploy(streaming, resume=True)

    trains_since(streaming, now(streaming))
    sql(streaming, "UPDATE training_health SET healing = '{}'")
    await_healthy(streaming)


def test_the_memory_of_a_taskmanager_is_set(stack: Resumed) -> None:
    def memory() -> int:
        answer = httpx.get(f"{stack.addresses.flink_url}/taskmanagers").raise_for_status()
        [manager] = answer.json()["taskmanagers"]
        return int(manager["memoryConfiguration"]["totalProcessMemory"])

    usual = memory()
    megabytes = usual // 2**20 - 100

    with restarted_with(stack, FLEAD_TASKMANAGER_MEMORY_MB=str(megabytes)):
        assert memory() == megabytes * 2**20
        trains_since(stack, now(stack))

    assert memory() == usual


def test_a_lag_that_grows_is_met_by_more_parallelism(streaming: Resumed) -> None:
    _, before = active(streaming)

    deploy(streaming, parallelism=before["parallelism"] + 1)

    _, after = active(streaming)
    assert after == before | {"parallelism": before["parallelism"] + 1}
    trains_since(streaming, now(streaming))
    [statement] = statements_of("The lag grows")
    assert "lag_rows" in sql(streaming, statement)


def test_a_round_that_cannot_be_averaged_goes_on_without_what_is_wrong(
    streaming: Resumed,
) -> None:
    began = now(streaming)
    sql(streaming, BREAK_ONE_DEVICE)
    wait_until(
        lambda: "failed" in tasks_since(streaming, ROUND, "aggregate", began), "a round fails"
    )
    sql(streaming, "DROP TRIGGER break_updates ON local_models; DROP FUNCTION break_update()")
    [(number,)] = streaming.query("SELECT round FROM aggregation_rounds WHERE state = 'open'")
    look, remove = statements_of("Rounds fail")
    assert "weights_are_finite" in sql(streaming, look)
    [(_, rule, examples), *_] = streaming.query(look)
    assert rule == "weights_are_finite"
    places = ", ".join(f"({each['kafka_partition']}, {each['kafka_offset']})" for each in examples)

    remove = remove.replace("42", str(number)).replace("(0, 12), (0, 17)", places)
    assert "UPDATE 1" in sql(streaming, remove)

    [(updates,)] = streaming.query(
        "SELECT updates FROM aggregation_rounds WHERE round = %s", number
    )
    assert updates > 0
    done = "SELECT 1 FROM aggregation_rounds WHERE round = %s AND state <> 'open'"
    wait_until(lambda: streaming.query(done, number), "the round is completed")
    version_since(streaming, now(streaming))


def test_candidates_that_too_few_devices_score_are_promoted_with_a_lower_limit(
    stack: Resumed,
) -> None:
    with (
        restarted_with(stack, FLEAD_GATE_MIN_ROWS="1000000", FLEAD_GATE_TIMEOUT_SECONDS="20"),
        fleet_of(stack.home),
    ):
        began = now(stack)
        evidence, judgements = statements_of("Candidates are rejected again and again")
        rejected = (
            "SELECT 1 FROM promotion_decisions WHERE decided_at > %s AND decision = 'rejected'"
            " AND starts_with(reason, 'undecided after')"
        )
        wait_until(lambda: stack.query(rejected, began), "a candidate is rejected")
        assert "undecided after" in sql(stack, evidence)
        assert "superseded" in sql(stack, judgements)

    with fleet_of(stack.home):
        version_since(stack, now(stack), "promoted_version")


def test_dead_letters_that_flood_are_named_by_their_reasons(stack: Resumed) -> None:
    began = now(stack)
    with fleet_of(stack.home, "--malformed-rate", "1"):
        await_found(stack, "dead_letters_per_minute", began)
        listed = run_flead(stack.home, "dead-letters")
        assert listed.returncode == 0, listed.stderr
        assert "malformed" in listed.stdout

    with fleet_of(stack.home):
        await_healthy(stack)


def test_a_stream_that_was_stopped_is_taken_up_and_given_more_time(streaming: Resumed) -> None:
    def batch_since(moment: datetime) -> None:
        found = "SELECT 1 FROM stream_analysis_batches WHERE opened_at > %s AND committed_at > %s"
        wait_until(lambda: streaming.query(found, moment, moment), "a batch is committed")

    stopped = now(streaming)
    for each in streaming.members(STREAM):
        with contextlib.suppress(psutil.NoSuchProcess):
            each.terminate()
    assert await_found(streaming, "stream_ended", stopped) >= stopped

    streams.deploy(streaming.addresses, {"resume": True}, lambda _: None)
    batch_since(now(streaming))
    streams.deploy(streaming.addresses, {"trigger_seconds": 10, "max_rows": 50_000}, lambda _: None)
    batch_since(now(streaming))


def test_a_full_disk_is_seen_and_the_job_goes_on_once_there_is_room(streaming: Resumed) -> None:
    folder = checkpoints(streaming.home)
    filling = folder / "everything-that-is-free"
    full = now(streaming)
    with filling.open("wb") as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(2**20))
            file.flush()
    try:
        await_found(streaming, "checkpoint_stalled_seconds", full)
        logs = run_flead(streaming.home, "logs", "-n", "1000", "flink-taskmanager")
        assert "No space left on device" in logs.stdout
    finally:
        filling.unlink()

    trains_since(streaming, now(streaming))
    await_healthy(streaming)


def test_a_database_that_was_given_up_is_mended_and_brought_up(streaming: Resumed) -> None:
    data = Placement.of(streaming.home).data
    (data / "PG_VERSION").rename(data / "PG_VERSION.lost")
    kill(streaming.members("postgres"))
    wait_until(
        lambda: states_of_services(streaming)["postgres"] == "failed", "the server is given up"
    )
    logs = run_flead(streaming.home, "logs", "postgres")
    assert "PG_VERSION" in logs.stdout
    (data / "PG_VERSION.lost").rename(data / "PG_VERSION")

    bring_up(streaming.home)

    back = now(streaming)
    trains_since(streaming, back)
    version_since(streaming, back)


def test_a_broker_that_cannot_start_is_told_mended_and_brought_up(streaming: Resumed) -> None:
    properties = streaming.home.data / "kafka" / "meta.properties"
    good = properties.read_text()
    version_since(streaming, now(streaming))
    down = now(streaming)
    properties.write_text(good.replace("node.id=1", "node.id=7"))
    kill(streaming.members("kafka"))
    await_found(streaming, "kafka_unreachable", down)
    assert states_of_services(streaming)["kafka"] != "running"
    logs = run_flead(streaming.home, "logs", "kafka")
    assert "Stored node id 7 doesn't match" in logs.stdout
    properties.write_text(good)

    bring_up(streaming.home)

    back = now(streaming)
    trains_since(streaming, back)
    version_since(streaming, back)


def test_an_evaluation_in_quarantine_is_repaired_and_released(stack: Resumed) -> None:
    [(run,)] = stack.query(
        "SELECT evaluation_run_id FROM evaluation_runs WHERE quality_status = 'passed'"
        " ORDER BY evaluated_at DESC LIMIT 1"
    )
    change(
        stack,
        "CREATE TABLE good AS SELECT model_version, device_id, accuracy FROM model_evaluations"
        " WHERE evaluation_run_id = %s",
        run,
    )
    change(stack, "UPDATE model_evaluations SET accuracy = 2 WHERE evaluation_run_id = %s", run)
    with AirflowClient.of(stack.addresses) as airflow:
        with pytest.raises(AirflowError, match="tell"):
            check(airflow, run)
        [statement] = statements_of("An evaluation is in quarantine")
        assert run in sql(stack, statement)
        change(
            stack,
            "UPDATE model_evaluations AS made SET accuracy = good.accuracy FROM good"
            " WHERE made.evaluation_run_id = %s AND good.model_version = made.model_version"
            " AND good.device_id = made.device_id",
            run,
        )
        check(airflow, run)

    assert run not in sql(stack, statement)


def test_a_deployment_that_cannot_start_is_taken_back(stack: Resumed) -> None:
    with restarted_with(stack, FLEAD_JOB_START_SECONDS="60"), fleet_of(stack.home):
        trains_since(stack, now(stack))
        _, before = active(stack)

        with pytest.raises(AirflowError, match="tell"):
            deploy(stack, parallelism=32)

        job, after = active(stack)
        assert after == before
        assert FlinkClient(stack.addresses.flink_url).running_jobs() == [job]
        trains_since(stack, now(stack))
        [statement] = statements_of("A deployment was taken back")
        assert "has not started" in sql(stack, statement)
        assert "CREATED" in sql(stack, statement)
        stops = "".join(stack.task_logs(DEPLOY, "stop_running_job"))
        assert "was stopped with savepoint" in stops
        assert "took no savepoint" not in stops


def test_a_jobmanager_that_is_busy_is_freed_of_the_script_in_it(streaming: Resumed) -> None:
    began = now(streaming)
    run = training.start_deployment(streaming.addresses, {"learning_rate": 0.015})
    scripts = streaming.scripts_that_submit()
    with frozen(scripts):
        [(task,)] = streaming.query_airflow(
            "SELECT pid FROM task_instance"
            " WHERE dag_id = %s AND run_id = %s AND task_id = 'submit'",
            DEPLOY,
            run,
        )
        psutil.Process(task).kill()
        wait_until(
            lambda: "FlinkBusyError" in "".join(streaming.task_logs(DEPLOY, "submit", run)),
            "submit gives up",
            BUSY_SECONDS,
        )
        listed = subprocess.run(
            ["pgrep", "-af", TRAINING_SCRIPT.name],  # noqa: S607 - as the runbook says
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert {str(each.pid) for each in scripts} <= set(listed.stdout.split())
        for each in scripts:
            each.terminate()

    training.finish_deployment(streaming.addresses, run, lambda _: None)
    assert active(streaming)[1]["hyperparameters"]["learning_rate"] == 0.015
    assert len(FlinkClient(streaming.addresses.flink_url).running_jobs()) == 1
    trains_since(streaming, began)


def check(airflow: AirflowClient, run: str) -> None:
    """Trigger `evaluation_quality` for an evaluation, and wait until its run has succeeded."""
    airflow.wait(QUALITY, airflow.trigger(QUALITY, {"evaluation_run_id": run}), 300)
