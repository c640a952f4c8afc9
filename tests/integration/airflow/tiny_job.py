"""A PyFlink job with keyed Python state that starts in seconds; `--fail TEXT` raises instead.

With `--wait-for FILE` no row passes, and so no checkpoint completes, before there is such a file.
With `--break-when FILE` it fails once there is such a file, again and again or, with
`--no-restart`, once.
"""

import argparse
import time
from pathlib import Path

from pyflink.common import Configuration, Types
from pyflink.datastream import StreamExecutionEnvironment
from pyflink.datastream.functions import KeyedProcessFunction, RuntimeContext
from pyflink.datastream.state import ValueStateDescriptor
from pyflink.table import StreamTableEnvironment


class Count(KeyedProcessFunction):
    def __init__(self, break_when, wait_for):
        self.break_when = break_when
        self.wait_for = wait_for

    def open(self, runtime_context: RuntimeContext):
        self.count = runtime_context.get_state(ValueStateDescriptor("count", Types.LONG()))

    def process_element(self, value, ctx):
        while self.wait_for and not Path(self.wait_for).exists():
            time.sleep(0.1)
        if self.break_when and Path(self.break_when).exists():
            raise ValueError("it was to break")
        count = (self.count.value() or 0) + 1
        self.count.update(count)
        yield count


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--fail")
    parser.add_argument("--break-when")
    parser.add_argument("--no-restart", action="store_true")
    parser.add_argument("--wait-for")
    arguments = parser.parse_args()
    if arguments.fail:
        raise ValueError(arguments.fail)
    settings = Configuration()
    if arguments.no_restart:
        settings.set_string("restart-strategy.type", "none")
    environment = StreamExecutionEnvironment.get_execution_environment(settings)
    environment.enable_checkpointing(500)
    tables = StreamTableEnvironment.create(environment)
    tables.execute_sql(
        "CREATE TEMPORARY TABLE numbers (n BIGINT)"
        " WITH ('connector' = 'datagen', 'rows-per-second' = '20')"
    )
    numbers = tables.to_data_stream(tables.from_path("numbers"))
    keyed = numbers.key_by(lambda row: row[0] % 4, key_type=Types.LONG())
    keyed.process(Count(arguments.break_when, arguments.wait_for), output_type=Types.LONG()).print()
    environment.execute("tiny")


main()
