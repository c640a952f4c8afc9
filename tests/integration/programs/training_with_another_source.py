"""The training job as it will be one day: one more source and sink come before its own."""

import runpy

from pyflink.table import StreamTableEnvironment

from flead.settings import TRAINING_SCRIPT

create = StreamTableEnvironment.create


def create_with_more(*arguments: object) -> StreamTableEnvironment:
    """Make the job's table environment, with a flow of its own in it already."""
    tables = create(*arguments)
    tables.execute_sql(
        "CREATE TABLE further (number BIGINT) WITH ('connector'='datagen', 'rows-per-second'='1')"
    )
    tables.execute_sql("CREATE TABLE nowhere (number BIGINT) WITH ('connector'='blackhole')")
    statements = tables.create_statement_set()
    statements.add_insert_sql("INSERT INTO nowhere SELECT number FROM further")
    statements.attach_as_datastream()
    return tables


StreamTableEnvironment.create = create_with_more
runpy.run_path(str(TRAINING_SCRIPT), run_name="__main__")
