"""A PyFlink job with keyed Python state that starts in seconds; `--fail TEXT` raises instead."""

import argparse

from pyflink.common import Types
from pyflink.datastream import StreamExecutionEnvironment
from pyflink.datastream.functions import KeyedProcessFunction, RuntimeContext
from pyflink.datastream.state import ValueStateDescriptor
from pyflink.table import StreamTableEnvironment


class Count(KeyedProcessFunction):
    def open(self, runtime_context: RuntimeContext):
        self.count = runtime_context.get_state(ValueStateDescriptor("count", Types.LONG()))

    def process_element(self, value, ctx):
        count = (self.count.value() or 0) + 1
        self.count.update(count)
        yield count


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--fail")
    fail = parser.parse_args().fail
    if fail:
        raise ValueError(fail)
    environment = StreamExecutionEnvironment.get_execution_environment()
    environment.enable_checkpointing(500)
    tables = StreamTableEnvironment.create(environment)
    tables.execute_sql(
        "CREATE TEMPORARY TABLE numbers (n BIGINT)"
        " WITH ('connector' = 'datagen', 'rows-per-second' = '20')"
    )
    numbers = tables.to_data_stream(tables.from_path("numbers"))
    keyed = numbers.key_by(lambda row: row[0] % 4, key_type=Types.LONG())
    keyed.process(Count(), output_type=Types.LONG()).print()
    environment.execute("tiny")


main()
