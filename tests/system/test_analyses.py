"""Spark's analyses beside the training, counted in the database, the topic and the archive."""

from pathlib import Path
from urllib.parse import urlsplit

import pyarrow.dataset as ds
import pytest

from flead.contracts.topics import Topic
from flead.messaging.reading import read_committed
from tests.system.conftest import Demonstrated, Resumed, wait_until

pytestmark = [pytest.mark.servers, pytest.mark.timeout(900)]

ALL = 10_000_000


@pytest.fixture(scope="module")
def sent(resumed: Resumed) -> set[tuple[int, int]]:
    """Return where the rows of the topic lie, once the stream analysis has committed them."""
    records = read_committed(resumed.kafka, Topic.TELEMETRY, {}, ALL).records
    positions = {(record.partition, record.offset) for record in records}
    wait_until(lambda: committed(resumed)[0] >= len(positions))
    return positions


def test_the_demonstration_counts_what_each_analysis_has_written(
    demonstrated: Demonstrated, resumed: Resumed
) -> None:
    report = demonstrated.report
    [(evaluations, feedback, windows, results)] = resumed.query(
        "SELECT (SELECT count(DISTINCT model_version) FROM model_evaluations"
        "        WHERE device_id = '*' AND status = 'evaluated'),"
        " (SELECT count(*) FROM model_feedback),"
        " (SELECT count(*) FROM stream_analysis_results),"
        " (SELECT count(*) FROM batch_analysis_results)"
    )

    # It has stopped some seconds after it counted.
    assert 0 < report["evaluations"] <= evaluations
    assert 0 < report["feedback_rows"] <= feedback
    assert 0 < report["stream_windows"] <= windows
    assert 0 < report["batch_rows"] <= results


def test_an_evaluation_begins_beyond_all_that_its_versions_were_trained_on(
    resumed: Resumed,
) -> None:
    [(updates, is_beyond)] = resumed.query(
        """
        WITH RECURSIVE made AS (
            SELECT run.start_offsets, model.parent_version, model.aggregation_round
            FROM evaluation_runs AS run
            JOIN federated_models AS model ON model.version = ANY(run.due_versions)
            WHERE run.state = 'evaluated'
            UNION
            SELECT made.start_offsets, parent.parent_version, parent.aggregation_round
            FROM made JOIN federated_models AS parent ON parent.version = made.parent_version
        )
        SELECT
            count(*),
            bool_and(
                trained.last_offset
                < (made.start_offsets ->> trained.input_partition::text)::bigint
            )
        FROM made JOIN local_models AS trained USING (aggregation_round)
        WHERE trained.status = 'accepted'
        """
    )

    assert updates > 0
    assert is_beyond


@pytest.mark.parametrize(
    ("dag", "last_task"),
    [
        ("daily_batch_analysis", "report"),
        ("deploy_stream_analysis", "wait"),
        ("model_evaluation", "announce"),
    ],
)
def test_the_runs_of_the_analyses_succeed_in_airflow(
    resumed: Resumed, dag: str, last_task: str
) -> None:
    def states() -> set[str]:
        found = resumed.query_airflow(
            "SELECT run.state FROM dag_run AS run JOIN task_instance AS task USING (dag_id, run_id)"
            " WHERE dag_id = %s AND task_id = %s AND task.state = 'success'",
            dag,
            last_task,
        )
        return {state for (state,) in found}

    # The demonstration may end before Airflow has closed an evaluation: it does so now.
    wait_until(lambda: "running" not in states() and states())

    assert states() == {"success"}


def test_the_day_before_the_first_deployment_is_not_analysed(resumed: Resumed) -> None:
    states = resumed.query_airflow(
        "SELECT task_id, task.state FROM dag_run AS run JOIN task_instance AS task"
        " USING (dag_id, run_id)"
        " WHERE run.id = (SELECT min(id) FROM dag_run"
        "   WHERE dag_id = 'daily_batch_analysis' AND run_type = 'scheduled') ORDER BY task_id"
    )

    assert states == [("analyse", "skipped"), ("plan", "skipped"), ("report", "skipped")]


def test_up_takes_up_the_stream_analysis_that_down_ended(
    resumed: Resumed, sent: set[tuple[int, int]]
) -> None:
    [(state, is_wanted, had_batches_before, has_batches_since)] = resumed.query(
        "SELECT state, is_wanted,"
        " EXISTS (SELECT FROM stream_analysis_batches WHERE committed_at < submitted_at),"
        " EXISTS (SELECT FROM stream_analysis_batches WHERE committed_at > started_at)"
        " FROM stream_deployments"
    )
    [(queries,)] = resumed.query("SELECT count(DISTINCT query_id) FROM stream_analysis_batches")

    assert (state, is_wanted) == ("active", True)
    assert had_batches_before
    assert has_batches_since
    assert queries == 1


def test_every_row_is_in_one_window_of_each_length_across_down_and_up(
    resumed: Resumed, sent: set[tuple[int, int]]
) -> None:
    rows, late = committed(resumed)
    counted = resumed.query(
        "SELECT window_seconds, sum(row_count) FROM stream_analysis_results"
        " GROUP BY window_seconds ORDER BY window_seconds"
    )

    assert rows == len(sent)
    assert counted == [(30, rows - late), (300, rows - late)]


def test_every_row_is_archived_once_across_down_and_up(
    resumed: Resumed, sent: set[tuple[int, int]]
) -> None:
    [(archive,)] = resumed.query("SELECT configuration ->> 'archive_uri' FROM stream_deployments")
    files = sorted(Path(urlsplit(archive).path).glob("day=*/[!_]*.parquet"))

    rows = ds.dataset(files).to_table(columns=["kafka_partition", "kafka_offset"])
    archived = list(zip(*(column.to_pylist() for column in rows.columns), strict=True))

    assert len(archived) == len(sent)
    assert set(archived) == sent


def committed(resumed: Resumed) -> tuple[int, int]:
    """Return rows, and those of them that were late for windows, of the committed batches."""
    [(rows, late)] = resumed.query(
        "SELECT coalesce(sum(rows), 0), coalesce(sum(late_rows), 0) FROM stream_analysis_batches"
        " WHERE state = 'committed'"
    )
    return int(rows), int(late)
