"""Results of the stream analysis: sums of windows, anomalies, and samples of rows."""

from collections.abc import Iterable, Sequence
from typing import Final

from psycopg2 import sql

from flead.storage.connection import Cursor
from flead.storage.copying import copy_new_rows, identifiers, stage_rows

WINDOW_COLUMNS: Final = (
    "device_id",
    "window_start",
    "window_seconds",
    "row_count",
    "zscore_anomaly_count",
    "scored_rows",
    "anomaly_count",
    "probability_sum",
    "rows_labelled",
    "correct",
    "model_version",
)
ANOMALY_COLUMNS: Final = (
    "kafka_partition",
    "kafka_offset",
    "event_time",
    "device_id",
    "feature",
    "value",
    "z_score",
    "features",
    "probability",
    "label",
    "model_version",
)
SAMPLE_COLUMNS: Final = (
    "kafka_partition",
    "kafka_offset",
    "event_time",
    "device_id",
    "slot_start",
    "features",
    "label",
    "probability",
    "is_anomalous",
    "model_version",
)


def add_windows(cursor: Cursor, rows: Iterable[Sequence[object]]) -> None:
    """Add sums, with the columns `WINDOW_COLUMNS`, to what the windows have.

    Once for each batch, in the transaction that marks it as committed.
    """
    _write_to_compressed_chunks(cursor)
    stage_rows(cursor, "new_windows", "stream_analysis_results", WINDOW_COLUMNS, rows)
    cursor.execute(
        sql.SQL(
            """
            INSERT INTO stream_analysis_results AS known ({columns})
            SELECT {columns} FROM new_windows
            ORDER BY window_start, window_seconds, device_id
            ON CONFLICT (window_start, window_seconds, device_id, model_version) DO UPDATE SET
                row_count = known.row_count + excluded.row_count,
                zscore_anomaly_count = known.zscore_anomaly_count + excluded.zscore_anomaly_count,
                anomaly_count = CASE
                    -- Of rows that were scored before this was counted, nobody knows it.
                    WHEN known.anomaly_count IS NULL AND known.scored_rows > 0 THEN NULL
                    ELSE coalesce(
                        known.anomaly_count + excluded.anomaly_count,
                        known.anomaly_count, excluded.anomaly_count
                    )
                END,
                scored_rows = known.scored_rows + excluded.scored_rows,
                probability_sum = known.probability_sum + excluded.probability_sum,
                rows_labelled = known.rows_labelled + excluded.rows_labelled,
                correct = known.correct + excluded.correct,
                updated_at = now()
            """
        ).format(columns=identifiers(WINDOW_COLUMNS))
    )


def add_anomalies(cursor: Cursor, rows: Iterable[Sequence[object]]) -> None:
    """Store anomalous rows, with the columns `ANOMALY_COLUMNS`."""
    _write_to_compressed_chunks(cursor)
    copy_new_rows(cursor, "anomalies", ANOMALY_COLUMNS, rows)


def add_samples(cursor: Cursor, rows: Iterable[Sequence[object]]) -> None:
    """Store rows, with the columns `SAMPLE_COLUMNS`, whose device has none in their slot yet."""
    _write_to_compressed_chunks(cursor)
    stage_rows(cursor, "new_samples", "device_samples", SAMPLE_COLUMNS, rows)
    cursor.execute(
        sql.SQL(
            """
            INSERT INTO device_samples ({columns})
            SELECT {columns} FROM new_samples AS new
            WHERE NOT EXISTS (
                SELECT FROM device_samples AS known
                WHERE known.device_id = new.device_id AND known.slot_start = new.slot_start
            )
            ON CONFLICT DO NOTHING
            """
        ).format(columns=identifiers(SAMPLE_COLUMNS))
    )


def _write_to_compressed_chunks(cursor: Cursor) -> None:
    """Let this transaction write to compressed chunks of TimescaleDB, however many rows they have.

    By default it may decompress 100,000: a fleet whose rows are as old (a replay, clocks that are
    wrong) would end every attempt at the same batch.
    """
    cursor.execute(
        "SELECT set_config(name, '0', TRUE) FROM pg_settings"
        " WHERE name = 'timescaledb.max_tuples_decompressed_per_dml_transaction'"
    )
