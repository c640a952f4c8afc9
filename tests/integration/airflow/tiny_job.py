"""A PyFlink job with keyed Python state that starts in seconds; `--fail TEXT` raises instead.

With `--break-at N` it fails when it has counted so far, again and again or, with `--no-restart`,
once.
"""

import argparse

from pyflink.common import Configuration, Types
from pyflink.datastream import StreamExecutionEnvironment
from pyflink.datastream.functions import KeyedProcessFunction, RuntimeContext
from pyflink.datastream.state import ValueStateDescriptor
from pyflink.table import StreamTableEnvironment


class Count(KeyedProcessFunction):
    def __init__(self, break_at):
        self.break_at = break_at

    def open(self, runtime_context: RuntimeContext):
        self.count = runtime_context.get_state(ValueStateDescriptor("count", Types.LONG()))

    def process_element(self, value, ctx):
        count = (self.count.value() or 0) + 1
        if count == self.break_at:
            raise ValueError(f"it was to break at {count}")
        self.count.update(count)
        yield count


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--fail")
    parser.add_argument("--break-at", type=int)
    parser.add_argument("--no-restart", action="store_true")
    parser.add_argument("--checkpoint-ms", type=int, default=500)
    arguments = parser.parse_args()
    if arguments.fail:
        raise ValueError(arguments.fail)
    settings = Configuration()
    if arguments.no_restart:
        settings.set_string("restart-strategy.type", "none")
    environment = StreamExecutionEnvironment.get_execution_environment(settings)
    environment.enable_checkpointing(arguments.checkpoint_ms)
    tables = StreamTableEnvironment.create(environment)
    tables.execute_sql(
        "CREATE TEMPORARY TABLE numbers (n BIGINT)"
        " WITH ('connector' = 'datagen', 'rows-per-second' = '20')"
    )
    numbers = tables.to_data_stream(tables.from_path("numbers"))
    keyed = numbers.key_by(lambda row: row[0] % 4, key_type=Types.LONG())
    keyed.process(Count(arguments.break_at), output_type=Types.LONG()).print()
    environment.execute("tiny")


main()
