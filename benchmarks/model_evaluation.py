"""An evaluation of ten versions and their parents, against one of a single version.

Both by the job that Airflow submits, planned by its planner, on the same rows with the same history
before them; only the number of versions differs.
"""

import msgspec

from benchmarks.programs import Ran, run_job
from benchmarks.servers import BenchmarkError, Say, flead, own_home, running
from benchmarks.versions import promote
from flead.analysis.planning import plan_or_resume
from flead.contracts.analysis import ModelEvaluation
from flead.contracts.topics import Topic
from flead.messaging.reading import offset_ranges
from flead.messaging.topics import create_topics
from flead.settings import SPARK_SCRIPTS, Settings
from flead.stack.addresses import Addresses
from flead.stack.home import Home
from flead.storage.connection import connect
from flead.storage.evaluations import EvaluationRun
from flead.storage.migrations import migrate


class Options(msgspec.Struct, frozen=True):
    """What to measure.

    The first `warm_up_rows` of the topic are what the versions count as trained on.
    """

    rows: int = 1_000_000
    warm_up_rows: int = 250_000
    devices: int = 2_407
    versions: int = 10
    repeats: int = 2


class EvaluationResult(msgspec.Struct, frozen=True):
    """Figures of the quickest run of each.

    `many_versions` are those that are due, and the parent of the oldest. Seconds are those after
    Spark's session had started, or of the whole process where they say so.
    """

    rows: int
    warm_up_rows: int
    devices: int
    many_versions: int
    one_seconds: float
    many_seconds: float
    ratio: float
    one_seconds_with_start: float
    many_seconds_with_start: float
    ratio_with_start: float
    one_rows_per_second: float
    many_rows_per_second: float
    one_cpu_seconds: float
    many_cpu_seconds: float
    one_peak_memory_mb: float
    many_peak_memory_mb: float


def run(options: Options, say: Say) -> EvaluationResult:
    """Start a broker and a database of their own, evaluate, and stop them.

    Raises
    ------
    BenchmarkError
        When a server does not start, or an evaluation fails or has other rows than the other.
    """
    home = own_home()
    say("starting a broker and a database")
    with running(home, "kafka", "postgres") as addresses:
        create_topics({"bootstrap.servers": addresses.kafka_bootstrap})
        migrate(addresses.database_url)
        total = options.warm_up_rows + options.rows
        say(f"sending {total:,} rows of {options.devices:,} devices")
        flead(
            home, "simulate", "--devices", str(options.devices), "--speed", "max", "--rate",
            f"{13 * options.devices}/min", "--rows", str(total), "--seed", "1",
        )  # fmt: skip
        say("one version")
        one = _plan(addresses, options, range(1, 2))
        ones = [_evaluate(home, addresses, one)]
        say(f"{options.versions} versions and their parents")
        many = _plan(addresses, options, range(2, 2 + options.versions))
        manies = [_evaluate(home, addresses, many)]
        # Again: the first has read what no cache had yet.
        for _ in range(options.repeats - 1):
            say("both again")
            ones.append(_evaluate(home, addresses, one))
            manies.append(_evaluate(home, addresses, many))
        rows, devices = _found(addresses.database_url, [one, many])
    (one_work, one_total), (many_work, many_total) = map(_quickest, (ones, manies))
    return EvaluationResult(
        rows=rows,
        warm_up_rows=sum(one.start_offsets.values()) - sum(one.warm_up_offsets.values()),
        devices=devices,
        many_versions=len(many.versions),
        one_seconds=round(one_work, 1),
        many_seconds=round(many_work, 1),
        ratio=round(many_work / one_work, 2),
        one_seconds_with_start=round(one_total, 1),
        many_seconds_with_start=round(many_total, 1),
        ratio_with_start=round(many_total / one_total, 2),
        one_rows_per_second=round(rows / one_work),
        many_rows_per_second=round(rows / many_work),
        one_cpu_seconds=round(min(each.cpu_seconds for each in ones), 1),
        many_cpu_seconds=round(min(each.cpu_seconds for each in manies), 1),
        one_peak_memory_mb=round(max(each.peak_memory_mb for each in ones)),
        many_peak_memory_mb=round(max(each.peak_memory_mb for each in manies)),
    )


def _plan(addresses: Addresses, options: Options, versions: range) -> EvaluationRun:
    """Promote versions and plan the evaluation of those that have none, on all rows at once."""
    kafka = {"bootstrap.servers": addresses.kafka_bootstrap}
    share = options.warm_up_rows / (options.warm_up_rows + options.rows)
    trained = {
        partition: int(share * end) - 1
        for partition, (_, end) in offset_ranges(kafka, Topic.TELEMETRY).items()
    }
    promote(addresses.database_url, versions, trained)
    settings = Settings(
        evaluation_max_rows=2 * options.rows,
        evaluation_max_versions=options.versions,
        evaluation_warm_up_rows=2 * options.warm_up_rows,
    )
    return plan_or_resume(addresses.database_url, kafka, settings, None, at_once=True)


def _evaluate(home: Home, addresses: Addresses, run: EvaluationRun) -> Ran:
    config = ModelEvaluation(
        run.evaluation_run_id, {"bootstrap.servers": addresses.kafka_bootstrap}
    )
    arguments = ["--config", msgspec.json.encode(config).decode()]
    script = SPARK_SCRIPTS / "model_evaluation.py"
    return run_job(home, script, arguments, addresses.database_url)


def _quickest(runs: list[Ran]) -> tuple[float, float]:
    """Return the seconds after the session had started, and those of the process."""
    return min((each.seconds - each.start_seconds, each.seconds) for each in runs)


def _found(database_url: str, runs: list[EvaluationRun]) -> tuple[int, int]:
    """Return the labelled rows and devices of evaluations, which must be those of each."""
    with connect(database_url) as connection, connection.cursor() as cursor:
        cursor.execute(
            "SELECT DISTINCT rows_labelled, devices FROM evaluation_runs"
            " WHERE evaluation_run_id = ANY(%s) AND state = 'evaluated'",
            ([each.evaluation_run_id for each in runs],),
        )
        found = cursor.fetchall()
    if len(found) != 1:
        raise BenchmarkError(f"the evaluations have other rows than each other: {found}")
    return int(found[0][0]), int(found[0][1])
