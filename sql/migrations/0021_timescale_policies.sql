-- Chunks that nothing writes to any more are compressed: not before Kafka has forgotten their rows,
-- which it keeps for seven days. A row that comes later all the same, of a clock that is wrong, is
-- merged in by its key, which is looked up in the compressed rows by segment and order: so kafka
-- positions come before times. Chunks end by their retention, compressed or not.
DO $$
BEGIN
    -- The Apache edition of TimescaleDB has hypertables, but no compression and no policies.
    IF EXISTS (SELECT FROM pg_extension WHERE extname = 'timescaledb')
        AND current_setting('timescaledb.license', TRUE) = 'timescale' THEN
        ALTER TABLE stream_analysis_results SET (
            timescaledb.compress,
            timescaledb.compress_segmentby = 'device_id',
            timescaledb.compress_orderby = 'window_start DESC, window_seconds, model_version'
        );
        ALTER TABLE anomalies SET (
            timescaledb.compress,
            timescaledb.compress_segmentby = 'device_id',
            timescaledb.compress_orderby = 'kafka_partition, kafka_offset, event_time'
        );
        ALTER TABLE device_samples SET (
            timescaledb.compress,
            timescaledb.compress_segmentby = 'device_id',
            timescaledb.compress_orderby = 'kafka_partition, kafka_offset, event_time'
        );
        ALTER TABLE data_quality_results SET (
            timescaledb.compress,
            -- A check that is repeated deletes what it found before.
            timescaledb.compress_segmentby = 'run_id, dag_run_id',
            timescaledb.compress_orderby = 'created_at, id'
        );
        ALTER TABLE training_health SET (
            timescaledb.compress,
            timescaledb.compress_segmentby = '',
            -- So does a reading, every minute: names of runs begin with their kind and time.
            timescaledb.compress_orderby = 'dag_run_id, created_at, id'
        );
        PERFORM add_compression_policy(
            'stream_analysis_results', INTERVAL '8 days', if_not_exists => TRUE
        );
        PERFORM add_compression_policy('anomalies', INTERVAL '8 days', if_not_exists => TRUE);
        PERFORM add_compression_policy('device_samples', INTERVAL '8 days', if_not_exists => TRUE);
        PERFORM add_compression_policy(
            'data_quality_results', INTERVAL '8 days', if_not_exists => TRUE
        );
        PERFORM add_compression_policy('training_health', INTERVAL '8 days', if_not_exists => TRUE);
    END IF;
END
$$;

DO $$
DECLARE
    query TEXT;
BEGIN
    IF to_regclass('stream_fleet_windows') IS NOT NULL THEN
        RETURN;
    END IF;
    -- Windows of the stream as sums over all devices: what dashboards draw over days, of a row a
    -- window instead of one a device. Where TimescaleDB has them, a continuous aggregate: what is
    -- added to a window more than two hours old is in it within ten minutes.
    CREATE OR REPLACE VIEW stream_fleet_windows AS
    SELECT
        time_bucket(INTERVAL '1 hour', window_start) AS hour,
        window_start,
        window_seconds,
        sum(row_count) AS row_count,
        sum(scored_rows) AS scored_rows,
        sum(anomaly_count) AS anomaly_count,
        -- Scored rows of which the model's anomalies are counted
        sum(scored_rows) FILTER (WHERE anomaly_count IS NOT NULL) AS judged_rows,
        sum(zscore_anomaly_count) AS zscore_anomaly_count,
        sum(probability_sum) AS probability_sum
    FROM stream_analysis_results
    GROUP BY hour, window_start, window_seconds;
    IF EXISTS (SELECT FROM pg_extension WHERE extname = 'timescaledb')
        AND current_setting('timescaledb.license', TRUE) = 'timescale' THEN
        query := rtrim(pg_get_viewdef('stream_fleet_windows'::regclass), ';');
        DROP VIEW stream_fleet_windows;
        -- One with data cannot be made in a transaction: its policy fills it. Until then, and for
        -- the newest hours always, it is computed of the table.
        EXECUTE
            'CREATE MATERIALIZED VIEW stream_fleet_windows'
            ' WITH (timescaledb.continuous, timescaledb.materialized_only = FALSE)'
            ' AS ' || query || ' WITH NO DATA';
        -- From the beginning: only hours that have changed are computed again, and those of
        -- dropped chunks go.
        PERFORM add_continuous_aggregate_policy(
            'stream_fleet_windows', start_offset => NULL, end_offset => INTERVAL '1 hour',
            schedule_interval => INTERVAL '10 minutes'
        );
    END IF;
END
$$;
