"""The training job with two sources and sinks of one name, which it must refuse."""

import runpy

from pyflink.table import StreamTableEnvironment

from flead.settings import TRAINING_SCRIPT

create = StreamTableEnvironment.create


def create_with_twins(*arguments: object) -> StreamTableEnvironment:
    """Make the job's table environment with two equal flows in it."""
    tables = create(*arguments)
    tables.execute_sql(
        "CREATE TABLE twin (number BIGINT) WITH ('connector'='datagen', 'rows-per-second'='1')"
    )
    tables.execute_sql("CREATE TABLE nowhere (number BIGINT) WITH ('connector'='blackhole')")
    for _ in range(2):
        statements = tables.create_statement_set()
        statements.add_insert_sql("INSERT INTO nowhere SELECT number FROM twin")
        statements.attach_as_datastream()
    return tables


StreamTableEnvironment.create = create_with_twins
runpy.run_path(str(TRAINING_SCRIPT), run_name="__main__")
