"""A Flink job that keeps Python workers busy until it is cancelled."""

from pyflink.table import DataTypes, EnvironmentSettings, TableEnvironment
from pyflink.table.udf import udf


@udf(result_type=DataTypes.BIGINT())
def successor(number: int) -> int:
    return number + 1


def main() -> None:
    tables = TableEnvironment.create(EnvironmentSettings.in_streaming_mode())
    tables.create_temporary_function("successor", successor)
    tables.execute_sql(
        "CREATE TABLE numbers (number BIGINT) WITH ('connector'='datagen', 'rows-per-second'='10')"
    )
    tables.execute_sql("CREATE TABLE nowhere (number BIGINT) WITH ('connector'='blackhole')")
    tables.execute_sql("INSERT INTO nowhere SELECT successor(number) FROM numbers")


main()
